"""Wires adapters into a platform: the one place where real components are chosen.

Imports no adapter and no Dagster when loaded: `ops` and the definitions of a code location load this every time, and
the SDKs behind adapters take seconds.
"""

from __future__ import annotations

import logging
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.catalogue.project import project_root

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ops_pipeline.ports import ContainerRuntime, DataSource, Edge, FileTree, Vault
    from ops_pipeline.services.platform import Platform

CATALOGUE_VARIABLE = "OPS_CATALOGUE"
LABELS_VARIABLE = "OPS_EXTRA_LABELS"
"""`key=value,…` put on every container, network and volume, so that whoever shares an engine finds his own."""

DEFAULT_CATALOGUE = Path("deploy") / "services.yaml"
REPOSITORY = Path(__file__).parents[2]


def catalogue_path() -> Path:
    """The catalogue's file: OPS_CATALOGUE, else `deploy/services.yaml` here, else the one of this repository."""
    chosen = os.environ.get(CATALOGUE_VARIABLE)
    if chosen:
        return Path(chosen).absolute()
    here = Path.cwd() / DEFAULT_CATALOGUE
    return here if here.exists() else REPOSITORY / DEFAULT_CATALOGUE


def load_catalogue(path: Path) -> Catalogue:
    """Read the catalogue. Raise BadInput naming every problem with file, line and path."""
    from ops_pipeline.catalogue.load import load

    return load(path)


def build_platform(path: Path) -> Platform:
    """Given the catalogue's path, return the platform of real components. Raise BadInput.

    Nothing is asked yet: an engine that does not answer shows when it is used.
    """
    from ops_pipeline.adapters.alertmanager import Alertmanager, NoAlertmanager
    from ops_pipeline.adapters.clock import SystemClock
    from ops_pipeline.adapters.docker_builder import DockerBuilder
    from ops_pipeline.adapters.docker_runtime import DockerRuntime
    from ops_pipeline.adapters.haproxy_edge import HaproxyEdge
    from ops_pipeline.adapters.prometheus import Prometheus
    from ops_pipeline.adapters.registry import HttpRegistry
    from ops_pipeline.adapters.secrets import read_secret
    from ops_pipeline.adapters.stores import open_store
    from ops_pipeline.adapters.trivy import TrivyScanner
    from ops_pipeline.services.platform import Platform

    catalogue, root = load_catalogue(path), project_root(path)
    clock, alertmanager = SystemClock(), catalogue.alertmanager

    def secret(reference: str) -> str:
        return read_secret(reference, root)

    @cache
    def runtimes(environment: str) -> Sequence[ContainerRuntime]:
        return [
            DockerRuntime(host.docker, host.name, extra_labels()) for host in catalogue.environments[environment].hosts
        ]

    @cache
    def edges(environment: str) -> Sequence[Edge]:
        container = catalogue.edge_container(environment)
        return [
            HaproxyEdge(host.docker, host.name, environment, container)
            for host in catalogue.environments[environment].hosts
        ]

    @cache
    def vault() -> Vault:
        from ops_pipeline.adapters.vaults import open_vault

        return open_vault(catalogue.backups, root, secret)

    @cache
    def prune_vault() -> Vault:
        from ops_pipeline.adapters.vaults import open_prune_vault

        return open_prune_vault(catalogue.backups, root, secret)

    def vault_findings() -> Sequence[str]:
        from ops_pipeline.adapters.azure_account import check_credentials, compare_account

        return (*compare_account(catalogue.backups, secret), *check_credentials(catalogue.backups, secret))

    @cache
    def sources(environment: str) -> Sequence[DataSource | FileTree]:
        from ops_pipeline.adapters.data_sources import open_sources

        return open_sources(catalogue, environment, root, secret)

    def ping(url: str) -> None:
        from ops_pipeline.adapters import heartbeat

        heartbeat.ping(url)

    return Platform(
        root=root,
        catalogue=catalogue,
        store=open_store(catalogue.store, root, secret),
        clock=clock,
        registry=HttpRegistry(insecure=catalogue.registry.insecure),
        builder=DockerBuilder(),
        scanner=TrivyScanner(catalogue.scan, root, insecure=catalogue.registry.insecure),
        metrics=Prometheus(catalogue.prometheus.url, catalogue.prometheus.timeout_seconds),
        alerts=(
            Alertmanager(alertmanager.url, clock, alertmanager.timeout_seconds)
            if alertmanager.url
            else NoAlertmanager(logging.getLogger(__name__).warning)
        ),
        runtimes=runtimes,
        edges=edges,
        secret=secret,
        controller=f"{os.uname().nodename}:{os.getpid()}",
        vault=vault,
        sources=sources,
        prune_vault=prune_vault,
        vault_findings=vault_findings,
        ping=ping,
    )


def extra_labels() -> dict[str, str]:
    """Labels OPS_EXTRA_LABELS asks for; entries without a value are left out."""
    pairs = (entry.partition("=") for entry in os.environ.get(LABELS_VARIABLE, "").split(","))
    return {key.strip(): value.strip() for key, _, value in pairs if key.strip() and value.strip()}
