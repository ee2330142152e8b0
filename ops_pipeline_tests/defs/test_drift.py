"""The sensor `drift`: retires what is over its time, has left work finished, and says where the world differs."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.reconcile import reconcile
from ops_pipeline_tests.defs.materializing import Workbench, opening, workbench
from ops_pipeline_tests.fakes.platform import Bed, Killed, Lifeline, quiet


@pytest.fixture
def bench() -> Iterator[Workbench]:
    bed = Bed()
    for version in ("1.0.0", "2.0.0"):
        bed.image(version)
        deploy(bed.platform(), "prod", "api", progress=quiet)
    with workbench(bed) as made:
        yield made


def tick(bench: Workbench, cursor: str | None = None) -> dg.SensorResult | dg.SensorExecutionData:
    sensor = bench.definitions.get_repository_def().get_sensor_def("drift")
    context = dg.build_sensor_context(
        instance=bench.instance,
        cursor=cursor,
        resources={"ops_platform": opening(bench.bed.platform())},
        definitions=bench.definitions,
    )
    return sensor.evaluate_tick(context)


def test_nothing_to_do_is_said_about_one_service_in_turn(bench: Workbench) -> None:
    targets = ["dev/api", "dev/web", "prod/api", "prod/web"]
    cursor = None
    for target in [*targets, targets[0]]:
        seen = tick(bench, cursor)
        assert not seen.run_requests
        assert seen.skip_message == f"nothing waits for a reconcile; looked at {target}: as the ledger says"
        cursor = seen.cursor


def test_a_difference_is_said_and_not_repaired(bench: Workbench) -> None:
    bench.bed.runtimes["prod"][0].breaks("ops-prod-api-2-1", "exited")
    seen = tick(bench, cursor="2")
    assert not seen.run_requests
    assert "prod/api: h1/ops-prod-api-2-1 is exited" in (seen.skip_message or "")


def test_an_engine_out_of_reach_is_said_not_taken_for_agreement(bench: Workbench) -> None:
    bench.bed.host_down("prod", "h2")
    assert "h2" in (tick(bench, cursor="2").skip_message or "")


def test_a_standby_over_its_time_is_retired_by_a_run_launched_once(bench: Workbench) -> None:
    bench.bed.clock.advance(30 * 60 - 1)
    assert not tick(bench).run_requests
    bench.bed.clock.advance(2)
    (request,) = tick(bench).run_requests or ()
    assert request.tags["because"] == "standby #1 has been kept for its 30 minutes"
    assert tick(bench).run_requests == [request]  # the same key: Dagster launches it once
    result = bench.definitions.resolve_job_def("reconcile").execute_in_process(
        instance=bench.instance, run_config=request.run_config
    )
    assert result.success
    journal = read_journal(bench.bed.platform(), "prod", "api")
    assert journal.standby is None and journal.live is not None and journal.live.release == 2
    assert not tick(bench).run_requests


def test_work_of_a_killed_run_is_finished_or_undone_when_its_lease_has_ended(bench: Workbench) -> None:
    bench.bed.image("3.0.0")

    def counts(call: str) -> bool:
        return call.startswith("store.write journal/")

    line = Lifeline(die_at=4, counts=counts)
    with pytest.raises(Killed):
        deploy(bench.bed.platform("doomed:1", lifeline=line), "prod", "api", run_id="run-7", progress=quiet)
    assert not tick(bench).run_requests, "its lease may still be renewed"
    bench.bed.clock.advance(31)
    (request,) = tick(bench).run_requests or ()
    assert request.tags["because"].startswith("run run-7 ended while #3 was ")
    assert reconcile(bench.bed.platform("next:1"), "prod", "api", progress=quiet).settled
    assert not tick(bench).run_requests
