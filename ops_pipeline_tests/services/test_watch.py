"""The tick of the watch: what it does about good, bad, unmeasured and shared trouble, and killed anywhere."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from ops_pipeline.core.judgement.verdict import Outcome
from ops_pipeline.core.release import Action, Phase, Release
from ops_pipeline.core.watch_decision import TRIES, Act
from ops_pipeline.errors import BadInput, PolicyRefused
from ops_pipeline.services.attention import attention
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.flags import flag_states, set_flag
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.judged_rollback import roll_back_judged
from ops_pipeline.services.judging import Judging
from ops_pipeline.services.lease import acquire
from ops_pipeline.services.ledger import find_quarantine, read_current, releases
from ops_pipeline.services.reconcile import reconcile
from ops_pipeline.services.release_set import deploy_set
from ops_pipeline.services.rollback import roll_back
from ops_pipeline.services.verdicts import read_verdict
from ops_pipeline.services.watch import Handled, Memory, tick
from ops_pipeline.services.watch_record import run_key
from ops_pipeline.services.watches import list_watches, read_watch, standing, watch_key
from ops_pipeline_tests.fakes.judging import ScriptedJudging
from ops_pipeline_tests.fakes.platform import Bed, Killed, Lifeline, catalogue, healthy, quiet

API = ("prod", "api")


def book(**environment: Any) -> Any:
    document = catalogue().model_dump(mode="json", exclude_unset=True)
    document["environments"]["prod"] |= environment
    return catalogue(**{name: document[name] for name in ("environments", "services")})


class Desk:
    """A bed, a judge that says what the test wants, and ticks."""

    def __init__(self, **environment: Any) -> None:
        self.bed = Bed(book(**environment))
        self.judging = ScriptedJudging(self.bed.clock.now)
        self.memory = Memory()
        self.lines: list[str] = []
        self.delivered: set[str] = set()

    def ship(self, version: str, service: str = "api") -> Release:
        self.bed.image(version, service=service)
        return deploy(self.bed.platform(), "prod", service, progress=quiet)

    def says(self, outcome: Outcome, service: str = "api", *, incident: bool = False) -> None:
        self.judging.says["prod", service] = outcome
        self.judging.incident = incident

    def tick(self, *, lifeline: Lifeline | None = None, delivered: Collection[str] | None = None) -> list[Handled]:
        return list(
            tick(
                self.bed.platform("sensor:1", lifeline=lifeline),
                self.judging,
                delivered=self.delivered if delivered is None else delivered,
                memory=self.memory,
                progress=self.lines.append,
            )
        )

    def only(self) -> Handled:
        (one,) = self.tick()
        return one

    def live(self, service: str = "api") -> int:
        journal = read_journal(self.bed.platform(), "prod", service)
        assert journal.live is not None
        return journal.live.release

    def release(self, number: int, service: str = "api") -> Release:
        return next(one for one in releases(self.bed.store, "prod", service) if one.number == number)


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.ship("1.0.0")
    made.bed.clock.advance(3600)
    made.ship("2.0.0")
    return made


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


# ---------------------------------------------------------------------------------------------- flags, incident, blind

FLAGS = {"new-cart": {"on": True, "guards": "api"}, "other": {"on": True, "guards": "web"}}


def test_a_guarding_flag_is_turned_off_first_and_the_evidence_begins_anew() -> None:
    desk = Desk(flags=FLAGS)
    desk.ship("1.0.0")
    desk.ship("2.0.0")
    desk.bed.clock.advance(100)
    desk.says(Outcome.FAIL)
    done = desk.only()
    assert done.act is Act.TURN_OFF and not done.wants_run
    assert {state.name: state.on for state in flag_states(desk.bed.platform(), "prod")} == {
        "new-cart": False,
        "other": True,
    }
    watch = read_watch(desk.bed.platform(), *API)
    assert watch is not None and watch.since == desk.bed.clock.now() and desk.live() == 2
    assert desk.bed.alerts.names() == ["FlagTurnedOff"]
    desk.tick()
    (case,) = desk.judging.looks[-1]
    assert case.since == watch.since
    assert desk.live() == 3, "still bad without the flag: now it goes back"


def test_a_flag_that_a_person_turned_off_changes_nothing() -> None:
    desk = Desk(flags=FLAGS)
    desk.ship("1.0.0")
    desk.ship("2.0.0")
    set_flag(desk.bed.platform(), "prod", "new-cart", on=False, who="ann", why="test", progress=quiet)
    desk.says(Outcome.FAIL)
    assert desk.only().act is Act.ROLL_BACK


def test_trouble_that_stable_shares_is_told_and_held(desk: Desk) -> None:
    desk.says(Outcome.INCONCLUSIVE, incident=True)
    done = desk.only()
    assert done.act is Act.HOLD and desk.live() == 2
    assert desk.bed.alerts.names() == ["EnvironmentIncident"]
    desk.says(Outcome.INCONCLUSIVE)
    desk.tick()
    assert desk.bed.alerts.names() == []


def test_without_data_nothing_is_rolled_back_people_are_told_and_it_resolves(desk: Desk) -> None:
    desk.says(Outcome.BLIND)
    for seconds in (0, 30, 29):
        desk.bed.clock.advance(seconds)
        assert desk.only().act is Act.KEEP and not desk.bed.alerts.fired
    desk.bed.clock.advance(1)
    assert desk.only().act is Act.BLIND
    assert desk.bed.alerts.names() == ["JudgementBlind"] and desk.live() == 2
    kept = read_verdict(desk.bed.platform(), *API, 2)
    assert kept is not None and kept.outcome is Outcome.BLIND
    desk.memory = Memory()  # another process
    desk.says(Outcome.INCONCLUSIVE)
    desk.tick()
    assert desk.bed.alerts.names() == [] and desk.live() == 2


def test_a_gap_in_the_data_begins_its_time_anew(desk: Desk) -> None:
    for _ in range(5):
        desk.says(Outcome.BLIND)
        assert desk.only().act is Act.KEEP
        desk.bed.clock.advance(50)
        desk.says(Outcome.INCONCLUSIVE)
        desk.tick()
    assert not desk.bed.alerts.fired


# --------------------------------------------------------------------------------------------------- what may be broken


def test_nobody_to_tell_does_not_keep_it_from_rolling_back(desk: Desk) -> None:
    desk.bed.alerts.down = "connection refused"
    desk.says(Outcome.FAIL)
    assert desk.only().act is Act.ROLL_BACK and desk.live() == 3
    assert any("nobody could be alerted of ReleaseRolledBack" in line for line in desk.lines)


@pytest.mark.parametrize("key", [watch_key("dev", "web"), "journal/prod/web.json"])
def test_one_damaged_record_keeps_nobody_else_from_being_watched(desk: Desk, key: str) -> None:
    desk.ship("1.0.0", "web")
    desk.bed.store.write(key, b"{}")
    desk.says(Outcome.FAIL)
    done = desk.tick()
    assert {one.service: one.act for one in done if one.service == "api"} == {"api": Act.ROLL_BACK}
    assert any(one.act is Act.ALERT and key in one.why for one in done)
    assert "WatchFailing" in desk.bed.alerts.names()


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


# --------------------------------------------------------------------------------------------------------- killed


def everything(call: str) -> bool:
    return True


@pytest.mark.parametrize("flags", [{}, FLAGS], ids=["roll-back", "flag first"])
def test_killed_anywhere_the_next_ticks_end_in_the_same_state(flags: dict[str, Any]) -> None:
    ended: list[tuple[object, ...]] = []
    die_at = 0
    while True:
        die_at += 1
        desk = Desk(flags=flags)
        desk.ship("1.0.0")
        desk.bed.clock.advance(3600)
        desk.ship("2.0.0")
        desk.says(Outcome.FAIL)
        bad: list[str] = []

        def served(call: str, desk: Desk = desk, bad: list[str] = bad) -> None:
            if not healthy(desk.bed.ask()):
                bad.append(call)

        killed = False
        try:
            desk.tick(lifeline=Lifeline(die_at, everything, served))
        except Killed:
            killed = True
        wanted = set()
        for _ in range(6):
            desk.memory = Memory()
            for done in desk.tick(lifeline=Lifeline(after_each=served)):
                if done.wants_run:
                    wanted.add(done.run_key)
                    if done.act is Act.ASK and not read_journal(desk.bed.platform(), *API).work:
                        roll_back_judged(desk.bed.platform("run:1"), *API, done.release, progress=quiet)
            desk.bed.clock.advance(31)
            if read_journal(desk.bed.platform(), *API).work:
                reconcile(desk.bed.platform("drift:1"), *API, progress=quiet)
        assert not bad, (die_at, bad[:3])
        end: tuple[object, ...] = (
            desk.bed.ask(),
            desk.release(2).phase,
            desk.release(desk.live()).root,
            find_quarantine(desk.bed.store, desk.release(2).digest) is not None,
            [state.on for state in flag_states(desk.bed.platform(), "prod")],
            list_watches(desk.bed.platform()),
        )
        ended.append(end)
        assert wanted, f"killed at call {die_at}, nobody ever saw it in the UI"
        current = read_current(desk.bed.store, *API)
        assert current is not None and current.number == desk.live()
        if not killed:
            break
    assert die_at > 15
    for number, end in enumerate(ended, 1):
        assert end == ended[-1], f"killed at call {number}"


def store_writes(call: str) -> bool:
    return call.startswith("store.write ")


def test_a_release_whose_run_was_killed_before_it_was_watched_is_noticed_and_then_watched() -> None:
    unwatched, die_at = 0, 0
    while True:
        die_at += 1
        made = Desk()
        made.ship("1.0.0")
        made.bed.image("2.0.0")
        try:
            deploy(made.bed.platform("doomed:1", lifeline=Lifeline(die_at, store_writes)), *API, progress=quiet)
        except Killed:
            made.bed.clock.advance(31)
            if made.live() == 2 and 2 not in {watch.release for watch in list_watches(made.bed.platform())}:
                unwatched += 1
                found = attention(made.bed.platform(), *API)
                assert found is not None and "ended before what it had made live was recorded" in found.reason
                reconcile(made.bed.platform("drift:1"), *API, progress=quiet)
            if made.live() == 2:
                assert made.only().label == "prod/api #2"
                assert attention(made.bed.platform(), *API) is None
            continue
        break
    assert unwatched


def test_a_verdict_blames_only_the_release_it_is_on(desk: Desk) -> None:
    desk.says(Outcome.FAIL)
    verdict = desk.only().verdict
    desk.ship("3.0.0")
    with pytest.raises(BadInput, match="the verdict is on #2, and #4 is live by now"):
        roll_back(desk.bed.platform(), *API, automatic=True, verdict=verdict, progress=quiet)


def test_keys_carry_release_and_attempt() -> None:
    assert run_key("prod", "api", 7, 2) == "rollback:api:prod:7:2"


# ---------------------------------------------------------------------------- the whole, with measurements as they come


def measured(errors: float, per_second: float) -> tuple[Bed, float | None]:
    """A release of which a share fails from its 60th second on: the world, and seconds until it was rolled back."""
    bed = Bed()
    bed.users(per_second)
    for version, behaviour in (("1.0.0", None), ("2.0.0", None)):
        bed.image(version, behaviour)
        deploy(bed.platform(), *API, progress=quiet)
    bed.clock.advance(60)
    bed.runtimes["prod"][0].images[str(_live_image(bed))].errors = errors
    bed.runtimes["prod"][1].images[str(_live_image(bed))].errors = errors
    platform, memory = bed.platform("sensor:1"), Memory()
    judging, begun = Judging(platform), bed.clock.monotonic()
    for _ in range(240):
        bed.clock.advance(1)
        if any(done.made for done in tick(platform, judging, memory=memory, progress=quiet)):
            return bed, bed.clock.monotonic() - begun
    return bed, None


def _live_image(bed: Bed) -> str:
    place = read_journal(bed.platform(), *API).live
    assert place is not None
    return place.image


@pytest.mark.parametrize(("errors", "within"), [(0.5, 15), (0.1, 60)])
def test_a_live_release_that_turns_bad_goes_back_by_what_is_measured(errors: float, within: float) -> None:
    bed, seconds = measured(errors, 100)
    assert seconds is not None and seconds <= within
    assert bed.ask() == {"h1": (200, 1), "h2": (200, 1)}


@pytest.mark.parametrize("errors", [0.0, 0.01])
def test_a_good_one_stays(errors: float) -> None:
    bed, seconds = measured(errors, 100)
    assert seconds is None and bed.ask()["h1"] == (200, 2) and bed.alerts.names() == []
