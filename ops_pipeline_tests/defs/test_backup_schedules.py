"""Schedules and the sensor about backups: who is backed up when, once; who is alerted, and no longer than needed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from ops_pipeline.core.backup.records import Trigger
from ops_pipeline.defs.all import build_definitions
from ops_pipeline.defs.platform import PlatformResource
from ops_pipeline.errors import Unavailable
from ops_pipeline.services.backup.sets import backup_sets, write_state
from ops_pipeline_tests.defs.materializing import Workbench, opening, workbench
from ops_pipeline_tests.fakes.backups import backup_bed, backup_catalogue
from ops_pipeline_tests.fakes.platform import catalogue
from ops_pipeline_tests.services.backing_up import take

TICK = datetime(2026, 11, 21, 18, tzinfo=UTC)


@pytest.fixture
def bench() -> Iterator[Workbench]:
    with workbench(backup_bed()) as made:
        yield made


def due(name: str, book: Any) -> dg.ScheduleExecutionData:
    repository = build_definitions(book, PlatformResource()).get_repository_def()
    context = dg.build_schedule_context(scheduled_execution_time=TICK, repository_def=repository)
    return repository.get_schedule_def(name).evaluate_tick(context)


def test_every_environment_is_backed_up_once_a_tick() -> None:
    first, again = (due("backup_every_six_hours", backup_catalogue()).run_requests or () for _ in range(2))
    assert [one.partition_key for one in first] == ["dev", "prod"]
    # The same keys: Dagster launches nothing twice, however often a tick is evaluated.
    assert (
        [one.run_key for one in first]
        == [one.run_key for one in again]
        == [
            "dev 2026-11-21T18:00Z",
            "prod 2026-11-21T18:00Z",
        ]
    )
    assert first[0].run_config["ops"]["take_set"]["config"]["reason"] == "due at 2026-11-21T18:00Z"


def test_the_schedule_s_run_takes_a_set(bench: Workbench) -> None:
    (_, request) = due("backup_every_six_hours", bench.bed.catalogue).run_requests or ()
    result = bench.definitions.resolve_job_def("backup").execute_in_process(
        instance=bench.instance,
        partition_key=request.partition_key,
        run_config=request.run_config,
        tags={"dagster/schedule_name": "backup_every_six_hours"},
    )
    assert result.success
    assert [one.manifest.trigger for one in backup_sets(bench.bed.platform(), "prod")] == [Trigger.SCHEDULE]


@pytest.mark.parametrize(
    ("name", "book", "words"),
    [
        ("backup_every_six_hours", catalogue(), "no environment of the catalogue has a `backup`"),
        ("prune_backups_daily", catalogue(), "no environment of the catalogue has a `backup`"),
        ("restore_drill_weekly", catalogue(), "no environment of the catalogue has a `backup`"),
        ("restore_drill_weekly", backup_catalogue(), "`backups.identity` is not set"),
    ],
)
def test_what_cannot_be_done_is_skipped_in_words(name: str, book: Any, words: str) -> None:
    seen = due(name, book)
    assert not seen.run_requests and words in (seen.skip_message or "")


def test_one_environment_may_be_left_to_people() -> None:
    requests = due("backup_every_six_hours", backup_catalogue(backup={"scheduled": False})).run_requests or ()
    assert [one.partition_key for one in requests] == ["dev"]


def test_drills_and_pruning_are_due_once() -> None:
    drills = due("restore_drill_weekly", backup_catalogue(identity="env:IDENTITY")).run_requests or ()
    assert [one.run_key for one in drills] == ["dev 2026-11-21T18:00Z", "prod 2026-11-21T18:00Z"]
    (prune,) = due("prune_backups_daily", backup_catalogue()).run_requests or ()
    assert prune.run_key == "2026-11-21T18:00Z"


# ---------------------------------------------------------------------------------------------------- the sensor


def tick(bench: Workbench, cursor: str | None = None) -> dg.SensorExecutionData:
    sensor = bench.definitions.get_repository_def().get_sensor_def("backup_freshness")
    context = dg.build_sensor_context(
        instance=bench.instance,
        cursor=cursor,
        resources={"ops_platform": opening(bench.bed.platform())},
        definitions=bench.definitions,
    )
    return sensor.evaluate_tick(context)


def test_an_alert_stands_as_long_as_backups_are_too_old(bench: Workbench) -> None:
    bed = bench.bed
    for environment in ("dev", "prod"):
        take(bed.platform(), environment)
    calm = tick(bench)
    assert "prod: the newest good backup" in (calm.skip_message or "") and not calm.run_requests
    assert not bed.alerts.fired

    bed.clock.advance(7 * 3600 + 60)
    take(bed.platform(), "dev")
    late = tick(bench, calm.cursor)
    assert bed.alerts.names() == ["BackupStale"]
    (alert,) = bed.alerts.firing.values()
    assert alert.environment == "prod" and "older than the 7 h that are allowed" in alert.summary
    # Alertmanager forgets what is not repeated.
    assert tick(bench, late.cursor).cursor == late.cursor and len(bed.alerts.fired) == 2

    take(bed.platform(), "prod")
    over = tick(bench, late.cursor)
    assert not bed.alerts.firing and not over.cursor
    ended = len(bed.alerts.resolved)
    tick(bench, over.cursor)
    assert len(bed.alerts.resolved) == ended, "a calm tick tells nobody anything"


def test_a_set_in_quarantine_does_not_count(bench: Workbench) -> None:
    bed = bench.bed
    take(bed.platform(), "dev")
    manifest = take(bed.platform(), "prod")
    vault = bed.vault.vault()

    def quarantine(state: Any) -> Any:
        return type(state)(state.environment, state.id, quarantined="rows fell by 90 %")

    write_state(vault, bed.clock, "prod", manifest.id, quarantine)
    said = tick(bench).skip_message or ""
    assert "there is no good backup" in said and "rows fell by 90 %" in said
    assert bed.alerts.names() == ["BackupStale"]


def test_when_nobody_can_tell_that_is_an_alert_too(bench: Workbench) -> None:
    bed = bench.bed
    for environment in ("dev", "prod"):
        take(bed.platform(), environment)

    def away(*_: object, **__: object) -> Any:
        raise Unavailable("the store of backups does not answer")

    bed.vault.state.read, read = away, bed.vault.state.read  # type: ignore[method-assign]
    blind = tick(bench)
    assert bed.alerts.names() == ["BackupsUnwatched", "BackupsUnwatched"]
    assert "how old its backups are is unknown: the store" in (blind.skip_message or "")
    bed.vault.state.read = read  # type: ignore[method-assign]
    assert not tick(bench, blind.cursor).cursor and not bed.alerts.firing


def test_an_alert_that_could_not_be_ended_is_ended_later(bench: Workbench) -> None:
    bed = bench.bed
    stale = tick(bench)
    assert bed.alerts.names() == ["BackupStale", "BackupStale"]
    for environment in ("dev", "prod"):
        take(bed.platform(), environment)
    bed.alerts.down = "no route"
    kept = tick(bench, stale.cursor)
    assert kept.cursor == stale.cursor
    bed.alerts.down = ""
    assert not tick(bench, kept.cursor).cursor and not bed.alerts.firing


def test_nothing_to_watch_is_said() -> None:
    with workbench() as bench:
        assert tick(bench).skip_message == "no environment of the catalogue has a `backup`"
        assert tick(bench, "damaged").skip_message == "no environment of the catalogue has a `backup`"
