"""What a run does that a tick of `metric_rollback` asked for: the roll-back that needs containers started anew."""

from __future__ import annotations

from ops_pipeline.core.judgement.verdict import Outcome
from ops_pipeline.core.release import Action, Release
from ops_pipeline.errors import BadInput, PolicyRefused, Problem
from ops_pipeline.ports import Progress
from ops_pipeline.services import ledger
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried
from ops_pipeline.services.verdicts import read_verdict
from ops_pipeline.services.watch_alerts import Telling
from ops_pipeline.services.watch_record import Memory, successor
from ops_pipeline.services.watch_rollback import WHO, BadReleases
from ops_pipeline.services.watches import read_watch


def roll_back_judged(
    platform: Platform, environment: str, service: str, release: int, *, run_id: str = "", progress: Progress
) -> Release:
    """Roll back release `release` because a tick asked a run for it, and return the roll-back's release.

    Whether it was judged bad, and by what evidence, is read from the ledger: who launches a run cannot blame anything.
    Done already, the release that did it is returned. Raise PolicyRefused when nothing asks for it, and what
    `roll_back` raises.
    """
    journal = read_journal(platform, environment, service)
    live = journal.live
    if live is not None and live.release != release:
        back = retried(
            platform.clock,
            f"read the live release of {environment}/{service}",
            lambda: ledger.read_release(platform.store, environment, service, live.timestamp),
        )
        if back.automatic and back.previous == release:
            progress(f"{environment}/{service} #{release} has been rolled back already, as #{back.number}")
            return back
    watch = read_watch(platform, environment, service)
    verdict = None if watch is None else read_verdict(platform, environment, service, watch.containers)
    reasons = []
    if live is None or live.release != release:
        reasons.append(f"#{release} is not live ({successor(journal)})")
    if watch is None or watch.release != release or not watch.asked:
        reasons.append(f"no tick of {WHO} has asked for it")
    if verdict is None or verdict.outcome is not Outcome.FAIL or verdict.incident:
        reasons.append(f"the newest verdict on #{release} in the ledger is not FAIL")
    if reasons or watch is None or verdict is None:
        hint = f"To go back because you want to: ops rollback {service} {environment}"
        raise PolicyRefused(f"automatic roll-back of {environment}/{service} #{release}", reasons, hint=hint)
    memory = Memory()
    telling = Telling(platform, memory, progress)
    bad = BadReleases(platform, memory, telling, run_id=run_id, delivered=frozenset(), progress=progress)
    return bad.roll_back_asked(watch, verdict)


def made_by_itself(platform: Platform, environment: str, service: str, number: int) -> Release:
    """The release of a roll-back that a tick made, to be shown. Nothing is touched.

    Raise NotFound (no such release), BadInput (it is something else).
    """
    release = retried(
        platform.clock,
        f"read the releases of {environment}/{service}",
        lambda: ledger.find_release(platform.store, environment, service, number),
    )
    if release.action is not Action.ROLLBACK or not release.automatic:
        text = (
            f"{release.label} is no roll-back that was made by itself ({release.action} by {release.who or 'nobody'})"
        )
        raise BadInput([Problem("run config: made", text)], subject="launch")
    return release
