"""Wanted routing of one service at the edge: the value the HAProxy configuration is a pure function of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
