"""The sensor `metric_rollback` through Dagster's own evaluation: what it requests, what its runs show, what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import dagster as dg
import pytest

from ops_pipeline.core.judgement.verdict import Outcome
from ops_pipeline.defs.platform import PlatformResource
from ops_pipeline.defs.resources import catalogue_path
from ops_pipeline.defs.sensors import metric_rollback as module
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.ledger import find_quarantine, releases
from ops_pipeline.services.quarantine import quarantine, quarantined
from ops_pipeline.services.rollback import roll_back
from ops_pipeline.services.watch import Memory
from ops_pipeline.services.watches import standing
from ops_pipeline_tests.defs.materializing import Workbench, opening, workbench
from ops_pipeline_tests.fakes.judging import ScriptedJudging
from ops_pipeline_tests.fakes.platform import Bed, quiet


@dataclass
class Watching:
    """A workbench and the sensor over it, with a judge that says what the test wants."""

    bench: Workbench
    judging: ScriptedJudging
    resource: PlatformResource
    cursor: str | None = None
    runs: dict[str, dg.RunRequest] = field(default_factory=dict)

    def fresh_process(self) -> None:
        """As after a restart of the code server: only the ledger and the cursor remain."""
        stamp = module._stamp(catalogue_path())
        module._DESKS[type(self.resource)] = module.Desk(stamp, self.resource.platform(), self.judging, Memory())

    def tick(self) -> dg.SensorExecutionData:
        sensor = self.bench.definitions.get_repository_def().get_sensor_def("metric_rollback")
        context = dg.build_sensor_context(
            instance=self.bench.instance,
            cursor=self.cursor,
            resources={"ops_platform": self.resource},
            definitions=self.bench.definitions,
        )
        data = sensor.evaluate_tick(context)
        self.cursor = data.cursor
        return data

    def says(self, outcome: Outcome, service: str = "api") -> None:
        self.judging.says["prod", service] = outcome

    def execute(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """What Dagster launches for a request."""
        assert request.partition_key is not None
        return self.bench.definitions.resolve_job_def("rollback").execute_in_process(
            instance=self.bench.instance,
            partition_key=request.partition_key,
            run_config=request.run_config,
            raise_on_error=False,
        )


@pytest.fixture
def watching() -> Iterator[Watching]:
    bed = Bed()
    for version in ("1.0.0", "2.0.0"):
        bed.image(version)
        deploy(bed.platform(), "prod", "api", progress=quiet)
    with workbench(bed) as bench:
        made = Watching(bench, ScriptedJudging(bed.clock.now), opening(bed.platform()))
        made.fresh_process()
        yield made


def live(bench: Workbench) -> int:
    return releases(bench.bed.store, "prod", "api", limit=1)[0].number


def test_nothing_watched_is_said_at_once(watching: Watching) -> None:
    roll_back(watching.bench.bed.platform(), "prod", "api", progress=quiet)
    before = watching.bench.bed.clock.monotonic()
    assert watching.tick().skip_message == "nothing is watched"
    assert watching.bench.bed.clock.monotonic() == before and not watching.judging.looks


def test_a_quiet_tick_looks_every_second_and_says_the_evidence(watching: Watching) -> None:
    before = watching.bench.bed.clock.monotonic()
    seen = watching.tick()
    assert seen.skip_message == "prod/api #2: 1 of 400 failed (INCONCLUSIVE)"
    assert not seen.run_requests
    assert 18 <= len(watching.judging.looks) <= 21
    assert watching.bench.bed.clock.monotonic() - before <= module.EVALUATION_SECONDS


def test_a_bad_release_is_gone_when_the_tick_ends_and_a_run_shows_why(watching: Watching) -> None:
    watching.says(Outcome.FAIL)
    seen = watching.tick()
    assert len(watching.judging.looks) == 1, "returned at once"
    assert seen.run_requests and len(seen.run_requests) == 1
    request = seen.run_requests[0]
    assert (request.run_key, request.partition_key) == ("rollback:api:prod:2:1", "prod|api")
    assert request.tags["because"] == "40 of 400 requests failed" and not seen.skip_message
    assert watching.bench.bed.ask()["h1"] == (200, 1) and live(watching.bench) == 3
    containers = watching.bench.bed.containers()
    result = watching.execute(request)
    assert result.success
    assert watching.bench.bed.containers() == containers and live(watching.bench) == 3, "it only shows"
    shown = watching.bench.shown(result, "release")
    assert (shown["release"], shown["restores"], shown["automatic"], shown["action"]) == (3, 1, True, "rollback")
    assert shown["rolled_back_because"] == "#2 was rolled back by itself to #1 (as #3): 40 of 400 requests failed"
    assert (shown["errors"], shown["requests"], shown["error_rate"]) == (40, 400, 0.1)
    assert shown["e_value"] == 5000.0 and shown["judged_release"] == 2
    (record,) = shown["evidence"].records
    row = record.data
    assert (row["metric"], row["bad"], row["of"], row["percent"], row["threshold"]) == ("errors", 40, 400, 10.0, 5.0)
    found = {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}
    check = found["metrics_verdict"]
    assert not check.passed and check.severity is dg.AssetCheckSeverity.ERROR and check.partition == "prod|api"
    assert check.description == shown["rolled_back_because"]
    assert check.metadata["errors"].value == 40 and check.metadata["stable_requests"].value == 400
    assert found["healthy"].passed


def test_its_run_is_requested_again_until_dagster_has_taken_it_over(watching: Watching) -> None:
    watching.says(Outcome.FAIL)
    lost = watching.tick()  # the daemon is killed before it keeps what the tick returned
    watching.cursor = None
    watching.fresh_process()
    again = watching.tick()
    assert [one.run_key for one in again.run_requests or ()] == [one.run_key for one in lost.run_requests or ()]
    assert json.loads(watching.cursor or "") == ["rollback:api:prod:2:1"]
    assert watching.tick().skip_message == "nothing is watched"
    assert standing(watching.bench.bed.platform()) == ((), ())


def test_without_a_warm_standby_the_run_does_it(watching: Watching) -> None:
    watching.bench.bed.runtimes["prod"][0].breaks("ops-prod-api-1-0", "silent")
    watching.says(Outcome.FAIL)
    requests = watching.tick().run_requests
    assert requests and len(requests) == 1
    request = requests[0]
    assert request.run_config["ops"]["release"]["config"]["judged"] == 2
    assert live(watching.bench) == 2
    result = watching.execute(request)
    assert result.success
    shown = watching.bench.shown(result, "release")
    assert (
        shown["restores"] == 1 and shown["automatic"] and shown["rolled_back_because"].startswith("#2 was rolled back")
    )
    digest = releases(watching.bench.bed.store, "prod", "api")[1].digest
    assert find_quarantine(watching.bench.bed.store, digest) is not None


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"judged": 2}, "no tick of metric_rollback has asked for it"),
        ({"judged": 1}, "#1 is not live"),
        ({"made": 2}, "is no roll-back that was made by itself"),
        ({"made": 9}, "has no release #9"),
        ({"made": 1, "judged": 2, "to": 1}, "cannot be used together with"),
        ({"made": -1}, "-1 is not the number of a release"),
    ],
)
def test_a_forged_configuration_blames_nothing_and_moves_nothing(
    watching: Watching, config: dict[str, int], words: str
) -> None:
    watching.tick()
    stored = watching.bench.bed.store.objects
    said, _ = watching.bench.failure(watching.bench.run("rollback", "prod|api", config))
    assert words in said
    assert watching.bench.bed.store.objects == stored


@pytest.mark.parametrize(
    ("outcome", "passed", "severity", "words"),
    [
        (Outcome.PASS, True, dg.AssetCheckSeverity.WARN, "#2 is judged PASS"),
        (Outcome.INCONCLUSIVE, False, dg.AssetCheckSeverity.WARN, "#2 is judged INCONCLUSIVE: not enough requests"),
    ],
)
def test_a_watch_that_ends_is_told_to_the_ui(
    watching: Watching, outcome: Outcome, passed: bool, severity: dg.AssetCheckSeverity, words: str
) -> None:
    watching.says(outcome)
    watching.bench.bed.clock.advance(30 * 60)
    seen = watching.tick()
    assert "no longer watched, watched for its 30 minutes" in (seen.skip_message or "")
    (event,) = seen.asset_events
    assert isinstance(event, dg.AssetCheckEvaluation)
    assert (event.passed, event.severity, event.partition) == (passed, severity, "prod|api")
    assert words in (event.description or "")
    watching.bench.instance.report_runless_asset_event(event)


def test_a_check_never_passes_without_evidence(watching: Watching) -> None:
    result = watching.bench.run("deploy", "prod|web")
    assert not result.success
    watching.bench.bed.image("1.0.0", service="web")
    result = watching.bench.run("deploy", "prod|web")
    (check,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "metrics_verdict"]
    assert not check.passed and check.severity is dg.AssetCheckSeverity.WARN
    shown = watching.bench.shown(result, "release")
    assert shown["strategy"] == "blue_green" and "verdict" in shown


def test_several_services_are_released_together_by_their_job(watching: Watching) -> None:
    bed = watching.bench.bed
    for service in ("api", "web"):
        bed.image("5.0.0", service=service)
    config = {"environment": "prod", "services": ["web", "api"], "reason": "new cart"}
    result = watching.bench.run("release_set", None, config, op="deploy_set")
    assert result.success
    made = {one.partition: one for one in result.asset_materializations_for_node("deploy_set")}
    assert made.keys() == {"prod|api", "prod|web"}
    sets = {one.metadata["release_set"].value for one in made.values()}
    assert len(sets) == 1
    assert {releases(bed.store, "prod", service)[0].set_id for service in ("api", "web")} == sets


def test_a_set_with_nothing_in_it_is_refused_with_every_problem(watching: Watching) -> None:
    said, shown = watching.bench.failure(watching.bench.run("release_set", None, op="deploy_set"))
    assert shown["exit_code"] == 2 and "run config: environment" in said and "run config: services" in said


def test_a_quarantine_is_lifted_by_its_job(watching: Watching) -> None:
    platform = watching.bench.bed.platform()
    digest = "sha256:" + "ab" * 32
    quarantine(platform, digest, "18 of 190 failed", "ann", environment="prod", service="api", release=7)
    said, shown = watching.bench.failure(watching.bench.run("quarantine_lift", None, op="lift"))
    assert shown["exit_code"] == 2 and "run config: digest" in said and "run config: reason" in said
    assert len(quarantined(platform)) == 1
    config = {"digest": "ababab", "reason": "it was the database"}
    assert watching.bench.run("quarantine_lift", None, config, tags={"ops/user": "bob"}, op="lift").success
    assert quarantined(platform) == ()


def test_a_tick_that_is_still_at_work_is_not_joined_by_another(watching: Watching) -> None:
    with module._AT_WORK:
        assert watching.tick().skip_message == "the tick before this one is still at work"
    assert watching.tick().skip_message != "the tick before this one is still at work"


@pytest.mark.parametrize("cursor", ["", "rubbish", "{}", "[1, null]", '["rollback:api:prod:2:1"]'])
def test_any_cursor_will_do(watching: Watching, cursor: str) -> None:
    watching.cursor = cursor
    assert "prod/api #2" in (watching.tick().skip_message or "")
