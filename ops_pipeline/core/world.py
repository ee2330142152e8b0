"""The world as one look at the hosts of an environment found it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ops_pipeline.core.journal import Placement
from ops_pipeline.core.judgement.verdict import Verdict
from ops_pipeline.core.routing import Pool, Routing, Server


@dataclass(frozen=True)
class Replica:
    """A container of a release, found by its labels."""

    host: str
    id: str
    name: str
    release: int
    index: int
    digest: str
    address: str
    state: str
    health: str
    restarts: int
    exit_code: int | None
    oom_killed: bool

    @property
    def key(self) -> str:
        """`host/container name`, unique in the environment."""
        return f"{self.host}/{self.name}"

    @property
    def ended(self) -> str:
        """How a container that has just been started came to an end; "" = it did not."""
        how = f"exit code {self.exit_code}" + (", out of memory" if self.oom_killed else "")
        if self.state in ("exited", "dead"):
            return f"{self.key} exited ({how})"
        if self.state == "restarting" or self.restarts:
            return f"{self.key} exited and was restarted {self.restarts} times ({how})"
        return ""

    @property
    def fault(self) -> str:
        """What is wrong with a container that has just been started; "" = nothing so far."""
        if self.ended:
            return self.ended
        if self.health == "unhealthy":
            return f"{self.key}: the image's HEALTHCHECK says unhealthy"
        return ""


@dataclass(frozen=True)
class Word:
    """What a person said about a canary: go on, or take it away."""

    go: bool
    who: str
    at: datetime
    why: str = ""


@dataclass(frozen=True)
class World:
    """What was seen. Only what `release_plan.needs` asked for is filled in.

    `silent` tells, by replica key, why a probed replica is not ready. `route_faults` tells, by host, what a request
    through the edge met. `unreachable` tells, by host, why the host or its edge did not answer at all. `stopped` are
    the keys of replicas that did not end by themselves: somebody had the engine stop them.
    """

    hosts: tuple[str, ...]
    replicas: tuple[Replica, ...] = ()
    routing: Mapping[str, Routing] = field(default_factory=dict)
    silent: Mapping[str, str] = field(default_factory=dict)
    without_image: frozenset[str] = frozenset()
    route_faults: Mapping[str, str] = field(default_factory=dict)
    connections: int = 0
    unreachable: Mapping[str, str] = field(default_factory=dict)
    stopped: frozenset[str] = frozenset()
    verdict: Verdict | None = None
    word: Word | None = None
    smoke_faults: tuple[str, ...] = ()

    def of(self, release: int, host: str | None = None) -> tuple[Replica, ...]:
        """Replicas that carry this release's label, on one host or on all."""
        return tuple(r for r in self.replicas if r.release == release and host in (None, r.host))

    def missing(self, release: int, count: int) -> tuple[tuple[str, int], ...]:
        """(host, index) of every replica that ought to exist and does not, or was created and never started."""
        there = {(r.host, r.index) for r in self.replicas if r.release == release and r.state != "created"}
        return tuple((host, index) for host in self.hosts for index in range(count) if (host, index) not in there)

    def why_not_ready(self, release: int, count: int) -> str:
        """Why a release could not serve on every host now; "" = it could. Its replicas must have been probed."""
        if self.unreachable:
            return "; ".join(f"host {host}: {why}" for host, why in self.unreachable.items())
        faults = [f"host {host} has no replica {index} of #{release}" for host, index in self.missing(release, count)]
        for replica in self.of(release):
            if replica.state != "running":
                faults.append(f"{replica.key} is {replica.state}")
            elif replica.health == "unhealthy":
                faults.append(replica.fault or f"{replica.key} is unhealthy")
            elif replica.key in self.silent:
                faults.append(f"{replica.key}: {self.silent[replica.key]}")
        return "; ".join(faults)

    def pool(self, place_release: int, containers: int, host: str, port: int, count: int) -> Pool:
        """The pool that sends requests to a release's replicas on one host."""
        replicas = sorted(self.of(containers, host), key=lambda replica: replica.index)
        servers = tuple(Server(r.address, port) for r in replicas if r.index < count and r.address)
        return Pool(place_release, servers)

    def pool_of(self, place: Placement, host: str) -> Pool:
        """The pool of a placed release on one host, from the containers that exist."""
        configuration = place.configuration
        return self.pool(place.containers, place.containers, host, configuration.port, configuration.replicas)
