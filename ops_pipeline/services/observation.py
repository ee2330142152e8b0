"""One look at the world: containers by label, routing from the edges, answers of probes. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from ops_pipeline.core.routing import Routing
from ops_pipeline.core.steps import Needs, Probing
from ops_pipeline.core.world import Replica, World
from ops_pipeline.errors import NotFound, OpsError, StaleGeneration
from ops_pipeline.services.fleet import Fleet, on_each
from ops_pipeline.services.instances import find_replicas, silence
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried
from ops_pipeline.services.topology import route_probe_path

PATIENCE = 3
PATIENCE_SECONDS = 0.3


@dataclass(frozen=True)
class _Seen:
    """What one host showed."""

    host: str
    replicas: tuple[Replica, ...] = ()
    routing: Routing | None = None
    silent: Mapping[str, str] = field(default_factory=dict)
    without_image: bool = False
    route_fault: str = ""
    connections: int = 0
    unreachable: str = ""


def look(
    platform: Platform,
    fleet: Fleet,
    environment: str,
    service: str,
    needs: Needs,
    *,
    away: Mapping[str, str] | None = None,
    known: Mapping[str, Routing] | None = None,
    patience: int = PATIENCE,
    patience_seconds: float = PATIENCE_SECONDS,
) -> World:
    """Return what `needs` asks for, from every host. Hosts in `away` (host → why) count as unreachable unasked;
    `known` is the routing of edges that was read back a moment ago, which is not asked again.

    Raise StaleGeneration only; a host that does not answer is part of the picture.
    """
    gone, told = away or {}, known or {}

    def one(host: str) -> _Seen:
        if host in gone:
            return _Seen(host, unreachable=gone[host])
        try:
            seen = _look_at(platform, fleet, environment, service, host, needs, told.get(host))
            for _ in range(patience - 1):
                if not (needs.patient and (seen.silent or seen.route_fault)):
                    break
                platform.clock.sleep(patience_seconds)
                seen = _look_at(platform, fleet, environment, service, host, needs, told.get(host))
        except StaleGeneration:
            raise
        except OpsError as error:
            return _Seen(host, unreachable=error.message)
        return seen

    found = on_each(fleet.hosts, one)
    silent: dict[str, str] = {}
    for seen in found:
        silent |= seen.silent
    return World(
        hosts=fleet.hosts,
        replicas=tuple(replica for seen in found for replica in seen.replicas),
        routing={seen.host: seen.routing for seen in found if seen.routing is not None},
        silent=silent,
        without_image=frozenset(seen.host for seen in found if seen.without_image),
        route_faults={seen.host: seen.route_fault for seen in found if seen.route_fault},
        connections=sum(seen.connections for seen in found),
        unreachable={seen.host: seen.unreachable for seen in found if seen.unreachable},
    )


def _look_at(
    platform: Platform,
    fleet: Fleet,
    environment: str,
    service: str,
    host: str,
    needs: Needs,
    told: Routing | None,
) -> _Seen:
    clock, runtime, edge = platform.clock, fleet.runtimes[host], fleet.edges[host]
    seen = _Seen(host, find_replicas(clock, runtime, environment, service), routing=told)
    if needs.image:
        present = retried(clock, f"look for the image on {host}", lambda: runtime.has_image(needs.image), attempts=2)
        seen = replace(seen, without_image=not present)

    def connections() -> _Seen:
        what = f"count connections at the edge of {host}"
        return _Seen(host, connections=retried(clock, what, lambda: edge.connections(service, needs.connections)))

    def answer(replica: Replica, probing: Probing) -> _Seen:
        why = silence(edge, replica, probing.port, probing.path)
        return _Seen(host, silent={replica.key: why} if why else {})

    # Each of these is a process of its own in the edge's container, so they are asked side by side.
    questions: list[Callable[[], _Seen]] = []
    if needs.routing and told is None:
        questions.append(lambda: _Seen(host, routing=_routing(platform, fleet, host, service)))
    for probing in needs.probes:
        mine = [replica for replica in seen.replicas if replica.release == probing.release]
        questions += [partial(answer, replica, probing) for replica in mine]
    if needs.route:
        questions.append(lambda: _Seen(host, route_fault=route_fault(platform, fleet, host, service)))
    if needs.connections and any(replica.release == needs.drains for replica in seen.replicas):
        questions.append(connections)
    for part in on_each(questions, lambda ask: ask()):
        seen = replace(
            seen,
            routing=part.routing or seen.routing,
            silent={**seen.silent, **part.silent},
            route_fault=part.route_fault or seen.route_fault,
            connections=part.connections or seen.connections,
        )
    return seen


def route_fault(platform: Platform, fleet: Fleet, host: str, service: str) -> str:
    """What a user's request through the edge of a host meets; "" = the service answers well. Raise Unavailable."""
    entry = platform.catalogue.services[service]
    path, strict = route_probe_path(entry)
    probe = retried(
        platform.clock,
        f"ask through the edge of {host}",
        lambda: fleet.edges[host].probe_route(path, entry.route.host),
        attempts=2,
    )
    if probe.ok or (not strict and 0 < probe.status < 500):
        return ""
    return f"GET {path} answered {probe.status}" if probe.status else f"GET {path}: {probe.detail or 'no answer'}"


def _routing(platform: Platform, fleet: Fleet, host: str, service: str) -> Routing:
    edge = fleet.edges[host]
    try:
        return retried(platform.clock, f"read the edge of {host}", lambda: edge.observe(service), attempts=3)
    except NotFound:
        return Routing()  # the edge has not heard of the service: nothing is routed
