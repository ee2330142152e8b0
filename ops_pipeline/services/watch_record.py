"""What a tick of the watch works with: what became of a release, and what one process remembers between ticks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ops_pipeline.core.journal import Journal
from ops_pipeline.core.judgement.verdict import Outcome, Verdict
from ops_pipeline.core.watch import Watch
from ops_pipeline.core.watch_decision import Act

Key = tuple[str, str, int]
"""Environment, service and number of a watched release."""


@dataclass(frozen=True)
class Handled:
    """What a tick did about one watched release, and why. `made`: number of the roll-back made in the tick itself."""

    environment: str
    service: str
    release: int
    act: Act
    why: str
    attempt: int = 0
    made: int | None = None
    verdict: Verdict | None = None

    @property
    def label(self) -> str:
        """`prod/api #7`."""
        return f"{self.environment}/{self.service} #{self.release}"

    @property
    def wants_run(self) -> bool:
        """Whether a run has to do the roll-back, or to show the one made."""
        return self.act in (Act.ROLL_BACK, Act.ASK)

    @property
    def run_key(self) -> str:
        """Key under which that run is launched, once."""
        return run_key(self.environment, self.service, self.release, self.attempt)


@dataclass
class Memory:
    """What one process remembers between ticks. Losing it costs a few reads and repeated alerts, nothing else."""

    checked: dict[Key, float] = field(default_factory=dict)  # when it was last seen live, monotonic
    blind: dict[Key, datetime] = field(default_factory=dict)  # since when it cannot be judged
    kept: dict[Key, tuple[Outcome, bool]] = field(default_factory=dict)  # what the ledger's verdict says
    newest: dict[Key, Verdict] = field(default_factory=dict)
    told: dict[Key, float] = field(default_factory=dict)  # when people were last told, monotonic
    finished: set[Key] = field(default_factory=set)  # roll-backs that are known to be recorded everywhere

    def forget_all_but(self, keys: Collection[Key]) -> None:
        """Keep memory linear in what is watched."""
        known: dict[Key, Any]
        for known in (self.checked, self.blind, self.kept, self.newest, self.told):
            for key in [key for key in known if key not in keys]:
                del known[key]


def run_key(environment: str, service: str, release: int, attempt: int) -> str:
    """Key of the run of one try to roll back one release."""
    return f"rollback:{service}:{environment}:{release}:{attempt}"


def key_of(watch: Watch) -> Key:
    """Which release it is."""
    return watch.environment, watch.service, watch.release


def label_of(watch: Watch) -> str:
    """`prod/api #7`."""
    return f"{watch.environment}/{watch.service} #{watch.release}"


def handled(watch: Watch, act: Act, why: str, verdict: Verdict | None, made: int | None = None) -> Handled:
    """What became of a watched release."""
    return Handled(watch.environment, watch.service, watch.release, act, why, watch.attempts, made, verdict)


def is_live(watch: Watch, journal: Journal) -> bool:
    """Whether the watched release still serves."""
    return journal.live is not None and journal.live.release == watch.release


def successor(journal: Journal) -> str:
    """What serves in its place, in words."""
    return "nothing is live" if journal.live is None else f"#{journal.live.release} is live now"
