"""The tests behind a verdict: worked numbers, two ways of computing them, and the promises checked with SciPy."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ops_pipeline.core.judgement.comparison import Pairing, Sides
from ops_pipeline.core.judgement.evidence import (
    STAKES,
    Evidence,
    Good,
    Worse,
    at_least,
    evidence,
    good,
    overdispersion,
    worse,
)

CLEAN = [(0, 20)] * 150
LATE = [*CLEAN, *[(4, 20)] * 10]

NUMBERS = {
    "no units": (evidence([], 0.025), 1),
    "1/1": (evidence([(1, 1)], 0.025), 12.6025),
    "1/1, 0/0, 0/3": (evidence([(1, 1), (0, 0), (0, 3)], 0.025), 4.14884),
    "10 × 2/20 against 2.5 %": (evidence([(2, 20)] * 10, 0.025), 126922),
    "10 × 2/20 against 5 %": (evidence([(2, 20)] * 10, 0.05), 150.957),
    "2 × 200/200": (evidence([(200, 200)] * 2, 0.025), 342.290),
    "3 × 100/200 against 2.5 %": (evidence([(100, 200)] * 3, 0.025), 1433.41),
    "3 × 100/200 against 5 %": (evidence([(100, 200)] * 3, 0.05), 186.225),
    "one burst": (evidence([(100, 200), *[(0, 200)] * 9], 0.025), 0.629366),
    "healthy": (evidence([(1, 1000)] * 300, 0.025), 0.202435),
    "late, against 2.5 %": (evidence(LATE, 0.025), 69469.8),
    "late, against 5 %": (evidence(LATE, 0.05), 86.1193),
    "worse: 6/100 against 0/100": (worse([(6, 100, 0, 100)]), 27.6985),
    "worse: 3/100 against 1/900": (worse([(3, 100, 1, 900)]), 40.8434),
    "worse: 10 × 10/100 against 10/100": (worse([(10, 100, 10, 100)] * 10), 0.00421758),
    "good: 0 of 72": (good(0, 72, 0.05), 20.5129),
    "good: 0 of 75": (good(0, 75, 0.05), 23.4804),
    "good: 50 of 1000": (good(50, 1000, 0.05), 0.00120068),
    "φ of a burst": (overdispersion([(100, 200), (0, 200), (100, 200)]), 75),
    "φ of even errors": (overdispersion([(2, 20)] * 3), 1),
    "crash: 2 × 1/1": (evidence([(1, 1)] * 2, 0.005, 30), 8401.81),
    "crash: 3 × 1/4 against 0.5 %": (evidence([(1, 4)] * 3, 0.005, 30), 21951.8),
    "crash: 3 × 1/4 against 1 %": (evidence([(1, 4)] * 3, 0.01, 30), 2782.03),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_worked_numbers_to_six_digits(name: str) -> None:
    got, expected = NUMBERS[name]
    assert float(f"{got:.6g}") == pytest.approx(expected, rel=1e-9)


def test_all_money_at_once_is_worn_out_by_good_traffic() -> None:
    """Why money is paid in at every tick: the same late damage, all money paid in at the first one."""
    money = [1.0] * len(STAKES)
    for bad, total in LATE:
        money = [m * (1 + stake * (bad / total / 0.025 - 1)) for m, stake in zip(money, STAKES, strict=True)]
    assert float(f"{sum(money) / len(money):.6g}") == 0.00228991
    assert evidence(LATE, 0.025) > 1e7 * sum(money) / len(money)


def counts(top: int = 30) -> st.SearchStrategy[tuple[int, int]]:
    return st.integers(0, top).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


units = st.lists(counts(), max_size=60)
pairs = st.lists(st.tuples(counts(), counts()).map(lambda two: (*two[0], *two[1])), max_size=40)


@given(units, st.sampled_from([0.005, 0.01, 0.025, 0.05]), st.sampled_from([3, 30, 900]))
def test_evidence_unit_by_unit_is_the_formula(history: list[tuple[int, int]], tolerated: float, payments: int) -> None:
    account = Evidence(tolerated)
    for bad, total in history:
        account.add(bad, total, 0.3 / payments)
    assert account.value == pytest.approx(evidence(history, tolerated, payments), rel=1e-9)


@given(pairs)
def test_worse_unit_by_unit_is_the_formula(history: list[tuple[int, int, int, int]]) -> None:
    account = Worse()
    for unit in history:
        account.add(*unit)
    assert account.value == pytest.approx(worse(history), rel=1e-9)


@given(units)
def test_good_unit_by_unit_is_the_formula(history: list[tuple[int, int]]) -> None:
    account = Good(0.05)
    for bad, total in history:
        account.add(bad, total)
    bad, total = sum(k for k, _ in history), sum(n for _, n in history)
    factor = 1.0
    seen = [(k, n) for k, n in history if n]
    if 0 < bad < total and len(seen) > 1:
        share = bad / total
        spread = sum(k * k / n for k, n in seen) - bad * bad / total
        factor = max(1.0, spread / (share * (1 - share) * (len(seen) - 1)))
    assert account.overdispersion == pytest.approx(factor)
    assert account.value == pytest.approx(good(bad / factor, total / factor, 0.05), rel=1e-9)


@pytest.mark.parametrize("tolerated", [0.025, 0.05, 0.3])
@pytest.mark.parametrize("sizes", [(1, 2, 3), (4, 0, 2), (1, 1, 1, 1)])
def test_evidence_does_not_grow_on_average_at_the_tolerated_share(tolerated: float, sizes: tuple[int, ...]) -> None:
    """Every outcome of a few units, weighted by SciPy's binomial: E has the expectation 1."""
    total = 0.0
    for outcome in product(*(range(n + 1) for n in sizes)):
        weight = np.prod([stats.binom.pmf(k, n, tolerated) for k, n in zip(outcome, sizes, strict=True)])
        total += float(weight) * evidence(list(zip(outcome, sizes, strict=True)), tolerated)
    assert total == pytest.approx(1, abs=1e-9)


def test_evidence_does_not_grow_for_bursts_or_a_share_that_depends_on_the_past() -> None:
    """Whole units that fail or not, and a share that depends on what came before, never above the tolerated one."""
    total = 0.0
    for outcome in product((0, 10), repeat=6):
        weight, before = 1.0, 0
        for bad in outcome:
            often = 0.0 if before else 0.05
            weight *= often if bad else 1 - often
            before = bad
        total += weight * evidence([(bad, 10) for bad in outcome], 0.05)
    assert total <= 1 + 1e-9


@pytest.mark.parametrize("level", [20.0, 100.0])
def test_villes_bound_by_every_path(level: float) -> None:
    """How often E reaches the level at any of twelve looks, over all 4,096 paths, against 1/level."""
    reached = 0.0
    for path in product((0, 1), repeat=12):
        account = Evidence(0.05)
        if any(account.add(bad, 1) >= level for bad in path):
            reached += 0.05 ** sum(path) * 0.95 ** (12 - sum(path))
    assert 0 < reached <= 1 / level


def test_villes_bound_by_simulation() -> None:
    """500 histories of 200 units at exactly the tolerated share: at most 5 % ever reach 20."""
    reached = 0
    for history in np.random.default_rng(7).binomial(20, 0.05, (500, 200)).tolist():
        account = Evidence(0.05)
        reached += any(account.add(bad, 20) >= 20 for bad in history)
    assert reached / 500 <= 0.05


@pytest.mark.parametrize(("mine", "stable", "both"), [(5, 5, 4), (10, 90, 8), (90, 10, 6), (1, 3, 2)])
def test_worse_does_not_grow_on_average_when_both_are_equal(mine: int, stable: int, both: int) -> None:
    """Given the totals, the release's bad ones are hypergeometric under equality: the expectation is at most 1."""
    weights = stats.hypergeom(mine + stable, both, mine)
    expected = sum(
        weights.pmf(k) * worse([(k, mine, both - k, stable)])
        for k in range(both + 1)
        if k <= mine and both - k <= stable
    )
    assert expected <= 1 + 1e-9
    binomial = sum(
        stats.binom.pmf(k, both, mine / (mine + stable)) * worse([(k, mine, both - k, stable)]) for k in range(both + 1)
    )
    assert binomial == pytest.approx(1, abs=1e-9), "the bound it rests on: drawing with replacement"


def test_worse_is_a_martingale_over_units_whatever_the_common_rate() -> None:
    """Two units with different totals: the expectation over both stays at most 1."""
    first, second = stats.hypergeom(20, 3, 10), stats.hypergeom(100, 5, 20)
    expected = sum(
        first.pmf(a) * second.pmf(b) * worse([(a, 10, 3 - a, 10), (b, 20, 5 - b, 80)])
        for a in range(4)
        for b in range(6)
    )
    assert expected <= 1 + 1e-9


@pytest.mark.parametrize("total", [5, 40, 72, 200])
def test_good_does_not_grow_on_average_at_the_threshold(total: int) -> None:
    expected = sum(comb(total, k) * 0.05**k * 0.95 ** (total - k) * good(k, total, 0.05) for k in range(total + 1))
    assert expected == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("bad", "total"), [(4, 40), (20, 200), (30, 100), (2, 100)])
def test_at_least_lies_below_what_was_seen_and_rules_out_no_less(bad: int, total: int) -> None:
    history = [(bad, total, 0.3 / 900)] * 12
    low = at_least(history)
    assert 0 < low < bad / total
    assert evidence([(bad, total)] * 12, low) >= 20
    assert evidence([(bad, total)] * 12, low + 0.002) < 20
    exact = stats.binomtest(12 * bad, 12 * total).proportion_ci(0.9).low
    assert low < exact, "one look at independent requests could say more; looking at every tick costs something"


def test_nothing_is_certain_of_a_clean_release() -> None:
    assert at_least([(0, 20, 0.3 / 900)] * 100) == 0


@given(pairs)
def test_pairing_changes_nothing_while_every_unit_has_both(history: list[tuple[int, int, int, int]]) -> None:
    full = [unit for unit in history if unit[1] and unit[3]]
    pairing = Pairing()
    for unit in full:
        pairing.add(*unit)
    assert pairing.worse.value == pytest.approx(worse(full), rel=1e-9)


def test_thin_traffic_is_compared_by_joined_units_but_not_for_ever() -> None:
    apart = [(1, 1, 0, 0), (0, 0, 0, 1)] * 10
    pairing = Pairing()
    for unit in apart:
        pairing.add(*unit)
    assert worse(apart) == 1, "unit by unit there is nothing to compare"
    assert pairing.worse.value == pytest.approx(worse([(1, 1, 0, 1)] * 10))
    late = Pairing()
    for unit in [(1, 1, 0, 0), *[(0, 0, 0, 0)] * 30, (0, 0, 0, 1)]:
        late.add(*unit)
    assert late.worse.value == 1, "a minute later is another time"


@pytest.mark.parametrize(
    ("units", "alone"),
    [
        ([(1, 0)] * 3, False),  # chance may have sent the first three to the release
        ([(1, 0)] * 12, True),
        ([(20, 20)] * 30, False),
        ([(80, 25)] * 30, False),
        ([(80, 15)] * 30, True),
        ([(20, 20)] * 30 + [(40, 0)] * 10, False),
        ([(20, 20)] * 30 + [(40, 0)] * 25, True),
        ([(0, 0)] * 100, False),
    ],
)
def test_stable_is_too_small_below_a_fifth_of_the_last_thirty_units(units: list[tuple[int, int]], alone: bool) -> None:
    sides = Sides()
    for mine, stable in units:
        sides.add(mine, stable)
    assert sides.alone is alone
