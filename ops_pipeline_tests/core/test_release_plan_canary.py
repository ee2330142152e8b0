"""A canary's decisions as a table: what verdict, person and time make of its share of the users."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from ops_pipeline.core import journal as transitions
from ops_pipeline.core.delivery_alerts import news, standing
from ops_pipeline.core.journal import Journal, work_of
from ops_pipeline.core.judgement.verdict import MetricEvidence, Outcome, Verdict
from ops_pipeline.core.release import Phase
from ops_pipeline.core.release_plan import Do, Step, needs, next_step
from ops_pipeline.core.rollout import CanaryStep, Rollout, Strategy
from ops_pipeline.core.world import Replica, Word, World
from ops_pipeline_tests.core.test_release_plan import DIGEST, HOSTS, NOW, SERVING, release, replica

STEPS = (CanaryStep(10, min_requests=50, min_seconds=10, max_seconds=600), CanaryStep(50), CanaryStep(100))
ROLLOUT = Rollout(Strategy.CANARY, STEPS, verify_seconds=10, blind_seconds=60, hold_seconds=3600)
OLD = tuple(replica(number, host) for number in (1, 2) for host in HOSTS)
NEW = tuple(replica(3, host) for host in HOSTS)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def verdict(outcome: Outcome, total: int = 1000, *, bad: int = 0, incident: bool = False, stable: int = 0) -> Verdict:
    errors = MetricEvidence("errors", 0.05, bad, total, 30, 1, 1, 1, 1, 1, 0, stable_total=stable)
    return Verdict(outcome, f"{bad} of {total} requests failed", NOW, NOW, 3, 2, incident=incident, metrics=(errors,))


PASS, FAIL = verdict(Outcome.PASS), verdict(Outcome.FAIL, bad=500)
BLIND, UNSURE = verdict(Outcome.BLIND, 0), verdict(Outcome.INCONCLUSIVE, 20)
INCIDENT = verdict(Outcome.INCONCLUSIVE, bad=500, incident=True)


def seen(newest: Verdict | None = None, *replicas: Replica, **changes: object) -> World:
    return replace(World(HOSTS, (*OLD, *(replicas or NEW)), verdict=newest), **changes)  # type: ignore[arg-type]


def decide(journal: Journal, world: World, seconds: float) -> Step:
    return next_step(journal, world, at(seconds))


def follow(journal: Journal, world: World, seconds: float) -> Journal:
    """The journal after the step that this makes."""
    step = decide(journal, world, seconds)
    return journal if step.then is None else step.then


def canary(rollout: Rollout = ROLLOUT, digest: str = "") -> Journal:
    """#3 with its first share of the users, since second 2."""
    made = replace(release(3, "c"), rollout=rollout, digest=digest or "sha256:" + "b" * 64)
    journal = transitions.planned(SERVING, made, HOSTS, NOW, own_containers=True)
    journal = follow(journal, World(HOSTS, OLD), 0)
    journal = follow(journal, seen(), 0.5)
    assert work_of(journal).stage is Phase.HEALTHY
    return follow(journal, seen(), 2)


def shares(journal: Journal) -> set[tuple[str | None, str | None, int]]:
    return {(one.live, one.candidate, one.weight) for one in journal.routing.values()}


def test_the_first_share_is_judged_from_its_first_user_on() -> None:
    journal = canary()
    assert shares(journal) == {("b", "c", 10)}
    work = work_of(journal)
    assert (work.stage, work.step, work.judged_since, work.step_since) == (Phase.SHIFTING, 0, at(2), at(2))
    wanted = needs(journal, at(3))
    assert wanted.verdict and wanted.decision, "judged, and a person may speak"
    assert not (wanted.routing or wanted.probes or wanted.route), "nothing is run inside containers while it waits"


def test_from_the_first_share_to_live() -> None:
    journal = canary()
    assert decide(journal, seen(PASS), 11).do is Do.WAIT, "min_seconds has not passed"
    few = verdict(Outcome.PASS, 49)
    assert decide(journal, seen(few), 13).do is Do.WAIT, "min_requests have not come"
    journal = follow(journal, seen(PASS), 13)
    assert shares(journal) == {("b", "c", 50)} and work_of(journal).step_requests == 1000
    assert work_of(journal).judged_since == at(2), "evidence carries over"
    assert decide(journal, seen(verdict(Outcome.PASS, 1049)), 30).do is Do.WAIT, "requests of this step count"
    journal = follow(journal, seen(verdict(Outcome.PASS, 1050)), 30)
    assert shares(journal) == {("c", None, 0)}
    routed = replace(seen(), routing=dict(journal.routing))
    journal = follow(journal, routed, 31)
    assert work_of(journal).verify_since == at(31)
    assert decide(journal, seen(UNSURE), 40).do is Do.WAIT
    last = needs(journal, at(41))
    assert last.routing and last.probes and last.route and last.verdict, "all is looked at once more before it is live"
    journal = follow(journal, replace(seen(BLIND), routing=dict(journal.routing)), 41)
    assert journal.live is not None and journal.live.release == 3 and journal.work is None
    assert journal.standby is not None and journal.standby.release == 2
    phases = [entry for entry in journal.outbox if entry.release == 3]
    assert [entry.phase for entry in phases] == [Phase.LIVE]
    watch = phases[0].watch
    assert watch is not None and (watch.release, watch.containers, watch.stable, watch.since) == (3, 3, 2, at(41))


def test_bad_after_the_switch_is_taken_back_too() -> None:
    journal = canary()
    for seconds, total in ((13, 1000), (30, 2000)):
        journal = follow(journal, seen(verdict(Outcome.PASS, total)), seconds)
    journal = follow(journal, replace(seen(), routing=dict(journal.routing)), 31)
    step = decide(journal, seen(FAIL), 35)
    assert step.then is not None and step.then.routing == SERVING.routing
    assert work_of(step.then).blame == FAIL


TAKEN_AWAY = {
    "judged bad": ({"verdict": FAIL}, NEW, True, "500 of 1000 requests failed"),
    "exits": ({"verdict": PASS}, (NEW[0], replica(3, "h2", state="exited", exit_code=1)), True, "exited (exit code 1)"),
    "is killed for memory": (
        {"verdict": None},
        (NEW[0], replica(3, "h2", state="running", restarts=1, exit_code=137, oom_killed=True)),
        True,
        "out of memory",
    ),
    "is unhealthy": ({"verdict": BLIND}, (NEW[0], replica(3, "h2", health="unhealthy")), False, "HEALTHCHECK"),
    "is gone": ({"verdict": PASS}, NEW[:1], False, "has no replica 0"),
    "is stopped by somebody": (
        {"verdict": PASS, "stopped": frozenset({NEW[1].key})},
        (NEW[0], replica(3, "h2", state="exited", exit_code=143)),
        False,
        "exited",
    ),
    "a person says so": ({"verdict": PASS, "word": Word(False, "ann", NOW, "ugly")}, NEW, False, "by ann: ugly"),
    "a host is away": ({"unreachable": {"h2": "connection refused"}}, NEW, False, "host h2 does not answer"),
}


@pytest.mark.parametrize("case", TAKEN_AWAY)
def test_what_takes_it_away_at_once_and_whether_it_is_blamed(case: str) -> None:
    changes, replicas, blamed, words = TAKEN_AWAY[case]
    journal = canary()
    step = decide(journal, seen(None, *replicas, **changes), 5)
    assert step.do is Do.ROUTE and step.then is not None
    assert step.then.routing == SERVING.routing, "the exact earlier routing"
    assert words in work_of(step.then).undo
    assert (work_of(step.then).blame is not None) is blamed
    assert [alert.name for alert in news(journal, step.then)] == (["ReleaseRolledBack"] if blamed else [])


def test_an_undo_with_blame_accuses_the_digest_before_it_tidies_up() -> None:
    turned = follow(canary(), seen(FAIL), 5)
    back = replace(seen(), routing=dict(SERVING.routing))
    step = decide(turned, back, 6)
    assert step.do is Do.RECORD and step.then is not None
    (change,) = step.then.outbox
    assert (change.phase, change.quarantine, change.evidence) == (Phase.ROLLED_BACK, "sha256:" + "b" * 64, FAIL)
    drains = decide(step.then, replace(back, connections=2), 7)
    assert drains.do is Do.WAIT, "requests that it has begun are answered"
    step = decide(step.then, replace(back, connections=2), 12)
    assert step.do is Do.REMOVE and {identity for _, identity in step.containers} == {"h1-3", "h2-3"}
    done = decide(follow(turned, back, 6), replace(back, replicas=OLD), 8)
    assert done.then is not None and done.then.work is None and done.then.outbox == ()
    assert (done.then.live, done.then.standby) == (SERVING.live, SERVING.standby)


def test_the_digest_that_stays_live_is_never_accused() -> None:
    turned = follow(canary(digest=DIGEST), seen(FAIL), 5)
    accused = follow(turned, replace(seen(), routing=dict(SERVING.routing)), 6)
    assert [(change.phase, change.quarantine) for change in accused.outbox] == [(Phase.ROLLED_BACK, "")]
    assert "its configuration is to blame" in accused.lines[-1].text


@pytest.mark.parametrize("frozen", [UNSURE, INCIDENT, BLIND, None], ids=["unsure", "incident", "blind", "no verdict"])
def test_without_a_verdict_the_share_stays(frozen: Verdict | None) -> None:
    journal = canary()
    for seconds in (3, 20, 59):
        step = decide(journal, seen(frozen), seconds)
        assert step.do is Do.WAIT
        journal = step.then or journal
    assert shares(journal) == {("b", "c", 10)}
    lines = [line.text for line in journal.lines if "is judged" in line.text]
    assert len(lines) == (0 if frozen is None else 1), "the journal is written when something changes, not at each look"


@pytest.mark.parametrize("missing", [BLIND, None], ids=["blind", "no verdict"])
def test_blind_for_too_long_it_rests_unblamed_and_goes_on_when_data_return(missing: Verdict | None) -> None:
    journal = follow(canary(), seen(missing), 3)
    journal = follow(journal, seen(missing), 64)
    assert shares(journal) == {("b", None, 0)} and work_of(journal).parked == "blind"
    assert set(standing(journal)) == {"JudgementBlind"}
    assert journal.routing["h1"].pools["c"].servers, "it stays ready beside stable"
    assert decide(journal, seen(missing), 300).do is Do.WAIT
    journal = follow(journal, seen(UNSURE), 301)
    assert shares(journal) == {("b", None, 0)}, "one answer is not enough"
    journal = follow(journal, seen(UNSURE), 307)
    assert shares(journal) == {("b", "c", 10)} and not standing(journal)
    assert work_of(journal).judged_since == at(2) and work_of(journal).step_since == at(307)
    assert decide(journal, seen(FAIL), 308).then is not None


def test_late_evidence_finds_it_guilty_while_it_rests() -> None:
    journal = follow(follow(canary(), seen(BLIND), 3), seen(BLIND), 64)
    turned = follow(journal, seen(FAIL), 70)
    assert work_of(turned).blame == FAIL


def test_without_a_verdict_in_time_it_rests_until_stable_has_enough_traffic() -> None:
    journal = follow(canary(), seen(UNSURE), 3)
    journal = follow(journal, seen(verdict(Outcome.INCONCLUSIVE, 20, stable=500)), 602)
    assert work_of(journal).parked == "late" and set(standing(journal)) == {"CanaryWithoutVerdict"}
    thin = verdict(Outcome.INCONCLUSIVE, 20, stable=560)
    assert decide(journal, seen(thin), 702).do is Do.WAIT, "10 % of 0.6 requests/s is 36 requests in 600 s"
    enough = verdict(Outcome.INCONCLUSIVE, 20, stable=700)
    assert decide(journal, seen(enough), 650).do is Do.WAIT, "it rests for a minute at least"
    journal = follow(journal, seen(enough), 702)
    assert shares(journal) == {("b", "c", 10)}


@pytest.mark.parametrize("waiting", ["blind", "late", "paused"])
def test_after_hold_seconds_it_is_taken_away_unblamed(waiting: str) -> None:
    journal = canary(replace(ROLLOUT, steps=(replace(STEPS[0], pause=waiting == "paused"), *STEPS[1:])))
    newest = {"blind": BLIND, "late": UNSURE, "paused": PASS}[waiting]
    seconds = 3.0
    while work_of(journal).held_since is None:
        journal = follow(journal, seen(newest), seconds)
        seconds += 1
    assert decide(journal, seen(newest), seconds + 3500).do is Do.WAIT
    turned = follow(journal, seen(newest), seconds + 3600)
    assert "for 60 minutes" in work_of(turned).undo and work_of(turned).blame is None
    assert [alert.name for alert in news(journal, turned)] == ["CanaryWithdrawn"] and not standing(turned)
    back = replace(seen(), routing=dict(SERVING.routing), replicas=OLD)
    closed = follow(turned, back, seconds + 3601)
    assert [(change.phase, change.quarantine) for change in closed.outbox] == [(Phase.FAILED, "")]


def test_holding_and_going_on_by_turns_ends_all_the_same() -> None:
    """Resting again and again at one step counts from the first time."""
    journal, rests = canary(), 0
    for seconds in range(3, 6000, 3):
        now_seen = BLIND if (seconds // 100) % 2 else UNSURE
        before = work_of(journal).parked
        journal = follow(journal, seen(now_seen), seconds)
        rests += bool(work_of(journal).parked and not before)
        if work_of(journal).undo:
            break
    assert rests > 3 and "could not be judged" in work_of(journal).undo and 3600 < seconds < 4000


def test_it_waits_for_a_person_where_the_step_says_so() -> None:
    rollout = replace(ROLLOUT, steps=(replace(STEPS[0], pause=True), *STEPS[1:]))
    journal = canary(rollout)
    go = Word(True, "ann", at(100), "looks good")
    assert decide(journal, seen(UNSURE, word=go), 20).do is Do.WAIT, "a word does not stand for a verdict"
    journal = follow(journal, seen(PASS), 20)
    assert work_of(journal).paused and set(standing(journal)) == {"CanaryWaits"}
    assert decide(journal, seen(PASS), 1000).do is Do.WAIT, "max_seconds is about verdicts, not about people"
    assert work_of(follow(journal, seen(FAIL), 50)).blame == FAIL
    step = decide(journal, seen(UNSURE, word=go), 101)
    assert step.then is not None and shares(step.then) == {("b", "c", 50)} and "ann said so: looks good" in step.text
    assert not work_of(step.then).paused and work_of(step.then).held_since is None


def test_a_person_may_send_a_resting_canary_on_knowing_that_it_rests() -> None:
    journal = follow(follow(canary(), seen(BLIND), 3), seen(BLIND), 64)
    assert decide(journal, seen(BLIND, word=Word(True, "ann", at(10))), 70).do is Do.WAIT, "said before it rested"
    step = decide(journal, seen(BLIND, word=Word(True, "ann", at(69))), 70)
    assert step.then is not None and shares(step.then) == {("b", "c", 50)} and "without a verdict" in step.text


def test_an_incident_is_alerted_while_it_lasts() -> None:
    journal = follow(canary(), seen(INCIDENT), 5)
    assert set(standing(journal)) == {"EnvironmentIncident"} and shares(journal) == {("b", "c", 10)}
    assert not standing(follow(journal, seen(UNSURE), 9))


def test_a_takeover_undoes_a_canary_and_does_not_blame_it() -> None:
    taken = transitions.taken_over(canary(), 9, "run-2", at(9))
    work = work_of(taken)
    assert "shifting (10 %)" in work.undo and work.blame is None and taken.routing == SERVING.routing


def test_a_takeover_after_the_switch_verifies_anew_and_blames_nobody_for_a_crash() -> None:
    journal = canary()
    for seconds, total in ((13, 1000), (30, 2000)):
        journal = follow(journal, seen(verdict(Outcome.PASS, total)), seconds)
    journal = follow(journal, replace(seen(), routing=dict(journal.routing)), 31)
    taken = transitions.taken_over(journal, 9, "run-2", at(33))
    assert not work_of(taken).undo and needs(taken, at(34)).route
    dead = (NEW[0], replica(3, "h2", state="exited", exit_code=1))
    step = decide(taken, replace(seen(None, *dead), routing=dict(taken.routing)), 34)
    assert step.then is not None and work_of(step.then).undo and work_of(step.then).blame is None


def test_a_first_release_has_nobody_to_be_compared_with_and_is_switched_to_at_once() -> None:
    empty = Journal("prod", "api", generation=1)
    made = replace(release(1, "a"), rollout=ROLLOUT)
    mine = tuple(replica(1, host) for host in HOSTS)
    journal = transitions.planned(empty, made, HOSTS, NOW, own_containers=True)
    journal = follow(journal, World(HOSTS), 0)
    journal = follow(journal, World(HOSTS, mine), 1)
    journal = follow(journal, World(HOSTS, mine), 3)
    assert shares(journal) == {("a", None, 0)}
    journal = follow(journal, World(HOSTS, mine, dict(journal.routing)), 4)
    assert journal.live is not None and journal.live.release == 1
