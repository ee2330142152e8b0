"""`backup`: one atomic set of all data of an environment. `restore_drill`: the proof that a set can be restored."""

from collections.abc import Mapping

import dagster as dg

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.core.backup import alerts
from ops_pipeline.defs import backup_metadata, metadata
from ops_pipeline.defs.attribution import user_of
from ops_pipeline.defs.backup_alerts import alerting
from ops_pipeline.defs.backup_config import BackupConfig, DrillConfig, check_backup, check_drill
from ops_pipeline.defs.failures import in_plain_words
from ops_pipeline.defs.partitions import Partitions
from ops_pipeline.defs.platform import PlatformResource
from ops_pipeline.defs.progress import GroupedLines

TAKE_OP = "take_set"
DRILL_OP = "drill_set"
SCHEDULE_TAG = "dagster/schedule_name"
MOST_KINDS = 3
"""More of them Dagster refuses."""


def backup_asset(catalogue: Catalogue, partitions: Partitions) -> dg.AssetsDefinition:
    """The asset `backup`, one partition per environment that has a `backup` section."""

    spec = dg.AssetSpec(
        "backup",
        partitions_def=partitions.backup,
        group_name="protect",
        kinds=_kinds(catalogue),
        owners=metadata.owners(catalogue),
        description=(
            "All data of an environment as one atomic set: databases dumped by their own tools, files by content, "
            "compressed, sealed for the recipients, hashed, and listed only when everything of it is stored. "
            "Materializing a partition takes a set now."
        ),
    )

    # The job is called `backup` too, and two nodes cannot have one name.
    @dg.multi_asset(name=TAKE_OP, specs=[spec])
    def backup(
        context: dg.AssetExecutionContext, config: BackupConfig, ops_platform: PlatformResource
    ) -> dg.MaterializeResult[None]:
        from ops_pipeline.core.backup.records import Trigger
        from ops_pipeline.services.backup.sets import find_set
        from ops_pipeline.services.backup.take import take_backup

        environment, due = context.partition_key, is_scheduled(context.run.tags)
        with in_plain_words(), GroupedLines(context) as progress:
            platform = ops_platform.platform()
            check_backup(config, platform.catalogue, environment)
            # A set that was taken ends the alert itself.
            with alerting(platform, alerts.failed, environment, progress, fire=due, settle_after=False):
                manifest = take_backup(
                    platform,
                    environment,
                    trigger=Trigger.SCHEDULE if due else Trigger.MANUAL,
                    reason=config.reason,
                    run_id=context.run.run_id,
                    taken_by=user_of(context.run.tags),
                    sources=config.sources,
                    progress=progress,
                )
            taken = find_set(platform, environment, manifest.id)
            shown = backup_metadata.of_set(platform.catalogue, manifest, taken.manifest_sha256, taken.state)
            return dg.MaterializeResult(metadata=shown)

    return backup


def restore_drill_asset(catalogue: Catalogue, partitions: Partitions) -> dg.AssetsDefinition:
    """The asset `restore_drill`, one partition per environment that has a `backup` section."""

    spec = dg.AssetSpec(
        "restore_drill",
        deps=["backup"],
        partitions_def=partitions.backup,
        group_name="protect",
        kinds=_kinds(catalogue),
        owners=metadata.owners(catalogue),
        description=(
            "A set restored into throw-away servers of the version it was taken from, and compared with what the dump "
            "itself saw: counts, indexes, constraints, sampled content, the application's own questions. Measures how "
            "long a recovery takes. Touches nothing that is live."
        ),
    )

    @dg.multi_asset(name=DRILL_OP, specs=[spec])
    def restore_drill(
        context: dg.AssetExecutionContext, config: DrillConfig, ops_platform: PlatformResource
    ) -> dg.MaterializeResult[None]:
        from ops_pipeline.services.backup.drill import drill
        from ops_pipeline.services.backup.sets import backup_sets

        environment = context.partition_key
        with in_plain_words(), GroupedLines(context) as progress:
            platform = ops_platform.platform()
            check_drill(config)
            # What a drill finds it tells and ends itself; that there was none nobody else would tell.
            fire = is_scheduled(context.run.tags)
            with alerting(platform, alerts.drill_failed, environment, progress, fire=fire, settle_after=False):
                result = drill(platform, environment, set_id=config.set, run_id=context.run.run_id, progress=progress)
            sets = backup_sets(platform, environment)
            drilled = next((one.id for one in sets if result in one.state.drills), config.set)
            return dg.MaterializeResult(metadata=backup_metadata.of_drill(drilled, result))

    return restore_drill


def is_scheduled(tags: Mapping[str, str]) -> bool:
    """Whether a run was launched by a schedule: such runs carry its name."""
    return SCHEDULE_TAG in tags


def _kinds(catalogue: Catalogue) -> set[str]:
    """Icons: where sets go, then what they hold."""
    found = ["azure"] if catalogue.backups.store.azure is not None else []
    for environment in catalogue.environments.values():
        sources = environment.backup.sources.values() if environment.backup else ()
        found += [{"volume": "docker", "directory": "docker"}.get(source.kind, source.kind) for source in sources]
    return set(list(dict.fromkeys(found))[:MOST_KINDS]) or {"docker"}
