"""Everything a use case works with, bundled once by `defs/resources.py` (real) or by the tests (fakes)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.errors import Permanent
from ops_pipeline.ports import (
    Alerts,
    BlobStore,
    Clock,
    ContainerRuntime,
    DataSource,
    Edge,
    FileTree,
    ImageBuilder,
    MetricsSource,
    Registry,
    Scanner,
    Vault,
)


def _no_vault() -> Vault:
    raise Permanent("this control plane was opened without backups")


def _no_ping(url: str) -> None:
    raise Permanent("this control plane was opened without outside signs of life")


def _no_findings() -> Sequence[str]:
    return ()


def _no_sources(environment: str) -> Sequence[DataSource | FileTree]:
    return ()


@dataclass(frozen=True)
class Platform:
    """The ports of one project.

    `runtimes(environment)` and `edges(environment)` give one entry per host, in the catalogue's order.
    `secret(reference)` reads `env:NAME` or `file:PATH`; raises BadInput naming the reference, never the value.
    `controller` tells this process from all others ("host:pid").
    `vault()` opens where backups are kept; raises BadInput, Permanent. `prune_vault()` is the same vault with
    credentials that may delete; None = `vault` may. `sources(environment)` gives one entry per data source of the
    catalogue, databases first, files second. `ping(url)` sends a sign of life to an outside service, within seconds;
    raises Transient, Permanent, and never says the address, which is a secret. `vault_findings()` says where the
    account behind the vault is weaker than declared, or a credential may do too much; takes seconds, raises nothing.
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
    vault: Callable[[], Vault] = field(default=_no_vault)
    sources: Callable[[str], Sequence[DataSource | FileTree]] = field(default=_no_sources)
    ping: Callable[[str], None] = field(default=_no_ping)
    prune_vault: Callable[[], Vault] | None = None
    vault_findings: Callable[[], Sequence[str]] = field(default=_no_findings)
