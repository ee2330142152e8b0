"""The forecast of a canary, against the simulation and against Wald's bound."""

from __future__ import annotations

from math import inf, isinf

import pytest

from benchmarks.verdict_simulation import Cell, simulate
from ops_pipeline.core.forecast import fail_seconds, forecast, pass_seconds, wald_requests
from ops_pipeline.core.rollout import CanaryStep, Rollout

STEPS = (CanaryStep(10), CanaryStep(50), CanaryStep(100))


@pytest.mark.parametrize(
    ("share", "rate"), [(0.1, 1.0), (0.1, 10.0), (0.1, 100.0), (0.2, 1.0), (0.2, 10.0), (0.5, 1.0), (0.5, 10.0)]
)
def test_time_to_fail_is_what_simulation_gives(share: float, rate: float) -> None:
    result = simulate(Cell(share, rate, watch=1800.0), seed=5, releases=400, others=False)
    assert fail_seconds(share, rate, rate, 0.05) == pytest.approx(result.seconds["verdict"], rel=0.35, abs=3)


@pytest.mark.parametrize("rate", [1.0, 10.0, 100.0])
def test_time_to_pass_on_errors_is_no_longer_than_the_forecast(rate: float) -> None:
    result = simulate(Cell(0.001, rate, watch=240.0), seed=5, releases=200, others=False)
    assert result.pass_seconds <= pass_seconds(rate, Rollout()) <= 1.9 * result.pass_seconds + 30


def test_wald() -> None:
    assert wald_requests(0.1, 0.05, 20) == pytest.approx(145, abs=1)
    assert wald_requests(1.0, 0.5, 8) == pytest.approx(3)
    assert isinf(wald_requests(0.05, 0.05, 20))


def test_a_canary_with_enough_traffic() -> None:
    expected = forecast(Rollout(steps=STEPS), 100.0)
    assert not expected.blocks
    assert 1.0 < expected.pass_minutes < 3.0
    assert expected.fail_minutes[0.5] < expected.fail_minutes[0.1] < 1.0


def test_a_canary_with_little_traffic_says_what_blocks() -> None:
    expected = forecast(Rollout(steps=STEPS), 0.5)
    assert expected.blocks == (
        "step 10 %: 0.05 requests/s to the canary need 25 minutes for a verdict, more than the 10 allowed",
    )
    assert isinf(expected.pass_minutes)


def test_without_requests_nothing_is_to_be_expected() -> None:
    expected = forecast(Rollout(steps=STEPS), 0.0)
    assert expected.pass_minutes == inf
    assert set(expected.fail_minutes.values()) == {inf}
    assert "without requests there is no verdict" in expected.blocks[0]


def test_a_step_that_waits_for_a_person_says_so() -> None:
    steps = (CanaryStep(10, pause=True), CanaryStep(100))
    assert forecast(Rollout(steps=steps), 100.0).blocks == ("step 10 %: waits for a person",)


def test_more_traffic_never_takes_longer() -> None:
    times = [fail_seconds(0.1, rate, 9 * rate, 0.05) for rate in (0.1, 0.5, 1, 5, 10, 40)]
    assert times == sorted(times, reverse=True)
    assert isinf(fail_seconds(0.05, 10, 10, 0.05))
