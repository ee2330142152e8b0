"""What the edges of an environment must know ahead of any deploy, from the catalogue."""

from __future__ import annotations

from ops_pipeline.catalogue.model import Catalogue, Service
from ops_pipeline.catalogue.resolve import resolve
from ops_pipeline.core.routing import EdgeService, EdgeTopology, RouteRule


def topology_of(catalogue: Catalogue, environment: str) -> EdgeTopology:
    """Structure of an environment's edge: every service with its route and as many slots as it has replicas."""
    services = tuple(
        EdgeService(
            name=name,
            route=RouteRule(entry.route.path, entry.route.host, entry.route.strip_prefix),
            slots=max(resolve(catalogue, environment, name).replicas, entry.replicas),
            health_path=entry.health.path,
            timeout_seconds=entry.request_timeout_seconds,
        )
        for name, entry in sorted(catalogue.services.items())
    )
    return EdgeTopology(environment, services)


def route_probe_path(service: Service) -> tuple[str, bool]:
    """Path to ask through the edge, and whether only 2xx will do.

    The health path where users could reach it; else the route itself, where any answer below 500 proves that the
    service and not the edge spoke.
    """
    route, health = service.route, service.health.path
    if route.strip_prefix:
        return route.path.rstrip("/") + health, True
    if health.startswith(route.path.rstrip("/") + "/") or health == route.path:
        return health, True
    return route.path, False
