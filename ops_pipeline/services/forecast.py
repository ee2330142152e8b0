"""How long a verdict on a new release will take at the traffic there is now, in sentences. Changes nothing."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from math import isinf

from ops_pipeline.catalogue.resolve import resolve_rollout
from ops_pipeline.core.forecast import fail_seconds
from ops_pipeline.core.forecast import forecast as expected
from ops_pipeline.core.journal import Journal
from ops_pipeline.core.rollout import Rollout, Strategy
from ops_pipeline.errors import OpsError
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.judging import requests_per_second
from ops_pipeline.services.platform import Platform

BAD = 0.10
"""Share of failing requests the forecast names as an example of a bad release."""

IDLE = 1 / 300
"""Fewer requests a second than this are called no traffic."""

LONG_SECONDS = 4 * 3600.0
"""A time beyond this is no answer to somebody who waits."""

LONGEST_SECONDS = 2.0
"""A deploy waits for its forecast no longer."""


@dataclass(frozen=True)
class Forecast:
    """Requests per second the service gets now (None = not known), and what that means for the verdict."""

    traffic_per_second: float | None
    lines: tuple[str, ...]


def strategy_now(rollout: Rollout, journal: Journal) -> Strategy:
    """The strategy a deploy would follow now: the first release of a service has nothing to share traffic with."""
    return rollout.strategy if journal.live is not None else Strategy.BLUE_GREEN


def forecast(platform: Platform, environment: str, service: str, rollout: Rollout, journal: Journal) -> Forecast:
    """How long verdicts will take. Where the traffic cannot be measured that is said, and nothing is raised."""
    if journal.live is None:
        return Forecast(None, ("the first release: nothing to compare with, and no traffic to judge it by yet",))
    rate = requests_per_second(platform, environment, service)
    if rate is None:
        words = "the traffic is not known: Prometheus does not answer, or has nothing about this service"
        return Forecast(None, (f"{words}; without measurements no canary gets beyond its first step",))
    return Forecast(rate, tuple(_sentences(rollout, journal, rate)))


def forecast_lines(
    platform: Platform, environment: str, service: str, journal: Journal | None = None
) -> tuple[str, ...]:
    """The forecast's sentences for the first lines of a deploy: never raises, and takes two seconds at most.

    `journal` is the service's, when it has just been read.
    """
    found: list[tuple[str, ...]] = []

    def work() -> None:
        try:
            rollout = resolve_rollout(platform.catalogue, environment, service)
            known = journal or read_journal(platform, environment, service)
            found.append(forecast(platform, environment, service, rollout, known).lines)
        except OpsError as error:
            found.append((f"no forecast: {error.message}",))

    # A thread of its own, because the store and Prometheus have longer time-outs than a deploy should wait.
    worker = threading.Thread(target=work, name="forecast", daemon=True)
    worker.start()
    worker.join(LONGEST_SECONDS)
    return found[0] if found else (f"no forecast: the traffic was not known within {LONGEST_SECONDS:g} s",)


def _sentences(rollout: Rollout, journal: Journal, rate: float) -> list[str]:
    match strategy_now(rollout, journal):
        case Strategy.CANARY:
            return _canary(rollout, rate)
        case Strategy.ROLLING:
            share = "from the first replica on"
        case _:
            share = "after the switch"
    if rate < IDLE:
        return ["no traffic: nothing can be judged; only a container that exits is noticed"]
    return [f"at {_rate(rate)} requests/s, {share}: {_found(rollout, rate, rate)}"]


def _canary(rollout: Rollout, rate: float) -> list[str]:
    steps = [step for step in rollout.steps if step.weight < 100]
    if rate < IDLE:
        back = f"{steps[0].max_seconds / 60:g} min" if steps else "a while"
        return [
            f"no traffic: the canary cannot be judged, it will return to stable after {back}",
            f"and be taken away unblamed after {rollout.hold_seconds / 60:g} min, unless requests come",
        ]
    lines: list[str] = []
    total = 0.0
    for step, hoped in zip(steps, expected(rollout, rate).steps, strict=False):
        share = hoped.requests_per_second
        begin = f"{step.weight} % gets {_rate(share)}/s"
        begin = f"at {_rate(rate)} requests/s, {begin}" if not lines else begin
        found = _found(rollout, share, rate)
        if isinf(hoped.minutes):
            lines.append(
                f"{begin}: no verdict within the {_time(step.max_seconds)} of this step: everybody would return to "
                f"stable. Give the step more weight or time; {found}"
            )
            return lines
        lines.append(f"{begin}: a verdict in about {_time(60 * hoped.minutes)} at this step; {found}")
        total += 60 * hoped.minutes
    when = _time(total + rollout.verify_seconds)
    if any(step.pause for step in steps):
        lines.append(f"live after about {when}, and the time a person takes")
    else:
        lines.append(f"live after about {when}, when it is good")
    return lines


def _found(rollout: Rollout, mine: float, rate: float) -> str:
    """When a bad release would be found that gets `mine` of the service's `rate` requests a second."""
    threshold = rollout.thresholds.error_rate
    share = min(max(BAD, 2 * threshold), 1.0)
    seconds = fail_seconds(share, mine, rate - mine, threshold)
    when = "after more than 4 h" if seconds > LONG_SECONDS else f"after about {_time(seconds)}"
    return f"an error rate of {100 * share:g} % would be found {when}"


def _rate(per_second: float) -> str:
    return f"{per_second:.0f}" if per_second >= 20 else f"{per_second:.1f}" if per_second >= 1 else f"{per_second:.2g}"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
