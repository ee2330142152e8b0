"""How long a canary will need for a verdict, before it starts: expected minutes to PASS and to FAIL. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, log

from ops_pipeline.core.judgement.account import GOOD_LEVEL, HALF_LEVELS, THRESHOLD_FIRST, THRESHOLD_LEVEL, WORSE_LEVEL
from ops_pipeline.core.judgement.evidence import FIRST, STAKES, WORSE_RATIOS, evidence, good
from ops_pipeline.core.judgement.judge import PASS_SECONDS, PASS_SLOW_UNITS, PASS_UNITS, SLOW_SHARE, WARM_UP_SECONDS
from ops_pipeline.core.judgement.units import BUSY_RATE, BUSY_UNIT_SECONDS, UNIT_SECONDS
from ops_pipeline.core.rollout import CanaryStep, Rollout


@dataclass(frozen=True)
class StepForecast:
    """One step of a canary. `minutes`: expected until it is left upward; inf when it cannot be before `max_seconds`.

    `blocks` says what would keep it from being left; "" = nothing.
    """

    weight: int
    requests_per_second: float
    minutes: float
    blocks: str = ""


@dataclass(frozen=True)
class Forecast:
    """What to expect of a canary. Minutes; inf = not to be expected at this traffic.

    `fail_minutes`: from the start until a FAIL in its first step, by true share of failing requests.
    """

    steps: tuple[StepForecast, ...]
    pass_minutes: float
    fail_minutes: dict[float, float]

    @property
    def blocks(self) -> tuple[str, ...]:
        """Everything that would hold the canary, one sentence each."""
        return tuple(step.blocks for step in self.steps if step.blocks)


def wald_requests(share: float, tolerated: float, level: float) -> float:
    """Requests needed on average to reach `level` against `tolerated` at a true `share`; inf when it is not above.

    Wald 1945 with full power: ln(level) / KL(share, tolerated).
    """
    if share <= tolerated:
        return inf
    other = (1 - share) * log((1 - share) / (1 - tolerated)) if share < 1 else 0.0
    return log(level) / (share * log(share / tolerated) + other)


def unit_seconds(requests_per_second: float) -> float:
    """Length of a unit at this traffic."""
    return BUSY_UNIT_SECONDS if requests_per_second > BUSY_RATE else UNIT_SECONDS


def fail_seconds(share: float, rate: float, stable_rate: float, threshold: float) -> float:
    """Expected seconds from the start until a release with this true share is rolled back on errors; inf: never.

    `rate` and `stable_rate` in requests a second; stable is taken as clean. The best stake's mean growth a unit gives
    the time to each level, with the spread of the units' shares in it; at much traffic that is the unit rule, at little
    traffic it nears Wald's bound. It is never less than the least number of units that could reach the levels.
    """
    if rate <= 0 or share <= threshold:
        return inf
    length = unit_seconds(rate)
    needed = max(
        _units_to(share, rate * length, threshold / 2, HALF_LEVELS["errors"], FIRST),
        _units_to(share, rate * length, threshold, THRESHOLD_LEVEL, THRESHOLD_FIRST),
    )
    if stable_rate >= 0.2 * (rate + stable_rate):
        # Every failing request is the release's: W grows by ratio/(1 + s·(ratio − 1)) with each.
        side = rate / (rate + stable_rate)
        failing = min(log(WORSE_LEVEL * len(WORSE_RATIOS)) / log(r / (1 + side * (r - 1))) for r in WORSE_RATIOS)
        needed = max(needed, failing / (share * rate * length))
    return needed * length + UNIT_SECONDS - length  # the first unit is always a long one


def pass_seconds(rate: float, rollout: Rollout) -> float:
    """Expected seconds from the start until a release without faults passes at this rate of requests; inf: never."""
    if rate <= 0:
        return inf
    length = unit_seconds(rate)
    each = length / (1 - exp(-rate * length))  # seconds from one unit with requests to the next
    errors = _clean_requests(rollout.thresholds.error_rate) / rate
    slow = WARM_UP_SECONDS + max(_clean_requests(SLOW_SHARE) / rate, PASS_SLOW_UNITS * each)
    return max(PASS_SECONDS, rollout.server_timeout_seconds, PASS_UNITS * each, errors, slow)


def forecast(rollout: Rollout, requests_per_second: float) -> Forecast:
    """Expect for a canary of `rollout.steps` when the service gets so many requests a second in all."""
    steps: list[StepForecast] = []
    total = served = 0.0
    steps_of: Sequence[CanaryStep] = rollout.steps or (CanaryStep(100),)
    for step in steps_of:
        rate = requests_per_second * step.weight / 100
        if step.weight >= 100:
            steps.append(StepForecast(step.weight, rate, rollout.verify_seconds / 60))
            total += rollout.verify_seconds
            continue
        verdict = pass_seconds(rate, rollout)
        # Evidence carries over: what is left of the time to PASS shrinks with what earlier steps have seen.
        left = max(0.0, verdict - served / rate) if rate > 0 else inf
        seconds = max(step.min_seconds, left, step.min_requests / rate if rate > 0 else inf)
        blocks = ""
        if seconds > step.max_seconds:
            blocks = (
                f"step {step.weight} %: {rate:.2g} requests/s to the canary need {seconds / 60:.0f} minutes for a "
                f"verdict, more than the {step.max_seconds / 60:.0f} allowed"
                if seconds < inf
                else f"step {step.weight} %: without requests there is no verdict"
            )
            seconds = inf
        elif step.pause:
            blocks = f"step {step.weight} %: waits for a person"
        steps.append(StepForecast(step.weight, rate, seconds / 60, blocks))
        total += seconds
        served += rate * seconds if seconds < inf else 0.0
    first = steps_of[0]
    rate = requests_per_second * first.weight / 100
    threshold = rollout.thresholds.error_rate
    fails = {p: fail_seconds(p, rate, requests_per_second - rate, threshold) / 60 for p in (0.1, 0.5)}
    return Forecast(tuple(steps), total / 60, fails)


def _clean_requests(threshold: float) -> int:
    """Requests without a fault that a PASS needs."""
    low, high = 1, 1 << 20
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if good(0, middle, threshold) >= GOOD_LEVEL else (middle + 1, high)
    return low


def _units_to(share: float, requests: float, tolerated: float, level: float, first: float) -> float:
    """Units of so many requests on average until E reaches a level."""
    growths = [_growth(share, requests, tolerated, stake) for stake in STAKES]
    best = max(growths)
    if best <= 0:
        return inf
    least = 0
    while least < 1000 and evidence([(round(1000 * share), 1000)] * least, tolerated, first=first) < level:
        least += 1
    # Some of the accounts grow with the best one: together they save it about half of what a single one would need.
    return max(float(least), log(level * len(STAKES) / 2 / first) / best)


def _growth(share: float, requests: float, tolerated: float, stake: float) -> float:
    """Mean growth of an account's logarithm in one unit; both the requests and the failing ones are Poisson."""
    bad, fine = share * requests, (1 - share) * requests
    if requests > 60:
        deviation = (share * (1 - share) / requests) ** 0.5
        points = [(share + z * deviation, w) for z, w in ((-1.732, 1 / 6), (0.0, 2 / 3), (1.732, 1 / 6))]
        return sum(w * log(1 + stake * (max(x, 0.0) / tolerated - 1)) for x, w in points)
    growth, limit = 0.0, int(requests + 8 * requests**0.5 + 12)
    failing = exp(-bad)
    for k in range(limit):
        others = exp(-fine)
        for n in range(limit):
            if k + n:
                growth += failing * others * log(1 + stake * (k / (k + n) / tolerated - 1))
            others *= fine / (n + 1)
        failing *= bad / (k + 1)
    return growth
