"""Everything a use case works with, bundled once by `defs/resources.py` (real) or by the tests (fakes)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.ports import (
    Alerts,
    BlobStore,
    Clock,
    ContainerRuntime,
    Edge,
    ImageBuilder,
    MetricsSource,
    Registry,
    Scanner,
)


@dataclass(frozen=True)
class Platform:
    """The ports of one project.

    `runtimes(environment)` and `edges(environment)` give one entry per host, in the catalogue's order.
    `secret(reference)` reads `env:NAME` or `file:PATH`; raises BadInput naming the reference, never the value.
    `controller` tells this process from all others ("host:pid").
    """

    root: Path
    catalogue: Catalogue
    store: BlobStore
    clock: Clock
    registry: Registry
    builder: ImageBuilder
    scanner: Scanner
    metrics: MetricsSource
    alerts: Alerts
    runtimes: Callable[[str], Sequence[ContainerRuntime]]
    edges: Callable[[str], Sequence[Edge]]
    secret: Callable[[str], str]
    controller: str
