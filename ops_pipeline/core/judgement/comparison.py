"""Comparing with stable where traffic is thin: which requests are compared, and when stable is too small for it."""

from __future__ import annotations

from collections import deque

from ops_pipeline.core.judgement.evidence import Worse

PAIRED_UNITS = 30
"""A release's requests wait so many units for one of stable's to be compared with; then they are not compared."""
COMPARED_UNITS = 30
COMPARED_REQUESTS = 50
COMPARED_SHARE = 0.2
"""Below this share of the requests of the last units, stable is too small to compare with."""
ASSUMED = 2.0
"""Requests stable is taken to have served before the first one, so that chance does not make it small."""
FORGOTTEN = 1 - 1 / COMPARED_REQUESTS


class Pairing:
    """Feeds W. Consecutive units are taken together until both sides have had a request.

    At a tenth of a request a second, two seconds rarely hold one of each, and units with only one side say nothing. The
    end of such a joined unit depends on how many requests there were, never on how they ended, so given its totals the
    release's share of the bad ones is as in any other unit. It is bounded in time, because rates change.
    """

    __slots__ = ("_sums", "_units", "worse")

    def __init__(self) -> None:
        self.worse = Worse()
        self._sums = (0, 0, 0, 0)
        self._units = 0

    def add(self, bad: int, total: int, stable_bad: int, stable_total: int) -> None:
        """Take one unit of both."""
        a, b, c, d = self._sums
        self._sums = sums = (a + bad, b + total, c + stable_bad, d + stable_total)
        self._units += 1
        if sums[1] and sums[3]:
            self.worse.add(*sums)
        elif self._units < PAIRED_UNITS:
            return
        self._sums = (0, 0, 0, 0)
        self._units = 0


class Sides:
    """How the requests of late were shared between the release and stable.

    The last 30 units when they hold 50 requests, else all requests with weights that fade over 50 of them: three
    requests of which chance sent none to stable do not make stable absent.
    """

    __slots__ = ("_mine", "_recent", "_stable", "_sums")

    def __init__(self) -> None:
        self._recent: deque[tuple[int, int]] = deque()
        self._sums = (0, 0)
        self._mine = 0.0
        self._stable = ASSUMED

    def add(self, total: int, stable_total: int) -> None:
        """Take one unit."""
        mine, stable = self._sums
        if len(self._recent) == COMPARED_UNITS:
            gone, stable_gone = self._recent.popleft()
            mine, stable = mine - gone, stable - stable_gone
        self._recent.append((total, stable_total))
        self._sums = (mine + total, stable + stable_total)
        fade = FORGOTTEN ** (total + stable_total)
        self._mine = self._mine * fade + total
        self._stable = self._stable * fade + stable_total

    @property
    def alone(self) -> bool:
        """Stable serves too little to compare with."""
        mine, stable = self._sums
        if mine + stable >= COMPARED_REQUESTS:
            return stable < COMPARED_SHARE * (mine + stable)
        return self._stable < COMPARED_SHARE * (self._mine + self._stable)
