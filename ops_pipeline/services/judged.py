"""What is being judged at the moment, read from the ledger alone: canaries under way and watched live releases."""

from __future__ import annotations

from dataclasses import dataclass

from ops_pipeline.core import shifting
from ops_pipeline.core.journal import Journal, Work, weight
from ops_pipeline.core.judgement.verdict import Verdict
from ops_pipeline.core.release import Phase
from ops_pipeline.core.rollout import CanaryStep, Strategy
from ops_pipeline.errors import NotFound, StoreDamaged
from ops_pipeline.ports import BlobInfo
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried
from ops_pipeline.services.verdicts import read_verdict, verdict_key
from ops_pipeline.services.watches import read_watch

PARKED = {
    shifting.BLIND: "its users were returned to stable because nothing was measured",
    shifting.LATE: "its users were returned to stable for want of a verdict in time",
}


@dataclass(frozen=True)
class Judged:
    """A release that is judged now. `weight`: percent of the users it has while it is rolled out, None once it is live.

    `left_seconds` of its watch, None = without an end, or not live yet. `verdict`: the newest one, None = none yet.
    """

    release: int
    weight: int | None
    left_seconds: float | None
    waits: bool  # for a person: `ops resume` or `ops abort`
    parked: str  # why its users were returned to stable for the time being; "" = they were not
    verdict: Verdict | None


@dataclass(frozen=True)
class Waiting:
    """A canary step a person may decide about. `step` counts from 0; `paused`: it goes on when a person says so."""

    release: int
    version: str
    step: int
    weight: int
    paused: bool


def judged(platform: Platform, environment: str, service: str) -> Judged | None:
    """What is judged of a service now; None = nothing. Raise StoreDamaged, Unavailable."""
    return judged_of(platform, read_journal(platform, environment, service))


def judged_of(platform: Platform, journal: Journal) -> Judged | None:
    """The same, of a service whose journal has just been read."""
    work, environment, service = journal.work, journal.environment, journal.service
    if work is not None and not work.undo and work.stage is Phase.SHIFTING:
        number = work.release.number
        verdict = read_verdict(platform, environment, service, number)
        parked = PARKED.get(work.parked, work.parked)
        return Judged(number, weight(journal), None, work.paused, parked, verdict)
    watch = read_watch(platform, environment, service)
    now = platform.clock.now()
    if watch is None or watch.over(now):
        return None
    seconds = watch.rollout.watch_seconds
    left = None if seconds is None else seconds - (now - watch.since).total_seconds()
    return Judged(watch.release, None, left, False, "", read_verdict(platform, environment, service, watch.containers))


def waiting(platform: Platform, environment: str, service: str, *, paused_only: bool = False) -> Waiting:
    """The canary step under way; with `paused_only` one that waits for a person.

    Raise NotFound, saying what is there instead, when there is none; StoreDamaged, Unavailable.
    """
    journal = read_journal(platform, environment, service)
    work, place = journal.work, f"{environment}/{service}"
    if work is None:
        there = f"#{journal.live.release} is live" if journal.live else "nothing was ever deployed"
        raise NotFound(f"no canary of {place} waits: nothing is being released ({there})")
    label = f"{place} #{work.release.number}"
    if work.undo:
        raise NotFound(f"no canary of {place} waits: {label} is being undone ({work.undo})")
    step = _step(work)
    if step is None:
        words = f"{work.release.rollout.strategy} release, {work.stage}"
        raise NotFound(f"no canary of {place} waits: {label} is a {words}")
    if paused_only and not (work.paused or work.parked):
        count = len(work.release.rollout.steps)
        then = "is still being judged" if step.pause else "goes on by its verdict alone"
        words = f"step {work.step + 1} of {count}, at {step.weight} %, {then}"
        raise NotFound(f"{label} does not wait for a person: {words}", hint="ops abort takes the canary away.")
    return Waiting(work.release.number, work.release.version, work.step, step.weight, work.paused)


def newest_verdict(platform: Platform, environment: str, service: str, release: int | None = None) -> Verdict:
    """The newest verdict on a release, or on whichever release was judged last. Raise NotFound, StoreDamaged."""
    place = f"{environment}/{service}"
    if release is None:
        prefix = verdict_key(environment, service, 0).removesuffix("0.json")

        def listed() -> list[BlobInfo]:
            return [info for info in platform.store.list(prefix) if info.key.endswith(".json")]

        known = retried(platform.clock, f"list the verdicts on {place}", listed)
        if not known:
            raise NotFound(f"no release of {place} was ever judged")
        newest = max(known, key=lambda info: (info.modified, info.key))
        name = newest.key.removeprefix(prefix).removesuffix(".json")
        if not name.isdecimal():
            raise StoreDamaged(f"stored object {newest.key} is damaged: its name is no release's number")
        release = int(name)
    found = read_verdict(platform, environment, service, release)
    if found is None:
        raise NotFound(f"{place} #{release} was never judged", hint="ops releases lists what there is.")
    return found


def _step(work: Work) -> CanaryStep | None:
    rollout = work.release.rollout
    under_way = rollout.strategy is Strategy.CANARY and work.stage is Phase.SHIFTING and rollout.steps
    return rollout.steps[min(work.step, len(rollout.steps) - 1)] if under_way else None
