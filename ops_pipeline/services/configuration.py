"""Configuration C of a release: the catalogue's service with what differs in an environment, without secret values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.core.release import ServiceConfiguration
from ops_pipeline.errors import BadInput, Problem
from ops_pipeline.services.platform import Platform


def configuration_hash(configuration: ServiceConfiguration) -> str:
    """sha256 of the canonical JSON; equal hash = containers would run alike. Secret references count, values do not."""
    text = json.dumps(asdict(configuration), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def changed_keys(old: ServiceConfiguration, new: ServiceConfiguration) -> tuple[str, ...]:
    """What differs between two configurations, one line each: `replicas: 1 -> 2`, `environment.LOG_LEVEL: …`."""
    before, after = _flat(asdict(old)), _flat(asdict(new))
    keys = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
    return tuple(f"{key}: {before.get(key, 'not set')} -> {after.get(key, 'not set')}" for key in keys)


def read_secrets(platform: Platform, references: Mapping[str, str]) -> dict[str, str]:
    """Values by name. Raise BadInput naming every reference that cannot be read, never a value."""
    values: dict[str, str] = {}
    problems: list[Problem] = []
    for name, reference in sorted(references.items()):
        try:
            values[name] = platform.secret(reference)
        except BadInput as error:
            problems += [Problem(f"secret {name} ({reference})", problem.text) for problem in error.problems]
    if problems:
        raise BadInput(problems, subject="secrets")
    return values


def check_names(catalogue: Catalogue, environment: str, service: str) -> None:
    """Raise BadInput unless the catalogue has this environment and this service."""
    problems = []
    if environment not in catalogue.environments:
        known = ", ".join(catalogue.environments)
        problems.append(Problem("environment", f"there is no {environment!r}; the catalogue has {known}"))
    if service not in catalogue.services:
        known = ", ".join(catalogue.services)
        problems.append(Problem("service", f"there is no {service!r}; the catalogue has {known}"))
    if problems:
        raise BadInput(problems)


def _flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
