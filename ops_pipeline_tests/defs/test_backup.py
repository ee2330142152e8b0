"""Backups in Dagster: assets, checks and jobs do what the use cases do, and say it in numbers, words and alerts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pytest

from ops_pipeline.core.backup.records import Trigger
from ops_pipeline.defs.backup_config import (
    BackupConfig,
    DrillConfig,
    PruneConfig,
    RestoreConfig,
    check_backup,
    check_drill,
    check_restore,
    chosen_environments,
)
from ops_pipeline.errors import BadInput
from ops_pipeline.services.backup.integrity import check_set
from ops_pipeline.services.backup.locks import lock
from ops_pipeline.services.backup.sets import backup_sets
from ops_pipeline_tests.defs.materializing import Workbench, workbench
from ops_pipeline_tests.fakes.backups import backup_bed, backup_catalogue, database
from ops_pipeline_tests.fakes.data_source import Fault, failed
from ops_pipeline_tests.fakes.platform import quiet
from ops_pipeline_tests.services.backing_up import take

CATALOGUE = backup_catalogue()
SCHEDULED = {"dagster/schedule_name": "backup_every_six_hours"}


@pytest.fixture
def bench() -> Iterator[Workbench]:
    bed = backup_bed()
    database(bed).live.tables["houses"] = [f"house {number}" for number in range(120)]
    with workbench(bed) as made:
        yield made


def run(bench: Workbench, job: str, config: dict[str, Any] | None = None, **more: Any) -> dg.ExecuteInProcessResult:
    op = {"backup": "take_set", "restore_drill": "drill_set", "restore": "restore_data"}.get(job, "prune_environments")
    return bench.run(job, None if job == "prune_backups" else "prod", config, op=op, **more)


def rows(bench: Workbench) -> list[str]:
    return database(bench.bed).live.tables["houses"]


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {one.check_name: one.passed for one in result.get_asset_check_evaluations()}


def outputs(result: dg.ExecuteInProcessResult, step: str = "restore_data") -> dict[str, Any]:
    """Metadata of an op's output."""
    (found,) = [event for event in result.all_events if event.is_successful_output and event.step_key == step]
    return {name: value.value for name, value in found.step_output_data.metadata.items()}


# ---------------------------------------------------------------------------------------------------- backup


def test_a_set_shows_what_people_look_for(bench: Workbench) -> None:
    result = run(bench, "backup", tags={"ops/user": "ada@example.org"})
    assert result.success and checks(result) == {"integrity": True, "fresh": True}
    (taken,) = backup_sets(bench.bed.platform(), "prod")
    shown = bench.shown(result, "take_set")
    assert shown["set"] == taken.id and shown["manifest_sha256"] == taken.manifest_sha256
    assert shown["rows"] >= 120 and shown["data_mb"] > 0 and shown["mb_per_second"] >= 0
    assert {row.data["source"] for row in shown["parts"].records} == {"listings", "cache"}
    assert (shown["trigger"], shown["taken_by"]) == ("manual", "ada@example.org")
    assert shown["previous_set"].startswith("none")
    assert {one.partition for one in result.get_asset_check_evaluations()} == {"prod"}


def test_the_asset_page_s_button_takes_a_set_too(bench: Workbench) -> None:
    result = bench.definitions.resolve_job_def("__ASSET_JOB").execute_in_process(
        asset_selection=[dg.AssetKey("backup")], partition_key="dev", instance=bench.instance
    )
    assert result.success
    assert [one.sources for one in backup_sets(bench.bed.platform(), "dev")] == [("listings",)]


@pytest.mark.parametrize(("tags", "trigger"), [(SCHEDULED, Trigger.SCHEDULE), ({}, Trigger.MANUAL)])
def test_why_a_set_was_taken_is_known_from_the_schedule_s_tag(
    bench: Workbench, tags: dict[str, str], trigger: Trigger
) -> None:
    assert run(bench, "backup", tags=tags).success
    assert backup_sets(bench.bed.platform(), "prod")[0].manifest.trigger is trigger


@pytest.mark.parametrize(("tags", "told"), [(SCHEDULED, ["BackupFailed"]), ({}, [])])
def test_a_dump_that_fails_leaves_no_set_and_nobody_unaware(
    bench: Workbench, tags: dict[str, str], told: list[str]
) -> None:
    database(bench.bed).fault = Fault(failed(), after=40, times=9)
    words, shown = bench.failure(run(bench, "backup", tags=tags))
    assert "out of memory" in words and shown["error"] == "Permanent"
    assert not backup_sets(bench.bed.platform(), "prod")
    assert bench.bed.alerts.names() == told
    database(bench.bed).fault = None
    assert run(bench, "backup", tags=tags).success
    assert bench.bed.alerts.names() == []


def test_a_failure_to_alert_changes_nothing(bench: Workbench) -> None:
    bench.bed.alerts.down = "no route"
    database(bench.bed).fault = Fault(failed(), times=9)
    words, _ = bench.failure(run(bench, "backup", tags=SCHEDULED))
    assert "out of memory" in words
    database(bench.bed).fault = None
    assert run(bench, "backup", tags=SCHEDULED).success


def test_a_damaged_set_turns_integrity_red(bench: Workbench) -> None:
    take(bench.bed.platform())
    (taken,) = backup_sets(bench.bed.platform(), "prod")
    bench.bed.vault.sets.delete(taken.manifest.parts[0].stream.key)
    result = run(bench, "backup")
    assert result.success and checks(result) == {"integrity": False, "fresh": True}
    assert "BackupDamaged" in bench.bed.alerts.names()
    (found,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "integrity"]
    assert taken.id in (found.description or "") and found.metadata["problems"].value == 1


def test_an_account_weaker_than_declared_is_a_warning() -> None:
    bed = backup_bed()
    weak = dataclasses.replace(bed.platform(), vault_findings=lambda: ("container backups is not immutable",))
    bed.platform = lambda *_, **__: weak  # type: ignore[method-assign]
    with workbench(bed) as bench:
        result = run(bench, "backup")
    (found,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "integrity"]
    assert result.success and not found.passed and found.severity is dg.AssetCheckSeverity.WARN
    assert found.description == "container backups is not immutable"


# ---------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("check", "config", "named"),
    [
        (
            check_backup,
            BackupConfig(sources=["listing", "cache", "cache"], reason="x" * 501),
            ["sources", "sources", "reason"],
        ),
        (check_drill, DrillConfig(set="yesterday!"), ["set"]),
        (check_restore, RestoreConfig(dry_run=False), ["confirm"]),
        (check_restore, RestoreConfig(dry_run=False, confirm="dev"), ["confirm"]),
        (check_restore, RestoreConfig(date="yesterday", sources=["x"], into="abcd"), ["date", "sources"]),
        (check_restore, RestoreConfig(date="2026-11-20", set="01ABC", into="abcd"), ["set", "into"]),
        (check_restore, RestoreConfig(action="undo", date="2026-11-20"), ["date", "token"]),
        (check_restore, RestoreConfig(token="Not A Token"), ["token", "token"]),
        (chosen_environments, PruneConfig(environment="prd"), ["environment"]),
    ],
)
def test_everything_wrong_is_named_at_once(check: Callable[..., object], config: Any, named: list[str]) -> None:
    more = {check_drill: (), chosen_environments: (CATALOGUE,)}.get(check, (CATALOGUE, "prod"))
    with pytest.raises(BadInput) as refused:
        check(config, *more)
    assert [problem.place for problem in refused.value.problems] == [f"run config: {field}" for field in named]


def test_a_launch_that_cannot_be_used_touches_nothing(bench: Workbench) -> None:
    for job, config in (("backup", {"sources": ["x"]}), ("restore", {"dry_run": False, "confirm": "prd"})):
        words, shown = bench.failure(run(bench, job, config, tags=SCHEDULED))
        assert shown["error"] == "BadInput" and shown["exit_code"] == 2 and "run config: " in words
    assert not list(bench.bed.vault.state.list("")) and not list(bench.bed.vault.sets.list(""))
    assert not bench.bed.alerts.fired


# ---------------------------------------------------------------------------------------------------- drill


def test_a_drill_proves_a_set_and_says_how_long_it_took(bench: Workbench) -> None:
    take(bench.bed.platform())
    result = run(bench, "restore_drill")
    assert result.success and checks(result) == {"restored_equals_source": True}
    (taken,) = backup_sets(bench.bed.platform(), "prod")
    shown = bench.shown(result, "drill_set")
    assert shown["set"] == taken.id and shown["compared"] > 0 and shown["problems"] == 0
    assert {row.data["source"] for row in shown["sources"].records} == {"listings", "cache"}
    assert taken.state.drilled_at is not None


def test_a_drill_that_finds_a_difference_is_a_run_that_failed(bench: Workbench) -> None:
    take(bench.bed.platform())
    (taken,) = backup_sets(bench.bed.platform(), "prod")
    bench.bed.vault.sets.delete(taken.manifest.parts[0].stream.key)
    result = run(bench, "restore_drill")
    assert not result.success and checks(result) == {"restored_equals_source": False}
    assert bench.shown(result, "drill_set")["problems"] > 0
    assert "RestoreDrillFailed" in bench.bed.alerts.names()


def test_without_a_set_there_is_nothing_to_drill(bench: Workbench) -> None:
    words, shown = bench.failure(run(bench, "restore_drill", tags=SCHEDULED))
    assert shown["error"] == "NotFound" and "ops backup prod" in words
    assert bench.bed.alerts.names() == ["RestoreDrillFailed"]


# ---------------------------------------------------------------------------------------------------- restore


def test_a_restore_is_dry_until_it_is_confirmed_and_can_be_undone_and_released(bench: Workbench) -> None:
    take(bench.bed.platform())
    before = list(rows(bench))
    rows(bench).clear()
    dry = run(bench, "restore")
    assert dry.success and rows(bench) == []
    assert outputs(dry)["age_hours"] >= 0 and "swapped" in outputs(dry)["plan"]

    wet = run(bench, "restore", {"dry_run": False, "confirm": "prod"})
    assert wet.success and rows(bench) == before
    shown = outputs(wet)
    assert shown["stage"] == "held" and shown["compared"] > 0 and shown["token"] in shown["to_undo"]
    confirmed = {"dry_run": False, "confirm": "prod", "token": shown["token"]}

    assert outputs(run(bench, "restore", {"action": "undo", "token": shown["token"]}))["what"]
    assert rows(bench) == before, "dry"
    assert outputs(run(bench, "restore", {"action": "undo", **confirmed}))["stage"] == "undone"
    assert rows(bench) == []
    assert outputs(run(bench, "restore", {"action": "release", **confirmed}))["stage"] == "done"
    assert not database(bench.bed).holds()


def test_a_date_before_the_first_set_is_refused_and_says_what_there_is(bench: Workbench) -> None:
    take(bench.bed.platform())
    words, shown = bench.failure(run(bench, "restore", {"date": "2001-01-01"}))
    assert shown["error"] == "NotFound" and "prod" in words


# ---------------------------------------------------------------------------------------------------- pruning


def test_pruning_says_of_every_set_why_it_stays_or_goes(bench: Workbench) -> None:
    for _ in range(6):
        made = take(bench.bed.platform())
        check_set(bench.bed.platform(), "prod", made.id, progress=quiet)
        bench.bed.clock.advance(20 * 86_400)
    dry = run(bench, "prune_backups", {"dry_run": True})
    shown = outputs(dry, "prune_environments")
    assert shown["deleted"] == 0 and shown["planned_to_go"] > 0
    assert all(row.data["why"] for row in shown["decisions"].records)
    assert len(backup_sets(bench.bed.platform(), "prod")) == 6
    result = run(bench, "prune_backups")
    assert result.success
    assert outputs(result, "prune_environments")["deleted"] == shown["planned_to_go"]
    assert len(backup_sets(bench.bed.platform(), "prod")) == 6 - shown["planned_to_go"]


def test_what_somebody_works_on_is_left_to_them_and_the_rest_is_pruned(bench: Workbench) -> None:
    other = bench.bed.platform("other:1")
    with lock(other, other.vault(), "prod", run_id="run-x", reason="restore"):
        result = run(bench, "prune_backups")
        assert result.success
        _, shown = bench.failure(run(bench, "prune_backups", {"environment": "prod"}))
    assert shown["error"] == "LeaseHeld" and shown["exit_code"] == 4
    assert not bench.bed.alerts.fired
