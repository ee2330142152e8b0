"""What differs between the journal and the world when no work is unfinished, and how to put it right."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from ops_pipeline.core import journal as transitions
from ops_pipeline.core.journal import Journal, Placement, same_routing, wanted
from ops_pipeline.core.routing import Routing
from ops_pipeline.core.world import Replica, World


class Mend(StrEnum):
    """Kinds of repair."""

    REMOVE = "remove"  # a container no release in the journal owns
    RESTART = "restart"  # a container that stopped or is unhealthy
    REPLACE = "replace"  # a container that runs another digest than the ledger says
    CREATE = "create"  # a replica that does not exist
    ROUTE = "route"  # an edge that differs from the wanted routing
    DISMISS = "dismiss"  # a standby that is over its time or no longer whole


@dataclass(frozen=True)
class Repair:
    """One difference and what is done about it, in words."""

    mend: Mend
    text: str
    host: str = ""
    container: str = ""  # id
    release: int = 0  # whose containers
    index: int = 0


def repairs(journal: Journal, world: World, now: datetime, standby_seconds: float) -> tuple[Repair, ...]:
    """Given a journal without unfinished work and a full look at the world, return every repair, in order.

    What is live comes first, then the edges, then what is in nobody's way. Hosts that do not answer are left out.
    """
    found: list[Repair] = []
    for place in (journal.live, journal.standby):
        if place is not None:
            found += _of_place(journal, place, world)
    for host in _reachable(world):
        if not same_routing(world.routing.get(host, Routing()), rebuilt(journal, world, host)):
            found.append(Repair(Mend.ROUTE, f"the edge of {host} differs from the wanted routing", host))
    found += _orphans(journal, world)
    spare = journal.standby
    if spare is not None and (now - spare.since).total_seconds() > standby_seconds:
        text = f"#{spare.release} was standby for {standby_seconds / 60:g} minutes"
        found.append(Repair(Mend.DISMISS, text, release=spare.release))
    return tuple(found)


def rebuilt(journal: Journal, world: World, host: str) -> Routing:
    """Wanted routing of a host, its live and standby pools taken from the containers that exist now.

    Equal to the journal's as long as every replica kept its address. A placed release without any container there
    keeps the pool the journal knows, so that a repair in between never empties it.
    """
    routing = wanted(journal, host)
    for place in (journal.live, journal.standby):
        if place is None:
            continue
        pool = world.pool_of(place, host)
        if pool.servers and len(pool.servers) == place.configuration.replicas:
            routing = transitions.with_pool(routing, place.pool, pool)
    if journal.live is not None and journal.live.pool in routing.pools and routing.live is None:
        routing = transitions.switched(routing, journal.live.pool)
    return routing


def rerouted(journal: Journal, world: World, now: datetime) -> Journal:
    """The journal with the wanted routing of every reachable host rebuilt."""
    routing = {host: rebuilt(journal, world, host) for host in _reachable(world)}
    kept = {host: wanted(journal, host) for host in world.hosts if host not in routing}
    if all(same_routing(wanted(journal, host), routing[host]) for host in routing):
        return journal
    return transitions.noted(replace(journal, routing={**kept, **routing}), now, "replicas have other addresses now")


def _of_place(journal: Journal, place: Placement, world: World) -> list[Repair]:
    count, name = place.configuration.replicas, f"#{place.release}"
    gone = [(h, i) for h, i in world.missing(place.containers, count) if h not in world.unreachable]
    if place is journal.standby and gone:
        text = f"standby {name} is no longer whole ({len(gone)} of its replicas are gone)"
        return [Repair(Mend.DISMISS, text, release=place.release)]
    found = []
    for replica in world.of(place.containers):
        if replica.index >= count:
            found.append(Repair(Mend.REMOVE, f"{replica.key} is one more than {name} wants", replica.host, replica.id))
        elif replica.digest != place.image.partition("@")[2]:
            text = f"{replica.key} runs {replica.digest[:19]}, the ledger says {place.image.partition('@')[2][:19]}"
            found.append(_about(Mend.REPLACE, text, replica))
        elif fault := _fault(replica, world):
            found.append(_about(Mend.RESTART, fault, replica))
    for host, index in gone:
        text = f"replica {index} of live {name} is missing on {host}"
        found.append(Repair(Mend.CREATE, text, host, "", place.containers, index))
    return found


def _fault(replica: Replica, world: World) -> str:
    if replica.state != "running":
        return f"{replica.key} is {replica.state}"
    if replica.health == "unhealthy":
        return f"{replica.key} is unhealthy"
    return f"{replica.key}: {world.silent[replica.key]}" if replica.key in world.silent else ""


def _about(mend: Mend, text: str, replica: Replica) -> Repair:
    return Repair(mend, text, replica.host, replica.id, replica.release, replica.index)


def _orphans(journal: Journal, world: World) -> list[Repair]:
    owned = {place.containers for place in journal.placements}
    return [
        Repair(Mend.REMOVE, f"{r.key} belongs to no release in service (#{r.release})", r.host, r.id, r.release)
        for r in world.replicas
        if r.release not in owned
    ]


def _reachable(world: World) -> tuple[str, ...]:
    return tuple(host for host in world.hosts if host not in world.unreachable)
