"""Somebody who did not watch reads in the UI why a release was rolled back: the numbers, the deed, where to look.

OPS_SCREENSHOTS=folder keeps the screenshots.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page

from ops_pipeline.core.release import Phase
from ops_pipeline.services.ledger import find_quarantine, releases
from ops_pipeline_tests.e2e.test_ui_deploy import page, shot, shots
from ops_pipeline_tests.testbed import ui
from ops_pipeline_tests.testbed.control_plane import until
from ops_pipeline_tests.testbed.load import Load, LoadPlan
from ops_pipeline_tests.testbed.whole import Whole

__all__ = ["page", "shots"]
pytestmark = [pytest.mark.real, pytest.mark.browser, pytest.mark.timeout(600)]


def test_the_ui_tells_the_whole_story_of_a_rollback(whole: Whole, page: Page, shots: Path) -> None:
    url, service = whole.plane.url, whole.search
    for version in ("7.0.0", "8.0.0"):
        whole.build(service, version)
        done = whole.plane.ops("deploy", service, "dev", timeout=120)
        assert done.returncode == 0, done.stderr
    bad, good = releases(whole.platform.store, "dev", service, limit=2)
    address = whole.platform.catalogue.environments["dev"].url
    plan = LoadPlan(
        port=int(address.rpartition(":")[2]),
        get_path=f"/{service}/load",
        post_path=f"/{service}/load",
        slow_path="",
        websocket_path="",
        clients=20,
        rate=60.0,
        bad_releases=(f"#{bad.number}",),
    )
    with Load(plan) as load:
        time.sleep(3)
        whole.misbehave("dev", service, bad.number, error_rate=0.5)
        until(lambda: releases(whole.platform.store, "dev", service, limit=1)[0].number > bad.number, 60, "a roll-back")
        time.sleep(2)
    assert load.report.total_lost == 0, load.report
    assert load.report.time_to_safety < 30, load.report
    assert whole.answer("dev", service) == (200, good.version)
    back, left = releases(whole.platform.store, "dev", service, limit=2)
    assert back.automatic and back.restores == good.number and left.phase is Phase.ROLLED_BACK
    record = find_quarantine(whole.platform.store, bad.digest)
    assert record is not None and record.evidence is not None

    # People were told.
    until(lambda: f"{service}" in alerts(whole), 15, "the alert")

    # The run that shows it.
    run = ui_run(whole, service)
    ui.wait_for_run(page, url, run, "Success")
    ui.show_step(page, url, run, "release")
    ui.expect_words(page, f"rolled back by itself to #{good.number}")
    shot(page, shots / "rollback-run.png")

    # The asset: which version runs again, and why.
    partition = f"dev|{service}"
    asset = f"{url}/assets/release?view=partitions&partition={partition}"
    ui.open_page(page, asset, "rolled_back_because", record.evidence.reason.split(",")[0], "threshold 5 %")
    shot(page, shots / "rollback-release.png")

    # The check: red, with the numbers and where to look.
    check = f"{url}/assets/release?view=checks&checkDetail=metrics_verdict"
    ui.open_page(page, check, "metrics_verdict", "was rolled back by itself", "evidence", "measurements")
    shot(page, shots / "rollback-check.png")

    # The sensor's own record.
    sensor = f"{url}/locations/ops_pipeline/sensors/metric_rollback"
    ui.open_page(page, sensor, "metric_rollback", "Requested", "1 run requested")
    shot(page, shots / "rollback-sensor.png")

    # Nothing deploys that digest until somebody lifts it.
    refused = whole.plane.ops("deploy", service, "dev", timeout=60)
    assert refused.returncode == 3 and "quarantine" in refused.stderr


def alerts(whole: Whole) -> str:
    """Labels of all alerts about roll-backs."""
    found = httpx.get(f"{whole.platform.catalogue.alertmanager.url}/api/v2/alerts", timeout=5).json()
    return json.dumps([one["labels"] for one in found if one["labels"]["alertname"] == "ReleaseRolledBack"])


def ui_run(whole: Whole, service: str) -> str:
    """Id of the run that `metric_rollback` requested for a service."""
    query = "query($tags: [ExecutionTag!]) { runsOrError(filter: {tags: $tags}) { ... on Runs { results { runId } } } }"
    wanted = {"dagster/sensor_name": "metric_rollback", "dagster/partition/service": service}
    tags = [{"key": key, "value": value} for key, value in wanted.items()]

    def found() -> list[str]:
        return [run["runId"] for run in whole.plane.ask(query, {"tags": tags})["runsOrError"]["results"]]

    until(lambda: bool(found()), 60, "the run that shows the roll-back")
    return found()[0]
