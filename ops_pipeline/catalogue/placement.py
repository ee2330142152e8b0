"""Where environments run: hosts, networks and addresses must not get in one another's way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Network

from ops_pipeline.catalogue.document import Path
from ops_pipeline.catalogue.model import Catalogue, Environment

Found = tuple[Path, str, tuple[Path, ...]]
"""Path, what is wrong, and the other parts it rests on."""

RELEASES_AT_ONCE = 3
"""Live, standby and the next one: each replica may need so many addresses."""

_ENDPOINT = re.compile(
    r"unix:///[^\s]+|tcp://[A-Za-z0-9.-]+:[0-9]{1,5}|ssh://([A-Za-z0-9._-]+@)?[A-Za-z0-9.-]+(:[0-9]{1,5})?"
)
_DOCKER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def placement_findings(catalogue: Catalogue) -> Iterator[Found]:
    """Everything wrong about hosts, subnets, networks, edges and addresses users reach."""
    for name, environment in catalogue.environments.items():
        yield from _hosts(name, environment)
        yield from _network(catalogue, name, environment)
    yield from _clashes(catalogue)


def _hosts(name: str, environment: Environment) -> Iterator[Found]:
    names: set[str] = set()
    endpoints: dict[str, str] = {}
    for index, host in enumerate(environment.hosts):
        where: Path = ("environments", name, "hosts", index)
        if host.name in names:
            yield (*where, "name"), f"another host of `{name}` is called `{host.name}`", ()
        names.add(host.name)
        if not _ENDPOINT.fullmatch(host.docker):
            yield (*where, "docker"), "must be unix:///path, tcp://host:port or ssh://[user@]host[:port]", ()
        first = endpoints.setdefault(host.docker, host.name)
        if first != host.name:
            yield (*where, "docker"), f"is the engine of host `{first}` too", ()


def _network(catalogue: Catalogue, name: str, environment: Environment) -> Iterator[Found]:
    where: Path = ("environments", name)
    for key in ("network", "edge_container", "flags_volume"):
        value = getattr(environment, key)
        if value is not None and not _DOCKER_NAME.fullmatch(value):
            yield (*where, key), "must be a Docker name: letters, digits and `_ . -`", ()
    try:
        subnet = IPv4Network(environment.subnet)
    except ValueError as error:
        text = "must be an IPv4 subnet such as `10.213.0.0/22`"
        if "host bits" in str(error):
            text += f"; did you mean `{IPv4Network(environment.subnet, strict=False)}`?"
        yield (*where, "subnet"), text, ()
        return
    if not subnet.is_private:
        yield (*where, "subnet"), f"{subnet} is not a private subnet; take one of 10/8, 172.16/12 or 192.168/16", ()
    replicas = 0
    for service, entry in catalogue.services.items():
        override = environment.services.get(service)
        replicas += (override.replicas if override else None) or entry.replicas
    needed, lower_half = RELEASES_AT_ONCE * replicas, subnet.num_addresses // 2 - 2
    if needed > lower_half:
        prefix = subnet.prefixlen
        while prefix > 8 and needed > 2 ** (32 - prefix) // 2 - 2:
            prefix -= 1
        text = (
            f"is too small: {replicas} replicas of all services in up to {RELEASES_AT_ONCE} releases need {needed} "
            f"addresses, its lower half has {max(0, lower_half)}; take a /{prefix} or larger"
        )
        yield (*where, "subnet"), text, (("services",),)


def _clashes(catalogue: Catalogue) -> Iterator[Found]:
    """What two environments on one Docker engine must not share, and two environments anywhere must not share."""
    environments = list(catalogue.environments.items())
    urls: dict[str, str] = {}
    for index, (name, environment) in enumerate(environments):
        where: Path = ("environments", name)
        first = urls.setdefault(environment.url.rstrip("/"), name)
        if first != name:
            yield (*where, "url"), f"is the address of environment `{first}` too", (("environments", first, "url"),)
        engines = {host.docker for host in environment.hosts}
        for other, before in environments[:index]:
            if engines.isdisjoint(host.docker for host in before.hosts):
                continue
            involved: tuple[Path, ...] = (("environments", other), (*where, "hosts"))
            if catalogue.network(name) == catalogue.network(other):
                text = f"`{catalogue.network(name)}` is the network of environment `{other}` on the same engine"
                yield (*where, "network"), text, involved
            if catalogue.edge_container(name) == catalogue.edge_container(other):
                text = f"`{catalogue.edge_container(name)}` is the edge of environment `{other}` on the same engine"
                yield (*where, "edge_container"), text, involved
            if catalogue.flags_volume(name) == catalogue.flags_volume(other):
                text = f"`{catalogue.flags_volume(name)}` holds the flags of environment `{other}` on the same engine"
                yield (*where, "flags_volume"), text, involved
            try:
                ours, theirs = IPv4Network(environment.subnet), IPv4Network(before.subnet)
            except ValueError:
                continue  # said already
            if ours.overlaps(theirs):
                text = f"{ours} overlaps {theirs} of environment `{other}` on the same engine"
                yield (*where, "subnet"), text, involved
            yield from _names(catalogue, name, other, involved)


def _names(catalogue: Catalogue, name: str, other: str, involved: tuple[Path, ...]) -> Iterator[Found]:
    # Containers are called ops-<environment>-<service>-…, and both names may hold hyphens.
    longer, shorter = (name, other) if len(name) > len(other) else (other, name)
    if not longer.startswith(f"{shorter}-"):
        return
    rest = longer.removeprefix(f"{shorter}-")
    for service in catalogue.services:
        if f"{rest}-{service}" in catalogue.services:
            text = (
                f"containers of {longer}/{service} and {shorter}/{rest}-{service} on the same engine would have one "
                f"name, ops-{longer}-{service}-…; rename one"
            )
            yield ("environments", name), text, involved
