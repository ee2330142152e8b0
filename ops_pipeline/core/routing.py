"""Wanted routing of one service at the edge: the value the HAProxy configuration is a pure function of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address


@dataclass(frozen=True)
class Server:
    """One replica the edge may send requests to."""

    address: str
    port: int


@dataclass(frozen=True)
class Pool:
    """The servers of one release behind one of the three pools of a service."""

    release: int
    servers: tuple[Server, ...]


@dataclass(frozen=True)
class Routing:
    """Who answers a service's requests.

    `live` names the pool that gets everything `candidate` does not; None = nothing deployed, the edge answers 503.
    `weight` is the candidate's share in percent (0-100), chosen by a stable client key.
    """

    live: str | None = None
    candidate: str | None = None
    weight: int = 0
    pools: Mapping[str, Pool] = field(default_factory=dict)


@dataclass(frozen=True)
class RouteRule:
    """Which requests belong to a service: host name (may be empty) and path prefix. Longest prefix wins."""

    path: str = "/"
    host: str = ""
    strip_prefix: bool = False


@dataclass(frozen=True)
class EdgeService:
    """What the edge must know of a service ahead of any deploy (its structure, changed only by a reload)."""

    name: str
    route: RouteRule
    slots: int  # servers declared per pool, ≥ replicas
    health_path: str
    timeout_seconds: float = 60.0


@dataclass(frozen=True)
class EdgeTopology:
    """Structure of one environment's edge. Equal topology = no reload, whatever is deployed."""

    environment: str
    services: tuple[EdgeService, ...]


POOLS = ("a", "b", "c")
"""Names of the three pools every service has: live, standby, and one for the next release."""

BUCKETS = 100
"""Clients fall into this many equal classes; a weight is the number of classes the candidate gets."""


def choose_pool(routing: Routing, bucket: int, wanted_track: str = "") -> str | None:
    """Given the class of a client (0-99) and the track it asks for, return the pool that answers; None = nobody.

    The configuration of `core/edge_config.py` says the same in HAProxy's words. Classes are turned by the
    candidate's release number, so that not the same users try every candidate first.
    """
    if routing.live is None:
        return None
    if routing.candidate is None or wanted_track == "stable":
        return routing.live
    turned = (bucket + 37 * routing.pools[routing.candidate].release) % BUCKETS
    if wanted_track in {"candidate", "canary"} or turned < routing.weight:
        return routing.candidate
    return routing.live


def routing_problems(routing: Routing, slots: int) -> tuple[str, ...]:
    """What makes a routing impossible for a service with `slots` servers per pool; empty when it can be applied."""
    problems = [f"there is no pool {name}" for name in routing.pools if name not in POOLS]
    if routing.live is not None and routing.live not in routing.pools:
        problems.append(f"the live pool {routing.live} has no servers")
    if routing.candidate is not None:
        if routing.candidate not in routing.pools:
            problems.append(f"the candidate pool {routing.candidate} has no servers")
        if routing.candidate == routing.live:
            problems.append(f"pool {routing.live} cannot be live and candidate at once")
        if routing.live is None:
            problems.append("a candidate needs a live pool beside it")
    if not 0 <= routing.weight <= BUCKETS:
        problems.append(f"the weight must be 0 to {BUCKETS}, not {routing.weight}")
    if routing.weight and routing.candidate is None:
        problems.append(f"a weight of {routing.weight} needs a candidate")
    for name, pool in sorted(routing.pools.items()):
        if not 1 <= len(pool.servers) <= slots:
            problems.append(f"pool {name} has {len(pool.servers)} servers; this edge declares 1 to {slots}")
        if pool.release < 0:
            problems.append(f"pool {name} has release number {pool.release}")
        if len(set(pool.servers)) != len(pool.servers):
            problems.append(f"pool {name} names a server twice")
        problems += [
            f"pool {name}: {server.address}:{server.port} is not an IPv4 address with a port"
            for server in pool.servers
            if not _usable(server)
        ]
    return tuple(problems)


def _usable(server: Server) -> bool:
    try:
        IPv4Address(server.address)
    except AddressValueError:
        return False
    return 1 <= server.port <= 65535
