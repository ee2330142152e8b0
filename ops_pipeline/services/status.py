"""Status: what runs where."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ops_pipeline.core.journal import Journal, Placement, same_routing, wanted
from ops_pipeline.core.routing import Routing
from ops_pipeline.core.steps import Needs, Probing
from ops_pipeline.core.world import World
from ops_pipeline.services.fleet import Fleet, fleet_of
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.judged import Judged, judged_of
from ops_pipeline.services.lease import read_lease
from ops_pipeline.services.observation import look
from ops_pipeline.services.platform import Platform


@dataclass(frozen=True)
class Standing:
    """One release that has containers now."""

    number: int
    version: str
    digest: str
    since: datetime
    pool: str


@dataclass(frozen=True)
class ServiceStatus:
    """One service in one environment. `ready` of `wanted` replicas answer; `problems` says what is not as wanted."""

    environment: str
    service: str
    phase: str  # "live", the phase of unfinished work ("shifting"), "undoing", or "nothing deployed"
    live: Standing | None
    standby: Standing | None
    ready: int
    wanted: int
    age_seconds: float | None  # of the live release
    working: str  # who holds the lease, and why; "" = nobody
    unfinished: str  # what a stopped controller left; "" = nothing
    problems: tuple[str, ...]
    judged: Judged | None = None  # what is judged now: a canary under way, or the live release while it is watched

    @property
    def healthy(self) -> bool:
        """Whether something is live and nothing is wrong with it."""
        return self.live is not None and self.ready == self.wanted and not self.problems


def status(platform: Platform, environment: str | None = None, service: str | None = None) -> tuple[ServiceStatus, ...]:
    """Status of every service in every environment, or of those asked for. Raise StoreDamaged, Unavailable (store)."""
    found = []
    for name in platform.catalogue.environments:
        if environment not in (None, name):
            continue
        fleet = fleet_of(platform, name)
        found += [_status(platform, fleet, name, one) for one in platform.catalogue.services if service in (None, one)]
    return tuple(found)


def _status(platform: Platform, fleet: Fleet, environment: str, service: str) -> ServiceStatus:
    journal = read_journal(platform, environment, service)
    lease = read_lease(platform, environment, service)
    now, live = platform.clock.now(), journal.live
    world = World(fleet.hosts)
    ready = count = 0
    problems: list[str] = []
    if live is not None:
        configuration = live.configuration
        probing = Probing(live.containers, configuration.port, configuration.health_path)
        world = look(platform, fleet, environment, service, Needs(routing=True, probes=(probing,)))
        count = configuration.replicas * len(fleet.hosts)
        ready = sum(
            replica.state == "running" and replica.health != "unhealthy" and replica.key not in world.silent
            for replica in world.of(live.containers)
        )
        problems = _problems(journal, world, live)
    held = lease is not None and lease.held(now)
    work = journal.work
    unfinished = ""
    if work is not None and not held:
        unfinished = f"#{work.release.number} was left {'undoing' if work.undo else work.stage}: run `ops reconcile`"
    if work is not None:
        phase = "undoing" if work.undo else work.stage.value
    else:
        phase = "live" if live is not None else "nothing deployed"
    return ServiceStatus(
        environment=environment,
        service=service,
        phase=phase,
        live=_standing(live),
        standby=_standing(journal.standby),
        ready=ready,
        wanted=count,
        age_seconds=(now - live.since).total_seconds() if live else None,
        working=f"{lease.holder} (run {lease.run_id or 'none'}): {lease.reason}" if lease is not None and held else "",
        unfinished=unfinished,
        problems=tuple(problems),
        judged=judged_of(platform, journal),
    )


def _problems(journal: Journal, world: World, live: Placement) -> list[str]:
    problems = []
    fault = world.why_not_ready(live.containers, live.configuration.replicas)
    if fault:
        problems.append(fault)
    owned = {place.containers for place in journal.placements}
    if journal.work is not None:
        owned.add(journal.work.release.number)
    problems += [f"{r.key} belongs to no release in service" for r in world.replicas if r.release not in owned]
    digest = live.image.partition("@")[2]
    problems += [
        f"{r.key} runs {r.digest[:19]}, the ledger says {digest[:19]}"
        for r in world.of(live.containers)
        if r.digest != digest
    ]
    if journal.work is None:
        problems += [
            f"the edge of {host} differs from the wanted routing"
            for host in world.hosts
            if host not in world.unreachable
            and not same_routing(world.routing.get(host, Routing()), wanted(journal, host))
        ]
    return problems


def _standing(place: Placement | None) -> Standing | None:
    if place is None:
        return None
    return Standing(place.release, place.version, place.image.partition("@")[2], place.since, place.pool)
