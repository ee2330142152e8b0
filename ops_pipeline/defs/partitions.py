"""Partitions: who runs what, where, and whose data are backed up. All follow the catalogue."""

from __future__ import annotations

from dataclasses import dataclass

import dagster as dg

from ops_pipeline.catalogue.model import Catalogue


@dataclass(frozen=True)
class Partitions:
    """Partitions of one catalogue.

    Only `release` may use a dimension called `environment`: the run queue limits runs by the tag
    `dagster/partition/environment`, which Dagster sets for exactly those runs.
    """

    service: dg.StaticPartitionsDefinition
    environment_service: dg.MultiPartitionsDefinition
    backup: dg.StaticPartitionsDefinition  # environments whose data are backed up; one dimension, so without a name


def partitions_of(catalogue: Catalogue) -> Partitions:
    """Given the catalogue, return its partitions in the catalogue's order."""
    service = dg.StaticPartitionsDefinition(list(catalogue.services))
    environments = catalogue.environments
    environment = dg.StaticPartitionsDefinition(list(environments))
    return Partitions(
        service,
        dg.MultiPartitionsDefinition({"environment": environment, "service": service}),
        dg.StaticPartitionsDefinition([name for name, one in environments.items() if one.backup is not None]),
    )


def environment_and_service(partition_key: str | dg.MultiPartitionKey) -> tuple[str, str]:
    """Given the key of a `release` partition, `prod|api`, return environment and service."""
    environment, service = str(partition_key).split("|", 1)
    return environment, service


def release_tags(environment: str, service: str) -> dict[str, str]:
    """Tags Dagster itself gives a run of one `release` partition; a launch from outside has to send them."""
    return {
        "dagster/partition": f"{environment}|{service}",
        "dagster/partition/environment": environment,
        "dagster/partition/service": service,
    }


def service_tags(service: str) -> dict[str, str]:
    """Tags of a run of one service partition."""
    return {"dagster/partition": service}
