"""Plan: what would be done by which strategy, how long a verdict would take, and what is said when nobody knows."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace

import pytest

from ops_pipeline.core.measurement import Metric, Sample, SeriesKey
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.forecast import LONGEST_SECONDS, forecast_lines
from ops_pipeline.services.plan import Plan, plan
from ops_pipeline.services.quarantine import quarantine
from ops_pipeline.services.rollback import roll_back
from ops_pipeline_tests.fakes.platform import Bed, quiet
from ops_pipeline_tests.fakes.runtime import Behaviour
from ops_pipeline_tests.services.test_strategies import bed_with

PAUSED = ({"weight": 10}, {"weight": 50, "pause": True}, {"weight": 100})


def planned(bed: Bed, version: str = "2.0.0") -> Plan:
    bed.image(version)
    return plan(bed.platform(), "prod", "api")


def busy(per_second: float, **api: object) -> Bed:
    bed = bed_with(hosts=1, users=per_second, **api)
    bed.clock.advance(300)
    return bed


def test_a_canary_is_told_step_by_step_with_the_time_to_a_verdict() -> None:
    found = planned(busy(3.2, strategy="canary", canary=PAUSED, verify={"seconds": 10}))
    assert found.strategy == "canary"
    assert found.traffic_per_second == pytest.approx(3.2, abs=0.1)
    first, second, last = found.forecast
    assert first.startswith("at 3.2 requests/s, 10 % gets 0.32/s: a verdict in about 5 min at this step")
    assert "an error rate of 10 % would be found after about" in first
    assert re.match(r"50 % gets 1\.6/s: a verdict in about \d\d s at this step", second), second
    assert last == "live after about 6 min, and the time a person takes"
    steps = " | ".join(found.steps)
    assert "10 % of the users get #2 until it is judged PASS" in steps
    assert "wait at 50 % for a person: ops resume, ops abort" in steps
    assert "judge what everybody gets for 10 s" in steps


def test_a_canary_without_traffic_cannot_be_judged() -> None:
    found = planned(busy(0, strategy="canary", canary=PAUSED))
    assert found.forecast[0] == "no traffic: the canary cannot be judged, it will return to stable after 10 min"
    assert "taken away unblamed after 60 min" in found.forecast[1]


def test_a_step_that_is_too_short_for_its_traffic_is_named_beforehand() -> None:
    found = planned(busy(0.5, strategy="canary", canary=PAUSED))
    (line,) = found.forecast
    assert "no verdict within the 10 min of this step" in line and "return to stable" in line


@pytest.mark.parametrize(
    ("strategy", "begin", "step"),
    [
        ("blue_green", "at 40 requests/s, after the switch: an error rate of 10 %", "start 3 x #2 on h1 in pool b"),
        ("rolling", "at 40 requests/s, from the first replica on: an error rate", "33 %, 67 % of the users get it"),
    ],
)
def test_other_strategies_say_when_a_bad_release_would_be_found(strategy: str, begin: str, step: str) -> None:
    found = planned(busy(40, strategy=strategy))
    assert found.strategy == strategy
    assert found.forecast[0].startswith(begin)
    assert any(step in line for line in found.steps)


def test_the_first_release_switches_at_once_and_has_nothing_to_go_back_to() -> None:
    found = planned(Bed(busy(1, strategy="canary", canary=PAUSED).catalogue))
    assert found.strategy == "blue_green"
    assert found.forecast == ("the first release: nothing to compare with, and no traffic to judge it by yet",)
    assert "nothing to go back to" in found.notes[0]


def test_without_prometheus_a_plan_is_still_a_plan() -> None:
    bed = busy(10, strategy="canary", canary=PAUSED)
    bed.metrics.down = "connection refused"
    found = planned(bed)
    assert found.steps and not found.refusals and found.traffic_per_second is None
    assert "the traffic is not known" in found.forecast[0]


def test_a_plan_says_what_has_to_be_pulled_and_whether_a_standby_is_ready() -> None:
    bed = busy(10)
    found = planned(bed)
    assert not found.standby_ready and found.disk_needed_bytes == 80_000_000
    assert found.disk == "at most 80 MB to pull on h1, less what they have of its layers"
    deploy(bed.platform(), "prod", "api", progress=quiet)
    found = planned(bed, "3.0.0")
    assert found.standby_ready and found.standby == "#1 (1.0.0) is warm and healthy"
    for image in bed.runtimes["prod"][0].images:
        bed.runtimes["prod"][0].present.add(image)
    found = plan(bed.platform(), "prod", "api")
    assert found.disk_needed_bytes == 0 and found.disk == "nothing to pull: every host has the image"


def test_a_cooldown_is_told_as_long_as_it_lasts() -> None:
    bed = busy(10)
    bed.image("2.0.0", Behaviour())
    deploy(bed.platform(), "prod", "api", progress=quiet)
    roll_back(bed.platform(), "prod", "api", automatic=True, progress=quiet)
    assert "rolled back by itself at" in " ".join(planned(bed, "3.0.0").notes)
    bed.clock.advance(1900)
    assert "rolled back by itself at" not in " ".join(planned(bed, "3.0.0").notes)


def test_a_quarantined_digest_is_refused_by_the_plan() -> None:
    bed = busy(10)
    image = bed.image("2.0.0")
    quarantine(bed.platform(), image.ref.digest, "10 % errors", "verdict")
    found = plan(bed.platform(), "prod", "api")
    assert any("in quarantine" in reason and "10 % errors" in reason for reason in found.refusals)


def test_a_deploy_begins_with_its_forecast() -> None:
    bed = busy(40, strategy="canary", canary=({"weight": 50}, {"weight": 100}))
    bed.image("2.0.0")
    lines: list[str] = []
    deploy(bed.platform(), "prod", "api", progress=lines.append)
    assert lines[0].startswith("forecast: at 40 requests/s, 50 % gets 20/s: a verdict in about")
    assert lines[1].startswith("forecast: live after about")


def test_a_deploy_does_not_wait_for_a_forecast() -> None:
    """A Prometheus that takes its time costs a deploy two seconds and no more."""

    class Slow:
        def __init__(self, inner: object) -> None:
            self._inner = inner

        def samples(self, metric: Metric, seconds: float, **more: object) -> Mapping[SeriesKey, tuple[Sample, ...]]:
            time.sleep(LONGEST_SECONDS + 2)
            return {}

    bed = busy(10)
    platform = replace(bed.platform(), metrics=Slow(bed.metrics))  # type: ignore[arg-type]
    begin = time.monotonic()
    (line,) = forecast_lines(platform, "prod", "api")
    assert time.monotonic() - begin < LONGEST_SECONDS + 1
    assert line == "no forecast: the traffic was not known within 2 s"
