"""What to do about a watched release, given its newest verdict and what the ledger says around it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from ops_pipeline.core.judgement.verdict import Outcome, Verdict
from ops_pipeline.core.watch import Watch

TRIES = 5
"""Automatic roll-backs of one release that may be tried; after that a person is needed."""

ASKED_SECONDS = 60.0
"""A run that was asked to roll back has so long to take the lease before another one is asked."""

FIRST_PAUSE_SECONDS = 15.0
"""After a try that failed the next one waits so long, twice as long after each further one."""


class Act(StrEnum):
    """What a tick does about one watched release."""

    KEEP = "watched"  # nothing speaks against it, or not enough
    ROLL_BACK = "rolled back"  # to the warm standby, at once
    ASK = "roll-back asked for"  # a run starts the earlier release anew
    TURN_OFF = "flag turned off"
    ALERT = "needs a person"
    WAIT = "left alone"  # somebody works on it, or a run was asked already
    HOLD = "environment incident"
    BLIND = "cannot be judged"
    END = "no longer watched"


@dataclass(frozen=True)
class Around:
    """What the ledger and the hosts say around a release that is judged bad."""

    now: datetime
    worked_on: str = ""  # who holds the lease, and for what; "" = nobody
    guards: tuple[str, ...] = ()  # flags that guard the service and are on
    last_automatic: datetime | None = None  # newest automatic roll-back of the service
    no_standby: str = ""  # why no warm standby can take over; "" = one can
    delivered: bool = True  # whether the run that was asked for the newest try is known to be requested


@dataclass(frozen=True)
class Decision:
    """What to do and why, in one sentence."""

    act: Act
    why: str


def decide(watch: Watch, verdict: Verdict, around: Around, blind_since: datetime | None = None) -> Decision:
    """Given a live, watched release and its newest verdict, return what to do about it.

    `around` counts for FAIL only. `blind_since` is when it was first judged BLIND without a break since.
    """
    if verdict.outcome is Outcome.BLIND:
        seconds = (around.now - (blind_since or around.now)).total_seconds()
        if seconds < watch.rollout.blind_seconds:
            return Decision(Act.KEEP, verdict.reason)
        return Decision(
            Act.BLIND, f"nothing to judge by for {seconds:.0f} s, so nothing is rolled back: {verdict.reason}"
        )
    if verdict.incident:
        return Decision(Act.HOLD, f"not its fault alone, so nothing is rolled back: {verdict.reason}")
    if verdict.outcome is not Outcome.FAIL:
        return Decision(Act.KEEP, verdict.reason)
    return _bad(watch, verdict, around)


def _bad(watch: Watch, verdict: Verdict, around: Around) -> Decision:
    """What to do about FAIL: the first line that applies."""
    now, reason = around.now, verdict.reason
    if around.worked_on:
        return Decision(Act.WAIT, f"{reason}; left to whoever works on it: {around.worked_on}")
    if not watch.rollout.automatic_rollback:
        return Decision(Act.ALERT, f"{reason}; automatic roll-back is off here, so a person has to decide")
    if around.guards:
        flags = ", ".join(around.guards)
        return Decision(Act.TURN_OFF, f"{reason}; {flags} guards it and is on, so that is turned off first")
    if watch.not_before is not None and now < watch.not_before:
        if watch.asked and not around.delivered:
            return Decision(Act.ASK, reason)
        return Decision(Act.WAIT, f"{reason}; try {watch.attempts} has until {_time(watch.not_before)}")
    if watch.attempts >= TRIES:
        return Decision(Act.ALERT, f"{reason}; {watch.attempts} roll-backs were tried and none worked")
    cooldown = timedelta(seconds=watch.rollout.cooldown_seconds)
    last = around.last_automatic
    if last is not None and now < last + cooldown:
        return Decision(
            Act.ALERT,
            f"{reason}; the service was rolled back by itself at {_time(last)} already, and not again before "
            f"{_time(last + cooldown)}",
        )
    if around.no_standby:
        return Decision(Act.ASK, f"{reason}; {around.no_standby}, so a run starts the earlier release anew")
    return Decision(Act.ROLL_BACK, reason)


def next_try(watch: Watch, now: datetime, *, asked: bool) -> datetime:
    """When a further try may begin, after a run was `asked` for the newest one, or after that one failed."""
    seconds = ASKED_SECONDS if asked else FIRST_PAUSE_SECONDS * 2 ** max(watch.attempts - 1, 0)
    return now + timedelta(seconds=seconds)


def dependents_first(services: Iterable[str], depends_on: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The services so that each comes before those it depends on; where that leaves a choice, by name."""
    return tuple(reversed(dependencies_first(services, depends_on)))


def dependencies_first(services: Iterable[str], depends_on: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The services so that each comes after those it depends on, directly or through others.

    The catalogue has no circles among them (`catalogue/consistency.py`); a circle would be cut where it is met.
    """
    wanted = sorted(set(services))
    placed: dict[str, None] = {}
    entered: set[str] = set()

    def place(service: str) -> None:
        if service in entered:
            return
        entered.add(service)
        for needed in sorted(depends_on.get(service, ())):
            place(needed)
        placed[service] = None

    for service in wanted:
        place(service)
    return tuple(service for service in placed if service in wanted)


def numbers(verdict: Verdict) -> str:
    """The evidence in a few words: «2 of 1,900 failed, 5 of 1,900 slow»."""
    words = {"errors": "failed", "slow": "slow", "crashes": "instance-minutes with a crash"}
    shown = [
        f"{metric.bad:,} of {metric.total:,} {words.get(metric.name, metric.name)}"
        for metric in verdict.metrics
        if metric.total and (metric.bad or metric.name == "errors")
    ]
    return ", ".join(shown) or verdict.reason


def _time(moment: datetime) -> str:
    return f"{moment:%H:%M:%S} UTC"
