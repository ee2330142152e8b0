"""The edge's configuration as text: a pure function of its structure and of each service's wanted routing.

Two kinds of file, each replaced atomically and valid beside any version of the other:
`frame.cfg` (listeners, how a request finds its service and pool, error pages; no service is named in it) and one
`services/<service>.cfg` per service (its three backends with the servers wanted now). Lines that start with `#service`,
`#routing`, `#path` and `#route` in a service's file carry the same facts for machines: the edge builds its two maps
from them when it starts or reloads, so that one file per service is the whole truth about it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict

from ops_pipeline.core.edge_frame import NORMAL_PATH, PRIVATE_PATH, frame, json_error, milliseconds
from ops_pipeline.core.routing import POOLS, EdgeService, EdgeTopology, Pool, RouteRule, Routing, Server

UNUSED = "127.0.0.1:1"
"""Address of a declared slot that no replica uses; the slot is disabled besides."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_PATH = re.compile(r"/[A-Za-z0-9._~/@:=&?-]*")
_HOST = re.compile(r"([a-z0-9]([a-z0-9-]*[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


def topology_problems(topology: EdgeTopology) -> tuple[str, ...]:
    """Everything that makes a structure impossible, each with the service it belongs to; empty when it is fine."""
    problems: list[str] = []
    if not _NAME.fullmatch(topology.environment):
        problems.append(f"environment {topology.environment!r}: not a name (a-z, 0-9, -)")
    names: set[str] = set()
    routes: dict[str, str] = {}
    for service in topology.services:
        problems += [f"service {service.name}: {text}" for text in _service_problems(service)]
        if service.name in names:
            problems.append(f"service {service.name}: declared twice")
        names.add(service.name)
        key = route_key(service.route)
        if key in routes:
            problems.append(f"service {service.name}: route {key} already belongs to {routes[key]}")
        routes[key] = service.name
    return tuple(problems)


def _service_problems(service: EdgeService) -> list[str]:
    problems = []
    if not _NAME.fullmatch(service.name):
        problems.append("not a name (a-z, 0-9, -)")
    if not _PATH.fullmatch(service.route.path) or "?" in service.route.path:
        problems.append(f"route path {service.route.path!r} has characters the edge cannot route by")
    if service.route.host and not _HOST.fullmatch(service.route.host):
        problems.append(f"route host {service.route.host!r} is not a host name in lower case")
    if not _PATH.fullmatch(service.health_path):
        problems.append(f"health path {service.health_path!r} has characters the edge cannot ask for")
    if not 1 <= service.slots <= 64:
        problems.append(f"{service.slots} slots per pool; 1 to 64 are possible")
    if not 0 < service.timeout_seconds <= 86400:
        problems.append(f"time-out of {service.timeout_seconds} s; more than 0 and at most 86400 are possible")
    return problems


def structure_hash(topology: EdgeTopology) -> str:
    """Identifies a structure and the wording of this module's texts: equal = no reload is needed."""
    text = "\n".join(
        [frame(topology, "")]
        + [service_config(service, Routing()) for service in sorted(topology.services, key=lambda one: one.name)]
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def frame_config(topology: EdgeTopology) -> str:
    """Text of `frame.cfg`. Its `description` carries the structure's hash, which the running edge shows."""
    return frame(topology, structure_hash(topology))


def route_key(route: RouteRule) -> str:
    """Key of the map that finds a service: `/api/`, or `shop.example/api/` when the host matters.

    Keys and looked-up paths both end in `/`, so that `/api` owns `/api` and `/api/x` but not `/apix`.
    """
    return route.host + route.path.rstrip("/") + "/"


def route_value(routing: Routing) -> str:
    """Value of the map that finds the pool: live/candidate/weight and the releases of pools a/b/c.

    One entry holds everything, so a switch is one atomic change.
    """
    releases = [str(routing.pools[pool].release) if pool in routing.pools else "-" for pool in POOLS]
    return "/".join([routing.live or "-", routing.candidate or "-", str(routing.weight), *releases])


def service_config(service: EdgeService, routing: Routing) -> str:
    """Text of `services/<name>.cfg`: the machine-readable lines and the three backends."""
    lines = [
        "# Written by ops_pipeline: the structure and the wanted routing of one service.",
        f"#service {_compact(asdict(service))}",
        f"#routing {_compact(asdict(routing))}",
        f"#path {route_key(service.route)} {service.name}",
        f"#route {service.name} {route_value(routing)}",
        f"#health {service.health_path}",
    ]
    for pool in POOLS:
        lines += ["", *_backend(service, pool, routing.pools.get(pool))]
    return "\n".join(lines) + "\n"


def _backend(service: EdgeService, name: str, pool: Pool | None) -> list[str]:
    prefix = service.route.path.rstrip("/")
    lines = [f"backend {service.name}__{name} from ops"]
    if service.route.strip_prefix and prefix:
        lines += [
            f"    http-request replace-path ^{re.escape(prefix)}/?(.*)$ /\\1",
            "    # What the prefix hid is no more public than what it did not.",
            f"    http-request return {json_error(404, 'not found')} if {{ path,{NORMAL_PATH} -m reg {PRIVATE_PATH} }}",
        ]
    lines += [
        f"    timeout server {milliseconds(service.timeout_seconds)}",
        "    option httpchk",
        f"    http-check send meth GET uri {service.health_path} ver HTTP/1.1 hdr Host edge hdr User-Agent ops-edge",
        "    http-check expect status 200-299",
    ]
    servers = pool.servers if pool else ()
    for slot in range(service.slots):
        if slot < len(servers):
            lines.append(f"    server s{slot + 1} {servers[slot].address}:{servers[slot].port}")
        else:
            lines.append(f"    server s{slot + 1} {UNUSED} disabled")
    return lines


def read_service(text: str) -> tuple[EdgeService, Routing]:
    """The structure and routing a service's file (or just its machine-readable lines) was made from.

    Raise ValueError when the lines are missing or damaged.
    """
    found: dict[str, dict[str, object]] = {}
    for line in text.splitlines():
        keyword, _, document = line.partition(" ")
        if keyword in {"#service", "#routing"}:
            found[keyword] = json.loads(document)
    try:
        return _service_of(found["#service"]), _routing_of(found["#routing"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a service's file: {error!r}") from error


def _service_of(document: dict[str, object]) -> EdgeService:
    fields: dict[str, object] = dict(document)
    route = fields.pop("route")
    return EdgeService(route=RouteRule(**route), **fields)  # type: ignore[arg-type]


def _routing_of(document: dict[str, object]) -> Routing:
    fields: dict[str, object] = dict(document)
    pools = {
        name: Pool(release=pool["release"], servers=tuple(Server(**server) for server in pool["servers"]))
        for name, pool in fields.pop("pools").items()  # type: ignore[attr-defined]
    }
    return Routing(pools=pools, **fields)  # type: ignore[arg-type]


def _compact(document: object) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))
