"""What a run tells, in words of this project: the same from a remote UI and from the local instance.

Imports nothing of Dagster, so that `ops` can follow a remote run without loading it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol


class Kind(StrEnum):
    """What an event is about."""

    LOG = "log"  # a line a use case reported
    STEP = "step"  # a step began or ended
    MADE = "made"  # an asset was materialized, or a step of another job done; `metadata` describes it
    CHECK = "check"  # an asset check was evaluated
    FAILED = "failed"  # a step failed; `metadata` may hold `error`, `exit_code`, `hint`
    OTHER = "other"


@dataclass(frozen=True)
class RunEvent:
    """One event of a run. `passed` is set for checks only; one that has not passed may be no more than a warning."""

    kind: Kind
    text: str
    at: datetime
    step: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    passed: bool | None = None
    warning: bool = False


FINISHED = frozenset({"SUCCESS", "FAILURE", "CANCELED"})
WAITING = frozenset({"NOT_STARTED", "QUEUED", "STARTING"})


@dataclass(frozen=True)
class Snapshot:
    """State of a run and what it told since the last look. `cursor` is for the next look."""

    status: str
    events: Sequence[RunEvent]
    cursor: str | None

    @property
    def finished(self) -> bool:
        """Whether the run has ended, well or not."""
        return self.status in FINISHED


@dataclass(frozen=True)
class Launch:
    """A run to start: job, configuration of its ops, partition tags."""

    job: str
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def run_config(self) -> dict[str, Any]:
        """As Dagster wants it."""
        return {"ops": {op: {"config": dict(values)} for op, values in self.config.items()}}


class RunClient(Protocol):
    """Where runs are started and followed."""

    @property
    def where(self) -> str:
        """For people: the address of the UI, or this machine."""

    def names(self) -> tuple[Sequence[str], Sequence[str]]:
        """Known services and environments. Raise Unavailable."""

    def launch(self, launch: Launch) -> str:
        """Start a run and return its id. Raise BadInput (configuration refused), Unavailable, PolicyRefused."""

    def look(self, run_id: str, cursor: str | None) -> Snapshot:
        """State and new events. Raise NotFound, Transient."""

    def link(self, run_id: str) -> str:
        """Where a person sees the run; empty when no UI runs."""

    def stop(self, run_id: str) -> bool:
        """Ask the run to stop and undo what it began; False when it has ended already."""
