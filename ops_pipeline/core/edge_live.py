"""What a running edge says about itself, read from HAProxy's own answers. Pure; raises only ValueError."""

from __future__ import annotations

import csv
import re
from contextlib import suppress
from dataclasses import dataclass

from ops_pipeline.core.edge_config import UNUSED, read_service
from ops_pipeline.core.routing import POOLS, EdgeService, Pool, Routing, Server

_MAP_VALUE = re.compile(r'value="([^"]*)"')
_MAINTENANCE = 0x63  # forced, inherited, unresolvable; 0x04 only remembers what the configuration said


@dataclass(frozen=True)
class ServiceView:
    """One service as the edge has it: on disk (`structure`, `wanted`) and in the running process (`live`).

    `up` holds the live servers that HAProxy believes healthy, by pool.
    """

    generation: int
    structure: EdgeService
    wanted: Routing
    live: Routing
    up: dict[str, tuple[Server, ...]]


@dataclass(frozen=True)
class EdgeView:
    """The whole edge: hash of the structure on disk and in the running process, and every service's file.

    `etag` changes with any file, so that a later change can insist on what was read.
    """

    etag: str
    disk: str
    live: str
    services: dict[str, tuple[EdgeService, Routing]]


def parse_service(text: str) -> ServiceView:
    """Given the answer of `edge observe` or `edge apply`, return the service's view."""
    generation, headers, route = 0, [], ""
    pools: dict[str, dict[int, tuple[Server, bool]]] = {pool: {} for pool in POOLS}
    columns: list[str] = []
    for line in text.splitlines():
        if line.startswith("generation "):
            generation = int(line.split()[1])
        elif line.startswith(("#service ", "#routing ")):
            headers.append(line)
        elif line.startswith("# be_id"):
            columns = line[2:].split()
        elif (match := _MAP_VALUE.search(line)) and "key=" in line:
            route = match.group(1)
        elif columns and line.count(" ") >= len(columns) - 1:
            row = dict(zip(columns, line.split(" "), strict=False))
            server = Server(row["srv_addr"], int(row["srv_port"]))
            used = not int(row["srv_admin_state"]) & _MAINTENANCE and f"{server.address}:{server.port}" != UNUSED
            if used:
                pool = row["be_name"].rpartition("__")[2]
                pools[pool][int(row["srv_id"])] = (server, row["srv_op_state"] == "2")
    if not route:
        raise ValueError("the running HAProxy has no routing entry for this service")
    structure, wanted = read_service("\n".join(headers))
    live, candidate, weight, *releases = route.split("/")
    found = {
        pool: Pool(int(release), tuple(server for _, (server, _) in sorted(pools[pool].items())))
        for pool, release in zip(POOLS, releases, strict=True)
        # A pool without a release is none of the routing, even if a change that was killed left its servers ready.
        if release != "-"
    }
    return ServiceView(
        generation=generation,
        structure=structure,
        wanted=wanted,
        live=Routing(
            live=None if live == "-" else live,
            candidate=None if candidate == "-" else candidate,
            weight=int(weight),
            pools=found,
        ),
        up={pool: tuple(server for _, (server, up) in sorted(rows.items()) if up) for pool, rows in pools.items()},
    )


def parse_edge(text: str) -> EdgeView:
    """Given the answer of `edge read`, return the view of the whole edge. A damaged service's file is left out."""
    facts = {"etag": "", "disk": "", "live": ""}
    services: dict[str, tuple[EdgeService, Routing]] = {}
    structure = ""
    for line in text.splitlines():
        keyword, _, rest = line.partition(" ")
        if keyword in facts:
            facts[keyword] = rest
        elif keyword == "#service":
            structure = line
        elif keyword == "#routing":
            with suppress(ValueError):
                service, routing = read_service(structure + "\n" + line)
                services[service.name] = (service, routing)
            structure = ""
    if not facts["etag"]:
        raise ValueError("the answer names no etag")
    return EdgeView(etag=facts["etag"], disk=facts["disk"], live=facts["live"], services=services)


def parse_connections(text: str) -> int:
    """Given backend rows of `show stat` of one or more workers, return the sum of their current sessions."""
    total, position = 0, -1
    for row in csv.reader(text.splitlines()):
        if row and row[0] == "# pxname":
            position = row.index("scur")
        elif position >= 0 and len(row) > position and row[1] == "BACKEND":
            total += int(row[position] or 0)
    if position < 0:
        raise ValueError("HAProxy gave no statistics for this pool")
    return total
