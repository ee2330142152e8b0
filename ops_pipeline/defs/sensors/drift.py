"""`drift`: what waits for a reconcile, and where the world differs from the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.defs.jobs import reconcile
from ops_pipeline.defs.platform import PlatformResource
from ops_pipeline.defs.run_config import ReconcileConfig

DRIFT_SECONDS = 30
"""A standby is retired, and what a killed run left is finished or undone, at most so long after its time."""


def drift_sensor(catalogue: Catalogue) -> Any:
    """`drift`: launches `reconcile` for what waits for it, and says where hosts and edges differ from the ledger.

    Every tick reads all journals and looks at the hosts and edges of one service in turn, so a tick costs the same
    however many services there are. A difference is reported, not repaired: somebody may have meant it.
    """
    targets = [(environment, service) for environment in catalogue.environments for service in catalogue.services]

    @dg.sensor(
        name="drift",
        job=reconcile,
        minimum_interval_seconds=DRIFT_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Retires a standby that is over its time, has reconcile finish or undo what a killed run left, "
        "and says in its ticks where hosts and edges differ from the ledger.",
    )
    def drift(
        context: dg.SensorEvaluationContext, ops_platform: PlatformResource
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        from ops_pipeline.services.attention import attention
        from ops_pipeline.services.attention import drift as differences

        platform = ops_platform.platform()
        waiting = [found for target in targets if (found := attention(platform, *target)) is not None]
        for found in waiting:
            config = ReconcileConfig(environment=found.environment, service=found.service)
            yield dg.RunRequest(
                run_key=found.key,
                run_config=dg.RunConfig(ops={"reconcile_targets": config}),
                tags={"because": found.reason},
            )
        if waiting:
            return
        turn = int(context.cursor or 0) % len(targets)
        context.update_cursor(str(turn + 1))
        environment, service = targets[turn]
        found_here = differences(platform, environment, service)
        if found_here:
            context.log.warning(f"{environment}/{service}: " + "; ".join(found_here))
        said = "; ".join(found_here) or "as the ledger says"
        yield dg.SkipReason(f"nothing waits for a reconcile; looked at {environment}/{service}: {said}")

    return drift
