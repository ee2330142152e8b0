"""Schedules: what is done without anybody asking. All times are UTC."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.defs.assets.backups import TAKE_OP
from ops_pipeline.defs.backup_config import BackupConfig, PruneConfig
from ops_pipeline.defs.jobs import Job

EVERY_SIX_HOURS = "0 */6 * * *"
DAILY = "40 3 * * *"
WEEKLY = "20 4 * * 0"  # Sunday, between two backups


def all_schedules(catalogue: Catalogue, jobs: Sequence[Job]) -> list[dg.ScheduleDefinition]:
    """`backup_every_six_hours`, `prune_backups_daily` and `restore_drill_weekly`.

    They run from the first start, and skip in words while no environment has backups.
    """
    by_name: dict[str, Any] = {job.name: job for job in jobs}
    kept = {name: one.backup for name, one in catalogue.environments.items() if one.backup is not None}
    scheduled = [name for name, settings in kept.items() if settings.scheduled]
    nobody = "no environment of the catalogue has a `backup`" if not kept else "`scheduled` is false everywhere"

    @dg.schedule(
        job=by_name["backup"],
        cron_schedule=EVERY_SIX_HOURS,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="A backup set of every environment, at 00:00, 06:00, 12:00 and 18:00 UTC.",
    )
    def backup_every_six_hours(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        if not scheduled:
            yield dg.SkipReason(nobody)
        for environment in scheduled:
            config = BackupConfig(reason=f"due at {_tick(context)}")
            yield dg.RunRequest(
                # A tick that is evaluated again, after a crash of the daemon, launches nothing twice.
                run_key=f"{environment} {_tick(context)}",
                partition_key=environment,
                run_config=dg.RunConfig(ops={TAKE_OP: config}),
            )

    @dg.schedule(
        job=by_name["prune_backups"],
        cron_schedule=DAILY,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Clears away the sets that are over their time, every day at 03:40 UTC.",
    )
    def prune_backups_daily(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        if not kept:
            yield dg.SkipReason(nobody)
            return
        yield dg.RunRequest(run_key=_tick(context), run_config=dg.RunConfig(ops={"prune_environments": PruneConfig()}))

    @dg.schedule(
        job=by_name["restore_drill"],
        cron_schedule=WEEKLY,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Restores the newest good set of every environment into a scratch place and compares, on Sundays "
        "at 04:20 UTC. Needs `backups.identity`.",
    )
    def restore_drill_weekly(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        if not scheduled:
            yield dg.SkipReason(nobody)
        elif catalogue.backups.identity is None:
            yield dg.SkipReason("`backups.identity` is not set: nothing here can open a backup, so drill it elsewhere")
        else:
            for environment in scheduled:
                yield dg.RunRequest(run_key=f"{environment} {_tick(context)}", partition_key=environment)

    return [backup_every_six_hours, prune_backups_daily, restore_drill_weekly]


def _tick(context: dg.ScheduleEvaluationContext) -> str:
    return f"{context.scheduled_execution_time:%Y-%m-%dT%H:%MZ}"
