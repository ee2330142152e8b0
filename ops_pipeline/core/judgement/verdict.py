"""Verdicts and the evidence they rest on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Outcome(StrEnum):
    """What a judgement says. Only FAIL rolls back; PASS is never inferred from absence."""

    PASS = "PASS"  # noqa: S105 - not a password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    BLIND = "BLIND"


@dataclass(frozen=True)
class Thresholds:
    """When a release counts as bad. Fractions and seconds."""

    error_rate: float = 0.05
    p95_seconds: float = 2.0  # bad when more than 5 % of requests are slower
    crash_rate: float = 0.01


@dataclass(frozen=True)
class MetricEvidence:
    """The numbers of one metric: `bad` of `total` in `units` units.

    `against_half` and `against_threshold` are the betting money E(T/2) and E(T), `worse` is W against stable,
    `good` is G; `at_least` is the largest share that E still rules out at 20 ("the true rate is at least this").
    `p_value` = 1/E(T/2), valid at any time.
    """

    name: str  # errors, slow, crashes
    threshold: float
    bad: int
    total: int
    units: int
    against_half: float
    against_threshold: float
    worse: float
    good: float
    p_value: float
    at_least: float
    stable_bad: int = 0
    stable_total: int = 0
    stable_against_half: float = 1.0
    query: str = ""

    @property
    def share(self) -> float:
        """Share of bad ones, 0 when there were none at all."""
        return self.bad / self.total if self.total else 0.0


@dataclass(frozen=True)
class Verdict:
    """A judgement with its evidence. `reason` is one plain sentence with the numbers in it.

    `incident`: the release and stable are both bad, so the environment is: hold and alert, do not roll back.
    """

    outcome: Outcome
    reason: str
    at: datetime
    since: datetime  # start of the judged time
    release: int
    stable: int | None
    unit_seconds: float = 0.0
    incident: bool = False
    metrics: tuple[MetricEvidence, ...] = ()
    link: str = ""  # where a person sees the same numbers as a graph
