"""What must hold between the fields of a catalogue, and what deserves a warning. Pure: no file, no clock."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date

from ops_pipeline.catalogue.addresses import azure_findings, url_findings
from ops_pipeline.catalogue.backup_findings import backup_findings, backup_warnings
from ops_pipeline.catalogue.delivery import delivery_findings, delivery_warnings
from ops_pipeline.catalogue.document import Path
from ops_pipeline.catalogue.model import Catalogue, Environment, Route, Service
from ops_pipeline.catalogue.placement import placement_findings
from ops_pipeline.catalogue.wording import did_you_mean

_REGISTRY = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
_ROUTE_PATH = re.compile(r"/[A-Za-z0-9._~%/-]*")
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]+")
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9]+(/[a-z0-9]+)?")
_OWNER = re.compile(r"team:.+|[^@\s]+@[^@\s]+\.[^@\s]+")
_LOOKS_SECRET = re.compile(r"(?i)(^|_)(password|passwd|secret|token|api_?key|private_?key|credentials?)$")
_SOON_DAYS = 14


@dataclass(frozen=True)
class Finding:
    """Something wrong (or worth a warning) at `path`. `involves` names other parts it rests on."""

    path: Path
    text: str
    involves: tuple[Path, ...] = ()


def inconsistencies(catalogue: Catalogue) -> Iterator[Finding]:
    """Everything that makes a catalogue of the right shape unusable."""
    yield from _components(catalogue)
    yield from _routes(catalogue.services)
    yield from _promotion(catalogue.environments)
    yield from _made(placement_findings(catalogue))
    yield from _made(delivery_findings(catalogue))
    yield from _made(backup_findings(catalogue))
    for name, service in catalogue.services.items():
        yield from _service(name, service)
    for name, environment in catalogue.environments.items():
        yield from _overrides(name, environment, catalogue.services)
    seen: dict[tuple[str, str], int] = {}
    for index, waiver in enumerate(catalogue.scan.waivers):
        first = seen.setdefault((waiver.id, waiver.package), index)
        if first != index:
            where = ("scan", "waivers", index)
            yield Finding(where, f"waives {waiver.id} again; scan.waivers[{first}] does already")


def warnings(catalogue: Catalogue, today: date) -> Iterator[Finding]:
    """What is allowed and yet may not be meant."""
    for index, waiver in enumerate(catalogue.scan.waivers):
        where: Path = ("scan", "waivers", index, "expires")
        days = (waiver.expires - today).days
        if days < 0:
            yield Finding(where, f"the waiver of {waiver.id} expired on {waiver.expires}: it blocks again")
        elif days <= _SOON_DAYS:
            yield Finding(where, f"the waiver of {waiver.id} expires in {days} days, on {waiver.expires}")
    for name, environment in catalogue.environments.items():
        if environment.policy.allow_sample_database:
            where = ("environments", name, "policy", "allow_sample_database")
            yield Finding(where, "accepts scans made with the small SAMPLE database: for demo and tests only")
    yield from _made(delivery_warnings(catalogue))
    yield from _made(backup_warnings(catalogue))
    for name, service in catalogue.services.items():
        for variable, value in service.environment.items():
            if value and _LOOKS_SECRET.search(variable):
                where = ("services", name, "environment", variable)
                yield Finding(where, "looks like a secret in plain sight; put a reference under `secrets`")
        for argument, value in service.build.args.items():
            if value and _LOOKS_SECRET.search(argument):
                where = ("services", name, "build", "args", argument)
                yield Finding(where, "looks like a secret; build arguments stay in the image: use `build.secrets`")


def _components(catalogue: Catalogue) -> Iterator[Finding]:
    store, azure = catalogue.store, catalogue.store.azure
    if (store.directory is None) == (azure is None):
        both = "both" if azure else "neither"
        yield Finding(("store",), f"needs exactly one of `directory` and `azure`; it has {both}")
    if store.directory is not None and not store.directory.strip():
        yield Finding(("store", "directory"), "is empty")
    if azure is not None:
        yield from _made(azure_findings(("store", "azure"), azure))
    address = catalogue.registry.address
    if not _REGISTRY.fullmatch(address):
        text = "must be host[:port][/prefix] in lower case"
        if "://" in address:
            text += ", without `http://`"
        elif "@" in address:
            text += "; credentials never stand here, Docker's own configuration has them"
        elif address.endswith("/"):
            text += ", without the last `/`"
        yield Finding(("registry", "address"), text)
    yield from _made(url_findings(("prometheus", "url"), catalogue.prometheus.url))
    yield from _made(url_findings(("front_door", "url"), catalogue.front_door.url))
    if catalogue.alertmanager.url:
        yield from _made(url_findings(("alertmanager", "url"), catalogue.alertmanager.url))
    if catalogue.source_url:
        yield from _made(url_findings(("source_url",), catalogue.source_url))


def _made(findings: Iterable[tuple[Path, str, tuple[Path, ...]]]) -> Iterator[Finding]:
    return (Finding(*found) for found in findings)


def _routes(services: Mapping[str, Service]) -> Iterator[Finding]:
    taken: dict[tuple[str, str], str] = {}
    for name, service in services.items():
        route, where = service.route, ("services", name, "route")
        if not _ROUTE_PATH.fullmatch(route.path) or "//" in route.path or "/../" in f"{route.path}/":
            yield Finding((*where, "path"), "must be a path such as `/api`: letters, digits and `/ . _ ~ % -`")
        if route.host and not _HOST_NAME.fullmatch(route.host):
            yield Finding((*where, "host"), "must be a host name in lower case, without scheme, port and `*`")
        key = (route.host, route.path.rstrip("/"))
        first = taken.setdefault(key, name)
        if first != name:
            text = f"{shown(route)} belongs to service `{first}` already; two services cannot share a route"
            yield Finding(where, text, (("services", first),))


def shown(route: Route) -> str:
    """`/api`, or `shop.example.org/api`."""
    return f"`{route.host}{route.path}`"


def _promotion(environments: Mapping[str, Environment]) -> Iterator[Finding]:
    reported: set[str] = set()
    for name, environment in environments.items():
        where = ("environments", name, "promote_from")
        source = environment.promote_from
        if source is None:
            continue
        if source not in environments:
            yield Finding(where, f"there is no environment `{source}`{did_you_mean(source, environments)}")
            continue
        chain = [name]
        while source is not None and source in environments and source not in chain:
            chain.append(source)
            source = environments[source].promote_from
        if source == name and name not in reported:
            reported.update(chain)
            text = f"goes round in a circle: {' ← '.join([*chain, name])}"
            yield Finding(where, text, tuple(("environments", other) for other in chain))


def _service(name: str, service: Service) -> Iterator[Finding]:
    where: Path = ("services", name)
    for index, owner in enumerate(service.owners):
        if not _OWNER.fullmatch(owner):
            yield Finding((*where, "owners", index), "must be an e-mail address or `team:name`")
    for index, platform in enumerate(service.build.platforms):
        if not _PLATFORM.fullmatch(platform):
            yield Finding((*where, "build", "platforms", index), "must be os/architecture, such as `linux/amd64`")
    for argument in service.build.args:
        if not _VARIABLE.fullmatch(argument):
            yield Finding((*where, "build", "args", argument), "must be a name of letters, digits and `_`")
        if argument in service.build.secrets:
            yield Finding((*where, "build", "args", argument), "stands under build.secrets too")
    for secret in service.build.secrets:
        if not _SECRET_NAME.fullmatch(secret):
            yield Finding((*where, "build", "secrets", secret), "must be an id of letters, digits, `.`, `_` and `-`")
    if "//" in f"/{service.health.path[1:]}" or not re.fullmatch(r"/[!-~]*", service.health.path):
        yield Finding((*where, "health", "path"), "must be a path such as `/health/ready`, without spaces")
    for index, mount in enumerate(service.tmpfs):
        if not mount.startswith("/") or mount.rstrip("/") == "":
            yield Finding((*where, "tmpfs", index), "must be an absolute path below `/`")
    yield from _names(where, service.environment, service.secrets)
    yield from _volumes(where, service.volumes, service.tmpfs)
    for variable in service.environment:
        if variable in service.secrets:
            yield Finding((*where, "environment", variable), "stands under `secrets` too; keep one of the two")


def _names(where: Path, variables: Mapping[str, str], secrets: Mapping[str, str]) -> Iterator[Finding]:
    for variable in variables:
        if not _VARIABLE.fullmatch(variable):
            yield Finding((*where, "environment", variable), "must be a name of letters, digits and `_`")
    for secret in secrets:
        if not _SECRET_NAME.fullmatch(secret):
            yield Finding((*where, "secrets", secret), "must be a file name of letters, digits, `.`, `_` and `-`")


def _volumes(where: Path, volumes: Mapping[str, str], tmpfs: tuple[str, ...]) -> Iterator[Finding]:
    mounts: dict[str, str] = {path.rstrip("/"): "tmpfs" for path in tmpfs}
    for name, path in volumes.items():
        here = (*where, "volumes", name)
        if not _VOLUME.fullmatch(name.replace("{environment}", "x")):
            text = "must be a Docker volume's name (letters, digits, `_ . -`, and `{environment}`)"
            yield Finding(here, text + ("; folders of the host cannot be mounted" if "/" in name else ""))
        target = path.removesuffix(":ro").rstrip("/")
        if not path.startswith("/") or ".." in path.split("/") or not target:
            yield Finding(here, "must lead to an absolute path below `/`")
        elif f"{target}/".startswith("/run/secrets/"):
            yield Finding(here, "`/run/secrets` is where the service's secrets are")
        elif target in mounts:
            yield Finding(here, f"`{target}` is taken by {mounts[target]} already")
        else:
            mounts[target] = f"volume `{name}`"


def _overrides(name: str, environment: Environment, services: Mapping[str, Service]) -> Iterator[Finding]:
    yield from _made(url_findings(("environments", name, "url"), environment.url))
    for service, override in environment.services.items():
        where: Path = ("environments", name, "services", service)
        if service not in services:
            yield Finding(where, f"there is no service `{service}`{did_you_mean(service, services)}")
            continue
        base = services[service]
        yield from _names(where, override.environment, override.secrets)
        yield from _volumes(where, override.volumes, base.tmpfs)
        for variable in override.environment:
            if variable in override.secrets or variable in base.secrets:
                text = "stands under `secrets` too; keep one of the two"
                yield Finding((*where, "environment", variable), text, (("services", service, "secrets"),))
        for secret in override.secrets:
            if secret in base.environment and secret not in override.environment:
                text = f"stands under services.{service}.environment too; keep one of the two"
                yield Finding((*where, "secrets", secret), text, (("services", service, "environment"),))
