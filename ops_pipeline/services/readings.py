"""Raw counters for the judges: three queries for everything, grouped by service; and what they say of the traffic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import TypeVar

from ops_pipeline.core.judgement.units import Readings
from ops_pipeline.core.measurement import Counted, Metric, Sample, SeriesKey
from ops_pipeline.errors import OpsError
from ops_pipeline.ports import MetricsSource
from ops_pipeline.services.platform import Platform

T = TypeVar("T")
Target = tuple[str, str]
"""Environment and service."""
Series = Mapping[SeriesKey, tuple[Sample, ...]]
NO_SERIES: Series = {}

GONE_SECONDS = 15.0
"""An edge that has not been scraped for so much longer than another one is not waited for."""


@dataclass
class Batch:
    """One answer of the source: counters by service, and how far they reach (seconds since 1970, the source's clock).

    Everything up to `complete` has been scraped from all live edges and is in; `newest` is the newest scrape of all.
    `bounds` are the histogram boundaries there was data for.
    """

    requests: dict[Target, dict[SeriesKey, tuple[Sample, ...]]] = field(default_factory=dict)
    errors: dict[Target, dict[SeriesKey, tuple[Sample, ...]]] = field(default_factory=dict)
    within: dict[float, dict[Target, dict[SeriesKey, tuple[Sample, ...]]]] = field(default_factory=dict)
    complete: float | None = None
    newest: float | None = None

    @property
    def bounds(self) -> frozenset[float]:
        """Histogram boundaries there was data for."""
        return frozenset(self.within)

    def of(self, target: Target, bound: float) -> Readings:
        """What a judge is fed."""
        return {
            Counted.REQUESTS: self.requests.get(target, NO_SERIES),
            Counted.ERRORS: self.errors.get(target, NO_SERIES),
            Counted.WITHIN: self.within.get(bound, {}).get(target, NO_SERIES),
        }


def read_batch(
    executor: Executor,
    source: MetricsSource,
    bounds: Iterable[float],
    seconds: float,
    targets: Sequence[Target],
    until: datetime | None,
) -> Callable[[], Batch]:
    """Ask the source three things at once; call the result to wait for the answer.

    The call raises what the source raises, Transient above all.
    """
    wanted = sorted(set(bounds))

    def samples(counted: Counted) -> Future[Series]:
        return executor.submit(source.samples, Metric(counted), seconds, targets=targets, until=until)

    requests, errors = samples(Counted.REQUESTS), samples(Counted.ERRORS)
    within = executor.submit(source.within, wanted, seconds, targets=targets, until=until)

    def wait() -> Batch:
        buckets = within.result()
        instances: list[dict[str, float]] = []
        batch = Batch(by_target(requests.result(), instances), by_target(errors.result(), instances))
        batch.within = {bound: by_target(one, instances) for bound, one in buckets.items()}
        _see_reach(batch, [newest for newest in instances if newest])
        return batch

    return wait


def by_target(series: Series, instances: list[dict[str, float]]) -> dict[Target, dict[SeriesKey, tuple[Sample, ...]]]:
    """The same series, by environment and service. To `instances` the newest scrape of each instance is added."""
    found: dict[Target, dict[SeriesKey, tuple[Sample, ...]]] = {}
    newest: dict[str, float] = {}
    for key, samples in series.items():
        target = key.environment, key.service
        group = found.get(target)
        if group is None:
            group = found[target] = {}
        group[key] = samples
        at = samples[-1].at
        if at > newest.get(key.instance, 0.0):
            newest[key.instance] = at
    instances.append(newest)
    return found


def _see_reach(batch: Batch, reached: Sequence[Mapping[str, float]]) -> None:
    # A scrape may have come in between two of the three queries: it counts as seen when all three have it.
    if not reached:
        return
    batch.newest = max(at for instances in reached for at in instances.values())
    oldest = batch.newest - GONE_SECONDS
    complete = [
        min(instances.get(instance, 0.0) for instances in reached)
        for instance, at in reached[0].items()
        if at >= oldest
    ]
    batch.complete = min((at for at in complete if at >= oldest), default=None)


def requests_per_second(platform: Platform, environment: str, service: str, seconds: float = 300.0) -> float | None:
    """Requests a second that a service finished lately, all hosts and releases; None when nobody measured that.

    Raw counters' differences over the time between their first and last scrape; a restarted counter begins at 0.
    """
    try:
        series = platform.metrics.samples(Metric(Counted.REQUESTS), seconds, targets=[(environment, service)])
    except OpsError:
        return None
    mine = [
        samples
        for key, samples in series.items()
        if (key.environment, key.service) == (environment, service) and len(samples) > 1
    ]
    if not mine:
        return None
    span = max(samples[-1].at for samples in mine) - min(samples[0].at for samples in mine)
    return sum(_gained(samples) for samples in mine) / span if span > 0 else None


def _gained(samples: Sequence[Sample]) -> float:
    gained = 0.0
    for before, after in pairwise(samples):
        gained += after.value - before.value if after.value >= before.value else after.value
    return gained
