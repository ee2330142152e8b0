"""The tick of the watch: what it does about releases that are good, and about bad ones."""

from __future__ import annotations

import pytest

from ops_pipeline.core.judgement.verdict import Outcome
from ops_pipeline.core.release import Action, Phase
from ops_pipeline.core.watch_decision import TRIES, Act
from ops_pipeline.errors import BadInput, PolicyRefused
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.judged_rollback import roll_back_judged
from ops_pipeline.services.lease import acquire
from ops_pipeline.services.ledger import find_quarantine
from ops_pipeline.services.reconcile import reconcile
from ops_pipeline.services.release_set import deploy_set
from ops_pipeline.services.rollback import roll_back
from ops_pipeline.services.verdicts import read_verdict
from ops_pipeline.services.watch_record import run_key
from ops_pipeline.services.watches import list_watches, standing
from ops_pipeline_tests.fakes.platform import Lifeline, catalogue, healthy, quiet
from ops_pipeline_tests.services.watching import API, Desk, book, desk

__all__ = ["desk"]

# ------------------------------------------------------------------------------------------------------ nothing bad


def test_nothing_watched_is_one_listing() -> None:
    desk = Desk()
    lifeline = Lifeline()
    assert desk.tick(lifeline=lifeline) == []
    assert lifeline.calls == ["store.list watch/"]
    assert desk.judging.looks == []


def test_what_is_live_is_judged_against_what_it_replaced(desk: Desk) -> None:
    done = desk.only()
    assert (done.label, done.act) == ("prod/api #2", Act.KEEP)
    (case,) = desk.judging.looks[0]
    assert (case.environment, case.service, case.release, case.stable, case.replicas) == ("prod", "api", 2, 1, 2)


def test_all_services_are_judged_in_one_look(desk: Desk) -> None:
    desk.ship("1.0.0", "web")
    desk.tick()
    assert len(desk.judging.looks) == 1 and len(desk.judging.looks[0]) == 2


def test_a_verdict_is_kept_when_it_changes_and_only_then(desk: Desk) -> None:
    writes = Lifeline(counts=lambda call: call.startswith("store.write verdicts/"))
    for outcome in (Outcome.INCONCLUSIVE, Outcome.INCONCLUSIVE, Outcome.PASS, Outcome.PASS, Outcome.PASS):
        desk.says(outcome)
        desk.tick(lifeline=writes)
        desk.bed.clock.advance(1)
    assert len(writes.calls) == 2
    kept = read_verdict(desk.bed.platform(), *API, 2)
    assert kept is not None and kept.outcome is Outcome.PASS


def test_a_watch_ends_after_its_time_with_its_last_verdict(desk: Desk) -> None:
    desk.says(Outcome.PASS)
    desk.bed.clock.advance(30 * 60 - 1)
    assert desk.only().act is Act.KEEP
    desk.bed.clock.advance(1)
    done = desk.only()
    assert done.act is Act.END and "watched for its 30 minutes: 1 of 400 failed" in done.why
    assert desk.tick() == [] and list_watches(desk.bed.platform()) == ()
    kept = read_verdict(desk.bed.platform(), *API, 2)
    assert kept is not None and kept.at == desk.bed.clock.now()


def test_a_watch_without_end_goes_on() -> None:
    desk = Desk(watch_minutes="always")
    desk.ship("1.0.0")
    desk.bed.clock.advance(10 * 24 * 3600)
    assert desk.only().act is Act.KEEP


def test_a_release_that_a_person_rolled_back_is_watched_no_longer_and_neither_is_the_roll_back(desk: Desk) -> None:
    desk.tick()
    roll_back(desk.bed.platform(), *API, progress=quiet)
    desk.says(Outcome.FAIL)
    assert desk.tick() == []
    assert desk.live() == 3


def test_a_new_release_is_watched_in_its_place(desk: Desk) -> None:
    desk.tick()
    desk.ship("3.0.0")
    assert desk.only().label == "prod/api #3"


# --------------------------------------------------------------------------------------------------- FAIL: roll back


def test_fail_rolls_back_to_the_warm_standby_in_the_tick_itself(desk: Desk) -> None:
    desk.says(Outcome.FAIL)
    bad: list[str] = []
    lifeline = Lifeline(after_each=lambda call: None if healthy(desk.bed.ask()) else bad.append(call))
    (done,) = desk.tick(lifeline=lifeline)
    assert not bad, "every request found a healthy release"
    assert (done.act, done.made, done.attempt, done.why) == (Act.ROLL_BACK, 3, 1, "40 of 400 requests failed")
    assert done.run_key == "rollback:api:prod:2:1" and done.wants_run
    assert desk.bed.ask() == {"h1": (200, 1), "h2": (200, 1)}
    assert not [call for call in lifeline.calls if call.endswith((".create", ".start"))], "nothing was started"
    back, left = desk.release(3), desk.release(2)
    assert (back.action, back.automatic, back.restores, back.previous) == (Action.ROLLBACK, True, 1, 2)
    assert back.who == "metric_rollback" and back.why == "40 of 400 requests failed"
    assert left.phase is Phase.ROLLED_BACK
    assert desk.bed.alerts.names() == ["ReleaseRolledBack"]
    (alert,) = desk.bed.alerts.fired
    assert (alert.environment, alert.service, alert.release, alert.severity) == ("prod", "api", 2, "critical")
    assert "prod/api #2 was rolled back by itself, as #3: 40 of 400" in alert.summary and alert.link


def test_its_digest_is_in_quarantine_with_the_evidence(desk: Desk) -> None:
    desk.says(Outcome.FAIL)
    desk.tick()
    record = find_quarantine(desk.bed.store, desk.release(2).digest)
    assert record is not None and record.evidence is not None
    assert (record.environment, record.service, record.release) == ("prod", "api", 2)
    assert record.evidence.outcome is Outcome.FAIL and record.evidence.metrics[0].bad == 40
    kept = read_verdict(desk.bed.platform(), *API, 2)
    assert kept is not None and kept.outcome is Outcome.FAIL
    with pytest.raises(PolicyRefused, match="quarantine"):
        deploy(desk.bed.platform(), *API, progress=quiet)


def test_when_only_the_configuration_was_bad_the_digest_is_not_blamed(desk: Desk) -> None:
    deploy(desk.bed.platform(), *API, progress=quiet, force=True)
    desk.says(Outcome.FAIL)
    done = desk.only()
    assert done.made is not None or done.act is not Act.KEEP
    assert find_quarantine(desk.bed.store, desk.release(2).digest) is None or desk.release(desk.live()).digest != (
        desk.release(2).digest
    )


def test_the_roll_back_is_shown_until_its_run_is_known_to_be_launched(desk: Desk) -> None:
    desk.says(Outcome.FAIL)
    first = desk.only()
    again = desk.only()
    assert (again.act, again.made, again.run_key) == (first.act, first.made, first.run_key)
    assert again.verdict is not None and again.verdict.outcome is Outcome.FAIL
    desk.delivered.add(first.run_key)
    assert desk.tick() == []
    assert standing(desk.bed.platform()) == ((), ())
    assert desk.live() == 3


def test_a_roll_back_is_never_rolled_back(desk: Desk) -> None:
    desk.says(Outcome.FAIL)
    for _ in range(5):
        desk.tick()
        desk.bed.clock.advance(600)
    assert desk.live() == 3


def test_several_bad_ones_are_rolled_back_in_one_tick(desk: Desk) -> None:
    for version in ("1.0.0", "2.0.0"):
        desk.ship(version, "web")
    desk.says(Outcome.FAIL)
    desk.says(Outcome.FAIL, "web")
    assert {(done.service, done.act) for done in desk.tick()} == {("api", Act.ROLL_BACK), ("web", Act.ROLL_BACK)}
    assert (desk.live(), desk.live("web")) == (3, 3)


# ----------------------------------------------------------------------------------------------- FAIL: something else


def test_whoever_works_on_it_is_left_alone_and_named(desk: Desk) -> None:
    desk.says(Outcome.FAIL)
    with acquire(desk.bed.platform("ci:9"), *API, run_id="run-9", reason="deploy of 3.0.0"):
        done = desk.only()
        assert done.act is Act.WAIT and "deploy of 3.0.0 by ci:9, run run-9" in done.why
        assert desk.live() == 2 and not desk.bed.alerts.fired
    assert desk.only().act is Act.ROLL_BACK


def test_without_automatic_roll_back_people_are_told_and_nothing_is_touched() -> None:
    desk = Desk(automatic_rollback=False)
    desk.ship("1.0.0")
    desk.ship("2.0.0")
    desk.says(Outcome.FAIL)
    for _ in range(3):
        done = desk.only()
        assert done.act is Act.ALERT and "automatic roll-back is off" in done.why and not done.wants_run
        desk.bed.clock.advance(10)
    assert desk.live() == 2 and desk.bed.alerts.names() == ["RollbackNeedsPerson"]
    assert len(desk.bed.alerts.fired) == 1, "told once, not at every tick"
    desk.bed.clock.advance(60)
    desk.tick()
    assert len(desk.bed.alerts.fired) == 2, "but again before Alertmanager forgets"
    desk.says(Outcome.PASS)
    desk.tick()
    assert desk.bed.alerts.names() == []


def test_a_bad_release_is_watched_beyond_its_time() -> None:
    desk = Desk(automatic_rollback=False)
    desk.ship("1.0.0")
    desk.says(Outcome.FAIL)
    desk.bed.clock.advance(31 * 60)
    assert desk.only().act is Act.ALERT
    desk.says(Outcome.PASS)
    assert desk.only().act is Act.END


def test_within_the_cooldown_a_person_is_needed(desk: Desk) -> None:
    desk.says(Outcome.FAIL)
    desk.delivered.add(desk.only().run_key)
    desk.says(Outcome.PASS)
    desk.bed.clock.advance(10 * 60)
    desk.ship("3.0.0")
    desk.says(Outcome.FAIL)
    done = desk.only()
    assert done.act is Act.ALERT and "rolled back by itself at 11:00:0" in done.why
    assert desk.live() == 4
    desk.bed.clock.advance(21 * 60)
    assert desk.only().act is Act.ROLL_BACK
    assert desk.bed.ask()["h1"] == (200, 1)
    assert "RollbackNeedsPerson" not in desk.bed.alerts.names()


def test_nothing_to_go_back_to_needs_a_person_after_a_bounded_number_of_tries() -> None:
    desk = Desk()
    desk.ship("1.0.0")
    desk.says(Outcome.FAIL)
    seen = []
    for _ in range(40):
        (done,) = desk.tick(delivered={f"rollback:api:prod:1:{attempt}" for attempt in range(9)})
        seen.append(done)
        desk.bed.clock.advance(15)
    asked = {done.run_key for done in seen if done.act is Act.ASK}
    assert len(asked) == TRIES
    assert seen[-1].act is Act.ALERT and "5 roll-backs were tried and none worked" in seen[-1].why
    assert desk.live() == 1 and desk.bed.ask()["h1"] == (200, 1)


def test_without_a_warm_standby_a_run_starts_the_earlier_release_anew(desk: Desk) -> None:
    desk.bed.clock.advance(31 * 60)
    reconcile(desk.bed.platform(), *API, progress=quiet)  # retires the standby
    desk.bed.image("3.0.0")
    desk.bed.catalogue = book(standby_minutes=0)
    deploy(desk.bed.platform(), *API, progress=quiet)
    desk.says(Outcome.FAIL)
    done = desk.only()
    assert (done.act, done.made, done.attempt) == (Act.ASK, None, 1)
    assert desk.live() == 3
    assert desk.only().run_key == done.run_key, "asked again until the run is known to be launched"
    desk.delivered.add(done.run_key)
    assert desk.only().act is Act.WAIT
    made = roll_back_judged(desk.bed.platform("run:1"), *API, 3, run_id="run-1", progress=quiet)
    assert (made.number, made.restores, made.automatic) == (4, 2, True)
    assert desk.bed.ask()["h1"] == (200, 4)
    assert find_quarantine(desk.bed.store, desk.release(3).digest) is not None
    assert desk.tick() == []
    again = roll_back_judged(desk.bed.platform("run:2"), *API, 3, run_id="run-2", progress=quiet)
    assert again.number == 4, "a run launched twice does it once"


def test_a_run_that_never_comes_is_asked_again_under_another_key(desk: Desk) -> None:
    desk.bed.runtimes["prod"][0].breaks("ops-prod-api-1-0", "silent")
    desk.says(Outcome.FAIL)
    first = desk.only()
    assert first.act is Act.ASK and "standby #1 is not healthy" in first.why
    desk.delivered.add(first.run_key)
    desk.bed.clock.advance(61)
    second = desk.only()
    assert (second.act, second.run_key) == (Act.ASK, "rollback:api:prod:2:2")


@pytest.mark.parametrize("outcome", [Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.BLIND])
def test_a_forged_run_rolls_nothing_back(desk: Desk, outcome: Outcome) -> None:
    desk.says(outcome)
    desk.tick()
    stored = desk.bed.store.objects
    for release in (1, 2, 9):
        with pytest.raises(PolicyRefused, match="no tick of metric_rollback has asked for it"):
            roll_back_judged(desk.bed.platform(), *API, release, progress=quiet)
    assert desk.bed.store.objects == stored


def test_a_host_that_does_not_answer_is_tried_again_later(desk: Desk) -> None:
    desk.says(Outcome.FAIL)
    desk.bed.host_down("prod", "h2")
    done = desk.only()
    assert done.act in {Act.ALERT, Act.ASK}
    assert desk.live() == 2
    desk.bed.host_up("prod", "h2")
    for _ in range(3):
        desk.bed.clock.advance(61)
        if desk.only().made:
            break
    assert desk.live() == 3


def test_a_verdict_blames_only_the_release_it_is_on(desk: Desk) -> None:
    desk.says(Outcome.FAIL)
    verdict = desk.only().verdict
    desk.ship("3.0.0")
    with pytest.raises(BadInput, match="the verdict is on #2, and #4 is live by now"):
        roll_back(desk.bed.platform(), *API, automatic=True, verdict=verdict, progress=quiet)


def test_keys_carry_release_and_attempt() -> None:
    assert run_key("prod", "api", 7, 2) == "rollback:api:prod:7:2"


# ------------------------------------------------------------------------------------------------------- release sets


def test_a_set_goes_back_together_dependents_first() -> None:
    desk = Desk()
    services = {
        name: service.model_dump(mode="json", exclude_unset=True)
        for name, service in desk.bed.catalogue.services.items()
    }
    services["web"]["depends_on"] = ["api"]
    desk.bed.catalogue = catalogue(services=services)
    for service in ("api", "web"):
        desk.ship("1.0.0", service)
    for service in ("api", "web"):
        desk.bed.image("2.0.0", service=service)
    made = deploy_set(desk.bed.platform(), "prod", ["web", "api"], progress=quiet)
    assert [(release.service, release.number) for release in made] == [("api", 2), ("web", 2)]
    desk.says(Outcome.FAIL)
    desk.tick()
    assert (desk.live(), desk.live("web")) == (3, 3)
    assert find_quarantine(desk.bed.store, desk.release(2).digest) is not None
    assert find_quarantine(desk.bed.store, desk.release(2, "web").digest) is None, "nothing speaks against it"
    assert desk.release(3, "web").why == "its release set is rolled back: 40 of 400 requests failed"
    assert desk.release(3, "web").phases[0].at <= desk.release(3).phases[0].at
    keys = {done.run_key for done in desk.tick()}
    assert keys == {"rollback:api:prod:2:1", "rollback:web:prod:2:1"}
    desk.delivered |= keys
    assert desk.tick() == []
