"""What to do next, from the journal and the world as it is. Deploy, roll-back and reconcile all run this one table.

`needs` says what has to be looked at, `next_step` decides. A step may carry the journal to write before it is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ops_pipeline.core import journal as transitions
from ops_pipeline.core.journal import Journal, Placement, Work, same_routing, wanted
from ops_pipeline.core.release import Instance, Phase
from ops_pipeline.core.routing import Routing
from ops_pipeline.core.world import World

STEADY_SECONDS = 1.0
"""New replicas stay healthy for this long beside the old ones before traffic goes to them: a crash loop shows."""


class Do(StrEnum):
    """Kinds of action."""

    PULL = "pull"
    START = "start"
    WAIT = "wait"
    ROUTE = "route"  # make every edge equal the wanted routing
    REMOVE = "remove"  # stop and remove the containers of a release
    RECORD = "record"  # nothing but the journal and the manifests
    BLOCKED = "blocked"  # cannot go on while a host does not answer
    DONE = "done"


@dataclass(frozen=True)
class Step:
    """One action. `then` is the journal to write before it, None when the journal already announces it."""

    do: Do
    text: str
    then: Journal | None = None
    release: int = 0
    hosts: tuple[str, ...] = ()
    replicas: tuple[tuple[str, int], ...] = ()
    containers: tuple[tuple[str, str], ...] = ()  # (host, id)
    grace_seconds: float = 0.0
    wait_seconds: float = 0.25


@dataclass(frozen=True)
class Probing:
    """Replicas to ask on their health path: the release whose label they carry, and how."""

    release: int
    port: int
    path: str


@dataclass(frozen=True)
class Needs:
    """What the next decision must know, so that nothing is looked at in vain."""

    routing: bool = False
    probes: tuple[Probing, ...] = ()
    image: str = ""  # repository@digest that hosts should have
    route: bool = False
    connections: str = ""  # pool whose open connections count
    patient: bool = False  # ask a silent replica again before believing it


def needs(journal: Journal, now: datetime) -> Needs:
    """Given the journal, return what has to be looked at before `next_step` at the same moment."""
    work = journal.work
    if work is None:
        if not journal.leaving:
            return Needs()
        pool = journal.leaving[0].pool
        if any(pool in routing.pools for routing in journal.routing.values()):
            return Needs(connections=pool)
        return Needs(routing=True)
    if work.undo:
        return Needs(routing=True)
    mine = _probing(work)
    match work.stage:
        case Phase.PLANNED if work.own_containers:
            return Needs(image=work.release.image)
        case Phase.PLANNED:
            return Needs(routing=True, probes=(mine,), patient=True)
        case Phase.STARTING:
            return Needs(probes=(mine,))
        case Phase.HEALTHY if _unsteady(work, now) > 0:
            return Needs()
        case Phase.HEALTHY:
            return Needs(routing=True, probes=(mine,), patient=True)
        case _:
            return Needs(routing=True, probes=(mine,), route=True, patient=True)


def next_step(journal: Journal, world: World, now: datetime, *, keep_standby: bool = True) -> Step:
    """Given the journal and what `needs` asked for, return the next step. `DONE` = no unfinished work is left."""
    work = journal.work
    if work is None:
        if not journal.leaving:
            return Step(Do.DONE, "nothing is unfinished")
        return _leave(journal, journal.leaving[0], world, now)
    if work.undo:
        return _undo(journal, work, world, now)
    if world.unreachable:
        host, why = next(iter(world.unreachable.items()))
        return _turn(journal, f"host {host} does not answer: {why}", now)
    match work.stage:
        case Phase.PLANNED:
            return _prepare(journal, work, world, now) if work.own_containers else _wake(journal, work, world, now)
        case Phase.STARTING:
            return _start(journal, work, world, now)
        case Phase.HEALTHY:
            return _shift(journal, work, world, now)
        case _:
            return _verify(journal, work, world, now, keep_standby)


def _prepare(journal: Journal, work: Work, world: World, now: datetime) -> Step:
    if world.without_image:
        hosts = tuple(host for host in world.hosts if host in world.without_image)
        return Step(Do.PULL, f"pull {work.release.image} on {', '.join(hosts)}", hosts=hosts)
    count = work.release.configuration.replicas
    missing = world.missing(work.release.number, count)
    text = f"start {count} x #{work.release.number} on {', '.join(world.hosts)}"
    return Step(
        Do.START, text, transitions.advanced(journal, Phase.STARTING, now, text), work.release.number, replicas=missing
    )


def _start(journal: Journal, work: Work, world: World, now: datetime) -> Step:
    release, count = work.release, work.release.configuration.replicas
    faults = _faults(work, world)
    if faults:
        return _turn(journal, faults, now)
    missing = world.missing(release.number, count)
    if missing:
        return Step(Do.START, f"start #{release.number} again where it is missing", None, release.number, (), missing)
    silent = world.why_not_ready(release.number, count)
    if silent:
        limit = release.configuration.start_timeout_seconds
        if (now - work.entered).total_seconds() > limit:
            return _turn(journal, f"not healthy within {limit:g} s: {silent}", now)
        return Step(Do.WAIT, f"waiting: {silent}")
    routing = {
        host: transitions.with_pool(
            wanted(journal, host),
            release.pool,
            world.pool(release.number, release.number, host, release.configuration.port, count),
        )
        for host in world.hosts
    }
    text = f"#{release.number} is healthy; pool {release.pool} joins the edge without traffic"
    then = transitions.advanced(journal, Phase.HEALTHY, now, text, routing=routing, instances=_instances(work, world))
    return Step(Do.ROUTE, text, then)


def _wake(journal: Journal, work: Work, world: World, now: datetime) -> Step:
    """A return to the warm standby: nothing to start, but its health is asked before traffic goes there."""
    fault = _why_not_ready(work, world)
    if fault:
        return _turn(journal, f"the standby is not healthy: {fault}", now)
    text = f"the standby's containers answer; #{work.release.number} can take over"
    then = transitions.advanced(journal, Phase.HEALTHY, now, text, instances=_instances(work, world))
    return Step(Do.ROUTE, text, then)


def _shift(journal: Journal, work: Work, world: World, now: datetime) -> Step:
    left = _unsteady(work, now)
    if left > 0:
        text = f"#{work.release.number} has to stay healthy for {STEADY_SECONDS:g} s"
        return Step(Do.WAIT, text, wait_seconds=left)
    fault = _why_not_ready(work, world)
    if fault:
        return _turn(journal, f"no longer healthy before the switch: {fault}", now)
    if not _edges_agree(journal, world):
        return Step(Do.ROUTE, "make the edges equal the wanted routing")
    pool = work.release.pool
    routing = {host: transitions.switched(wanted(journal, host), pool) for host in world.hosts}
    text = f"switch to pool {pool} (#{work.release.number}) on {', '.join(world.hosts)}"
    return Step(Do.ROUTE, text, transitions.advanced(journal, Phase.SHIFTING, now, text, routing=routing))


def _verify(journal: Journal, work: Work, world: World, now: datetime, keep_standby: bool) -> Step:
    fault = _why_not_ready(work, world)
    if fault:
        return _turn(journal, f"not healthy after the switch: {fault}", now)
    if not _edges_agree(journal, world):
        return Step(Do.ROUTE, f"finish the switch to pool {work.release.pool} on every edge")
    if world.route_faults:
        faults = "; ".join(f"through the edge of {host}: {why}" for host, why in world.route_faults.items())
        return _turn(journal, faults, now)
    then = transitions.committed(journal, now, keep_standby=keep_standby)
    return Step(Do.RECORD, f"#{work.release.number} is live on {', '.join(world.hosts)}", then)


def _undo(journal: Journal, work: Work, world: World, now: datetime) -> Step:
    if not _edges_agree(journal, world):
        return Step(Do.ROUTE, f"return every edge to the routing before #{work.release.number}")
    number = work.release.number
    if work.own_containers and world.of(number):
        grace = work.release.configuration.stop_grace_seconds
        return _remove(f"remove the containers of #{number}", None, number, world, grace)
    if world.unreachable:
        return _blocked(f"#{number} is undone everywhere else", world)
    return Step(Do.RECORD, f"#{number} is undone", transitions.closed(journal, now))


def _leave(journal: Journal, place: Placement, world: World, now: datetime) -> Step:
    left = place.configuration.drain_seconds - (now - place.since).total_seconds()
    there = world.of(place.containers)
    if there and world.connections and left > 0:
        text = f"#{place.release} drains: {world.connections} connections, at most {left:.0f} s more"
        return Step(Do.WAIT, text, wait_seconds=min(1.0, left))
    if there:
        text = f"stop and remove the containers of #{place.release}"
        grace = place.configuration.stop_grace_seconds
        then = transitions.noted(journal, now, text)
        return _remove(text, then, place.containers, world, grace)
    if world.unreachable:
        return _blocked(f"#{place.release} has left everywhere else", world)
    if any(place.pool in routing.pools for routing in journal.routing.values()):
        text = f"pool {place.pool} (#{place.release}) leaves the edge"
        return Step(Do.ROUTE, text, transitions.pool_dropped(journal, place.pool, now, text))
    if not _edges_agree(journal, world):
        return Step(Do.ROUTE, f"pool {place.pool} leaves the edge")
    return Step(Do.RECORD, f"#{place.release} is retired", transitions.retired(journal, place, now))


def _remove(text: str, then: Journal | None, release: int, world: World, grace: float) -> Step:
    # Hosts that do not answer show no replicas: nothing is removed where the edge could not be told first.
    containers = tuple((replica.host, replica.id) for replica in world.of(release))
    return Step(Do.REMOVE, text, then, release, containers=containers, grace_seconds=grace)


def _turn(journal: Journal, reason: str, now: datetime) -> Step:
    """Undo from here on. Where traffic has not moved, the edges may be equal already and nothing is applied."""
    return Step(Do.ROUTE, f"undo: {reason}", transitions.withdrawn(journal, reason, now))


def _blocked(text: str, world: World) -> Step:
    hosts = "; ".join(f"host {host} does not answer: {why}" for host, why in world.unreachable.items())
    return Step(Do.BLOCKED, f"{text}, but {hosts}")


def _edges_agree(journal: Journal, world: World) -> bool:
    return all(
        same_routing(world.routing.get(host, Routing()), wanted(journal, host))
        for host in world.hosts
        if host not in world.unreachable
    )


def _probing(work: Work) -> Probing:
    configuration = work.release.configuration
    return Probing(_containers(work), configuration.port, configuration.health_path)


def _containers(work: Work) -> int:
    release = work.release
    return release.number if release.containers_of is None else release.containers_of


def _unsteady(work: Work, now: datetime) -> float:
    """Seconds for which new replicas still have to stay healthy before traffic may go to them."""
    passed = (now - work.entered).total_seconds()
    return STEADY_SECONDS - passed if work.own_containers and passed >= 0 else 0.0


def _faults(work: Work, world: World) -> str:
    """What containers started for this work did wrong, restarts included; those of a warm standby may have a past."""
    if not work.own_containers:
        return ""
    return "; ".join(replica.fault for replica in world.of(work.release.number) if replica.fault)


def _why_not_ready(work: Work, world: World) -> str:
    return _faults(work, world) or world.why_not_ready(_containers(work), work.release.configuration.replicas)


def _instances(work: Work, world: World) -> tuple[Instance, ...]:
    port = work.release.configuration.port
    return tuple(Instance(r.host, r.name, r.address, port) for r in world.of(_containers(work)))
