"""Releases: the record that service S in environment E runs digest D with configuration C."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from ops_pipeline.core.rollout import Rollout


class Phase(StrEnum):
    """Where a release stands. The last four are final except that `live` becomes `standby`, then `retired`."""

    PLANNED = "planned"
    STARTING = "starting"
    HEALTHY = "healthy"
    SHIFTING = "shifting"
    LIVE = "live"
    STANDBY = "standby"
    RETIRED = "retired"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"


class Action(StrEnum):
    """Why a release was made."""

    DEPLOY = "deploy"
    PROMOTE = "promote"
    ROLLBACK = "rollback"


POOLS = ("a", "b", "c")
"""Each service has three server pools at the edge: live, standby, and one for the release that comes next."""


@dataclass(frozen=True)
class ServiceConfiguration:
    """Configuration C of a release: all that decides how its containers run. Holds secret *references*, no secret.

    A roll-back to release N starts containers from the configuration recorded in N's manifest.
    """

    port: int
    health_path: str
    replicas: int
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)  # NAME → reference, "env:API_KEY" or "file:path"
    volumes: Mapping[str, str] = field(default_factory=dict)  # Docker volume → path in the container, ":ro" = only read
    command: tuple[str, ...] = ()
    read_only: bool = True
    tmpfs: tuple[str, ...] = ("/tmp",)  # noqa: S108 - a mount point inside the container
    memory_bytes: int | None = None
    cpus: float | None = None
    start_timeout_seconds: float = 60.0
    stop_grace_seconds: float = 10.0
    drain_seconds: float = 30.0


@dataclass(frozen=True)
class PhaseTime:
    """When a release entered a phase, and why (one sentence)."""

    phase: Phase
    at: datetime
    reason: str = ""


@dataclass(frozen=True)
class Instance:
    """One container of a release, as started on a host."""

    host: str
    name: str  # container name, "ops-prod-api-7-0"
    address: str  # IP address on the environment's network
    port: int


@dataclass(frozen=True)
class Release:
    """Manifest of one release (`releases/<environment>/<service>/<timestamp>/manifest.json`).

    Numbered per (environment, service). Nothing but `phases` and `instances` changes after it is written.
    """

    environment: str
    service: str
    number: int
    timestamp: str  # directory name, UTC, sortable: "20261121T101500.123Z"
    action: Action
    repository: str
    digest: str
    version: str
    commit: str
    configuration: ServiceConfiguration
    configuration_hash: str
    pool: str  # one of POOLS
    who: str
    why: str
    run_id: str
    previous: int | None = None  # number of the release it replaces
    restores: int | None = None  # for a rollback: the release it goes back to
    containers_of: int | None = None  # release whose containers serve it (a roll-back to a warm standby), else None
    scan_counts: Mapping[str, int] = field(default_factory=dict)
    scan_report: str = ""  # store key
    scan_warnings: tuple[str, ...] = ()  # e.g. "scanned with the SAMPLE database"
    sbom: str = ""  # store key
    rollout: Rollout = field(default_factory=Rollout)
    automatic: bool = False  # a roll-back nobody asked for: the verdict did; never rolled back by itself
    backup_set: str = ""  # taken, or found young enough, before it: the data as they were
    set_id: str = ""  # releases made together carry the same one, and are rolled back together
    phases: tuple[PhaseTime, ...] = ()
    instances: tuple[Instance, ...] = ()

    @property
    def phase(self) -> Phase:
        """The newest phase."""
        return self.phases[-1].phase if self.phases else Phase.PLANNED

    @property
    def root(self) -> int:
        """Number of the release whose image and configuration this one runs: itself, unless it is a roll-back."""
        return self.number if self.restores is None else self.restores

    @property
    def was_live(self) -> bool:
        """Whether it ever answered its users."""
        return any(entry.phase is Phase.LIVE for entry in self.phases)

    @property
    def was_rolled_back(self) -> bool:
        """Whether somebody went away from it because it was bad."""
        return any(entry.phase is Phase.ROLLED_BACK for entry in self.phases)

    @property
    def image(self) -> str:
        """`repository@digest`, what Docker pulls."""
        return f"{self.repository}@{self.digest}"

    @property
    def label(self) -> str:
        """How people call it: `prod/api #7`."""
        return f"{self.environment}/{self.service} #{self.number}"
