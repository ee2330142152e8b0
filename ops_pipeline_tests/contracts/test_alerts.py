"""One suite for every Alerts port: the one in memory, and a real Alertmanager read back through its API."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import pytest

from ops_pipeline.adapters.alertmanager import Alertmanager, NoAlertmanager
from ops_pipeline.adapters.clock import SystemClock
from ops_pipeline.core.alert import Alert
from ops_pipeline.errors import Transient
from ops_pipeline.ports import Alerts
from ops_pipeline.services.alerting import settle, tell
from ops_pipeline_tests.fakes.alerts import FakeAlerts
from ops_pipeline_tests.fakes.platform import Bed
from ops_pipeline_tests.testbed.alertmanager import RunningAlertmanager, alertmanager

ALERT = Alert(
    name="ReleaseRolledBack",
    environment="prod",
    service="api",
    release=7,
    severity="critical",
    summary="Release 7 of api was taken back: 10.2 % of requests failed",
    description="102 of 1000; digest in quarantine",
    link="http://127.0.0.1:9090/graph?g0.expr=up",
)


class Stage(Protocol):
    alerts: Alerts

    def firing(self) -> list[Alert]:
        """What fires now, by name and release."""


class MemoryStage:
    def __init__(self) -> None:
        self.alerts = self.fake = FakeAlerts()

    def firing(self) -> list[Alert]:
        return sorted(self.fake.firing.values(), key=lambda alert: (alert.name, alert.release))


class RealStage:
    def __init__(self, server: RunningAlertmanager) -> None:
        self.server = server
        self.alerts = Alertmanager(server.url, SystemClock(), 5.0)

    def raw(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.server.url}/api/v2/alerts?active=true", timeout=5) as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return found

    def firing(self) -> list[Alert]:
        found = []
        for entry in self.raw():
            labels, texts = entry["labels"], entry["annotations"]
            found.append(
                Alert(
                    labels["alertname"], labels.get("environment", ""), labels.get("service", ""),
                    int(labels.get("release", "0")), labels["severity"],
                    texts["summary"], texts.get("description", ""), entry.get("generatorURL", ""),
                )
            )  # fmt: skip
        return sorted(found, key=lambda alert: (alert.name, alert.release))


@pytest.fixture(params=["memory", pytest.param("alertmanager", marks=pytest.mark.real)])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    yield MemoryStage() if request.param == "memory" else RealStage(request.getfixturevalue("server"))


@pytest.fixture(scope="module")
def server() -> Iterator[RunningAlertmanager]:
    with alertmanager() as running:
        yield running


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def of(stage: Stage, service: str) -> list[Alert]:
    return [alert for alert in stage.firing() if alert.service == service]


def test_what_is_fired_is_seen_with_all_it_says(stage: Stage) -> None:
    stage.alerts.fire(ALERT)
    until(lambda: of(stage, "api") == [ALERT])
    stage.alerts.resolve(ALERT)


def test_the_same_name_and_labels_are_one_alert_with_the_newest_words(stage: Stage) -> None:
    alert = replace(ALERT, service="words")
    stage.alerts.fire(alert)
    stage.alerts.fire(replace(alert, summary="worse now"))
    until(lambda: [found.summary for found in of(stage, "words")] == ["worse now"])
    stage.alerts.fire(replace(alert, release=8))
    until(lambda: [found.release for found in of(stage, "words")] == [7, 8])


def test_a_resolved_alert_is_gone_and_may_come_back(stage: Stage) -> None:
    alert = replace(ALERT, service="ends")
    stage.alerts.fire(alert)
    until(lambda: len(of(stage, "ends")) == 1)
    stage.alerts.resolve(replace(alert, summary="over"))
    until(lambda: of(stage, "ends") == [])
    stage.alerts.fire(alert)
    until(lambda: len(of(stage, "ends")) == 1)


def test_ending_what_never_fired_is_no_error(stage: Stage) -> None:
    stage.alerts.resolve(replace(ALERT, service="never"))
    assert of(stage, "never") == []


def test_an_alert_of_a_whole_environment_needs_no_service(stage: Stage) -> None:
    alert = Alert("EnvironmentIncident", "stage", "", 0, "warning", "Everything fails in stage")
    stage.alerts.fire(alert)
    until(lambda: alert in [replace(found, link="") for found in stage.firing()])


@pytest.mark.real
def test_an_alert_nobody_refreshes_ends_by_itself_and_a_refreshed_one_lasts(server: RunningAlertmanager) -> None:
    stage = RealStage(server)
    short = Alertmanager(server.url, SystemClock(), 5.0, lasts=timedelta(seconds=2))
    left, kept = replace(ALERT, service="left"), replace(ALERT, service="kept")
    short.fire(left)
    short.fire(kept)
    until(lambda: len(of(stage, "left")) == len(of(stage, "kept")) == 1)
    stage.alerts.fire(kept)
    until(lambda: not of(stage, "left"))
    assert len(of(stage, "kept")) == 1
    (entry,) = [entry for entry in stage.raw() if entry["labels"].get("service") == "kept"]
    assert datetime.fromisoformat(entry["endsAt"]) - datetime.now(UTC) > timedelta(minutes=8)


@pytest.mark.real
def test_alertmanager_held_is_transient_in_bounded_time(server: RunningAlertmanager) -> None:
    server.container.pause()
    try:
        began = time.monotonic()
        with pytest.raises(Transient, match="no answer in time"):
            Alertmanager(server.url, SystemClock(), 0.5).fire(ALERT)
        assert time.monotonic() - began < 1.5
    finally:
        server.container.unpause()


def test_alertmanager_away_is_transient_and_the_work_goes_on() -> None:
    bed, lines = Bed(), list[str]()
    away = Alertmanager("http://127.0.0.1:9", bed.clock, 1.0)
    with pytest.raises(Transient, match="does not answer: connection refused"):
        away.fire(ALERT)
    platform = replace(bed.platform(), alerts=away)
    assert not tell(platform, ALERT, lines.append)
    assert not settle(platform, ALERT, lines.append)
    assert "nobody could be alerted of ReleaseRolledBack" in lines[0] and "ends by itself" in lines[1]


def test_without_alertmanager_it_is_said_that_nobody_was_told() -> None:
    lines: list[str] = []
    nobody = NoAlertmanager(lines.append)
    nobody.fire(ALERT)
    nobody.resolve(ALERT)
    assert len(lines) == 1 and "nobody was told" in lines[0] and ALERT.summary in lines[0]


def test_telling_and_settling_reach_the_port() -> None:
    bed, lines = Bed(), list[str]()
    assert tell(bed.platform(), ALERT, lines.append) and bed.alerts.names() == ["ReleaseRolledBack"]
    assert settle(bed.platform(), ALERT, lines.append) and bed.alerts.names() == []
    assert lines == []
