"""Crashes: hard rules on single exits, and the share of instance-minutes in which one exited."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from ops_pipeline.core.judgement.evidence import FIRST, Evidence
from ops_pipeline.core.measurement import ContainerExit

UNIT_SECONDS = 60.0
PAYMENTS = 30
FIRST_SECONDS = 60.0
"""One exit in the release's first so many seconds is one too many."""
TWICE_SECONDS = 300.0
"""Two exits within so many seconds are too many at any time."""
REPORTING_SECONDS = 2.0
"""A minute is closed so much later, for engines that report late."""
_PAY = (1 - FIRST) / PAYMENTS


class Crashes:
    """Exits of one release's `instances` containers since `since`, and what they are evidence for.

    Wanted exits (somebody stopped the container) count only as OOM kills. `known` is False while the engines could
    not be asked.
    """

    def __init__(self, release: int, stable: int | None, since: datetime, instances: int, threshold: float) -> None:
        self.known = True
        self.exits: list[ContainerExit] = []
        self.minutes = 0
        self.bad = 0
        self.against_half = Evidence(threshold / 2)
        self.against_threshold = Evidence(threshold)
        self.units: list[tuple[int, int, float]] = []
        self._release = release
        self._stable = stable
        self._stable_exits: list[ContainerExit] = []
        self._since = since
        self._instances = max(1, instances)
        self._told: set[tuple[str, str, datetime]] = set()

    def feed(self, exits: Sequence[ContainerExit] | None, now: datetime) -> None:
        """Take all exits known, repeats included; None: the engines could not be asked. Close the minutes past."""
        self.known = exits is not None
        if exits is None:
            return
        for exit_ in exits:
            key = (exit_.host, exit_.container, exit_.at)
            if key in self._told or exit_.at < self._since or (exit_.wanted and not exit_.oom_killed):
                continue
            if exit_.release in (self._release, self._stable):
                self._told.add(key)
                (self.exits if exit_.release == self._release else self._stable_exits).append(exit_)
        self.exits.sort(key=lambda exit_: exit_.at)
        while (now - self._since).total_seconds() >= (self.minutes + 1) * UNIT_SECONDS + REPORTING_SECONDS:
            bad = self._exited_in(self.minutes)
            self.minutes += 1
            self.bad += bad
            self.units.append((bad, self._instances, _PAY))
            del self.units[:-120]
            self.against_half.add(bad, self._instances, _PAY)
            self.against_threshold.add(bad, self._instances, _PAY)

    @property
    def total(self) -> int:
        """Instance-minutes so far."""
        return self.minutes * self._instances

    @property
    def broken_rule(self) -> str:
        """Which hard rule the exits broke, as a sentence; "" = none."""
        return _broken(self.exits, self._since)

    @property
    def stable_too(self) -> str:
        """Which hard rule stable's containers broke over the same time."""
        return _broken(sorted(self._stable_exits, key=lambda exit_: exit_.at), None)

    def _exited_in(self, minute: int) -> int:
        start = self._since + timedelta(seconds=minute * UNIT_SECONDS)
        end = start + timedelta(seconds=UNIT_SECONDS)
        return min(self._instances, len({(e.host, e.container) for e in self.exits if start <= e.at < end}))


def _broken(exits: Sequence[ContainerExit], since: datetime | None) -> str:
    for exit_ in exits:
        seconds = (exit_.at - since).total_seconds() if since else FIRST_SECONDS
        if seconds < FIRST_SECONDS:
            return f"{_named(exit_)} {seconds:.0f} s after the release began to get requests"
    for first, second in pairwise(exits):
        if (second.at - first.at).total_seconds() <= TWICE_SECONDS:
            apart = (second.at - first.at).total_seconds()
            return f"2 unwanted exits within {apart:.0f} s, the last one: {_named(second)}"
    return ""


def _named(exit_: ContainerExit) -> str:
    how = "was killed for lack of memory" if exit_.oom_killed else f"exited by itself with code {exit_.exit_code}"
    return f"container {exit_.container} on {exit_.host} {how}"
