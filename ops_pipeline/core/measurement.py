"""What is measured of a release: counters from the edges, exits from the engines. Values only, no source named."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Upper bounds, in seconds, of the edges' duration histogram. A threshold must be one of them to be counted exactly."""


class Counted(StrEnum):
    """Kinds of counter the edges keep, by environment, service, release, track and instance."""

    REQUESTS = "requests"  # finished requests, aborted and unanswered ones included
    ERRORS = "errors"  # answered 5xx, broken off by the server, or not answered at all
    WITHIN = "within"  # finished requests whose answer began within `seconds` (a histogram's bucket)


@dataclass(frozen=True)
class Metric:
    """One counter. `seconds` is the bucket's upper bound, for WITHIN only."""

    counted: Counted
    seconds: float = 0.0


class SeriesKey(NamedTuple):
    """Whose counter it is. `release` is the number the containers carry; `instance` is the edge that was scraped."""

    environment: str
    service: str
    release: int
    track: str  # stable or canary
    instance: str


class Sample(NamedTuple):
    """Raw value of a counter at one scrape; `at` in seconds since 1970. Like its key a tuple, for a tick reads
    100,000 of them."""

    at: float
    value: float


@dataclass(frozen=True)
class ContainerExit:
    """A container of a release ended. `wanted`: somebody stopped it (a signal was sent through the engine)."""

    host: str
    container: str  # name
    environment: str
    service: str
    release: int
    at: datetime
    exit_code: int
    oom_killed: bool
    wanted: bool
