"""Definitions of one catalogue."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.defs.assets.backups import backup_asset, restore_drill_asset
from ops_pipeline.defs.assets.images import image_asset
from ops_pipeline.defs.assets.releases import release_asset
from ops_pipeline.defs.assets.scans import sbom_asset, scan_report_asset
from ops_pipeline.defs.backup_checks import backup_checks
from ops_pipeline.defs.backup_jobs import backup_jobs
from ops_pipeline.defs.checks import all_checks
from ops_pipeline.defs.jobs import all_jobs
from ops_pipeline.defs.partitions import partitions_of
from ops_pipeline.defs.platform import PlatformResource
from ops_pipeline.defs.schedules import all_schedules
from ops_pipeline.defs.sensors.backup_freshness import backup_freshness_sensor
from ops_pipeline.defs.sensors.drift import drift_sensor
from ops_pipeline.defs.sensors.metric_rollback import metric_rollback_sensor

ROOT = Path(__file__).parents[2]


def build_definitions(catalogue: Catalogue, ops_platform: PlatformResource) -> dg.Definitions:
    """Given a catalogue and the resource that opens its platform, return assets, checks, jobs, schedules, sensors."""
    partitions = partitions_of(catalogue)
    jobs = [*all_jobs(), *backup_jobs(partitions)]
    rollback = next(job for job in jobs if job.name == "rollback")
    with _accepted_previews():
        assets = [
            image_asset(catalogue, partitions),
            sbom_asset(catalogue, partitions),
            scan_report_asset(catalogue, partitions),
            release_asset(catalogue, partitions),
            backup_asset(catalogue, partitions),
            restore_drill_asset(catalogue, partitions),
        ]
        return dg.Definitions(
            assets=with_code_links(assets, catalogue.source_url),
            asset_checks=[*all_checks(catalogue, partitions), *backup_checks(partitions)],
            jobs=jobs,
            schedules=all_schedules(catalogue, jobs),
            sensors=[
                drift_sensor(catalogue),
                metric_rollback_sensor(rollback),
                backup_freshness_sensor(catalogue),
            ],
            resources={"ops_platform": ops_platform},
            executor=dg.in_process_executor,
        )


@contextmanager
def _accepted_previews() -> Iterator[None]:
    """Silence the warnings about the unfinished features used here; dagster is pinned exactly, and tests cover them.

    Partitioned checks are used all the same: unpartitioned ones would overwrite each other's result across services.
    """
    features = (
        "Class `MultiToSingleDimensionPartitionMapping`",
        "Function `(with_source_code_references|link_code_references_to_git)`",
        "Class `(LocalFile|Url)CodeReference`",
        "Class `(CodeReferencesMetadataValue|AnchorBasedFilePathMapping)`",
        "Specifying a partitions_def on an AssetCheckSpec",
    )
    with warnings.catch_warnings():
        for feature in features:
            warnings.filterwarnings("ignore", message=feature)
        yield


def with_code_links(assets: Sequence[dg.AssetsDefinition], source_url: str) -> Sequence[Any]:
    """Link each asset to its code: to the repository when the catalogue knows it, else to the file."""
    linked = dg.with_source_code_references(assets)
    if "github.com" in source_url or "gitlab.com" in source_url:
        return dg.link_code_references_to_git(
            linked,
            git_url=source_url.removesuffix(".git"),
            git_branch="main",
            file_path_mapping=dg.AnchorBasedFilePathMapping(local_file_anchor=ROOT, file_anchor_path_in_repository=""),
        )
    return linked
