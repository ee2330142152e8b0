"""How long a verdict is expected to take at a given traffic. Pure.

A FAIL: each test's account grows by a factor per unit, whose mean logarithm is known when requests come at random
(Poisson) and fail independently. By the law of large numbers the account then stands near exp(mean · units), and the
time at which that reaches the judge's level is the estimate. It errs on the long side: by a third at most against the
medians simulated for judgement.md §5, because a release is judged FAIL at the *first* lucky moment. Good traffic before
the damage, and bursts, make it longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import ceil, comb, exp, inf, lgamma, log, log1p

from ops_pipeline.core.judgement.account import GOOD_LEVEL, HALF_LEVELS, THRESHOLD_LEVEL, WORSE_LEVEL
from ops_pipeline.core.judgement.comparison import COMPARED_SHARE
from ops_pipeline.core.judgement.evidence import FIRST, STAKES, WORSE_RATIOS, good
from ops_pipeline.core.judgement.judge import PASS_SECONDS, PASS_SLOW_UNITS, PASS_UNITS, SLOW_SHARE, WARM_UP_SECONDS
from ops_pipeline.core.judgement.units import BUSY_RATE, BUSY_UNIT_SECONDS, UNIT_SECONDS

LONGEST_SECONDS = 4 * 3600.0
"""What takes longer is no answer to somebody who waits."""

EXACT_BELOW = 25.0
"""Requests in a unit up to which their number is taken as random; with more it hardly matters."""

NEGLIGIBLE = 1e-9


@lru_cache(maxsize=256)
def seconds_to_fail(per_second: float, share: float, threshold: float, stable_per_second: float = 0.0) -> float | None:
    """About how many seconds it takes until a release is judged FAIL that fails `share` of its requests from the start.

    It answers `per_second`; stable answers `stable_per_second` beside it, all well. None = not within four hours.
    """
    if per_second <= 0 or share <= threshold / 2:
        return None
    length = BUSY_UNIT_SECONDS if per_second > BUSY_RATE else UNIT_SECONDS
    units = list(_units(per_second * length, share))
    needed = max(
        _units_needed(_growths(units, threshold / 2), FIRST, HALF_LEVELS["errors"]),
        _units_needed(_growths(units, threshold), FIRST, THRESHOLD_LEVEL),
    )
    if stable_per_second >= COMPARED_SHARE * (per_second + stable_per_second):
        mine = per_second / (per_second + stable_per_second)
        failed = per_second * length * share
        gains = [failed * (log(ratio) - log1p(mine * (ratio - 1))) for ratio in WORSE_RATIOS]
        needed = max(needed, _units_needed(gains, 1.0, WORSE_LEVEL))
    seconds = needed * length
    return seconds if seconds <= LONGEST_SECONDS else None


@lru_cache(maxsize=256)
def seconds_to_pass(
    per_second: float, threshold: float, server_timeout_seconds: float = 0.0, share: float = 0.0
) -> float | None:
    """Seconds until a release that answers so many requests well (but for `share` of them) is judged PASS.

    None = not within four hours.
    """
    if per_second <= 0:
        return None
    wanted = max(_requests_to_pass(share, threshold), 0.0)
    slow = _requests_to_pass(0.0, SLOW_SHARE)
    apart = max(UNIT_SECONDS if per_second <= BUSY_RATE else BUSY_UNIT_SECONDS, 1 / per_second)
    seconds = max(
        PASS_SECONDS,
        server_timeout_seconds,
        wanted / per_second,
        PASS_UNITS * apart,
        # Latency is judged after the warm-up only.
        WARM_UP_SECONDS + max(slow / per_second, PASS_SLOW_UNITS * apart),
    )
    return seconds if seconds <= LONGEST_SECONDS else None


def _requests_to_pass(share: float, threshold: float) -> float:
    """Fewest requests of which `share` are bad that show a share below the threshold."""
    low, high = 1, 1
    while good(share * high, high, threshold) < GOOD_LEVEL:
        low, high = high, high * 2
        if high > 10_000_000:
            return float("inf")
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if good(share * middle, middle, threshold) >= GOOD_LEVEL else (middle, high)
    return float(high)


def _units(expected: float, share: float) -> Iterator[tuple[float, float]]:
    """(probability, share of bad requests) of every kind of unit with requests that is likely enough to matter."""
    if expected > EXACT_BELOW:
        counts = [(1.0, round(expected))]
    else:
        most = ceil(expected + 8 * expected**0.5 + 8)
        counts = [(exp(n * log(expected) - expected - lgamma(n + 1)), n) for n in range(1, most)]
    for weight, n in counts:
        for bad in range(n + 1):
            chance = weight * comb(n, bad) * share**bad * (1 - share) ** (n - bad)
            if chance > NEGLIGIBLE:
                yield chance, bad / n


def _growths(units: list[tuple[float, float]], tolerated: float) -> list[float]:
    """Mean logarithm of each betting account's growth in one unit."""
    return [sum(chance * log1p(stake * (share / tolerated - 1)) for chance, share in units) for stake in STAKES]


def _units_needed(growths: list[float], money: float, level: float) -> float:
    """Units until the mean of accounts that begin with `money` reaches a level."""
    wanted, best = level / money * len(growths), max(growths)
    if best <= 0:
        return inf
    low, high = 0.0, log(wanted) / best
    while high - low > 0.01:
        middle = (low + high) / 2
        reached = sum(exp(min(growth * middle, 700.0)) for growth in growths) >= wanted
        low, high = (low, middle) if reached else (middle, high)
    return ceil(high)
