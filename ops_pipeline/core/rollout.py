"""How a release reaches users and is judged: recorded in its manifest, so that a later catalogue changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from ops_pipeline.core.judgement.verdict import Thresholds


class Strategy(StrEnum):
    """Ways to bring a release to its users."""

    BLUE_GREEN = "blue_green"  # all new replicas beside the old ones, one switch
    ROLLING = "rolling"  # replica by replica, traffic in proportion
    CANARY = "canary"  # a share of the users first, more with every verdict


@dataclass(frozen=True)
class CanaryStep:
    """One step of a canary. It is left upward on PASS, not before `min_requests` and `min_seconds` in this step."""

    weight: int  # percent of users; 100 = everybody
    min_requests: int = 50
    min_seconds: float = 10.0
    max_seconds: float = 600.0  # without a verdict by then, traffic returns to stable and the step waits
    pause: bool = False  # wait for a person after this step's PASS


@dataclass(frozen=True)
class SmokeTest:
    """A request or a command that a new release must pass after the switch and before it counts as live.

    A request goes straight to every new replica and through the edge; a command runs in a one-shot container of the
    release's image on its network, and must exit with 0.
    """

    name: str
    path: str = ""
    method: str = "GET"
    status: int = 200
    contains: str = ""
    command: tuple[str, ...] = ()
    timeout_seconds: float = 10.0


@dataclass(frozen=True)
class Rollout:
    """How one release is rolled out, judged and watched. Durations in seconds."""

    strategy: Strategy = Strategy.BLUE_GREEN
    steps: tuple[CanaryStep, ...] = ()  # canary only; the last one has weight 100
    thresholds: Thresholds = field(default_factory=Thresholds)
    smoke: tuple[SmokeTest, ...] = ()
    verify_seconds: float = 0.0  # judged for so long after the switch, before it counts as live
    blind_seconds: float = 60.0  # without data for so long, a canary's traffic returns to stable
    hold_seconds: float = 3600.0  # a canary that cannot be judged is taken away, unblamed, after so long
    watch_seconds: float | None = 1800.0  # judged by `metric_rollback` for so long after it went live; None = always
    automatic_rollback: bool = True
    cooldown_seconds: float = 1800.0  # no second automatic roll-back of the service within
    server_timeout_seconds: float = 60.0  # the edge's; no PASS before it has passed once
