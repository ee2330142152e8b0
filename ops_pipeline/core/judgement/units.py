"""From raw counters to units: differences per series, put on one time grid, all hosts and tracks summed.

Never `increase()` or `rate()`, which extrapolate to fractions: plain differences between two scrapes of one series.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from operator import itemgetter
from typing import NamedTuple

from ops_pipeline.core.measurement import Counted, Sample, SeriesKey

Readings = Mapping[Counted, Mapping[SeriesKey, tuple[Sample, ...]]]
"""Samples of one service in one environment, oldest first."""

UNIT_SECONDS = 2.0
BUSY_UNIT_SECONDS = 1.0
BUSY_RATE = 50.0
"""Requests a second of the release, in the last units before, above which a unit is the shorter one."""
RATE_SECONDS = 10.0
"""Time over which that rate is taken."""
SCRAPE_JITTER = 0.25
"""A scrape that comes so much later than a unit's end still belongs to it, seconds."""
_AT = itemgetter(0)
"""The time of a sample, or of what was counted between two."""

BORN_WITHIN = 5.0
"""A release's series first seen later than this after the start was born after the start: it counts from 0."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Finished requests, failed ones and slow ones of one side in one unit."""

    total: int = 0
    errors: int = 0
    slow: int = 0


NOTHING = Counts()


@dataclass(frozen=True, slots=True)
class Unit:
    """One tick of the judged release and of stable. `at`: its last scrape; `seconds`: its nominal length."""

    at: float
    seconds: float
    release: Counts
    stable: Counts


class _Series:
    """Where a series was read last."""

    __slots__ = ("at", "errors", "requests", "within")

    def __init__(self, at: float, requests: float, errors: float, within: float) -> None:
        self.at = at
        self.requests = requests
        self.errors = errors
        self.within = within


class _Side:
    """What of one side has been counted since the last unit, and what was counted too early."""

    __slots__ = ("errors", "slow", "total")

    def __init__(self) -> None:
        self.total = 0
        self.errors = 0
        self.slow = 0

    def take(self) -> Counts:
        """Close the unit. More bad ones than requests (reads not at one moment) wait for the next unit."""
        errors = min(self.errors, self.total)
        slow = max(0, min(self.slow, self.total))
        counts = Counts(self.total, errors, slow) if self.total else NOTHING
        self.total = 0
        self.errors -= errors
        self.slow -= slow
        return counts


class _Step(NamedTuple):
    """What one series counted between two of its scrapes."""

    at: float
    release: bool
    total: int
    errors: int
    slow: int


class Units:
    """Turns samples of a release's and stable's counters into units, each as soon as all live hosts are past its end.

    `since`: start of the judged time, seconds since 1970. A host that has been silent for `patience` seconds is not
    waited for; what it counted is added when it comes.
    """

    def __init__(self, release: int, stable: int | None, since: float, patience: float) -> None:
        self.newest = 0.0  # newest complete scrape of the release, any host
        self.hosts: dict[str, float] = {}  # instance → newest complete scrape of the release there
        self.newest_of: dict[Counted, float] = {}  # newest scrape of each of the release's counters
        self._release = release
        self._stable = stable
        self._since = since
        self._patience = patience
        self._series: dict[SeriesKey, _Series] = {}
        self._first: dict[SeriesKey, float] = {}  # when a series was first seen
        self._seen: dict[str, float] = {}  # instance → first scrape of any series of the service
        self._pending: list[_Step] = []
        self._sides = (_Side(), _Side())  # stable, release
        self._mark: float | None = None  # end of the last unit
        self.length = UNIT_SECONDS  # of the unit being filled
        self._recent: list[tuple[float, int]] = []

    def feed(self, readings: Readings, now: float) -> Iterator[Unit]:
        """Take samples, known ones included, and give every unit that is complete now."""
        self._read(readings)
        if self._mark is None:
            first = [step.at for step in self._pending if step.release]
            if not first:
                return
            self._mark = min(first)
        self._pending.sort(key=_AT)
        waited = [at for at in self.hosts.values() if now - at <= self._patience]
        reached = min(waited) if waited else self.newest
        done = 0
        while self._mark + self.length <= reached + SCRAPE_JITTER:
            self._mark += self.length
            end = self._mark + SCRAPE_JITTER
            last = 0.0
            while done < len(self._pending) and self._pending[done].at <= end:
                step = self._pending[done]
                side = self._sides[step.release]
                side.total += step.total
                side.errors += step.errors
                side.slow += step.slow
                if step.release:
                    last = step.at
                done += 1
            if not last:
                continue  # no scrape in this time: the next unit becomes longer
            stable, release = (side.take() for side in self._sides)
            yield Unit(last, self.length, release, stable)
            self._pace(release.total)
        del self._pending[:done]

    def _pace(self, total: int) -> None:
        """Choose the length of the next unit from the ones before it, never from itself."""
        recent = self._recent
        recent.append((self.length, total))
        seconds = sum(length for length, _ in recent)
        while seconds - recent[0][0] >= RATE_SECONDS:
            seconds -= recent.pop(0)[0]
        busy = sum(count for _, count in recent) > BUSY_RATE * seconds
        self.length = BUSY_UNIT_SECONDS if busy else UNIT_SECONDS

    def _read(self, readings: Readings) -> None:
        errors, within = readings.get(Counted.ERRORS, {}), readings.get(Counted.WITHIN, {})
        requests = {key: samples for key, samples in readings.get(Counted.REQUESTS, {}).items() if samples}
        for counted, by_key in readings.items():
            for key, samples in by_key.items():
                if samples and key.release == self._release:
                    self.newest_of[counted] = max(self.newest_of.get(counted, 0.0), samples[-1].at)
        for key, samples in requests.items():
            if not self._seen.get(key.instance, samples[0].at) < samples[0].at:
                self._seen[key.instance] = samples[0].at
        for key, samples in requests.items():
            if key.release not in (self._release, self._stable):
                continue
            series = self._series.get(key)
            done = series.at if series else 0.0
            new = _after(samples, done)
            if not new:
                continue
            self._first.setdefault(key, samples[0].at)
            bad, fast = dict(_after(errors.get(key, ()), done)), dict(_after(within.get(key, ()), done))
            for sample in new:
                at, total = sample
                failed, quick = bad.get(at, -1.0), fast.get(at, -1.0)
                if 0 <= total < inf and 0 <= failed < inf and 0 <= quick < inf:  # and none is NaN
                    self._count(key, at, (total, failed, quick))

    def _count(self, key: SeriesKey, at: float, values: tuple[float, float, float]) -> None:
        """One complete scrape of one series."""
        mine = key.release == self._release
        if mine:
            self.newest = max(self.newest, at)
            self.hosts[key.instance] = max(self.hosts.get(key.instance, 0.0), at)
        series = self._series.get(key)
        if series is None:
            self._series[key] = series = _Series(at, *((0.0, 0.0, 0.0) if self._born_later(key) else values))
        requests, errors, within = series.requests, series.errors, series.within
        series.at, series.requests, series.errors, series.within = at, *values
        if at <= self._since:  # before the judged time: only where to count from
            self._mark = at if mine else self._mark
            return
        if values[0] < requests or values[1] < errors or values[2] < within:
            requests = errors = within = 0.0  # the exporter began anew; if one counter restarted, all are treated so
        total = round(values[0] - requests)
        self._pending.append(_Step(at, mine, total, round(values[1] - errors), total - round(values[2] - within)))

    def _born_later(self, key: SeriesKey) -> bool:
        """Whether a series first seen now was born after the start, so that all it shows was counted since then.

        It was when its instance was scraped before without it or, for the release itself, when it is too late to have
        been there at the start. What any other new series shows is history: only where to count from.
        """
        first = self._first[key]
        if first <= self._since:
            return False
        late = key.release == self._release and first > self._since + BORN_WITHIN
        return self._seen[key.instance] < first or late


def _after(samples: tuple[Sample, ...], at: float) -> tuple[Sample, ...]:
    if not samples or samples[0].at > at:
        return samples
    return samples[bisect_right(samples, at, key=_AT) :]
