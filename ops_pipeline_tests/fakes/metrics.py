"""Prometheus in memory: counters that grow with the test's clock and are scraped from it.

`serve` says what a release gets from now on. `users` lets a function decide it anew before every movement of the
clock, so that traffic follows the edges' routing (see `Bed.users`).
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ops_pipeline.core.measurement import Counted, Metric, Sample, SeriesKey
from ops_pipeline.errors import Permanent, Transient
from ops_pipeline.ports import MetricsSource
from ops_pipeline_tests.fakes.clock import FakeClock

BOUNDARIES = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histogram's buckets."""


@dataclass(frozen=True)
class Traffic:
    """What one series gets: requests per second, shares of them that fail or are slow, and how slow those are."""

    per_second: float
    errors: float = 0.0
    slow: float = 0.0
    slow_seconds: float = 3.0


class FakeMetrics(MetricsSource):
    """Scrapes every `scrape_seconds` of the clock's time; bad requests are spread evenly (10 % = every tenth).

    Switches: `down` makes every call Transient with that reason, `empty` makes every answer empty, `pause()` and
    `resume()` leave out scrapes (a stopped Prometheus, a stale or NaN series), `restart()` sets counters back to 0.
    `queries` lists what was asked: (metrics, seconds, targets).
    """

    def __init__(self, clock: FakeClock, scrape_seconds: float = 1.0) -> None:
        self._clock = clock
        self._every = scrape_seconds
        self._lock = threading.RLock()
        self._history: dict[SeriesKey, list[tuple[float, Traffic]]] = {}
        self._resets: defaultdict[str, list[float]] = defaultdict(list)
        self._pauses: list[tuple[str, float, float]] = []
        self._users: list[Callable[[], Mapping[SeriesKey, Traffic]]] = []
        self.down = ""
        self.empty = False
        self.queries: list[tuple[tuple[Metric, ...], float, tuple[tuple[str, str], ...]]] = []
        clock.before_move.append(self._ask_users)

    # ------------------------------------------------------------------------------------------ what tests arrange

    def serve(
        self,
        environment: str,
        service: str,
        release: int,
        per_second: float,
        *,
        errors: float = 0.0,
        slow: float = 0.0,
        slow_seconds: float = 3.0,
        track: str = "stable",
        instance: str = "h1",
    ) -> None:
        """From now on a release gets so many requests, with these shares of failed and slow ones; 0 = it is idle."""
        key = SeriesKey(environment, service, release, track, instance)
        self._set(key, Traffic(per_second, errors, slow, slow_seconds))

    def users(self, traffic: Callable[[], Mapping[SeriesKey, Traffic]]) -> None:
        """Let `traffic` say, before every movement of the clock, what each series gets; one left out is idle."""
        self._users.append(traffic)

    def pause(self, instance: str = "") -> None:
        """From now on nothing is scraped, of one instance or (empty) of any."""
        self._pauses.append((instance, self._now(), math.inf))

    def resume(self) -> None:
        """Scrapes go on; what was counted meanwhile shows in the next one."""
        now = self._now()
        self._pauses = [(instance, begin, min(end, now)) for instance, begin, end in self._pauses]

    def restart(self, instance: str) -> None:
        """An edge restarts: its counters begin at 0 again."""
        self._resets[instance].append(self._now())

    # ----------------------------------------------------------------------------------------------- the port

    def samples(
        self,
        metric: Metric,
        seconds: float,
        *,
        targets: Sequence[tuple[str, str]] = (),
        until: datetime | None = None,
    ) -> Mapping[SeriesKey, tuple[Sample, ...]]:
        if metric.counted is Counted.WITHIN and metric.seconds not in BOUNDARIES:
            raise Permanent(
                f"the edges' histogram has no boundary at {metric.seconds:g} s; "
                f"it has {', '.join(f'{bound:g}' for bound in BOUNDARIES)}"
            )
        return self._answer((metric,), seconds, targets, until)[0]

    def within(
        self,
        bounds: Sequence[float],
        seconds: float,
        *,
        targets: Sequence[tuple[str, str]] = (),
        until: datetime | None = None,
    ) -> Mapping[float, Mapping[SeriesKey, tuple[Sample, ...]]]:
        known = [bound for bound in bounds if bound in BOUNDARIES]
        metrics = tuple(Metric(Counted.WITHIN, bound) for bound in known)
        return dict(zip(known, self._answer(metrics, seconds, targets, until), strict=True))

    def expression(self, metric: Metric, environment: str, service: str, release: int) -> str:
        return f"{metric.counted}({environment},{service},{release},{metric.seconds:g})"

    def link(self, environment: str, service: str, release: int, seconds: float) -> str:
        return f"http://prometheus.example/graph?{environment}/{service}/{release}/{seconds:g}"

    # ----------------------------------------------------------------------------------------------- how it counts

    def _answer(
        self,
        metrics: tuple[Metric, ...],
        seconds: float,
        targets: Sequence[tuple[str, str]],
        until: datetime | None,
    ) -> list[dict[SeriesKey, tuple[Sample, ...]]]:
        self._ask_users()
        with self._lock:
            self.queries.append((metrics, seconds, tuple(targets)))
            if self.down:
                raise Transient(f"Prometheus does not answer: {self.down}")
            if self.empty:
                return [{} for _ in metrics]
            end = self._now() if until is None else min(until.timestamp(), self._now())
            first, last = math.ceil((end - seconds) / self._every), math.floor(end / self._every)
            times = [number * self._every for number in range(first, last + 1)]
            keys = [key for key in self._history if not targets or (key.environment, key.service) in targets]
            found = [{key: self._scraped(key, metric, times) for key in keys} for metric in metrics]
        return [{key: samples for key, samples in one.items() if samples} for one in found]

    def _scraped(self, key: SeriesKey, metric: Metric, times: list[float]) -> tuple[Sample, ...]:
        history = self._history[key]
        taken = []
        for at in times:
            if at < history[0][0] or any(
                name in ("", key.instance) and begin < at < end for name, begin, end in self._pauses
            ):
                continue
            reset = max((moment for moment in self._resets[key.instance] if moment <= at), default=-math.inf)
            value = _count(history, metric, at) - (_count(history, metric, reset) if reset > history[0][0] else 0)
            taken.append(Sample(at, float(value)))
        return tuple(taken)

    def _set(self, key: SeriesKey, traffic: Traffic) -> None:
        with self._lock:
            history, now = self._history.setdefault(key, []), self._now()
            if history and history[-1][0] == now:
                history.pop()
            if not history or history[-1][1] != traffic:
                history.append((now, traffic))

    def _ask_users(self) -> None:
        with self._lock:
            for users in self._users:
                wanted = users()
                for key, traffic in wanted.items():
                    self._set(key, traffic)
                mine = {(key.environment, key.service) for key in wanted}
                for idle in self._history.keys() - wanted.keys():
                    if (idle.environment, idle.service) in mine:
                        self._set(idle, Traffic(0))

    def _now(self) -> float:
        return self._clock.now().timestamp()


def _count(history: list[tuple[float, Traffic]], metric: Metric, at: float) -> int:
    """A counter at a moment, by what its series got until then."""
    total, finished = 0, 0.0
    ends = [begin for begin, _ in history[1:]] + [math.inf]
    for (begin, traffic), end in zip(history, ends, strict=True):
        if begin >= at:
            break
        before = math.floor(finished + 1e-6)
        finished += traffic.per_second * (min(end, at) - begin)
        after = math.floor(finished + 1e-6)
        if metric.counted is Counted.REQUESTS:
            total += after - before
        elif metric.counted is Counted.ERRORS:
            total += _share(traffic.errors, after) - _share(traffic.errors, before)
        else:
            slow = traffic.slow if traffic.slow_seconds > metric.seconds else 0.0
            total += (after - _share(slow, after)) - (before - _share(slow, before))
    return total


def _share(fraction: float, number: int) -> int:
    """How many of the first `number` requests are bad when a fraction of them is, spread evenly."""
    return math.floor(fraction * number + 1e-6)
