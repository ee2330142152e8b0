"""Health of what is live: asked through the edge as a user would, and of every replica directly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ops_pipeline.core.release import ServiceConfiguration
from ops_pipeline.core.world import Replica
from ops_pipeline.errors import OpsError
from ops_pipeline.ports import Edge, Probe
from ops_pipeline.services.configuration import check_names
from ops_pipeline.services.fleet import Fleet, fleet_of, on_each
from ops_pipeline.services.instances import find_replicas
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.topology import route_probe_path


@dataclass(frozen=True)
class HealthProbe:
    """One question and its answer. `status` 0 = no HTTP answer came."""

    where: str  # "through the edge of local", "local/ops-prod-api-7-0"
    ok: bool
    status: int
    detail: str


@dataclass(frozen=True)
class HealthReport:
    """Health of a service in an environment. Without any probe it is not healthy: absence is never success."""

    environment: str
    service: str
    release: int | None
    probes: tuple[HealthProbe, ...]

    @property
    def healthy(self) -> bool:
        """Whether every probe was answered well."""
        return bool(self.probes) and all(probe.ok for probe in self.probes)

    @property
    def summary(self) -> str:
        """One sentence for people."""
        place = f"{self.environment}/{self.service}"
        if self.release is None:
            return f"{place}: nothing is live"
        bad = [f"{probe.where}: {probe.detail}" for probe in self.probes if not probe.ok]
        if bad:
            return f"{place} #{self.release}: {len(bad)} of {len(self.probes)} probes failed: " + "; ".join(bad)
        return f"{place} #{self.release}: {len(self.probes)} probes answered well"


def check_health(platform: Platform, environment: str, service: str) -> HealthReport:
    """Ask what is live on every host; one that is away shows. Raise BadInput, StoreDamaged, Unavailable (store)."""
    check_names(platform.catalogue, environment, service)
    live = read_journal(platform, environment, service).live
    if live is None:
        return HealthReport(environment, service, None, ())
    fleet, configuration = fleet_of(platform, environment), live.configuration

    def on_host(host: str) -> list[HealthProbe]:
        # Each question is a process of its own in the edge's container, so they are asked side by side.
        questions: list[Callable[[], HealthProbe]] = [partial(_through_the_edge, platform, fleet, host, service)]
        try:
            replicas = find_replicas(platform.clock, fleet.runtimes[host], environment, service)
        except OpsError as error:
            return [questions[0](), HealthProbe(host, False, 0, error.message)]
        mine = {replica.index: replica for replica in replicas if replica.release == live.containers}
        for index in range(configuration.replicas):
            replica = mine.get(index)
            if replica is None:
                gone = HealthProbe(host, False, 0, f"replica {index} of #{live.release} does not exist")
                questions.append(lambda gone=gone: gone)  # type: ignore[misc]
            else:
                questions.append(partial(_directly, fleet.edges[host], replica, configuration))
        return on_each(questions, lambda ask: ask())

    found = [probe for probes in on_each(fleet.hosts, on_host) for probe in probes]
    return HealthReport(environment, service, live.release, tuple(found))


def _directly(edge: Edge, replica: Replica, configuration: ServiceConfiguration) -> HealthProbe:
    if replica.state != "running" or replica.health == "unhealthy":
        return HealthProbe(replica.key, False, 0, f"is {replica.state}, health {replica.health}")
    try:
        answer = edge.probe(replica.address, configuration.port, configuration.health_path)
    except OpsError as error:
        answer = Probe(0, error.message)
    return HealthProbe(replica.key, answer.ok, answer.status, answer.detail or f"HTTP {answer.status}")


def _through_the_edge(platform: Platform, fleet: Fleet, host: str, service: str) -> HealthProbe:
    entry, where = platform.catalogue.services[service], f"through the edge of {host}"
    path, strict = route_probe_path(entry)
    try:
        answer = fleet.edges[host].probe_route(path, entry.route.host)
    except OpsError as error:
        return HealthProbe(where, False, 0, error.message)
    good = answer.ok or (not strict and 0 < answer.status < 500)
    return HealthProbe(where, good, answer.status, f"GET {path}: {answer.detail or answer.status}")
