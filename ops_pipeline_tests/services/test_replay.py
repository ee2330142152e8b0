"""Replay: other thresholds over what the edges counted of past releases, compared with what did happen."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from ops_pipeline.core.judgement.verdict import MetricEvidence, Outcome, Thresholds, Verdict
from ops_pipeline.core.measurement import BUCKETS
from ops_pipeline.core.replay import Replayed
from ops_pipeline.errors import BadInput, RolledBack, Unavailable
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.replay import replay
from ops_pipeline.services.rollback import roll_back
from ops_pipeline.services.verdicts import write_verdict
from ops_pipeline_tests.fakes.clock import START
from ops_pipeline_tests.fakes.platform import Bed, quiet
from ops_pipeline_tests.fakes.runtime import Behaviour
from ops_pipeline_tests.services.test_strategies import QUICK, bed_with

EARLY = START - timedelta(days=1)


def pass_time(bed: Bed, seconds: float) -> None:
    """Let time pass in small steps, so that users notice when a release turns bad."""
    for _ in range(int(seconds // 10)):
        bed.clock.advance(10)


def ship(bed: Bed, version: str, behaviour: Behaviour | None = None, *, then: float = 0.0) -> None:
    bed.image(version, behaviour or Behaviour())
    with contextlib.suppress(RolledBack):
        deploy(bed.platform(), "prod", "api", progress=quiet)
    pass_time(bed, then)


def replayed(bed: Bed, since: datetime = EARLY, **thresholds: float) -> dict[int, Replayed]:
    found = replay(bed.platform(), "prod", "api", since, Thresholds(**thresholds))
    assert [one.release for one in found] == sorted((one.release for one in found), reverse=True), "newest first"
    return {one.release: one for one in found}


@pytest.fixture(scope="module")
def history() -> Iterator[Bed]:
    """#1 good; #2 a canary with 20 % errors, rolled back; #3 good with 1 %; #4 turns bad (4 %) after it went live."""
    bed = bed_with(hosts=1, strategy="canary", canary=QUICK, verify={"seconds": 0})
    ship(bed, "2.0.0", Behaviour(errors=0.2))
    ship(bed, "3.0.0", Behaviour(errors=0.01), then=120)
    ship(bed, "4.0.0", Behaviour(errors=0.04, bad_after=150), then=300)
    yield bed


def test_the_same_thresholds_say_what_did_happen(history: Bed) -> None:
    found = replayed(history)
    assert {number: one.rolled_back for number, one in found.items()} == {1: False, 2: True, 3: False, 4: False}
    assert not any(one.differs for one in found.values())
    assert found[3].sentence == "nothing" and found[3].happened.startswith("kept, served")
    assert found[4].happened == "live"
    assert found[2].happened.startswith("rolled back by its verdict after")
    assert (
        found[2].sentence.startswith("would have been rolled back") and "after its first request" in found[2].sentence
    )


def test_stricter_thresholds_find_the_release_that_turned_bad_after_it_was_live(history: Bed) -> None:
    found = replayed(history, error_rate=0.02)
    assert {number for number, one in found.items() if one.rolled_back} == {2, 4}
    assert [number for number, one in found.items() if one.differs] == [4]
    bad = found[4]
    assert "after it went live" in bad.sentence and "threshold 2 %" in bad.sentence
    assert bad.after_seconds is not None and bad.after_seconds > 100
    assert bad.verdict is not None and bad.verdict.outcome is Outcome.FAIL


def test_looser_thresholds_keep_what_was_rolled_back_and_say_how_little_is_known_of_it(history: Bed) -> None:
    found = replayed(history, error_rate=0.5)
    assert not found[2].rolled_back and found[2].differs
    assert found[2].sentence.startswith("nothing until then (evidence")


def test_only_what_was_judged_since_then_is_replayed(history: Bed) -> None:
    began = replayed(history)[4].began
    assert set(replayed(history, since=began)) == {3, 4}


def test_without_recorded_data_nothing_is_claimed(history: Bed) -> None:
    history.metrics.empty = True
    try:
        found = replayed(history)
    finally:
        history.metrics.empty = False
    assert {one.sentence for one in found.values()} == {"no recorded data"}
    assert not any(one.recorded or one.rolled_back or one.differs for one in found.values())


def test_prometheus_away_is_an_error_and_no_answer(history: Bed) -> None:
    history.metrics.down = "connection refused"
    try:
        with pytest.raises(Unavailable, match="connection refused"):
            replayed(history)
    finally:
        history.metrics.down = ""


def test_nothing_is_changed(history: Bed) -> None:
    before = {info.key: history.store.read(info.key) for info in history.store.list("")}
    replayed(history, error_rate=0.02)
    assert {info.key: history.store.read(info.key) for info in history.store.list("")} == before


def test_the_first_release_has_nothing_to_go_back_to() -> None:
    bed = bed_with(hosts=1)
    first = replayed(bed, error_rate=0.02)[1]
    assert first.sentence == "nothing"
    bad = Bed(bed.catalogue)
    bad.users(50)
    ship(bad, "1.0.0", Behaviour(errors=0.2), then=60)
    first = replayed(bad)[1]
    assert "would have been judged bad" in first.sentence and "nothing to go back to" in first.sentence
    assert not first.rolled_back and not first.differs


def test_roll_backs_are_not_judged_and_a_person_is_named_as_such() -> None:
    bed = bed_with(hosts=1)
    ship(bed, "2.0.0", then=60)
    roll_back(bed.platform(), "prod", "api", who="ada", why="slow", progress=quiet)
    found = replayed(bed)
    assert set(found) == {1, 2}
    assert found[2].happened.startswith("rolled back by a person after") and found[2].was_rolled_back


@pytest.mark.parametrize(
    ("by_rule", "crash_rate", "rolled_back", "words"),
    [
        (True, 0.5, True, "rolled back as it was, for crashes"),
        (False, 0.01, True, "rolled back as it was, for crashes"),
        (False, 0.5, False, "not known: the minutes of its crashes are not recorded"),
    ],
)
def test_crashes_are_known_from_the_stored_verdict_alone(
    by_rule: bool, crash_rate: float, rolled_back: bool, words: str
) -> None:
    bed = bed_with(hosts=1)
    ship(bed, "2.0.0", then=60)
    now, money = bed.clock.now(), 1.0 if by_rule else 1e6
    crashes = MetricEvidence("crashes", 0.01, 3, 12, 4, money, money, 1, 1, 1 / money, 0)
    verdict = Verdict(Outcome.FAIL, "2 unwanted exits", now, now - timedelta(seconds=50), 2, 1, metrics=(crashes,))
    write_verdict(bed.platform(), "prod", "api", verdict)
    roll_back(bed.platform(), "prod", "api", progress=quiet)
    one = replayed(bed, crash_rate=crash_rate)[2]
    assert one.sentence.startswith(words) and one.rolled_back is rolled_back
    assert one.crashes == "3 of 12 instance-minutes"


def test_every_threshold_that_cannot_be_judged_by_is_named() -> None:
    bed = bed_with(hosts=1)
    with pytest.raises(BadInput) as caught:
        replayed(bed, error_rate=5, p95_seconds=3, crash_rate=0)
    text = str(caught.value)
    assert len(caught.value.problems) == 3 and "5 is not a share" in text and "0 is not a share" in text
    assert "3 s was not counted" in text and ", ".join(f"{bound:g}" for bound in BUCKETS) in text
    with pytest.raises(BadInput, match="there is no 'prd'"):
        replay(bed.platform(), "prd", "api", EARLY, Thresholds())
