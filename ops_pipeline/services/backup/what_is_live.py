"""Which images and commits served when a set was taken: code that fits the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ops_pipeline.errors import OpsError
from ops_pipeline.services import ledger
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried


@dataclass(frozen=True)
class Live:
    """`images`: service → digest. `commit`: of all that is live, each once, joined by ", "."""

    images: Mapping[str, str]
    commit: str
    warnings: tuple[str, ...] = ()


def what_is_live(platform: Platform, environment: str) -> Live:
    """What the ledger says is live. An unreadable ledger is a warning: the data matter more than their label."""
    images: dict[str, str] = {}
    commits: list[str] = []
    warnings: list[str] = []
    for service in platform.catalogue.services:
        try:
            found = retried(
                platform.clock,
                f"read what is live of {service}",
                lambda service=service: _live(platform, environment, service),  # type: ignore[misc]
            )
        except OpsError as error:
            warnings.append(f"what is live of {service} is not recorded: {error.message}")
            continue
        if found is not None:
            images[service] = found[0]
            commits.append(found[1])
    return Live(images, ", ".join(dict.fromkeys(commit for commit in commits if commit)), tuple(warnings))


def _live(platform: Platform, environment: str, service: str) -> tuple[str, str] | None:
    current = ledger.read_current(platform.store, environment, service)
    if current is None:
        return None
    return current.digest, ledger.read_release(platform.store, environment, service, current.timestamp).commit
