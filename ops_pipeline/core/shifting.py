"""A release that gets traffic: shares, waiting, parking, verification, as steps from one journal to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from ops_pipeline.core import journal as transitions
from ops_pipeline.core.journal import Journal, label, noted, switched, wanted, work_of
from ops_pipeline.core.judgement.verdict import Verdict
from ops_pipeline.core.release import Instance, Phase
from ops_pipeline.core.routing import Pool, Routing

BLIND, LATE = "blind", "late"
"""Why a canary is parked: nothing was measured, or what was measured did not do for a verdict in time."""


def served(verdict: Verdict | None) -> int:
    """Requests the judged release has answered, as far as a verdict knows."""
    return max((metric.total for metric in verdict.metrics if metric.name == "errors"), default=0) if verdict else 0


def served_by_stable(verdict: Verdict | None) -> int:
    """The same for the release it is compared with."""
    if verdict is None:
        return 0
    return max((metric.stable_total for metric in verdict.metrics if metric.name == "errors"), default=0)


def shared(
    journal: Journal,
    pools: Mapping[str, Pool],
    weight: int,
    now: datetime,
    text: str,
    *,
    step: int,
    requests: int = 0,
    instances: tuple[Instance, ...] = (),
) -> Journal:
    """The journal with `weight` percent of the users sent to the release being made, by its pool on every host.

    `requests` is what it had answered when this step began.
    """
    work = work_of(journal)
    name = work.release.pool
    routing = {
        host: replace(transitions.with_pool(wanted(journal, host), name, pools[host]), candidate=name, weight=weight)
        for host in pools
    }
    first = work.judged_since is None
    moved = transitions.advanced(journal, Phase.SHIFTING, now, text, routing=routing, instances=instances, told=first)
    standing = replace(
        work_of(moved),
        step=step,
        step_since=now,
        step_requests=requests,
        judged_since=work.judged_since or now,
        held_since=None,
        paused=False,
        parked="",
        parked_at=None,
    )
    return replace(moved, work=standing)


def given_all(journal: Journal, routing: Mapping[str, Routing], now: datetime, text: str) -> Journal:
    """The journal with everybody sent to the release being made, on every host of `routing`."""
    work = work_of(journal)
    everywhere = {host: switched(one, work.release.pool) for host, one in routing.items()}
    first = work.judged_since is None
    moved = transitions.advanced(journal, Phase.SHIFTING, now, text, routing=everywhere, told=first)
    standing = replace(
        work_of(moved),
        step_since=now,
        judged_since=work.judged_since or now,
        held_since=None,
        paused=False,
        parked="",
        parked_at=None,
    )
    return replace(moved, work=standing)


def observed(journal: Journal, verdict: Verdict, now: datetime) -> Journal:
    """The journal with the newest verdict noted; the same one when it says what the one before it said."""
    work = work_of(journal)
    if (work.outcome, work.incident) == (verdict.outcome.value, verdict.incident):
        return journal
    seen = replace(work, outcome=verdict.outcome.value, outcome_since=now, incident=verdict.incident)
    words = "environment incident" if verdict.incident else verdict.outcome.value
    return noted(replace(journal, work=seen), now, f"{label(work)} is judged {words}: {verdict.reason}")


def paused(journal: Journal, now: datetime, text: str) -> Journal:
    """The journal with the release waiting for a person at its share."""
    work = work_of(journal)
    return noted(replace(journal, work=replace(work, paused=True, held_since=work.held_since or now)), now, text)


def parked(journal: Journal, cause: str, now: datetime, text: str, *, stable: int) -> Journal:
    """The journal with all traffic returned to stable for the time being; the release stays ready beside it.

    `stable` is what stable had answered by now.
    """
    work = work_of(journal)
    back = {host: replace(routing, candidate=None, weight=0) for host, routing in journal.routing.items()}
    waiting = replace(
        work, parked=cause, parked_at=now, parked_stable=stable, paused=False, held_since=work.held_since or now
    )
    return noted(replace(journal, work=waiting, routing=back), now, text)


def resumed(journal: Journal, weight: int, now: datetime, text: str) -> Journal:
    """The journal with a parked release at its step's share again. Evidence carries over; the step's time does not."""
    work = work_of(journal)
    again = {
        host: replace(routing, candidate=work.release.pool, weight=weight) for host, routing in journal.routing.items()
    }
    going = replace(work, parked="", parked_at=None, step_since=now)
    return noted(replace(journal, work=going, routing=again), now, text)


def verifying(journal: Journal, now: datetime, text: str) -> Journal:
    """The journal with the release passed by its tests and judged from here on with everybody's traffic."""
    work = work_of(journal)
    return noted(replace(journal, work=replace(work, verify_since=now)), now, text)


def replica_begun(journal: Journal, index: int, now: datetime, text: str) -> Journal:
    """The journal with the next replica of a rolling release about to start on every host."""
    moved = transitions.advanced(journal, Phase.STARTING, now, text, told=index == 0)
    return replace(moved, work=replace(work_of(moved), step=index))
