"""A backup killed between any two calls to the world: nothing is listed that is not whole, the next one goes on."""

from __future__ import annotations

import pytest

from ops_pipeline.core.backup.records import Trigger
from ops_pipeline.errors import LeaseHeld, StaleGeneration, Transient
from ops_pipeline.services.backup.inflight import (
    ABANDONED,
    BEAT_SECONDS,
    COMMITTING,
    TAKING,
    Flight,
    InFlight,
    give_up,
    in_flight,
)
from ops_pipeline.services.backup.sets import list_sets
from ops_pipeline_tests.fakes.backups import backup_bed, backup_catalogue, photos
from ops_pipeline_tests.fakes.clock import START
from ops_pipeline_tests.fakes.platform import Bed, Killed, Lifeline
from ops_pipeline_tests.fakes.vault import FakeVault
from ops_pipeline_tests.services.backing_up import assert_whole, history, left_over, outlive_the_lock, take

BOOK = backup_catalogue(photos=True)


def killed_at(die_at: int, *, shows_puts: bool) -> tuple[Bed, bool, list[str]]:
    """The world after the second backup was killed at its `die_at`-th call, whether it was, and the calls it made."""
    bed = backup_bed(BOOK)
    bed.vault = FakeVault(bed.clock.now, shows_puts=shows_puts)
    history(bed, 1)
    bed.clock.advance(3600)
    photos(bed).put("new.jpg", b"a new photo")
    lifeline = Lifeline(die_at)
    killed = False
    try:
        take(bed.platform("doomed:1", lifeline=lifeline))
    except Killed:
        killed = True
    if not shows_puts:
        bed.vault.sets.lose_power()
        bed.vault.media.lose_power()
    return bed, killed, lifeline.calls


@pytest.mark.parametrize("shows_puts", [False, True], ids=["as in a directory", "as in Azure"])
def test_killed_anywhere(shows_puts: bool) -> None:
    die_at, ends = 0, []
    while True:
        die_at += 1
        bed, killed, calls = killed_at(die_at, shows_puts=shows_puts)
        before = assert_whole(bed)
        assert len(before.sets) in (1, 2)
        if not killed:
            assert len(before.sets) == 2 and left_over(bed) == {}
            break
        outlive_the_lock(bed)
        made = take(bed.platform("second:1"))
        after = assert_whole(bed)
        assert after.sets[0].id == made.id
        assert {one.id for one in before.sets} < {one.id for one in after.sets}, "what was listed once stays"
        assert set(left_over(bed).values()) <= {ABANDONED}
        assert all(one.good for one in after.sets)
        for record in left_over(bed):
            assert record not in {one.id for one in after.sets}
        ends.append(len(after.sets))
    assert die_at > 40, calls
    assert ends == sorted(ends) and set(ends) == {2, 3}, "killed early it never was, killed late it is finished"


def test_a_second_death_while_cleaning_up_after_the_first() -> None:
    """Dead once with only the manifest lacking; then dead again at calls of whoever finishes it."""
    first = 0
    while True:
        first += 2
        bed, killed, _ = killed_at(first, shows_puts=False)
        assert killed
        if COMMITTING in left_over(bed).values() and len(assert_whole(bed).sets) == 1:
            break
    second = 0
    while True:
        second += 4
        bed, _, _ = killed_at(first, shows_puts=False)
        outlive_the_lock(bed)
        try:
            take(bed.platform("second:1", lifeline=Lifeline(second)))
        except Killed:
            assert_whole(bed)
            outlive_the_lock(bed)
            take(bed.platform("third:1"))
            assert 3 <= len(assert_whole(bed).sets) <= 4
            continue
        assert len(assert_whole(bed).sets) == 3
        break
    assert second > 40


def test_a_dead_holder_blocks_for_its_term_only() -> None:
    bed, killed, _ = killed_at(40, shows_puts=False)
    assert killed
    with pytest.raises(LeaseHeld, match="manual backup"):
        take(bed.platform("second:1"))
    outlive_the_lock(bed)
    take(bed.platform("second:1"))
    assert_whole(bed)


def test_a_suspended_process_cannot_finish_what_was_given_up() -> None:
    """Suspended before its last step for so long that somebody else gave its set up: no manifest is written."""
    bed = backup_bed()
    history(bed, 1)
    seen: list[str] = []

    def suspend(call: str) -> None:
        if call.startswith("listings") and "dump" in call and not seen:
            seen.append(call)
            bed.clock.advance(3 * 24 * 3600)
            take(bed.platform("second:1"))

    with pytest.raises((StaleGeneration, LeaseHeld)):
        take(bed.platform("suspended:1", lifeline=Lifeline(after_each=suspend)))
    found = assert_whole(bed)
    assert len(found.sets) == 2, "the first one and the second controller's"
    assert set(left_over(bed).values()) == {ABANDONED}


def test_suspended_between_its_last_look_and_the_record() -> None:
    """Even one that asks nobody any more: its record was given up, and that is what its next write meets."""
    bed = backup_bed()
    vault = bed.vault.vault()

    def give_it_up(call: str) -> None:
        if "look" not in call and call.startswith("sets.stat"):
            for record, etag in in_flight(vault, bed.clock, "prod"):
                assert give_up(vault, bed.clock, record, etag, "nothing was heard of it")

    with pytest.raises(StaleGeneration, match="given up"):
        take(bed.platform("suspended:1", lifeline=Lifeline(after_each=give_it_up)))
    assert list_sets(bed.platform(), "prod").sets == ()


def test_a_heartbeat_whose_answer_was_lost_is_still_ours() -> None:
    bed = backup_bed()
    losses = [True, True]

    def lose_answers(operation: str, key: str) -> None:
        if operation == "write" and key.startswith("inflight/") and losses.pop():
            raise Transient("the answer was lost")
        losses.append(False)

    flight = Flight(
        bed.vault.vault(),
        bed.clock,
        InFlight("prod", "01M7ZDC0005DEP8QRWTW346GVC", START, Trigger.MANUAL, "r", "me:1", 1, TAKING, START),
    )
    flight.begin()
    bed.vault.state.after = lose_answers
    bed.clock.advance(BEAT_SECONDS)
    flight.beat("listings: 1 MB")
    assert losses[0] is True
    flight.committing(b"{}", "")
    bed.vault.state.after = lambda operation, key: None
    assert left_over(bed) == {"01M7ZDC0005DEP8QRWTW346GVC": COMMITTING}


@pytest.mark.parametrize("raised", [KeyboardInterrupt])
def test_an_interruption_leaves_no_set_and_no_dump_running(raised: type[BaseException]) -> None:
    fatal = 0
    while True:
        fatal += 3
        bed = backup_bed()
        count = [0]

        def interrupt(call: str, count: list[int] = count, fatal: int = fatal) -> None:
            count[0] += 1
            if count[0] == fatal:
                raise raised

        try:
            take(bed.platform("interrupted:1", lifeline=Lifeline(after_each=interrupt)))
        except raised:
            assert_whole(bed)
            assert all(source.open_dumps == 0 for source in bed.data["prod"])  # type: ignore[union-attr]
            outlive_the_lock(bed)
            take(bed.platform("second:1"))
            assert_whole(bed)
            continue
        break
    assert fatal > 40
