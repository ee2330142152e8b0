"""How releases reach users and are judged: canary steps, thresholds, smoke tests, dependencies, flags. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from ops_pipeline.catalogue.document import Path
from ops_pipeline.catalogue.model import CanaryStepEntry, Catalogue, Service, SmokeTestEntry, Thresholds, Verification
from ops_pipeline.catalogue.wording import did_you_mean
from ops_pipeline.core.measurement import BUCKETS

Found = tuple[Path, str, tuple[Path, ...]]
"""Path, what is wrong, and the other parts it rests on."""


def delivery_findings(catalogue: Catalogue) -> Iterator[Found]:
    """Everything that makes rollouts, smoke tests, dependencies or flags impossible."""
    for name, service in catalogue.services.items():
        where: Path = ("services", name)
        yield from _canary((*where, "canary"), service.canary)
        yield from _thresholds((*where, "thresholds"), service.thresholds)
        yield from _smoke((*where, "verify", "smoke"), service.verify)
        yield from _folder((*where, "flags"), service)
    yield from _dependencies(catalogue.services)
    for name, environment in catalogue.environments.items():
        for flag, entry in environment.flags.items():
            where = ("environments", name, "flags", flag)
            if entry.guards is not None and entry.guards not in catalogue.services:
                near = did_you_mean(entry.guards, catalogue.services)
                yield (*where, "guards"), f"there is no service `{entry.guards}`{near}", (("services",),)
            if round(entry.percent, 2) != entry.percent:
                yield (*where, "percent"), f"must have at most two digits after the point; found `{entry.percent}`", ()
        for service_name, override in environment.services.items():
            where = ("environments", name, "services", service_name)
            yield from _canary((*where, "canary"), override.canary or ())
            if override.thresholds is not None:
                yield from _thresholds((*where, "thresholds"), override.thresholds)
            if override.verify is not None:
                yield from _smoke((*where, "verify", "smoke"), override.verify)
            base = catalogue.services.get(service_name)
            for volume, path in override.volumes.items():
                if base is not None and base.flags and path.removesuffix(":ro").rstrip("/") == base.flags.rstrip("/"):
                    text = f"`{base.flags}` is where the service's flags are"
                    yield (*where, "volumes", volume), text, (("services", service_name, "flags"),)


def delivery_warnings(catalogue: Catalogue) -> Iterator[Found]:
    """What is allowed and yet may not be meant."""
    for name, environment in catalogue.environments.items():
        for flag, entry in environment.flags.items():
            guarded = catalogue.services.get(entry.guards or "")
            if guarded is not None and not guarded.flags:
                text = (
                    f"`{entry.guards}` has no `flags` folder: it cannot see this flag, and turning it off helps nobody"
                )
                yield ("environments", name, "flags", flag, "guards"), text, ()


def _canary(where: Path, steps: Sequence[CanaryStepEntry]) -> Iterator[Found]:
    before = 0
    for index, step in enumerate(steps):
        if step.weight <= before:
            text = f"must be more than the {before} of the step before; found `{step.weight}`"
            yield (*where, index, "weight"), text, ()
        before = step.weight
        if step.min_seconds > step.max_seconds:
            text = f"is more than max_seconds ({step.max_seconds:g})"
            yield (*where, index, "min_seconds"), text, ()
    if steps and steps[-1].weight != 100:
        yield (*where, len(steps) - 1, "weight"), f"the last step must have 100; found `{steps[-1].weight}`", ()


def _thresholds(where: Path, thresholds: Thresholds) -> Iterator[Found]:
    if thresholds.p95_seconds not in BUCKETS:
        known = ", ".join(f"{boundary:g}" for boundary in BUCKETS)
        text = f"must be one of the boundaries the edge counts by ({known}); found `{thresholds.p95_seconds:g}`"
        yield (*where, "p95_seconds"), text, ()


def _smoke(where: Path, verify: Verification) -> Iterator[Found]:
    names: dict[str, int] = {}
    for index, test in enumerate(verify.smoke):
        here: Path = (*where, index)
        first = names.setdefault(test.name, index)
        if first != index:
            yield (*here, "name"), f"`{test.name}` is the name of smoke[{first}] too", ()
        yield from _smoke_test(here, test)


def _smoke_test(here: Path, test: SmokeTestEntry) -> Iterator[Found]:
    if bool(test.path) == bool(test.command):
        yield here, f"needs exactly one of `path` and `command`; it has {'both' if test.path else 'neither'}", ()
        return
    if test.command:
        for key in ("method", "status", "contains"):
            if getattr(test, key) != SmokeTestEntry.model_fields[key].default:
                yield (*here, key), "is for requests; a command passes when it exits with 0", ()
    elif not re.fullmatch(r"/[!-~]*", test.path) or "#" in test.path:
        yield (*here, "path"), "must be a path such as `/api/version?full=1`, without spaces and `#`", ()
    if test.method == "HEAD" and test.contains:
        yield (*here, "contains"), "an answer to HEAD has no body", ()


def _folder(where: Path, service: Service) -> Iterator[Found]:
    folder = service.flags.rstrip("/")
    if not service.flags:
        return
    if not folder or ".." in folder.split("/") or ":" in folder:
        yield where, "must be an absolute path below `/`", ()
    elif f"{folder}/".startswith("/run/secrets/"):
        yield where, "`/run/secrets` is where the service's secrets are", ()
    elif folder in {path.rstrip("/") for path in service.tmpfs}:
        yield where, f"`{folder}` is taken by tmpfs already", ()
    else:
        for volume, path in service.volumes.items():
            if path.removesuffix(":ro").rstrip("/") == folder:
                yield where, f"`{folder}` is taken by volume `{volume}` already", ()


def _dependencies(services: Mapping[str, Service]) -> Iterator[Found]:
    for name, service in services.items():
        for index, other in enumerate(service.depends_on):
            where: Path = ("services", name, "depends_on", index)
            if other == name:
                yield where, "a service cannot depend on itself", ()
            elif other not in services:
                yield where, f"there is no service `{other}`{did_you_mean(other, services)}", ()
            elif other in service.depends_on[:index]:
                yield where, f"names `{other}` again", ()
    reported: set[str] = set()
    for name in services:
        circle = _circle(services, name)
        if circle and reported.isdisjoint(circle):
            reported.update(circle)
            text = f"goes round in a circle: {' → '.join([*circle, name])}"
            yield ("services", name, "depends_on"), text, tuple(("services", other) for other in circle)


def _circle(services: Mapping[str, Service], start: str) -> list[str]:
    """A shortest way from a service through what it depends on back to itself, [] when there is none."""
    ways: dict[str, list[str]] = {start: [start]}
    queue = [start]
    while queue:
        name = queue.pop(0)
        for other in services[name].depends_on:
            if other == start and name != start:
                return ways[name]
            if other in services and other not in ways:
                ways[other] = [*ways[name], other]
                queue.append(other)
    return []
