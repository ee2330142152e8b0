"""Files beside the last dump: not before every dump's moment is past, and neither goes on when the other fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from ops_pipeline.errors import Permanent, Transient, Unavailable
from ops_pipeline.services.backup.aside import Aside, Stopped
from ops_pipeline_tests.fakes.backups import backup_bed, backup_catalogue, database, photos
from ops_pipeline_tests.fakes.data_source import FakeDatabase, Fault, failed
from ops_pipeline_tests.fakes.platform import Bed, Lifeline
from ops_pipeline_tests.services.backing_up import assert_whole, left_over, take

WAIT_SECONDS = 30.0


@pytest.fixture
def bed() -> Bed:
    return backup_bed(backup_catalogue(photos=True))


class Calls:
    """Calls in the order in which they took effect."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, call: str) -> None:
        self.made.append(call)

    def first(self, beginning: str) -> int:
        return next(number for number, call in enumerate(self.made) if call.startswith(beginning))

    def last(self, beginning: str) -> int:
        return max(number for number, call in enumerate(self.made) if call.startswith(beginning))


def test_files_are_stored_while_the_last_dump_streams(bed: Bed) -> None:
    """The dump goes on only when files were stored, so one after the other would never end."""
    stored = threading.Event()

    calls = Calls()

    def each(call: str) -> None:
        calls(call)
        if call.startswith("media.put"):
            stored.set()
        if call.startswith("listings.dumps.read"):
            assert stored.wait(WAIT_SECONDS)

    made = take(bed.platform(lifeline=Lifeline(after_each=each)))
    assert_whole(bed)
    assert [part.source for part in made.parts] == ["cache", "cache", "listings", "listings", "photos"]
    assert calls.first("photos.walk") > calls.last("cache.dumps"), "every other dump is done"


def test_no_file_is_read_before_every_moment_is_past(bed: Bed) -> None:
    """What an application writes at any time, the file first and then the row that names it, comes in this order."""
    number = [0]

    def write(call: str) -> None:
        number[0] += 1
        name = f"new-{number[0]:04}.jpg"
        photos(bed).put(name, b"a new photo")
        database(bed).live.tables["listing"].append(name)

    for stands in (True, False):
        database(bed).stands = stands
        bed.clock.advance(3600)
        made = take(bed.platform(lifeline=Lifeline(after_each=write)))
        rows = next(part for part in made.parts if (part.source, part.name) == ("listings", "dump"))
        assert rows.arrived.contents is not None
        named = rows.arrived.contents.counts["listing"] - 200
        files = next(part.files for part in made.parts if part.files is not None)
        assert named and files.entries >= named + 5, "the folder, four photos, and every one that a row names"


def test_files_wait_for_a_dump_whose_moment_is_not_past(bed: Bed) -> None:
    database(bed).stands = False
    calls = Calls()
    take(bed.platform(lifeline=Lifeline(after_each=calls)))
    assert calls.first("photos.walk") > calls.last("listings.dumps")


def test_two_databases_are_dumped_one_after_the_other(bed: Bed) -> None:
    bed.data["prod"].insert(0, FakeDatabase("orders"))
    calls = Calls()
    made = take(bed.platform(lifeline=Lifeline(after_each=calls)))
    assert [part.source for part in made.parts][2:] == ["orders", "orders", "listings", "listings", "photos"]
    assert calls.first("listings.dumps") > calls.last("orders.dumps")
    assert calls.first("photos.walk") > calls.first("listings.dumps")


def test_a_dump_taken_anew_takes_the_files_anew(bed: Bed) -> None:
    """Its rows are newer than the files that were read beside the first one."""
    walked = threading.Event()
    lost: list[str] = []

    def each(call: str) -> None:
        if call.startswith("photos.walk"):
            walked.set()
        if call.startswith("listings.dumps.read") and not lost:
            lost.append(call)
            assert walked.wait(WAIT_SECONDS)
            raise Transient("connection reset by peer")

    bed.clock.on_sleep = lambda seconds: photos(bed).put("late.jpg", b"before the second dump")
    made = take(bed.platform(lifeline=Lifeline(after_each=each)))
    files = next(part for part in made.parts if part.files is not None)
    assert files.files is not None and files.files.entries == 6
    assert files.stream.key.endswith(".2.sealed"), "no object is ever written twice"
    assert_whole(bed)


def test_both_lost_in_turn_are_no_set(bed: Bed) -> None:
    """Files were begun twice beside the first dump: there is no third name for what they would be."""
    lost: list[str] = []
    again = threading.Event()

    def each(call: str) -> None:
        if call.startswith("photos.walk") and not again.is_set():
            lost.append(call)
            if len(lost) == 1:
                raise Transient("connection reset by peer")
            again.set()
        if call.startswith("listings.dumps.read") and len(lost) < 3:
            assert again.wait(WAIT_SECONDS)
            lost.append(call)
            raise Transient("connection reset by peer")

    with pytest.raises(Unavailable, match="photos was begun 2 times"):
        take(bed.platform(lifeline=Lifeline(after_each=each)))
    assert_nothing_is_left(bed)


def test_a_dump_that_fails_ends_the_files(bed: Bed) -> None:
    database(bed).fault = Fault(failed(), after=10)
    with pytest.raises(Permanent, match="code 1"):
        take(bed.platform())
    assert_nothing_is_left(bed)


def test_files_that_fail_end_the_dump(bed: Bed) -> None:
    """At its next frame: of the eight that it has, not all are read any more."""
    database(bed).live.filler = 60_000_000
    broken = threading.Event()
    calls = Calls()

    def each(call: str) -> None:
        calls(call)
        if call.startswith("photos.walk"):
            broken.set()
            raise Permanent("photos: input/output error")
        if call.startswith("listings.dumps.read"):
            assert broken.wait(WAIT_SECONDS)
            until(lambda: not [one for one in threading.enumerate() if one.name == "files"])

    with pytest.raises(Permanent, match="input/output error"):
        take(bed.platform(lifeline=Lifeline(after_each=each)))
    assert sum(call.startswith("listings.dumps.read") for call in calls.made) < 30
    assert_nothing_is_left(bed)


def test_files_lost_twice_are_no_set(bed: Bed) -> None:
    def each(call: str) -> None:
        if call.startswith("photos.walk"):
            raise Transient("connection reset by peer")

    with pytest.raises(Unavailable, match="2 attempts"):
        take(bed.platform(lifeline=Lifeline(after_each=each)))
    assert_nothing_is_left(bed)


@pytest.mark.parametrize("call", ["photos.walk", "photos.read", "media.put", "listings.dumps.read"])
def test_an_interruption_of_either_ends_both(bed: Bed, call: str) -> None:
    def interrupt(made: str) -> None:
        if made.startswith(call):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take(bed.platform(lifeline=Lifeline(after_each=interrupt)))
    assert_nothing_is_left(bed)
    bed.clock.advance(3600)
    take(bed.platform("second:1"))
    assert len(assert_whole(bed).sets) == 1


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def assert_nothing_is_left(bed: Bed) -> None:
    assert list(assert_whole(bed).sets) == []
    assert all(one.open_dumps == 0 for one in bed.data["prod"] if isinstance(one, FakeDatabase))
    assert bed.vault.sets.unfinished == 0
    assert set(left_over(bed).values()) <= {"abandoned"}
    assert not [one.name for one in threading.enumerate() if one.name.startswith(("files", "seal"))]


def test_work_aside_ends_when_it_is_asked_to() -> None:
    begun, ended = threading.Event(), []

    def work(check: Callable[[], None]) -> int:
        begun.set()
        try:
            while True:
                check()
        except Stopped:
            ended.append(True)
            raise

    with pytest.raises(ZeroDivisionError), Aside(work, "work") as aside:
        aside.begin()
        assert begun.wait(WAIT_SECONDS)
        aside.check()
        raise ZeroDivisionError
    assert ended == [True]
    with Aside(work, "work") as aside:
        aside.begin()
        aside.cancel()
        aside.check()
    assert ended == [True, True]


def test_work_aside_is_done_where_it_was_never_begun() -> None:
    with Aside(lambda check: threading.current_thread().name, "aside") as aside:
        assert aside.result() == threading.current_thread().name
        aside.begin()
        assert aside.result() == "aside"
