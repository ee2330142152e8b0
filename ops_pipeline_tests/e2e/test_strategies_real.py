"""Every strategy on a real edge, engine and Prometheus, under a load that never retries: nothing is lost.

Long series of changes, on three engines too, are `make bench ARGS=strategies`.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ops_pipeline.core.journal import weight
from ops_pipeline.core.release import Phase
from ops_pipeline.errors import PolicyRefused, RolledBack
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.ledger import releases
from ops_pipeline_tests.testbed.control_plane import until
from ops_pipeline_tests.testbed.load import Load, LoadReport
from ops_pipeline_tests.testbed.registry import RunningRegistry
from ops_pipeline_tests.testbed.releases import ENVIRONMENT, MeasuredBed, measured_bed
from ops_pipeline_tests.testbed.strategies import mixed

pytestmark = [pytest.mark.real, pytest.mark.timeout(200)]

COMMON: dict[str, object] = {"drain_seconds": 6, "stop_grace_seconds": 6, "memory_mb": 64}
HALF = [{"weight": 50}, {"weight": 100}]
SERVICES: dict[str, dict[str, object]] = {
    "rolling": {**COMMON, "strategy": "rolling", "replicas": 2},
    "blue-green": {**COMMON, "replicas": 2},
    "canary": {**COMMON, "strategy": "canary", "canary": HALF},
    "blind": {**COMMON, "strategy": "canary", "canary": HALF},
}
BLIND_SECONDS = 4


def quiet(line: str) -> None: ...


@pytest.fixture(scope="module")
def measured(registry: RunningRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeasuredBed]:
    """Every service has its first release live."""
    settings = {"blind_seconds": BLIND_SECONDS}
    root = tmp_path_factory.mktemp("strategies")
    with measured_bed(registry.address, root, SERVICES, environment=settings) as made:
        for version in ("2", "1"):
            for service in SERVICES:
                made.bed.image(service, version)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda service: deploy(made.bed.platform, ENVIRONMENT, service, progress=quiet), SERVICES))
        yield made


def test_no_strategy_loses_a_request_and_a_bad_canary_goes_back(measured: MeasuredBed) -> None:
    bed = measured.bed
    bed.image("canary", "bad", ERROR_RATE="0.5")
    for service in ("rolling", "blue-green"):
        bed.image(service, "2")

    def change(service: str) -> tuple[LoadReport, str]:
        plan = mixed(bed, service, clients=30, rate=30.0, slow_rate=0.5, bad_releases=("bad",))
        with Load(plan) as load:
            time.sleep(1)
            try:
                deploy(bed.platform, ENVIRONMENT, service, progress=quiet)
                said = "live"
            except RolledBack as error:
                said = error.message
            time.sleep(0.5)
        return load.report, said

    with ThreadPoolExecutor(3) as pool:
        results = dict(zip(SERVICES, pool.map(change, ("rolling", "blue-green", "canary")), strict=False))
    for service, (report, _said) in results.items():
        assert report.total_lost == 0 and report.total_ok > 100, f"{service}: {report}"
        assert report.ok["upload"] and report.ok["websocket"] and report.ok["events"], f"{service}: {report}"
    for service in ("rolling", "blue-green"):
        assert results[service][1] == "live" and results[service][0].releases["2"] > 0
    report, said = results["canary"]
    assert "was rolled back" in said and "requests" in said
    assert report.total_bad > 0 and report.bad.keys() == {"bad"}, report
    (newest, *_) = releases(bed.platform.store, ENVIRONMENT, "canary")
    assert newest.phase is Phase.ROLLED_BACK
    with pytest.raises(PolicyRefused, match="quarantine"):
        deploy(bed.platform, ENVIRONMENT, "canary", progress=quiet)


def test_without_prometheus_a_canary_is_frozen_rested_alerted_about_and_goes_on_by_itself(
    measured: MeasuredBed,
) -> None:
    bed, monitoring = measured.bed, measured.monitoring

    def share() -> int:
        return weight(read_journal(bed.platform, ENVIRONMENT, "blind"))

    def alerted() -> bool:
        return any(alert["alertname"] == "JudgementBlind" for alert in monitoring.alerts())

    bed.image("blind", "2")
    ended: list[object] = []

    def run() -> None:
        try:
            ended.append(deploy(bed.platform, ENVIRONMENT, "blind", progress=quiet))
        except RolledBack as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    plan = mixed(bed, "blind", clients=20, rate=40.0, websocket_path="", upload_path="", events_path="", slow_path="")
    with Load(plan) as load:
        thread.start()
        until(lambda: share() == 50, 30, "the canary's share")
        time.sleep(2)
        monitoring.prometheus.kill()
        died = time.monotonic()
        time.sleep(BLIND_SECONDS / 2)
        assert share() == 50, "frozen at first"
        until(lambda: share() == 0, 30, "everybody's return to stable")
        assert time.monotonic() - died >= BLIND_SECONDS
        until(alerted, 10, "the alert")
        assert not ended
        monitoring.prometheus.start()
        until(lambda: share() == 50, 40, "the canary's going on")
        until(lambda: not alerted(), 10, "the end of the alert")
        load.bad_from_now("2")
        number = read_journal(bed.platform, ENVIRONMENT, "blind").last_number
        bed.misbehave("blind", number, error_rate=0.7)
        thread.join(60)
    (end,) = ended
    assert isinstance(end, RolledBack), "data count again"
    assert load.report.total_lost == 0, load.report


def test_a_killed_edge_comes_back_by_itself_with_the_wanted_routing(measured: MeasuredBed) -> None:
    """SIGKILL of the container's first process: the engine starts it again. How fast: `make bench ARGS=edge_back`."""
    bed = measured.bed
    (place,), (edge,) = bed.site.places, bed.platform.edges(ENVIRONMENT)
    services = [service for service in SERVICES if service != "blind"]
    before = {service: edge.observe(service) for service in services}
    plan = mixed(bed, "rolling", clients=20, rate=100.0, slow_path="", websocket_path="", events_path="", timeout=2.0)
    with Load(plan) as load:
        time.sleep(1)
        healthy = load.snapshot()
        place.edge.reload()
        os.kill(int(place.edge.attrs["State"]["Pid"]), signal.SIGKILL)
        time.sleep(4)
    assert healthy.total_lost == 0
    assert load.report.longest_gap < 10, load.report
    assert {service: edge.observe(service) for service in services} == before
    print(f"edge killed: {load.report}")
