"""`metric_rollback`: judges what is live on what its users get, and rolls back what is bad within seconds."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import dagster as dg

from ops_pipeline.defs import evidence
from ops_pipeline.defs.failures import in_plain_words
from ops_pipeline.defs.jobs import Job
from ops_pipeline.defs.platform import PlatformResource
from ops_pipeline.defs.resources import catalogue_path
from ops_pipeline.defs.run_config import ReleaseConfig

if TYPE_CHECKING:
    from ops_pipeline.ports import Progress
    from ops_pipeline.services.judging import Judging
    from ops_pipeline.services.platform import Platform
    from ops_pipeline.services.watch import Handled, Memory

INTERVAL_SECONDS = 5
"""Dagster's own loop; nothing is gained by less."""

LOOK_SECONDS = 1.0
EVALUATION_SECONDS = 20.0
"""While anything is watched one evaluation looks about once a second for so long. Dagster cuts it off at 60 s."""

LONGEST_ROUND_SECONDS = 15.0
"""No further look begins in an evaluation in which one took longer: acting may have to wait for slow hosts."""

SHOWN = 20
KEYS_KEPT = 200


@dataclass
class Desk:
    """What the code server's process keeps over its ticks: only a cache, made anew it replays to the same verdicts."""

    stamp: tuple[str, int]
    platform: Platform
    judging: Judging
    memory: Memory


_DESKS: WeakKeyDictionary[type[PlatformResource], Desk] = WeakKeyDictionary()
_AT_WORK = threading.Lock()


def metric_rollback_sensor(rollback: Job) -> Any:
    """`metric_rollback`, which requests runs of `rollback` for what it did or could not do itself.

    One tick judges every watched release. A bad one is returned to its warm standby in the tick itself, and a run of
    `rollback` shows it; where containers have to be started anew, that run does it.
    """

    @dg.sensor(
        name="metric_rollback",
        job=rollback,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Judges every release that went live not long ago on what its users get. What is bad goes back to "
        "its warm standby within seconds, by this sensor itself; a run of `rollback` then shows why.",
    )
    def metric_rollback(context: dg.SensorEvaluationContext, ops_platform: PlatformResource) -> dg.SensorResult:
        if not _AT_WORK.acquire(blocking=False):
            return dg.SensorResult(skip_reason="the tick before this one is still at work")
        try:
            with in_plain_words():
                desk = _desk(ops_platform)
                delivered = _delivered(context.cursor)
                handled = _watch(desk, delivered, context.log.info)
                return _result(desk, handled, delivered)
        finally:
            _AT_WORK.release()

    return metric_rollback


def _desk(resource: PlatformResource) -> Desk:
    """The desk for the catalogue as it stands: a changed file gives a new one."""
    from ops_pipeline.services.judging import Judging
    from ops_pipeline.services.watch import Memory

    stamp = _stamp(catalogue_path())
    desk = _DESKS.get(type(resource))
    if desk is None or desk.stamp != stamp:
        platform = resource.platform()
        desk = Desk(stamp, platform, Judging(platform), Memory())
        _DESKS[type(resource)] = desk
    return desk


def _stamp(path: Path) -> tuple[str, int]:
    try:
        return str(path), path.stat().st_mtime_ns
    except OSError:
        return str(path), 0


def _watch(desk: Desk, delivered: Sequence[str], progress: Progress) -> tuple[Handled, ...]:
    """Look until something was done, or for as long as one evaluation may; at once when nothing is watched."""
    from ops_pipeline.services.watch import Act, tick

    clock = desk.platform.clock
    begun = clock.monotonic()
    while True:
        started = clock.monotonic()
        handled = tick(desk.platform, desk.judging, delivered=delivered, memory=desk.memory, progress=progress)
        took = clock.monotonic() - started
        done = any(one.wants_run or one.act in (Act.TURN_OFF, Act.END) for one in handled)
        watched = any(one.act is not Act.END for one in handled)
        late = clock.monotonic() - begun + max(LOOK_SECONDS, took) > EVALUATION_SECONDS
        if done or not watched or late or took > LONGEST_ROUND_SECONDS:
            return handled
        clock.sleep(max(0.0, LOOK_SECONDS - took))


def _result(desk: Desk, handled: Sequence[Handled], delivered: Sequence[str]) -> dg.SensorResult:
    requests = [_request(one) for one in handled if one.wants_run]
    fresh = [request.run_key for request in requests if request.run_key]
    keys = [*(key for key in delivered if key not in fresh), *fresh][-KEYS_KEPT:]
    return dg.SensorResult(
        run_requests=requests or None,
        skip_reason=None if requests else _words(handled),
        cursor=json.dumps(keys) if keys else None,
        asset_events=[*_check_results(desk, handled)] or None,
    )


def _request(one: Handled) -> dg.RunRequest:
    config = ReleaseConfig(
        action="rollback",
        made=one.made or 0,
        judged=0 if one.made else one.release,
        reason="",
    )
    return dg.RunRequest(
        run_key=one.run_key,
        partition_key=str(dg.MultiPartitionKey({"environment": one.environment, "service": one.service})),
        run_config=dg.RunConfig(ops={"release": config}),
        tags={"because": one.why[:200]},
    )


def _check_results(desk: Desk, handled: Sequence[Handled]) -> list[dg.AssetCheckEvaluation]:
    """Results of `metrics_verdict` for watches that have ended: nothing else would tell them to the UI."""
    from ops_pipeline.errors import OpsError
    from ops_pipeline.services.verdict_story import story
    from ops_pipeline.services.watch import Act

    found = []
    for one in handled:
        if one.act is Act.END and one.verdict is not None:
            try:
                told = story(desk.platform, one.environment, one.service)
            except OpsError:
                continue  # its next tick or run tells what is wrong with the ledger
            found.append(evidence.check_evaluation(one.environment, one.service, told))
    return found


def _words(handled: Sequence[Handled]) -> str:
    """What there is to say about a tick that requested nothing: each release with its evidence, the worst first."""
    from ops_pipeline.core.watch_decision import Act, numbers

    if not handled:
        return "nothing is watched"
    calm = (Act.KEEP, Act.END)
    said = []
    for one in sorted(handled, key=lambda one: one.act in calm):
        name = one.label if one.service else "a record"
        if one.act is Act.KEEP and one.verdict is not None:
            said.append(f"{name}: {numbers(one.verdict)} ({one.verdict.outcome.value})")
        else:
            said.append(f"{name}: {one.act.value}, {one.why}")
    more = f"; and {len(said) - SHOWN} more" if len(said) > SHOWN else ""
    return "; ".join(said[:SHOWN]) + more


def _delivered(cursor: str | None) -> list[str]:
    """Keys of runs that Dagster has taken over: it keeps the cursor together with the runs it is to launch."""
    try:
        keys = json.loads(cursor or "[]")
    except ValueError:
        return []
    return [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
