"""The tick of the watch when it cannot simply roll back: flags first, trouble that stable shares, no data, damage."""

from __future__ import annotations

import pytest

from ops_pipeline.core.judgement.verdict import Outcome
from ops_pipeline.core.watch_decision import Act
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.flags import flag_states, set_flag
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.judging import Judging
from ops_pipeline.services.verdicts import read_verdict
from ops_pipeline.services.watch import Memory, tick
from ops_pipeline.services.watches import read_watch, watch_key
from ops_pipeline_tests.fakes.platform import Bed, quiet
from ops_pipeline_tests.services.watching import API, FLAGS, Desk, desk

__all__ = ["desk"]

# ---------------------------------------------------------------------------------------------- flags, incident, blind


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
