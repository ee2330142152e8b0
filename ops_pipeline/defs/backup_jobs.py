"""Jobs about backups: `backup`, `restore_drill`, `restore` and `prune_backups`, with their configuration filled in."""

from typing import TYPE_CHECKING, Any

import dagster as dg

from ops_pipeline.core.backup import alerts
from ops_pipeline.defs import backup_metadata
from ops_pipeline.defs.assets.backups import DRILL_OP, TAKE_OP
from ops_pipeline.defs.attribution import user_of
from ops_pipeline.defs.backup_alerts import CALM, alerting
from ops_pipeline.defs.backup_config import (
    BackupConfig,
    DrillConfig,
    PruneConfig,
    RestoreConfig,
    check_restore,
    chosen_environments,
)
from ops_pipeline.defs.failures import in_plain_words
from ops_pipeline.defs.partitions import Partitions
from ops_pipeline.defs.platform import PlatformResource
from ops_pipeline.defs.progress import GroupedLines
from ops_pipeline.errors import LeaseHeld, OpsError, Permanent, PolicyRefused

if TYPE_CHECKING:
    from ops_pipeline.ports import Progress
    from ops_pipeline.services.backup.prune import PruneOutcome
    from ops_pipeline.services.platform import Platform


def backup_jobs(partitions: Partitions) -> list[Any]:
    """`backup`, `restore_drill`, `restore` and `prune_backups`."""
    return [
        dg.define_asset_job(
            "backup",
            selection=dg.AssetSelection.assets("backup"),
            config=dg.RunConfig(ops={TAKE_OP: BackupConfig()}),
            executor_def=dg.in_process_executor,
            description="Back up all data of an environment now, as one atomic set, and look at what is stored.",
        ),
        dg.define_asset_job(
            "restore_drill",
            selection=dg.AssetSelection.assets("restore_drill"),
            config=dg.RunConfig(ops={DRILL_OP: DrillConfig()}),
            executor_def=dg.in_process_executor,
            description="Restore a set into a scratch place and compare it with what was backed up. Nothing live is "
            "touched.",
        ),
        _restore_job(partitions),
        prune_backups,
    ]


@dg.op(name="restore_data", description="Restore beside, check, then swap; what was live is kept as a hold.")
def restore_data(context: dg.OpExecutionContext, config: RestoreConfig, ops_platform: PlatformResource) -> None:
    """Say what a restore would do, or do it; undo, release, resume or abandon an earlier one."""
    environment = context.partition_key
    with in_plain_words(), GroupedLines(context) as progress:
        platform = ops_platform.platform()
        check_restore(config, platform.catalogue, environment)
        if config.action == "restore":
            shown = _restore(platform, environment, config, context, progress)
        else:
            shown = _finish(platform, environment, config, context, progress)
        context.add_output_metadata(shown)


def _restore_job(partitions: Partitions) -> Any:
    @dg.job(
        partitions_def=partitions.backup,
        config=dg.RunConfig(ops={"restore_data": RestoreConfig()}),
        executor_def=dg.in_process_executor,
        # Somebody is waiting for this one.
        tags={"dagster/priority": "10"},
        description="Restore an environment's data, by date or by set. As it is filled in it only says what would "
        "happen: set `dry_run` to false and `confirm` to the environment's name to do it.",
    )
    def restore() -> None:
        """The job `restore`."""
        restore_data()

    return restore


def _restore(
    platform: "Platform",
    environment: str,
    config: RestoreConfig,
    context: dg.OpExecutionContext,
    progress: "Progress",
) -> backup_metadata.Metadata:
    """Plan, and unless that is all that is wanted, restore: beside, compare, swap."""
    from ops_pipeline.services.backup.restore import plan_restore
    from ops_pipeline.services.backup.restore import restore as restore_set

    plan = plan_restore(
        platform,
        environment,
        date=config.date or None,
        set_id=config.set,
        sources=config.sources,
        into=config.into,
        only=config.only,
    )
    for line in plan.lines:
        progress(line)
    shown = backup_metadata.of_restore_plan(plan)
    if config.dry_run:
        progress("nothing was changed: this was a dry run")
        return shown
    outcome = restore_set(
        platform,
        plan,
        # Whoever launched it has repeated the environment's name.
        confirm=lambda words: True,
        run_id=context.run.run_id,
        by=user_of(context.run.tags),
        progress=progress,
    )
    progress(outcome.words)
    return backup_metadata.of_restore(outcome) | shown


def _finish(
    platform: "Platform",
    environment: str,
    config: RestoreConfig,
    context: dg.OpExecutionContext,
    progress: "Progress",
) -> backup_metadata.Metadata:
    """Undo, release, resume or abandon an earlier restore, or only say which one it would be."""
    from ops_pipeline.services.backup import restore as service

    if config.dry_run:
        words = [one.words for one in service.restore_holds(platform, environment) if one.token == config.token]
        unfinished = service.unfinished_restore(platform, environment)
        if unfinished is not None and config.token in ("", unfinished.token):
            words.append(unfinished.words)
        said = "; ".join(words) or f"{environment} has no such restore"
        progress(f"{config.action}: {said}; nothing was changed: this was a dry run")
        return {"what": said}
    by, run_id = user_of(context.run.tags), context.run.run_id
    match config.action:
        case "undo":
            outcome = service.undo_restore(platform, environment, config.token, progress=progress, run_id=run_id, by=by)
        case "release":
            outcome = service.release_restore_hold(
                platform, environment, config.token, progress=progress, run_id=run_id, by=by
            )
        case "resume":
            outcome = service.resume_restore(
                platform,
                environment,
                config.token,
                confirm=lambda words: True,
                progress=progress,
                run_id=run_id,
                by=by,
            )
        case _:
            outcome = service.abandon_restore(
                platform, environment, config.token, progress=progress, run_id=run_id, by=by
            )
    progress(outcome.words)
    return backup_metadata.of_restore(outcome)


@dg.op(name="prune_environments", description="Clear away the sets that are over their time, each with its reason.")
def prune_environments(context: dg.OpExecutionContext, config: PruneConfig, ops_platform: PlatformResource) -> None:
    """Prune every chosen environment; one that somebody works on is left to them unless it was named."""
    with in_plain_words(), GroupedLines(context) as progress:
        platform = ops_platform.platform()
        outcomes = []
        left: list[str] = []
        for environment in chosen_environments(config, platform.catalogue):
            try:
                with alerting(
                    platform,
                    alerts.prune_failed,
                    environment,
                    progress,
                    fire=not config.dry_run,
                    settle_after=not config.dry_run,
                    calm=(*CALM, PolicyRefused),
                ) as told:
                    outcomes.append(_prune(platform, environment, config, context, progress))
                    told.found(outcomes[-1].problems)
            except (LeaseHeld, PolicyRefused) as busy:
                if config.environment:
                    raise
                progress(f"{environment}: left alone, {busy.message}")
            except OpsError as error:
                # The others are cleared away all the same.
                left.append(f"{environment}: {error.message}")
        context.add_output_metadata(backup_metadata.of_prune(outcomes))
        left += [f"{one.environment}: {problem}" for one in outcomes for problem in one.problems]
        if left:
            raise Permanent("could not clear away:\n" + "\n".join(left))


def _prune(
    platform: "Platform", environment: str, config: PruneConfig, context: dg.OpExecutionContext, progress: "Progress"
) -> "PruneOutcome":
    from ops_pipeline.services.backup.prune import PruneOutcome, prune
    from ops_pipeline.services.backup.pruning_plan import plan_prune

    if config.dry_run:
        plan = plan_prune(platform, environment)
        progress(f"{environment}: {plan.words}; nothing was changed, this was a dry run")
        return PruneOutcome(environment, plan)
    outcome = prune(platform, environment, progress=progress, run_id=context.run.run_id, by=user_of(context.run.tags))
    progress(outcome.words)
    return outcome


@dg.job(
    config=dg.RunConfig(ops={"prune_environments": PruneConfig()}),
    executor_def=dg.in_process_executor,
    description="Clear away backup sets that are over their time, and files no set needs any more.",
)
def prune_backups() -> None:
    """The job `prune_backups`."""
    prune_environments()
