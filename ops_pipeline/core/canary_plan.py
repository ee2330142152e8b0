"""A canary with a share of the users: what a verdict, a person, or neither for too long, make of it.

| seen | done |
|---|---|
| a container ended by itself, or FAIL | withdrawn at once, with blame |
| a container unhealthy, gone or stopped by somebody | withdrawn, not blamed |
| PASS, and the step's requests and time | the next share; waits for a person first where the step says so |
| BLIND, INCONCLUSIVE, environment incident | the share stays |
| BLIND for `blind_seconds`, or no step up within `max_seconds` | parked: everybody to stable, ready beside it |
| parked, and data are back, or stable's traffic would do | the same share again |
| parked or waiting for a person for `hold_seconds` in all | withdrawn, not blamed |
"""

from __future__ import annotations

from datetime import datetime

from ops_pipeline.core import shifting
from ops_pipeline.core.journal import Journal, Work, containers_of, wanted, weight, work_of
from ops_pipeline.core.judgement.verdict import Outcome
from ops_pipeline.core.rollout import CanaryStep
from ops_pipeline.core.steps import Do, Step
from ops_pipeline.core.work_state import (
    due,
    faults,
    partial_steps,
    take_back,
    turn,
    turn_or_take_back,
)
from ops_pipeline.core.world import World

LOOK_SECONDS = 1.0
"""How often a release that gets traffic is looked at."""

BACK_SECONDS = 5.0
"""Data must have been back for so long before a canary that was parked for their lack gets traffic again."""

LATE_SECONDS = 60.0
"""A canary parked for want of evidence rests for so long before stable's traffic is asked whether it would do now."""

CLEAN_REQUESTS = 72
"""Fewest requests that can PASS: good(0, 72, 0.05) ≥ 20."""


def judge(journal: Journal, world: World, now: datetime) -> Step:
    """Given a canary at one of its partial steps, and containers, verdict and word as seen, return what to do."""
    work, verdict = work_of(journal), world.verdict
    fault = faults(work, world) or world.why_not_ready(containers_of(work), due(journal))
    if fault:
        return turn_or_take_back(journal, world, f"no longer healthy as a canary: {fault}", now)
    if verdict is not None and verdict.outcome is Outcome.FAIL and not verdict.incident:
        return take_back(journal, verdict, now)
    if world.word is not None and not world.word.go:
        return turn(journal, f"taken away by {world.word.who}{_why(world)}", now)
    seen = journal if verdict is None else shifting.observed(journal, verdict, now)
    work = work_of(seen)
    step = partial_steps(seen)[work.step]
    if work.held_since is not None and (work.parked or work.paused) and _passed(work.held_since, now) >= _hold(work):
        return turn(seen, f"{_waits_for(work)} for {_hold(work) / 60:g} minutes; nothing speaks against it", now)
    go_on = _parked(seen, work, step, world, now) if work.parked else _at_work(seen, work, step, world, now)
    if go_on is not None:
        return go_on
    text, detail = _standing(seen, step, world)
    return Step(Do.WAIT, text, None if seen is journal else seen, wait_seconds=LOOK_SECONDS, detail=detail)


def next_share(journal: Journal, world: World, now: datetime, words: str) -> Step:
    """The next step of a canary: its share of the users, or everybody."""
    work = work_of(journal)
    following = partial_steps(journal)[work.step + 1 :]
    number, hosts = work.release.number, ", ".join(world.hosts)
    if not following:
        routing = {host: wanted(journal, host) for host in world.hosts}
        text = f"switch to pool {work.release.pool} (#{number}) on {hosts}: {words}"
        return Step(Do.ROUTE, text, shifting.given_all(journal, routing, now, text))
    pool = work.release.pool
    text = f"{following[0].weight} % of the users get #{number} on {hosts}: {words}"
    then = shifting.shared(
        journal,
        {host: wanted(journal, host).pools[pool] for host in world.hosts},
        following[0].weight,
        now,
        text,
        step=work.step + 1,
        requests=shifting.served(world.verdict),
    )
    return Step(Do.ROUTE, text, then)


def _at_work(journal: Journal, work: Work, step: CanaryStep, world: World, now: datetime) -> Step | None:
    """What to do with a canary that has its share; None = wait."""
    verdict, number = world.verdict, work.release.number
    passed = work.outcome == Outcome.PASS and not work.incident
    since = work.step_since or now
    if work.paused:
        if world.word is not None and work.outcome != Outcome.BLIND and not work.incident:
            return next_share(journal, world, now, f"{world.word.who} said so{_why(world)}")
    elif passed and _enough(work, step, world, now):
        reason = verdict.reason if verdict is not None else ""
        if not step.pause or world.word is not None:
            return next_share(journal, world, now, f"PASS: {reason}")
        text = f"#{number} waits at {step.weight} % for a person: `ops resume` or `ops abort`"
        return Step(Do.RECORD, text, shifting.paused(journal, now, f"{text}. PASS: {reason}"))
    elif _passed(since, now) >= step.max_seconds:
        text = f"#{number} rests: no verdict within {step.max_seconds:g} s at {step.weight} %; everybody gets stable"
        return _park(journal, shifting.LATE, text, world, now)
    blind = _passed(work.outcome_since or since, now) if work.outcome == Outcome.BLIND else 0.0
    # The first verdict of a step may be long in coming; then the step's own time is the time without data.
    blind = _passed(since, now) if verdict is None and not work.outcome else blind
    limit = work.release.rollout.blind_seconds
    if blind >= limit:
        text = f"#{number} rests: nothing was measured for {limit:g} s at {step.weight} %; everybody gets stable"
        return _park(journal, shifting.BLIND, text, world, now)
    return None


def _parked(journal: Journal, work: Work, step: CanaryStep, world: World, now: datetime) -> Step | None:
    """What to do with a canary whose traffic was returned to stable; None = wait."""
    # A word from before the rest was about going on after a PASS, not about going on without one.
    if world.word is not None and work.parked_at is not None and world.word.at >= work.parked_at:
        return next_share(journal, world, now, f"{world.word.who} said so without a verdict{_why(world)}")
    number, measured = work.release.number, work.outcome not in ("", Outcome.BLIND)
    since = work.parked_at or now
    if work.parked == shifting.BLIND:
        back = measured and _passed(work.outcome_since or now, now) >= BACK_SECONDS
        words = "measurements are back"
    else:
        rate = (shifting.served_by_stable(world.verdict) - work.parked_stable) / max(_passed(since, now), 1.0)
        coming = rate * step.weight / 100 * step.max_seconds
        back = measured and _passed(since, now) >= LATE_SECONDS and coming >= max(step.min_requests, CLEAN_REQUESTS)
        words = f"stable answers {rate:.1f} requests/s, enough for a verdict"
    if not back:
        return None
    text = f"{step.weight} % of the users get #{number} again: {words}"
    return Step(Do.ROUTE, text, shifting.resumed(journal, step.weight, now, text))


def _park(journal: Journal, cause: str, text: str, world: World, now: datetime) -> Step:
    stable = shifting.served_by_stable(world.verdict)
    return Step(Do.ROUTE, text, shifting.parked(journal, cause, now, text, stable=stable))


def _enough(work: Work, step: CanaryStep, world: World, now: datetime) -> bool:
    requests = shifting.served(world.verdict) - work.step_requests
    return requests >= step.min_requests and _passed(work.step_since or now, now) >= step.min_seconds


def _standing(journal: Journal, step: CanaryStep, world: World) -> tuple[str, str]:
    """How a waiting canary stands, in words that change only when something does, and with its numbers."""
    work, verdict = work_of(journal), world.verdict
    judged = "environment incident" if work.incident else work.outcome or "not judged yet"
    if work.parked:
        text = f"#{work.release.number} rests at 0 %, ready beside stable ({judged})"
    elif work.paused:
        text = f"#{work.release.number} waits at {weight(journal)} % for a person ({judged})"
    else:
        text = f"#{work.release.number} at {weight(journal)} % is watched ({judged})"
    reason = verdict.reason if verdict is not None else "no verdict yet"
    here = max(shifting.served(verdict) - work.step_requests, 0)
    wanted_here = f" of at least {step.min_requests}" if here < step.min_requests else ""
    return text, f"{weight(journal)} %: {here}{wanted_here} requests at this step; {reason}"


def _waits_for(work: Work) -> str:
    return "nobody decided about the canary" if work.paused else "the canary could not be judged"


def _hold(work: Work) -> float:
    return work.release.rollout.hold_seconds


def _why(world: World) -> str:
    return f": {world.word.why}" if world.word is not None and world.word.why else ""


def _passed(since: datetime, now: datetime) -> float:
    return (now - since).total_seconds()
