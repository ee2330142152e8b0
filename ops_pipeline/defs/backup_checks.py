"""Checks about backups: `integrity` and `fresh` on `backup`, `restored_equals_source` on `restore_drill`."""

import dagster as dg

from ops_pipeline.defs import backup_metadata
from ops_pipeline.defs.failures import in_plain_words
from ops_pipeline.defs.partitions import Partitions
from ops_pipeline.defs.platform import PlatformResource
from ops_pipeline.defs.progress import GroupedLines


def backup_checks(partitions: Partitions) -> list[dg.AssetChecksDefinition]:
    """`integrity`, `fresh` and `restored_equals_source`."""

    @dg.asset_check(
        asset="backup",
        partitions_def=partitions.backup,
        description="What is stored is what was stored: the structure of every set, and a due share of all bytes read "
        "in full, so that everything is read once in `read_all_days`. Needs no key.",
    )
    def integrity(context: dg.AssetCheckExecutionContext, ops_platform: PlatformResource) -> dg.AssetCheckResult:
        from ops_pipeline.services.backup.integrity import check_set
        from ops_pipeline.services.backup.sets import list_sets

        environment = context.partition_key
        with in_plain_words(), GroupedLines(context) as progress:
            platform = ops_platform.platform()
            listing = list_sets(platform, environment)
            if not listing.sets and not listing.damaged:
                return dg.AssetCheckResult(passed=False, description=f"{environment} has no backup set")
            if listing.sets:
                check_set(platform, environment, listing.sets[0].id, progress=progress)
            listing = list_sets(platform, environment)
            problems, weak = backup_metadata.damage(listing), platform.vault_findings()
            return dg.AssetCheckResult(
                passed=not problems and not weak,
                # Weak: what is stored is right, but the account protects it less than it should.
                severity=dg.AssetCheckSeverity.ERROR if problems else dg.AssetCheckSeverity.WARN,
                description=next(iter([*problems, *weak]), f"nothing wrong with {len(listing.sets)} sets"),
                metadata=backup_metadata.of_checks(listing, problems, weak),
            )

    @dg.asset_check(
        asset="backup",
        partitions_def=partitions.backup,
        description="The newest good set is younger than the catalogue's `fresh_hours`.",
    )
    def fresh(context: dg.AssetCheckExecutionContext, ops_platform: PlatformResource) -> dg.AssetCheckResult:
        from ops_pipeline.services.backup.freshness import freshness

        with in_plain_words():
            found = freshness(ops_platform.platform(), context.partition_key)
            age = {} if found.age_hours is None else {"age_hours": round(found.age_hours, 3)}
            return dg.AssetCheckResult(passed=found.fresh, description=found.words, metadata=age)

    @dg.asset_check(
        asset="restore_drill",
        partitions_def=partitions.backup,
        # A drill that did not pass is a run that failed, for everybody who looks at runs.
        blocking=True,
        description="What the newest drill restored equals what was backed up.",
    )
    def restored_equals_source(
        context: dg.AssetCheckExecutionContext, ops_platform: PlatformResource
    ) -> dg.AssetCheckResult:
        from ops_pipeline.services.backup.sets import backup_sets

        environment = context.partition_key
        with in_plain_words():
            sets = backup_sets(ops_platform.platform(), environment)
            drills = [(drill, one.id) for one in sets for drill in one.state.drills]
            if not drills:
                return dg.AssetCheckResult(passed=False, description=f"no set of {environment} was ever drilled")
            newest, set_id = max(drills, key=lambda found: found[0].at)
            good = f"set {set_id}: {newest.compared} comparisons, restored in {newest.seconds:.1f} s"
            return dg.AssetCheckResult(
                passed=not newest.problems,
                description="; ".join(newest.problems[:5]) or good,
                metadata=backup_metadata.of_drill(set_id, newest),
            )

    return [integrity, fresh, restored_equals_source]
