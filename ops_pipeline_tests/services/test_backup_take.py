"""Taking a set: what it holds, what keeps it from being taken, and what a fault on the way leaves behind."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from ops_pipeline.core.backup.records import Trigger
from ops_pipeline.errors import BadInput, LeaseHeld, OpsError, Permanent, Transient, Unavailable
from ops_pipeline.services.backup.heartbeat import read_heartbeat
from ops_pipeline.services.backup.locks import lock, lock_all, who_holds
from ops_pipeline.services.backup.prune import prune
from ops_pipeline.services.backup.set_holds import lift_quarantine
from ops_pipeline.services.deploy import deploy
from ops_pipeline_tests.fakes.backups import backup_bed, backup_catalogue, database
from ops_pipeline_tests.fakes.clock import SkewedClock
from ops_pipeline_tests.fakes.data_source import Fault, cut, failed, hung
from ops_pipeline_tests.fakes.platform import Bed, Lifeline, quiet
from ops_pipeline_tests.services.backing_up import assert_whole, history, left_over, listing, take


@pytest.fixture
def bed() -> Bed:
    return backup_bed()


def test_what_a_set_says_about_itself(bed: Bed) -> None:
    bed.image("1.0.0")
    live = deploy(bed.platform(), "prod", "api", progress=quiet)
    first = take(bed.platform(), reason="because", taken_by="ann")
    bed.clock.advance(60)
    second = take(bed.platform(), trigger=Trigger.SCHEDULE)
    assert [(part.source, part.name) for part in first.parts] == [
        ("cache", "globals"),
        ("cache", "dump"),
        ("listings", "globals"),
        ("listings", "dump"),
    ], "what names something is taken before what it names"
    assert (first.reason, first.taken_by, first.trigger, first.run_id) == ("because", "ann", Trigger.MANUAL, "run-a")
    assert first.images == {"api": live.digest} and first.commit == live.commit
    assert first.previous is None and second.previous is not None
    newest, oldest = assert_whole(bed).sets
    assert (second.previous.id, second.previous.manifest_sha256) == (oldest.id, oldest.manifest_sha256)
    assert newest.good and newest.covers(["cache", "listings"]) and newest.sources == ("cache", "listings")
    contents = first.parts[3].arrived.contents
    assert contents is not None and contents.counts == {"listing": 200}
    assert left_over(bed) == {} and who_holds(bed.platform(), bed.vault.vault(), "prod") is None


def test_everything_wrong_is_said_at_once_and_nothing_is_written(bed: Bed) -> None:
    database(bed, "listings").down = Permanent("no container finds itself by `listings`", hint="Start it.")
    database(bed, "cache").down = Unavailable("the engine does not answer")
    with pytest.raises(Unavailable) as caught:
        take(bed.platform())
    assert all(word in caught.value.message for word in ("2 of 2", "listings: no container", "cache: the engine"))
    assert bed.vault.sets.objects == {} and bed.vault.state.objects == {}


@pytest.mark.parametrize(
    ("environment", "sources", "words"),
    [
        ("prod", ["listings", "lsitings"], "no data source `lsitings`"),
        ("nowhere", [], "no environment `nowhere`"),
    ],
)
def test_names_are_checked_first(bed: Bed, environment: str, sources: list[str], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        take(bed.platform(), environment, sources=sources)


def test_a_set_of_some_sources_is_never_the_good_one(bed: Bed) -> None:
    whole = take(bed.platform())
    bed.clock.advance(60)
    part = take(bed.platform(), sources=["listings"])
    found = assert_whole(bed)
    assert part.partial and not whole.partial
    assert found.newest_good is not None and found.newest_good.id == whole.id


FAULTS: dict[str, tuple[Fault, type[OpsError], str]] = {
    "ends with code 1 after output": (Fault(failed(), after=500), Permanent, "code 1"),
    "hangs": (Fault(hung(), after=500), Permanent, "gave nothing"),
    "is cut": (Fault(cut(), after=700, part="dump"), Permanent, "cut off"),
    "gives nothing at all": (Fault(failed(), after=0), Permanent, "code 1"),
    "is lost twice": (Fault(Transient("connection reset"), after=300, times=2), Unavailable, "2 attempts"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_dump_that_fails_makes_no_set(bed: Bed, fault: str) -> None:
    history(bed, 1)
    found, kind, words = FAULTS[fault]
    database(bed).fault = Fault(found.error, found.after, found.times, found.part)
    with pytest.raises(kind, match=words):
        take(bed.platform())
    assert len(assert_whole(bed).sets) == 1
    assert database(bed).open_dumps == 0 and bed.vault.sets.unfinished == 0
    assert list(left_over(bed).values()) == ["abandoned"]
    database(bed).fault = None
    take(bed.platform())
    assert len(assert_whole(bed).sets) == 2


@pytest.mark.parametrize("part", ["globals", "dump"])
def test_a_dump_lost_once_begins_anew(bed: Bed, part: str) -> None:
    database(bed).fault = Fault(Transient("connection reset by peer"), after=10, part=part)
    lines: list[str] = []
    made = take(bed.platform(), progress=lines.append)
    assert_whole(bed)
    assert any("taken anew" in line for line in lines)
    keys = {part.stream.key for part in made.parts if part.source == "listings"}
    assert all(key.endswith(".2.sealed") for key in keys), "no object is ever written twice"


STORE: dict[str, Callable[[Bed], None]] = {
    "full": lambda bed: setattr(bed.vault.sets, "capacity", 300),
    "away": lambda bed: setattr(bed.vault.sets, "before", away),
    "state away": lambda bed: setattr(bed.vault.state, "before", away),
}


def away(operation: str, key: str) -> None:
    raise Transient("connection refused")


@pytest.mark.parametrize("fault", STORE)
def test_a_store_that_fails_makes_no_set(bed: Bed, fault: str) -> None:
    history(bed, 1)
    STORE[fault](bed)
    with pytest.raises((Permanent, Unavailable)):
        take(bed.platform())
    bed.vault.sets.capacity = None
    bed.vault.sets.before = bed.vault.state.before = lambda operation, key: None
    assert len(assert_whole(bed).sets) == 1
    bed.clock.advance(3600)
    take(bed.platform())
    assert_whole(bed)


@pytest.mark.parametrize("which", ["sets", "state"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_every_call_may_fail_once_or_lose_its_answer(which: str, when: str) -> None:
    """Each single call of the store answers 503 once, or does its work and its answer is lost."""
    turn, tried = 0, True
    while tried:
        turn += 1
        bed = backup_bed()
        history(bed, 1)
        tried = False
        count = [0]

        def fail(operation: str, key: str, count: list[int] = count, turn: int = turn) -> None:
            nonlocal tried
            count[0] += 1
            if count[0] == turn:
                tried = True
                raise Transient("503 server busy")

        setattr(getattr(bed.vault, which), when, fail)
        bed.clock.advance(3600)
        made: str | None = None
        try:
            made = take(bed.platform()).id
        except OpsError as error:
            assert isinstance(error, Permanent)
        setattr(getattr(bed.vault, which), when, lambda operation, key: None)
        found = assert_whole(bed)
        assert made is None or found.sets[0].id == made
        bed.clock.advance(3600)
        take(bed.platform())
        assert_whole(bed)
    assert turn > 8


def test_a_set_that_exists_is_no_failure_whatever_cannot_be_tidied_up(bed: Bed) -> None:
    history(bed, 1)

    def away_at_the_end(operation: str, key: str) -> None:
        if operation == "write" and key.startswith("heads/prod/newest"):
            raise Transient("connection refused")

    bed.vault.state.before = away_at_the_end
    lines: list[str] = []
    bed.clock.advance(3600)
    made = take(bed.platform(), progress=lines.append)
    bed.vault.state.before = lambda operation, key: None
    assert any("not all is tidied up" in line for line in lines)
    assert listing(bed).sets[0].id == made.id and list(left_over(bed)) == [made.id]
    bed.clock.advance(3600)
    take(bed.platform())
    assert len(assert_whole(bed).sets) == 3 and left_over(bed) == {}


def test_a_part_that_vanishes_before_the_manifest_is_noticed(bed: Bed) -> None:
    def vanish(call: str) -> None:
        if call.startswith("listings.dumps dump"):
            return
        if call == "store.read current/prod/web":
            for key in bed.vault.sets.objects:
                if "cache" in key:
                    bed.vault.sets.delete(key)

    with pytest.raises(Permanent, match=r"cache: stored object .* is missing"):
        take(bed.platform(lifeline=Lifeline(after_each=vanish)))
    assert listing(bed).sets == ()


def test_two_backups_at_once(bed: Bed) -> None:
    """The second one finds the lock; of many at the same moment each either takes a whole set or says who holds it."""
    results: list[object] = []
    start = threading.Barrier(4)

    def run(number: int) -> None:
        start.wait()
        try:
            results.append(take(bed.platform(f"host:{number}"), run_id=f"run-{number}").id)
        except OpsError as error:
            results.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = [one for one in results if isinstance(one, str)]
    assert made and all(isinstance(one, LeaseHeld) for one in results if not isinstance(one, str))
    assert sorted(one.id for one in assert_whole(bed).sets) == sorted(made)


def test_a_backup_waits_when_told_to_and_says_for_whom(bed: Bed) -> None:
    platform, vault, lines = bed.platform("other:1"), bed.vault.vault(), list[str]()
    held = lock(platform, vault, "prod", run_id="run-b", reason="clearing away old sets").__enter__()
    with pytest.raises(LeaseHeld, match="run-b: clearing away old sets"):
        take(bed.platform())
    bed.clock.on_sleep = lambda seconds: held.__exit__(None, None, None) if bed.clock.monotonic() > 3 else None
    take(bed.platform(), lock_wait_seconds=60, progress=lines.append)
    assert any("waiting" in line and "other:1" in line for line in lines)
    assert len(assert_whole(bed).sets) == 1


def test_a_prune_in_the_middle_of_a_backup_is_refused(bed: Bed) -> None:
    history(bed, 6, hours=24 * 30)
    refused: list[OpsError] = []

    def prune_meanwhile(call: str) -> None:
        if call.startswith("listings.dumps") and not refused:
            try:
                prune(bed.platform("pruner:1"), "prod", progress=quiet)
            except OpsError as error:
                refused.append(error)

    take(bed.platform(lifeline=Lifeline(after_each=prune_meanwhile)))
    assert len(refused) == 1 and isinstance(refused[0], LeaseHeld)
    count = len(assert_whole(bed).sets)
    prune(bed.platform("pruner:1"), "prod", progress=quiet)
    assert len(assert_whole(bed).sets) <= count


def test_locks_of_several_environments_are_given_back_together(bed: Bed) -> None:
    platform, vault = bed.platform(), bed.vault.vault()
    with lock_all(platform, vault, ["prod", "dev", "prod"], run_id="r", reason="sweep") as held:
        assert [one.lease.environment for one in held] == ["dev", "prod"]
        for environment in ("dev", "prod"):
            with pytest.raises(LeaseHeld):
                take(bed.platform("other:1"), environment)
    take(platform, "dev")
    assert who_holds(platform, vault, "prod") is None


@pytest.mark.parametrize("jump", [-40 * 86400.0, -3600.0, 3600.0, 400 * 86400.0])
def test_a_clock_that_jumps(bed: Bed, jump: float) -> None:
    """Ids keep the order in which sets were taken, whatever the clock says; a set says that it went back."""
    first = take(bed.platform())
    second = take(bed.platform(clock=SkewedClock(bed.clock, jump)))
    third = take(bed.platform())
    assert first.id < second.id < third.id
    assert assert_whole(bed).newest_id == third.id
    back = second if jump < 0 else third
    assert any("the clock went back" in warning for warning in back.warnings)
    for made in (first, second, third):
        assert made.ended_at >= made.started_at


def test_an_odd_set_is_stored_kept_apart_and_told(bed: Bed) -> None:
    good = history(bed, 3)
    database(bed).live.tables["listing"] = []
    odd = history(bed, 1)[0]
    found = assert_whole(bed)
    assert found.sets[0].id == odd.id and "0 rows, 200" in found.sets[0].state.quarantined
    assert found.newest_good is not None and found.newest_good.id == good[-1].id
    assert bed.alerts.names() == ["BackupQuarantined"]
    beat = read_heartbeat(bed.vault.vault(), bed.clock, "prod")
    assert beat is not None and beat.set_id == good[-1].id, "a sign of life speaks of good sets only"
    again = history(bed, 1)[0]
    assert listing(bed).sets[0].state.quarantined, "still held against the good ones"
    lift_quarantine(bed.platform(), "prod", again.id, reason="we did that", by="ann")
    history(bed, 1)
    assert listing(bed).newest_good is not None and bed.alerts.names() == []


PINGS = {
    "answers": (None, 1),
    "is away": (Transient("no answer in time"), 2),
    "refuses": (Permanent("answered with status 404"), 1),
}


@pytest.mark.parametrize("ping", PINGS)
def test_outside_signs_of_life_never_fail_a_set(ping: str) -> None:
    bed = backup_bed(backup_catalogue(heartbeat_url="env:TOKEN"))
    bed.secrets["env:TOKEN"] = "https://example.org/ping/s3cret-token"
    error, times = PINGS[ping]
    called: list[str] = []

    def send(url: str) -> None:
        called.append(url)
        if error is not None:
            raise error

    bed.ping = send
    lines: list[str] = []
    take(bed.platform(), trigger=Trigger.SCHEDULE, progress=lines.append)
    assert called == ["https://example.org/ping/s3cret-token"] * times
    assert len(assert_whole(bed).sets) == 1 and not any("s3cret-token" in line for line in lines)
    bed.clock.advance(60)
    take(bed.platform(), trigger=Trigger.MANUAL)
    assert len(called) == times, "only the schedule is waited for"


def test_progress_tells_rate_and_time_left(bed: Bed) -> None:
    database(bed).live.filler = 3_000_000
    database(bed).piece = 100_000
    history(bed, 1)
    database(bed).before = lambda call: None
    lines: list[str] = []

    def pass_time(call: str) -> None:
        if ".read" in call:
            bed.clock.advance(0.2)

    bed.vault.sets.before = lambda operation, key: bed.clock.advance(2.0) if operation == "block" else None
    take(bed.platform(lifeline=Lifeline(after_each=pass_time)), progress=lines.append)
    told = [line for line in lines if line.startswith("listings:") and "MB/s" in line and " of ~3.0 MB" in line]
    assert told, lines
