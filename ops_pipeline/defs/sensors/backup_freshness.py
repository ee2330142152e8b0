"""`backup_freshness`: says at every tick how old the backups are, and alerts as long as they are too old."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.core.alert import Alert
from ops_pipeline.core.backup import alerts
from ops_pipeline.defs.platform import PlatformResource
from ops_pipeline.errors import OpsError

if TYPE_CHECKING:
    from ops_pipeline.ports import Progress
    from ops_pipeline.services.platform import Platform

INTERVAL_SECONDS = 60
"""Alertmanager forgets after ten minutes what is not repeated."""

Standing = set[tuple[str, str]]
"""(environment, kind) of the alerts that stand; kept in the cursor, so that a restarted daemon ends them too."""

ALERTS: Mapping[str, Callable[[str, str], Alert]] = {"stale": alerts.stale, "unwatched": alerts.unwatched}


def backup_freshness_sensor(catalogue: Catalogue) -> Any:
    """`backup_freshness`: launches nothing; while all is well a tick reads three small objects per environment."""
    kept = [name for name, one in catalogue.environments.items() if one.backup is not None]

    @dg.sensor(
        name="backup_freshness",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Says how old the newest good backup of each environment is, and alerts as long as it is too old, "
        "or as long as nobody can tell.",
    )
    def backup_freshness(context: dg.SensorEvaluationContext, ops_platform: PlatformResource) -> dg.SkipReason:
        if not kept and not context.cursor:
            return dg.SkipReason("no environment of the catalogue has a `backup`")
        before = _standing(context.cursor)
        words, after = _look(ops_platform.platform(), kept, before, context.log.warning)
        context.update_cursor(json.dumps(sorted(after)) if after else "")
        return dg.SkipReason("; ".join(words) or "no environment of the catalogue has a `backup`")

    return backup_freshness


def _look(
    platform: Platform, environments: Sequence[str], before: Standing, progress: Progress
) -> tuple[list[str], Standing]:
    """Given whose alerts stand, return a sentence about each environment and whose alerts stand now."""
    from ops_pipeline.services.alerting import settle, tell
    from ops_pipeline.services.backup.freshness import freshness

    words: list[str] = []
    after: Standing = set()
    for environment in environments:
        try:
            found = freshness(platform, environment)
        except OpsError as error:
            kind, said, wrong = "unwatched", f"how old its backups are is unknown: {error.message}", True
        else:
            kind, said, wrong = "stale", found.words, not found.fresh
        words.append(f"{environment}: {said}")
        if wrong:
            after.add((environment, kind))
            progress(words[-1])
            tell(platform, ALERTS[kind](environment, said), progress)
    for environment, kind in sorted(before - after):
        # An alert that could not be ended is tried again at the next tick.
        if not settle(platform, ALERTS[kind](environment, "over"), progress):
            after.add((environment, kind))
    return words, after


def _standing(cursor: str | None) -> Standing:
    try:
        pairs = json.loads(cursor or "[]")
        return {(environment, kind) for environment, kind in pairs if kind in ALERTS}
    except (ValueError, TypeError):
        return set()
