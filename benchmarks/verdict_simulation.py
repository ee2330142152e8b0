"""Many releases at once: the verdict on errors as arrays, the same rule as `core.judgement`, beside others.

A history is a row of units (bad, total, stable's bad, stable's total); every rule sees the same one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ops_pipeline.core.judgement.account import GOOD_LEVEL, HALF_LEVELS, THRESHOLD_FIRST, THRESHOLD_LEVEL, WORSE_LEVEL
from ops_pipeline.core.judgement.comparison import (
    ASSUMED,
    COMPARED_REQUESTS,
    COMPARED_SHARE,
    COMPARED_UNITS,
    FORGOTTEN,
    PAIRED_UNITS,
)
from ops_pipeline.core.judgement.evidence import CAP, FIRST, GOOD_RATIOS, STAKES, WORSE_RATIOS
from ops_pipeline.core.judgement.judge import PASS_SECONDS, PASS_UNITS, fresh_money
from ops_pipeline.core.judgement.units import BUSY_RATE, BUSY_UNIT_SECONDS, UNIT_SECONDS

Floats = NDArray[np.float64]
Units = tuple[Floats, Floats, Floats, Floats]

THRESHOLD = 0.05
WINDOW = 60.0
TURNS_AT = 330.0
RULES = ("verdict", "raw rate", "Argo", "Flagger")
_STAKES = np.array(STAKES)[:, None]
_WORSE = np.array(WORSE_RATIOS)[:, None]


@dataclass(frozen=True)
class Cell:
    """One kind of release. `share` of its requests fail; `traffic` in requests a second, the same for stable."""

    share: float
    traffic: float
    errors: str = "independent"  # independent, moderate, hard: how errors cluster in a tick
    stable: str = "clean"  # clean, bad (bursts in common), apart (bad, bursts of its own)
    late: bool = False  # clean until TURNS_AT
    watch: float = 1800.0

    def lengths(self) -> list[float]:
        """Lengths of its units: the first one is always long, since nothing is known of the traffic yet."""
        later = BUSY_UNIT_SECONDS if self.traffic > BUSY_RATE else UNIT_SECONDS
        return [UNIT_SECONDS, *[later] * int((self.watch - UNIT_SECONDS) / later)]

    def mixture(self) -> tuple[float, float, float]:
        """Share that fails in every unit, share that fails in a bad unit besides, how many units are bad."""
        if self.errors == "hard":
            return 0.0, 0.5, 2 * self.share
        if self.errors == "moderate":
            return self.share / 2, 0.25, 2 * self.share
        return self.share, 0.0, 0.0


def draw(cell: Cell, generator: np.random.Generator, at: float, length: float, count: int) -> Units:
    """One unit of `count` releases that ends at `at`: Poisson traffic, errors as the cell says."""
    expected = cell.traffic * length
    always, extra, often = cell.mixture()
    if cell.late and at <= TURNS_AT:
        always, often = 0.0, 0.0

    def side(bad: Floats) -> tuple[Floats, Floats]:
        failed = generator.poisson(expected * always, count).astype(float) if always else np.zeros(count)
        total = failed + generator.poisson(expected * (1 - always - extra), count)
        if extra:
            burst = generator.poisson(expected * extra, count)
            total += burst
            failed += burst * bad
        return failed, total

    def spells() -> Floats:
        return (generator.random(count) < often).astype(float) if often else np.zeros(count)

    common = spells()
    bad, total = side(common)
    if cell.stable == "clean":
        return bad, total, np.zeros(count), generator.poisson(expected, count).astype(float)
    return bad, total, *side(spells() if cell.stable == "apart" else common)


class _Window:
    """Sums over the last `size` units."""

    def __init__(self, size: int, count: int) -> None:
        self.rows = np.zeros((size, 2, count))
        self.sums = np.zeros((2, count))
        self.next = 0

    def add(self, first: Floats, second: Floats) -> None:
        row = self.rows[self.next]
        self.sums -= row
        row[0], row[1] = first, second
        self.sums += row
        self.next = (self.next + 1) % len(self.rows)

    def keep(self, rows: NDArray[np.intp]) -> None:
        self.rows, self.sums = self.rows[:, :, rows], self.sums[:, rows]


class _Bets:
    """E of many releases."""

    def __init__(self, tolerated: float, count: int) -> None:
        self.tolerated = tolerated
        self.accounts = np.zeros((len(STAKES), count))

    def add(self, shares: Floats, pay: float) -> None:
        """`shares` is the tolerated share where there was no request."""
        self.accounts += pay
        factors = _STAKES * (shares / self.tolerated - 1)
        factors += 1
        self.accounts *= factors
        if shares.any():
            np.minimum(self.accounts, CAP, out=self.accounts)

    def value(self, unpaid: float) -> Floats:
        return self.accounts.sum(axis=0) / len(STAKES) + unpaid

    def keep(self, rows: NDArray[np.intp]) -> None:
        self.accounts = self.accounts[:, rows]


class Fleet:
    """All rules on `count` releases at once."""

    def __init__(self, count: int, unit_seconds: float, watch: float, others: bool = True) -> None:
        self.ids = np.arange(count)
        self.at = {rule: np.full(count, np.inf) for rule in RULES}
        self.at["pass"] = np.full(count, np.inf)
        self.after = {rule: np.full(count, np.nan) for rule in RULES}
        self.served_all = np.zeros(count)
        self._watch = watch
        self._others = others
        self._paid, self._unpaid, self._unpaid_whole, self._time = 0.0, 1.0, 1.0, 0.0
        self._half, self._whole = _Bets(THRESHOLD / 2, count), _Bets(THRESHOLD, count)
        self._worse = np.zeros((len(WORSE_RATIOS), count))
        self._paired = np.zeros((5, count))  # bad, total, stable's bad, stable's total, units joined
        self._compared = _Window(COMPARED_UNITS, count)
        self._fading = np.zeros((2, count))
        self._fading[1] = ASSUMED
        self._window = _Window(round(WINDOW / unit_seconds), count)
        self._sums = np.zeros((5, count))  # bad, total, Σ k²/n, units with requests, failed checks
        self._minute = np.zeros((2, count))

    def add(self, length: float, units: Units) -> None:
        """Take one unit of every release still looked at."""
        bad, total, stable_bad, stable_total = units
        pay = fresh_money(self._paid, length, self._watch)
        self._paid += length
        if self._unpaid == 1.0:
            pay, pay_whole = FIRST, THRESHOLD_FIRST
        else:
            pay_whole = min(pay * (1 - THRESHOLD_FIRST) / (1 - FIRST), self._unpaid_whole)
            pay = min(pay, self._unpaid)
        self._unpaid -= pay
        self._unpaid_whole -= pay_whole
        before, self._time = self._time, self._time + length
        seen = total > 0
        share = np.divide(bad, total, out=np.zeros_like(bad), where=seen)
        self._half.add(np.where(seen, share, THRESHOLD / 2), pay)
        self._whole.add(np.where(seen, share, THRESHOLD), pay_whole)
        self._compare(bad, total, stable_bad, stable_total)
        self._sums[0] += bad
        self._sums[1] += total
        self._sums[2] += bad * share
        self._sums[3] += seen
        reached = (self._half.value(self._unpaid) >= HALF_LEVELS["errors"]) & (
            self._whole.value(self._unpaid_whole) >= THRESHOLD_LEVEL
        )
        if reached.any():
            mine, stable = np.where(
                self._compared.sums.sum(axis=0) >= COMPARED_REQUESTS, self._compared.sums, self._fading
            )
            alone = stable < COMPARED_SHARE * (mine + stable)
            worse = np.exp(np.minimum(self._worse, np.log(CAP))).sum(axis=0) / len(WORSE_RATIOS)
            self._note("verdict", reached & (alone | (worse >= WORSE_LEVEL)))
        self._passes()
        if self._others:
            self._plain(bad, total, int(before // WINDOW) != int(self._time // WINDOW))

    def _compare(self, bad: Floats, total: Floats, stable_bad: Floats, stable_total: Floats) -> None:
        self._compared.add(total, stable_total)
        self._fading *= np.exp((total + stable_total) * np.log(FORGOTTEN))
        self._fading[0] += total
        self._fading[1] += stable_total
        paired = self._paired
        for row, counts in enumerate((bad, total, stable_bad, stable_total)):
            paired[row] += counts
        paired[4] += 1
        joined = (paired[1] > 0) & (paired[3] > 0)
        (rows,) = np.nonzero(joined & (paired[0] + paired[2] > 0))
        if len(rows):
            bad, total, stable_bad, stable_total, _ = paired[:, rows]
            share = total / (total + stable_total)
            self._worse[:, rows] += bad * np.log(_WORSE) - (bad + stable_bad) * np.log1p(share * (_WORSE - 1))
        paired *= ~joined & (paired[4] < PAIRED_UNITS)

    def _passes(self) -> None:
        if self._time < PASS_SECONDS:
            return
        bad, total, squares, units, _ = self._sums
        open_ = np.isinf(self.at["pass"][self.ids]) & (units >= PASS_UNITS) & (bad < THRESHOLD * total)
        (rows,) = np.nonzero(open_)
        if not len(rows):
            return
        bad, total, squares, units = bad[rows], total[rows], squares[rows], units[rows]
        rate = bad / total
        spread = rate * (1 - rate) * (units - 1)
        factor = np.maximum(1, np.divide(squares - bad * rate, spread, out=np.ones_like(rate), where=spread > 0))
        ratios = np.array(GOOD_RATIOS)[:, None]
        logs = (bad / factor) * np.log(ratios) - (total / factor) * np.log1p(THRESHOLD * (ratios - 1))
        value = np.exp(np.minimum(logs, np.log(CAP))).sum(axis=0) / len(GOOD_RATIOS)
        calm = self._whole.value(self._unpaid_whole)[rows] < THRESHOLD_LEVEL
        calm &= self._half.value(self._unpaid)[rows] < HALF_LEVELS["errors"]
        self.at["pass"][self.ids[rows[(value >= GOOD_LEVEL) & calm]]] = self._time

    def _plain(self, bad: Floats, total: Floats, minute_over: bool) -> None:
        self._window.add(bad, total)
        self._note("raw rate", self._window.sums[0] > THRESHOLD * self._window.sums[1])
        self._minute[0] += bad
        self._minute[1] += total
        if minute_over:
            failed = self._minute[0] > THRESHOLD * self._minute[1]
            self._sums[4] += failed
            self._note("Argo", failed)
            self._note("Flagger", self._sums[4] >= 5)
            self._minute[:] = 0

    def _note(self, rule: str, fired: NDArray[np.bool_]) -> None:
        ids = self.ids[fired & np.isinf(self.at[rule][self.ids])]
        if len(ids):
            self.at[rule][ids] = self._time
            self.after[rule][ids] = self._sums[1][np.isin(self.ids, ids, assume_unique=True)]

    def drop_decided(self) -> None:
        """Look no longer at releases every rule has rolled back."""
        rules = RULES if self._others else RULES[:1]
        open_ = np.any([np.isinf(self.at[rule][self.ids]) for rule in rules], axis=0)
        self.served_all[self.ids] = self._sums[1]
        if open_.mean() < 0.8 if len(open_) else False:
            (rows,) = np.nonzero(open_)
            self.ids = self.ids[rows]
            for window in (self._compared, self._window):
                window.keep(rows)
            for bets in (self._half, self._whole):
                bets.keep(rows)
            self._worse, self._sums, self._minute = self._worse[:, rows], self._sums[:, rows], self._minute[:, rows]
            self._paired, self._fading = self._paired[:, rows], self._fading[:, rows]


@dataclass
class Result:
    """What became of one cell. Times in seconds from the start, or from when it turned bad."""

    cell: Cell
    releases: int
    rolled_back: dict[str, float] = field(default_factory=dict)  # rule → share of releases
    seconds: dict[str, float] = field(default_factory=dict)  # median of those rolled back
    requests: dict[str, float] = field(default_factory=dict)  # median over all releases; inf: fewer than half
    slowest: float = 0.0  # 95th percentile of the verdict's seconds
    served: float = 0.0  # share of releases that served 1,000 requests in the watch, or were rolled back before
    found_of_served: float = 0.0
    found_within: float = 0.0  # share rolled back before the 1,000th request
    passed: float = 0.0  # share that ever passed before being rolled back
    pass_seconds: float = 0.0


def histories(cell: Cell, generator: np.random.Generator, count: int) -> Iterator[tuple[float, Units]]:
    """All units of `count` releases, with their lengths."""
    at = 0.0
    for length in cell.lengths():
        at += length
        yield length, draw(cell, generator, at, length, count)


def simulate(cell: Cell, seed: int, releases: int, others: bool = True) -> Result:
    """Run one cell to the end of its watch."""
    generator = np.random.Generator(np.random.SFC64(seed))
    lengths = cell.lengths()
    fleet = Fleet(releases, lengths[-1], cell.watch, others)
    at = 0.0
    for index, length in enumerate(lengths):
        at += length
        fleet.add(length, draw(cell, generator, at, length, len(fleet.ids)))
        if index % 20 == 19:
            fleet.drop_decided()
            if not len(fleet.ids):
                break
    fleet.drop_decided()
    return summary(cell, releases, fleet)


def summary(cell: Cell, releases: int, fleet: Fleet) -> Result:
    """Shares, medians and percentiles of a finished fleet."""
    result = Result(cell, releases)
    start = TURNS_AT if cell.late else 0.0
    for rule in RULES:
        fired = np.isfinite(fleet.at[rule])
        result.rolled_back[rule] = float(fired.mean())
        result.seconds[rule] = float(np.median(fleet.at[rule][fired]) - start) if fired.any() else float("nan")
        served = np.where(fired, fleet.after[rule] - start * cell.traffic, np.inf)
        result.requests[rule] = float(np.median(served))
    fired = np.isfinite(fleet.at["verdict"])
    if fired.any():
        result.slowest = float(np.percentile(fleet.at["verdict"][fired], 95) - start)
    enough = fired | (fleet.served_all - start * cell.traffic >= 1000)
    result.served = float(enough.mean())
    result.found_of_served = float(fired[enough].mean()) if enough.any() else float("nan")
    result.found_within = float((fired & (fleet.after["verdict"] - start * cell.traffic <= 1000)).mean())
    passed = fleet.at["pass"] < fleet.at["verdict"]
    result.passed = float(passed.mean())
    result.pass_seconds = float(np.median(fleet.at["pass"][passed])) if passed.any() else float("nan")
    return result
