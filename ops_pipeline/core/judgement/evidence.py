"""The tests behind a verdict: betting against a tolerated share, against stable, and for a share below the threshold.

A unit is one tick of one metric: `k` bad of `n` requests. Each test exists twice: as a plain function of stored
units, and as an account that takes one unit at a time at constant cost. Both give the same numbers.

Sources: betting martingale with bets up to 1/m, Waudby-Smith and Ramdas, arXiv 2010.09686; money paid in at
consecutive times, Shin, Ramdas and Rinaldo (e-detectors), here with weights that add up to 1; conditional count test,
Lindon and Malek 2022. By Ville's inequality money that cannot grow on average ever reaches 1/α with probability at
most α, however often one looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp, log, log1p

STAKES = (0.05, 0.20, 0.50, 0.95)
"""Share of its money that each account bets; the bet against m is stake/m."""
FIRST = 0.7
"""Money paid into each account at the first unit; the rest comes in over the watch."""
PAYMENTS = 900
"""Units over which the rest comes in: 30 minutes of 2 s."""
CAP = 1e12
"""Accounts grow no further, so that nothing overflows."""
WORSE_RATIOS = (1.5, 3.0, 10.0, 100.0)
"""How many times worse than stable; one account each."""
GOOD_RATIOS = (0.02, 0.1, 0.3, 0.6)
"""How many times better than the threshold; one account each."""
_LOG_CAP = log(CAP)


class Evidence:
    """Money betting that the share of bad units exceeds `tolerated`. `value` is E: 1 before any unit.

    Under "the expected share of each unit, given the past, is at most `tolerated`" the money cannot grow on average.
    """

    __slots__ = ("_accounts", "_first", "_later", "_unpaid", "tolerated", "value")

    def __init__(self, tolerated: float, first: float = FIRST) -> None:
        """`first` is the money of the first unit; what comes later is scaled so that all of it adds up to 1."""
        self.tolerated = tolerated
        self._first = first
        self._later = (1 - first) / (1 - FIRST)
        self.value = 1.0
        self._accounts = (0.0, 0.0, 0.0, 0.0)
        self._unpaid = 1.0

    def add(self, bad: int, total: int, pay: float = (1 - FIRST) / PAYMENTS) -> float:
        """Take one unit (0 of 0 is one without requests) and return E.

        `pay` is the fresh money of this unit where FIRST came first; it must be decided before the unit is known.
        """
        unpaid = self._unpaid
        pay = self._first if unpaid == 1.0 else min(pay * self._later, unpaid)
        self._unpaid = unpaid = unpaid - pay
        gain = (bad / total) / self.tolerated - 1.0 if total else 0.0
        a, b, c, d = self._accounts
        a = (a + pay) * (1.0 + 0.05 * gain)
        b = (b + pay) * (1.0 + 0.20 * gain)
        c = (c + pay) * (1.0 + 0.50 * gain)
        d = (d + pay) * (1.0 + 0.95 * gain)
        if a > CAP or b > CAP or c > CAP or d > CAP:
            a, b, c, d = min(a, CAP), min(b, CAP), min(c, CAP), min(d, CAP)
        self._accounts = (a, b, c, d)
        self.value = (a + b + c + d) / 4 + unpaid
        return self.value


def evidence(
    units: Iterable[tuple[int, int]], tolerated: float, payments: int = PAYMENTS, first: float = FIRST
) -> float:
    """E of units (bad, total) against "the share is at most `tolerated`", written as the formula stands."""
    accounts = [0.0] * len(STAKES)
    unpaid = 1.0
    for bad, total in units:
        pay = first if unpaid == 1.0 else min((1 - first) / payments, unpaid)
        unpaid -= pay
        share = bad / total if total else tolerated
        accounts = [
            min(CAP, (money + pay) * (1 + stake * (share / tolerated - 1)))
            for money, stake in zip(accounts, STAKES, strict=True)
        ]
    return sum(accounts) / len(accounts) + unpaid


class Worse:
    """Evidence against "the release is no worse than stable". `value` is W: 1 before any unit with both."""

    __slots__ = ("_logs",)

    def __init__(self) -> None:
        self._logs = (0.0, 0.0, 0.0, 0.0)

    def add(self, bad: int, total: int, stable_bad: int, stable_total: int) -> None:
        """Take one unit of both. It counts for nothing when either had no request."""
        if not total or not stable_total or not (bad or stable_bad):
            return
        share = total / (total + stable_total)
        both = bad + stable_bad
        a, b, c, d = self._logs
        self._logs = (
            a + bad * _WORSE_LOGS[0] - both * log1p(share * 0.5),
            b + bad * _WORSE_LOGS[1] - both * log1p(share * 2.0),
            c + bad * _WORSE_LOGS[2] - both * log1p(share * 9.0),
            d + bad * _WORSE_LOGS[3] - both * log1p(share * 99.0),
        )

    @property
    def value(self) -> float:
        """W, capped."""
        return sum(exp(min(value, _LOG_CAP)) for value in self._logs) / 4


_WORSE_LOGS = tuple(log(ratio) for ratio in WORSE_RATIOS)


def worse(units: Iterable[tuple[int, int, int, int]]) -> float:
    """W of units (bad, total, stable's bad, stable's total), written as the formula stands."""
    logs = [0.0] * len(WORSE_RATIOS)
    for bad, total, stable_bad, stable_total in units:
        if total and stable_total:
            share = total / (total + stable_total)
            for index, ratio in enumerate(WORSE_RATIOS):
                logs[index] += bad * log(ratio) - (bad + stable_bad) * log(1 + share * (ratio - 1))
    return sum(exp(min(value, _LOG_CAP)) for value in logs) / len(logs)


def good(bad: float, total: float, threshold: float) -> float:
    """G against "the share is `threshold` or more". The counts are those already divided by `overdispersion`."""
    logs = [bad * log(ratio) - total * log1p(threshold * (ratio - 1)) for ratio in GOOD_RATIOS]
    return sum(exp(min(value, _LOG_CAP)) for value in logs) / len(logs)


def overdispersion(units: Sequence[tuple[int, int]]) -> float:
    """φ: how many times more the counts of units (bad, total) spread than independent requests would; at least 1."""
    account = Good(0.5)
    for bad, total in units:
        account.add(bad, total)
    return account.overdispersion


class Good:
    """Evidence that the share of bad requests is below `threshold`. Units without requests count nowhere."""

    __slots__ = ("_squares", "bad", "threshold", "total", "units")

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.bad = 0
        self.total = 0
        self.units = 0
        self._squares = 0.0  # Σ k²/n

    def add(self, bad: int, total: int) -> None:
        """Take one unit."""
        if total:
            self.bad += bad
            self.total += total
            self.units += 1
            self._squares += bad * bad / total

    @property
    def overdispersion(self) -> float:
        """φ of the units so far."""
        if self.units < 2 or not 0 < self.bad < self.total:
            return 1.0
        share = self.bad / self.total
        spread = self._squares - self.bad * self.bad / self.total
        return max(1.0, spread / (share * (1 - share) * (self.units - 1)))

    @property
    def value(self) -> float:
        """G of the counts divided by φ."""
        factor = self.overdispersion
        return good(self.bad / factor, self.total / factor, self.threshold)


def at_least(units: Sequence[tuple[int, int, float]], level: float = 20.0, digits: float = 1e-4) -> float:
    """Largest share m that units (bad, total, fresh money) still rule out: E(m) ≥ `level`. 0 = none above `digits`.

    "The true share was above it, at least at times", wrong with probability at most 1/level.
    """

    def reached(tolerated: float) -> bool:
        account = Evidence(tolerated)
        for bad, total, pay in units:
            account.add(bad, total, pay)
        return account.value >= level

    low, high = 0.0, 1.0
    while high - low > digits:
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) else (low, middle)
    return low
