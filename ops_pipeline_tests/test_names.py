"""The exact Dagster names that exist so far; people's bookmarks, sensors and scripts rely on them."""

from __future__ import annotations

import dagster as dg
import pytest

from ops_pipeline.defs.all import build_definitions
from ops_pipeline.defs.platform import PlatformResource
from ops_pipeline_tests.fakes.backups import backup_catalogue
from ops_pipeline_tests.fakes.platform import catalogue

GROUPS = {
    "image": "build",
    "sbom": "build",
    "scan_report": "build",
    "release": "deliver",
    "backup": "protect",
    "restore_drill": "protect",
}


@pytest.fixture(scope="module")
def repository() -> dg.RepositoryDefinition:
    definitions = build_definitions(backup_catalogue(), PlatformResource())
    dg.Definitions.validate_loadable(definitions)
    return definitions.get_repository_def()


def test_assets(repository: dg.RepositoryDefinition) -> None:
    nodes = {node.key.to_user_string(): node for node in repository.asset_graph.asset_nodes}
    assert {key: node.group_name for key, node in nodes.items()} == GROUPS
    for node in nodes.values():
        assert node.description and node.kinds


def test_checks(repository: dg.RepositoryDefinition) -> None:
    found = {(key.asset_key.to_user_string(), key.name) for key in repository.asset_graph.asset_check_keys}
    assert found == {
        ("image", "image_hygiene"),
        ("scan_report", "vulnerability_policy"),
        ("release", "healthy"),
        ("release", "metrics_verdict"),
        ("backup", "integrity"),
        ("backup", "fresh"),
        ("restore_drill", "restored_equals_source"),
    }
    blocking = [key.name for key in repository.asset_graph.asset_check_keys if repository.asset_graph.get(key).blocking]
    assert sorted(blocking) == ["restored_equals_source", "vulnerability_policy"]


def test_jobs(repository: dg.RepositoryDefinition) -> None:
    names = {job.name for job in repository.get_all_jobs() if not job.name.startswith("__")}
    assert names == {
        "build_and_scan",
        "deploy",
        "promote",
        "rollback",
        "release_set",
        "reconcile",
        "quarantine_lift",
        "backup",
        "restore",
        "restore_drill",
        "prune_backups",
    }


def test_sensors_and_schedules(repository: dg.RepositoryDefinition) -> None:
    assert {sensor.name for sensor in repository.sensor_defs} == {"drift", "metric_rollback", "backup_freshness"}
    assert {schedule.name: schedule.cron_schedule for schedule in repository.schedule_defs} == {
        "backup_every_six_hours": "0 */6 * * *",
        "prune_backups_daily": "40 3 * * *",
        "restore_drill_weekly": "20 4 * * 0",
    }
    assert {schedule.execution_timezone for schedule in repository.schedule_defs} == {"UTC"}


def test_partitions(repository: dg.RepositoryDefinition) -> None:
    graph = repository.asset_graph
    for key in ("image", "sbom", "scan_report"):
        definition = graph.get(dg.AssetKey(key)).partitions_def
        assert definition is not None and definition.get_partition_keys() == ["api", "web"]
    release = graph.get(dg.AssetKey("release")).partitions_def
    assert isinstance(release, dg.MultiPartitionsDefinition)
    assert [dimension.name for dimension in release.partitions_defs] == ["environment", "service"]
    assert set(map(str, release.get_partition_keys())) == {"dev|api", "dev|web", "prod|api", "prod|web"}
    for key in ("backup", "restore_drill"):
        definition = graph.get(dg.AssetKey(key)).partitions_def
        # One dimension, without a name: the run queue's limit on environments is for releases only.
        assert isinstance(definition, dg.StaticPartitionsDefinition)
        assert definition.get_partition_keys() == ["dev", "prod"]


def test_everything_loads_when_nothing_is_backed_up() -> None:
    definitions = build_definitions(catalogue(), PlatformResource())
    dg.Definitions.validate_loadable(definitions)
    definition = definitions.resolve_asset_graph().get(dg.AssetKey("backup")).partitions_def
    assert definition is not None and not definition.get_partition_keys()


def test_a_release_depends_on_image_and_report_of_its_own_service(repository: dg.RepositoryDefinition) -> None:
    graph = repository.asset_graph
    release, image = dg.AssetKey("release"), dg.AssetKey("image")
    assert graph.get(release).parent_keys == {image, dg.AssetKey("scan_report")}
    definition, upstream = graph.get(release).partitions_def, graph.get(image).partitions_def
    assert definition is not None and upstream is not None
    wanted = definition.empty_subset().with_partition_keys(["prod|api"])
    mapped = graph.get_partition_mapping(release, image).get_upstream_mapped_partitions_result_for_partitions(
        wanted, definition, upstream
    )
    assert set(mapped.partitions_subset.get_partition_keys()) == {"api"}


@pytest.mark.parametrize("job", ["deploy", "promote", "rollback"])
def test_launchpads_are_filled_in(repository: dg.RepositoryDefinition, job: str) -> None:
    partitioned = repository.get_job(job).partitioned_config
    assert partitioned is not None
    config = partitioned.get_run_config_for_partition_key("prod|api")["ops"]["release"]["config"]
    assert config == {"action": job, "digest": "", "to": 0, "force": False, "reason": "", "judged": 0, "made": 0}


@pytest.mark.parametrize(
    ("job", "op", "config"),
    [
        ("release_set", "deploy_set", {"environment": "", "services": [], "reason": ""}),
        ("quarantine_lift", "lift", {"digest": "", "reason": ""}),
        ("reconcile", "reconcile_targets", {"environment": "", "service": ""}),
        ("prune_backups", "prune_environments", {"environment": "", "dry_run": False}),
    ],
)
def test_launchpads_of_verbs_are_filled_in(
    repository: dg.RepositoryDefinition, job: str, op: str, config: dict[str, object]
) -> None:
    assert repository.get_job(job).run_config["ops"] == {op: {"config": config}}


RESTORE = {
    **{"date": "", "set": "", "sources": [], "into": "", "only": [], "dry_run": True, "confirm": ""},
    **{"action": "restore", "token": ""},
}


@pytest.mark.parametrize(
    ("job", "op", "config"),
    [
        ("backup", "take_set", {"reason": "", "sources": []}),
        ("restore_drill", "drill_set", {"set": ""}),
        ("restore", "restore_data", RESTORE),
    ],
)
def test_launchpads_of_backups_are_filled_in_and_a_restore_is_dry(
    repository: dg.RepositoryDefinition, job: str, op: str, config: dict[str, object]
) -> None:
    partitioned = repository.get_job(job).partitioned_config
    assert partitioned is not None
    assert partitioned.get_run_config_for_partition_key("prod")["ops"] == {op: {"config": config}}


def test_what_is_live_is_watched_from_the_first_start(repository: dg.RepositoryDefinition) -> None:
    for sensor in repository.sensor_defs:
        assert sensor.default_status is dg.DefaultSensorStatus.RUNNING, sensor.name
    for schedule in repository.schedule_defs:
        assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING, schedule.name
    assert repository.get_sensor_def("metric_rollback").minimum_interval_seconds == 5


def test_jobs_run_in_process(repository: dg.RepositoryDefinition) -> None:
    for job in repository.get_all_jobs():
        assert job.executor_def.name == "in_process", job.name
