"""Materializing `release` is a deploy, whichever button does it; refusals touch nothing and say why."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from ops_pipeline.core.release import Action, Phase
from ops_pipeline.core.scan import Finding
from ops_pipeline.services.ledger import releases
from ops_pipeline_tests.defs.materializing import Workbench, workbench
from ops_pipeline_tests.fakes.platform import Bed, catalogue, healthy
from ops_pipeline_tests.fakes.runtime import Behaviour

CRITICAL = Finding("vulnerability", "CVE-2026-1", "CRITICAL", "openssl", "3.0.1", "3.0.2")


@pytest.fixture
def bench() -> Iterator[Workbench]:
    with workbench() as made:
        yield made


@pytest.mark.parametrize("job", ["__ASSET_JOB", "deploy"])
def test_materializing_deploys_the_latest_image(bench: Workbench, job: str) -> None:
    image = bench.bed.image("1.0.0")
    result = bench.run(job, "dev|api", tags={"ops/user": "ada@example.org"})
    assert result.success
    shown = bench.shown(result, "release")
    assert shown["digest"] == image.ref.digest
    assert shown["release"] == 1 and shown["phase"] == "live" and shown["who"] == "ada@example.org"
    assert shown["url"] == "http://127.0.0.1:8081/api"
    assert shown["scan_critical"] == 0
    assert healthy(bench.bed.ask("dev"))
    found = {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}
    assert found.keys() == {"healthy", "metrics_verdict"} and found["healthy"].passed
    (release,) = releases(bench.bed.store, "dev", "api")
    assert release.who == "ada@example.org" and release.run_id == result.run_id


def test_check_results_of_services_are_kept_apart(bench: Workbench) -> None:
    bench.bed.image("1.0.0")
    bench.bed.image("1.0.0", service="web")
    for partition in ("dev|api", "dev|web"):
        result = bench.run("deploy", partition)
        assert {evaluation.partition for evaluation in result.get_asset_check_evaluations()} == {partition}


def test_promote_and_roll_back_by_their_jobs_without_any_configuration(bench: Workbench) -> None:
    bench.bed.image("1.0.0")
    assert bench.run("deploy", "dev|api").success
    assert bench.run("promote", "prod|api").success
    bench.bed.image("2.0.0")
    assert bench.run("deploy", "prod|api").success
    result = bench.run("rollback", "prod|api")
    assert result.success
    assert bench.shown(result, "release")["version"] == "1.0.0"
    actions = [release.action for release in releases(bench.bed.store, "prod", "api")]
    assert actions == [Action.ROLLBACK, Action.DEPLOY, Action.PROMOTE]


def test_a_roll_back_launched_with_defaults_never_deploys(bench: Workbench) -> None:
    # The launchpad shows every default of the configuration, `auto` among them.
    bench.bed.image("1.0.0")
    result = bench.run("rollback", "prod|api", {"action": "auto", "digest": "", "to": 0, "force": False, "reason": ""})
    assert not result.success
    assert not releases(bench.bed.store, "prod", "api")


@pytest.mark.parametrize(
    ("job", "config", "named"),
    [
        ("deploy", {"digest": "latest"}, ["digest"]),
        ("deploy", {"to": 3}, ["to"]),
        ("deploy", {"action": "rollback"}, ["action"]),
        ("rollback", {"to": -1, "digest": "sha256:" + "a" * 64, "force": True}, ["to", "digest", "force"]),
        ("promote", {"reason": "x" * 501, "to": 2}, ["reason", "to", "action"]),  # dev promotes from nowhere
        ("__ASSET_JOB", {"action": "deploy", "digest": "sha256:ABC", "to": 1}, ["digest", "to"]),
    ],
)
def test_everything_wrong_is_named_at_once_and_nothing_is_touched(
    bench: Workbench, job: str, config: dict[str, object], named: list[str]
) -> None:
    bench.bed.image("1.0.0")
    before = sorted(info.key for info in bench.bed.store.list(""))
    words, shown = bench.failure(bench.run(job, "dev|api", config))
    assert shown["error"] == "BadInput" and shown["exit_code"] == 2
    for field in named:
        assert f"run config: {field}" in words
    assert len(named) == words.count("run config: ")
    assert sorted(info.key for info in bench.bed.store.list("")) == before
    assert not bench.bed.containers("dev")


@pytest.mark.parametrize("job", ["__ASSET_JOB", "deploy"])
def test_a_vulnerable_image_is_refused_with_its_reasons(bench: Workbench, job: str) -> None:
    bench.bed.image("1.0.0", findings=(CRITICAL,))
    words, shown = bench.failure(bench.run(job, "prod|api"))
    assert shown["error"] == "PolicyRefused" and shown["exit_code"] == 3
    assert "CVE-2026-1 in openssl 3.0.1 (fixed in 3.0.2)" in words
    assert "CVE-2026-1" in shown["reasons"]
    assert not bench.bed.containers()


def test_a_forged_passed_check_opens_nothing(bench: Workbench) -> None:
    bench.bed.image("1.0.0", findings=(CRITICAL,))
    forged = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("scan_report"), check_name="vulnerability_policy", passed=True, metadata={}
    )
    bench.instance.report_runless_asset_event(forged)
    _, shown = bench.failure(bench.run("deploy", "prod|api"))
    assert shown["error"] == "PolicyRefused"


def test_a_release_that_does_not_come_up_fails_with_its_last_words(bench: Workbench) -> None:
    bench.bed.image("1.0.0")
    assert bench.run("deploy", "prod|api").success
    bench.bed.image("2.0.0", Behaviour(never_ready=True))
    words, shown = bench.failure(bench.run("deploy", "prod|api"))
    assert shown["error"] == "DeployFailed" and shown["exit_code"] == 1
    assert "2.0.0" in words or "#2" in words
    assert healthy(bench.bed.ask())
    assert releases(bench.bed.store, "prod", "api")[0].phase is Phase.FAILED


def test_a_canary_taken_back_shows_the_evidence_and_its_check_says_so() -> None:
    services = catalogue().model_dump(mode="json", exclude_unset=True)["services"]
    services["api"]["strategy"] = "canary"
    with workbench(Bed(catalogue(services=services))) as bench:
        bench.bed.users(100)
        bench.bed.image("1.0.0")
        assert bench.run("deploy", "prod|api").success
        bad = bench.bed.image("2.0.0", Behaviour(errors=0.5))
        result = bench.run("deploy", "prod|api")
        words, shown = bench.failure(result)
        assert shown["error"] == "RolledBack" and shown["exit_code"] == 6
        assert shown["verdict"] == "FAIL" and shown["reason"] in words
        assert shown["errors"] > 0 and shown["error_rate"] > 0.3 and shown["requests"] > shown["errors"]
        assert {record.data["metric"] for record in shown["evidence"].records} >= {"errors", "slow"}
        assert (shown["release"], shown["version"]) == (2, "2.0.0") and shown["measurements"].startswith("http")
        found = bench.instance.get_latest_asset_check_evaluation_record(
            dg.AssetCheckKey(dg.AssetKey("release"), "metrics_verdict")
        )
        assert found is not None and found.event is not None and found.event.dagster_event is not None
        evaluation = found.event.dagster_event.asset_check_evaluation_data
        assert not evaluation.passed and evaluation.severity is dg.AssetCheckSeverity.ERROR
        assert evaluation.partition == "prod|api" and "#2 is judged FAIL" in (evaluation.description or "")
        assert healthy(bench.bed.ask())
        _, again = bench.failure(bench.run("deploy", "prod|api", {"digest": bad.ref.digest}))
        assert again["error"] == "PolicyRefused" and "quarantine" in again["reasons"]
