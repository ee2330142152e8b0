"""Clearing away media: two marks a day apart, nothing that any set needs, whatever happens at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ops_pipeline.core.backup.media_gc import Mark, due, marked
from ops_pipeline.core.backup.records import Manifest, SetKey, Trigger
from ops_pipeline.errors import OpsError, StaleGeneration, StoreDamaged
from ops_pipeline.ports import Vault
from ops_pipeline.services.backup.files import back_up_files, references
from ops_pipeline.services.backup.inflight import TAKING, Flight, InFlight
from ops_pipeline.services.backup.manifests import encode_manifest
from ops_pipeline.services.backup.media_gc import condemned_names, mark, sweep
from ops_pipeline_tests.fakes.clock import FakeClock
from ops_pipeline_tests.fakes.file_tree import FakeFileTree
from ops_pipeline_tests.fakes.object_store import Faults, Killed
from ops_pipeline_tests.fakes.vault import FakeVault

A, B, C = b"content a", b"content b", b"content c"


class Bed:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.fakes = FakeVault(self.clock.now)
        self.number = 0

    @property
    def vault(self) -> Vault:
        return self.fakes.vault()

    def take(self, *contents: bytes, environment: str = "prod", commit: bool = True) -> SetKey:
        """A set of these contents, as `take_backup` takes one: in flight, dump, look again, manifest, landed."""
        self.number += 1
        self.clock.advance(5)
        key = SetKey(environment, f"01K{self.number:023d}", self.clock.now())
        vault = self.vault
        flight = Flight(vault, self.clock, in_flight(key, self.clock))
        flight.begin()
        tree = FakeFileTree()
        for content in contents:
            tree.put(content[-1:], content, mtime_ns=self.number)
        part = back_up_files(vault, key, tree, clock=self.clock, workers=1)
        for one in references(vault, part):
            found = vault.media.stat(one.key)
            if found is None or found.size != one.size:
                raise StoreDamaged(f"{one.key} is missing")
        if commit:
            manifest = Manifest(
                key.id, key.environment, "test", Trigger.MANUAL, "", "", "", key.started_at, self.clock.now(), (part,),
                None, {}, "", vault.sealing.recipients,
            )  # fmt: skip
            data = encode_manifest(vault.sealing, manifest)
            flight.committing(b"{}", "")
            vault.sets.put(key.manifest, data)
            vault.sets.flush()
            flight.end()
        return key

    def prune(self, key: SetKey) -> None:
        """As pruning does: the manifest first."""
        self.vault.sets.delete(key.manifest)
        for info in list(self.vault.sets.list(key.prefix)):
            self.vault.sets.delete(info.key)

    def day(self) -> None:
        self.clock.advance(24 * 3600 + 1)

    def stored(self) -> int:
        return len(self.fakes.media.objects)


def in_flight(key: SetKey, clock: FakeClock) -> InFlight:
    return InFlight(
        key.environment, key.id, key.started_at, Trigger.MANUAL, "", f"test:{key.id}", 1, TAKING, clock.now()
    )  # fmt: skip


def test_what_no_set_needs_is_gone_after_two_marks_and_nothing_else() -> None:
    bed = Bed()
    first = bed.take(A, B)
    bed.take(B, environment="dev")
    bed.prune(first)
    assert mark(bed.vault, bed.clock).marked == 1
    assert sweep(bed.vault, bed.clock).deleted == 0, "too young"
    bed.day()
    assert mark(bed.vault, bed.clock).marked == 1
    assert sweep(bed.vault, bed.clock).deleted == 1
    assert bed.stored() == 1 and condemned_names(bed.vault, bed.clock) == frozenset()
    assert sweep(bed.vault, bed.clock).deleted == 0
    assert mark(bed.vault, bed.clock).marked == 0


def test_an_object_that_is_needed_again_between_two_marks_stays() -> None:
    bed = Bed()
    first = bed.take(A)
    bed.prune(first)
    mark(bed.vault, bed.clock)
    bed.take(A, environment="dev")
    bed.day()
    assert sweep(bed.vault, bed.clock).deleted == 0
    assert mark(bed.vault, bed.clock).marked == 0
    assert bed.stored() == 1


def test_a_condemned_name_is_not_used_again_by_a_new_set() -> None:
    bed = Bed()
    bed.prune(bed.take(A))
    mark(bed.vault, bed.clock)
    bed.day()

    def die(operation: str, key: str) -> None:
        if operation == "delete":
            raise Killed(key)

    bed.fakes.media.before = die
    with pytest.raises(Killed):
        sweep(bed.vault, bed.clock)
    bed.fakes.media.before = lambda operation, key: None
    assert len(condemned_names(bed.vault, bed.clock)) == 1
    bed.take(A)
    assert bed.stored() == 2, "stored once more, under another name"
    assert sweep(bed.vault, bed.clock).deleted == 1
    bed.take(A)
    assert bed.stored() == 1 and sorted(bed.fakes.media.objects)[0].count("-") == 1


def test_nothing_is_deleted_while_a_set_is_taken_and_a_silent_one_is_given_up_first() -> None:
    bed = Bed()
    bed.prune(bed.take(A))
    mark(bed.vault, bed.clock)
    bed.day()
    key = SetKey("dev", "01K" + "9" * 23, bed.clock.now())
    flight = Flight(bed.vault, bed.clock, in_flight(key, bed.clock))
    flight.begin()
    assert "01K999" in sweep(bed.vault, bed.clock).postponed
    assert bed.stored() == 1
    bed.clock.advance(3700)
    assert sweep(bed.vault, bed.clock).deleted == 1
    with pytest.raises(StaleGeneration):
        flight.committing(b"{}", "")


@pytest.mark.parametrize("which", ["inflight/prod/x.json", "media-gc/condemned.json", "media-gc/marks.json"])
def test_a_record_that_cannot_be_read_deletes_nothing(which: str) -> None:
    bed = Bed()
    bed.prune(bed.take(A))
    mark(bed.vault, bed.clock)
    bed.day()
    bed.fakes.state.write(which, b"rubbish")
    try:
        assert sweep(bed.vault, bed.clock).deleted == 0
    except StoreDamaged as error:
        assert which in error.message
    assert bed.stored() == 1


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "of another set", "manifest"])
def test_a_list_that_cannot_be_read_deletes_nothing_of_any_environment(damage: str) -> None:
    bed = Bed()
    kept = bed.take(B, C, environment="dev")
    other = bed.take(C)
    bed.prune(bed.take(A))
    mark(bed.vault, bed.clock)
    bed.day()
    name = f"{kept.prefix}parts/photos.files.references"
    data = bed.fakes.sets.objects[name]
    if damage == "gone":
        bed.fakes.sets.delete(name)
    elif damage == "manifest":
        bed.fakes.sets.damage(kept.manifest, b"{}")
    else:
        theirs = bed.fakes.sets.objects[f"{other.prefix}parts/photos.files.references"]
        changed = {"cut": data[:-5], "changed": data.replace(b"a", b"b"), "of another set": theirs}[damage]
        bed.fakes.sets.damage(name, changed)
    with pytest.raises(StoreDamaged) as caught:
        sweep(bed.vault, bed.clock)
    assert kept.prefix in caught.value.message
    with pytest.raises(StoreDamaged):
        mark(bed.vault, bed.clock)
    assert bed.stored() == 3


def test_a_sweep_killed_at_any_call_is_finished_by_the_next() -> None:
    for die_at in range(1, 60):
        bed = Bed()
        first = bed.take(A, B, C)
        bed.take(B)
        bed.prune(first)
        mark(bed.vault, bed.clock)
        bed.day()
        faults = Faults().kill_at(die_at)
        stores = (bed.fakes.sets, bed.fakes.media, bed.fakes.state)
        for store in stores:
            store.before = faults
        killed = False
        try:
            sweep(bed.vault, bed.clock)
        except Killed:
            killed = True
        for store in stores:
            store.before = lambda operation, key: None
        sweep(bed.vault, bed.clock)
        assert bed.stored() == 1 and condemned_names(bed.vault, bed.clock) == frozenset()
        bed.take(A, B)
        mark(bed.vault, bed.clock)
        assert bed.stored() == 2
        if not killed:
            break
    assert 10 < die_at < 59


# ---------------------------------------------------------------------------------------------------- marks

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def test_a_mark_counts_only_while_the_object_is_the_same_and_stays_unneeded() -> None:
    old = NOW - timedelta(days=3)
    before = {"a": Mark(old, "1", 5), "b": Mark(old, "1", 5), "c": Mark(NOW + timedelta(days=9), "1", 5)}
    found = marked(before, [("a", "1", 5), ("b", "2", 5), ("c", "1", 5), ("d", "1", 5)], NOW)
    assert {name: one.at for name, one in found.items()} == {"a": old, "b": NOW, "c": NOW, "d": NOW}
    assert set(due(found, NOW)) == {"a"}
    assert set(due(found, NOW + timedelta(hours=24))) == {"a", "b", "c", "d"}
    assert len(marked({}, ((str(number), "", 1) for number in range(100)), NOW, most=10)) == 10


# ---------------------------------------------------------------------------------------------------- at once


class Turns:
    """Lets several threads run one store call at a time, in an order that is chosen."""

    def __init__(self, choices: list[int]) -> None:
        self._choices = choices
        self._changed = threading.Condition()
        self._waiting: dict[int, bool] = {}  # actor → whether it waits for its turn
        self._number: dict[int, int] = {}

    def __call__(self, operation: str, key: str) -> None:
        me = self._number.get(threading.get_ident())
        if me is None:
            return  # a thread of an actor's own: works on while its actor has the turn
        with self._changed:
            self._waiting[me] = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._waiting[me], timeout=60)

    def run(self, actors: list[Callable[[], None]]) -> None:
        """Run all to their ends; the next call is made by who is chosen among those that wait."""
        running = set(range(len(actors)))

        def body(number: int, action: Callable[[], None]) -> None:
            with self._changed:
                self._number[threading.get_ident()] = number
            try:
                self("begin", "")
                action()
            finally:
                with self._changed:
                    running.discard(number)
                    del self._number[threading.get_ident()]  # another thread may get it now
                    self._waiting.pop(number, None)
                    self._changed.notify_all()

        threads = [threading.Thread(target=body, args=pair, daemon=True) for pair in enumerate(actors)]
        for thread in threads:
            thread.start()
        turn = 0
        with self._changed:
            while True:
                self._changed.wait_for(lambda: all(self._waiting.get(number) for number in running), timeout=60)
                if not running:
                    break
                ready = sorted(running)
                chosen = ready[self._choices[turn] % len(ready)] if turn < len(self._choices) else ready[0]
                turn += 1
                self._waiting[chosen] = False
                self._changed.notify_all()
        for thread in threads:
            thread.join(60)


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    spells=st.lists(st.tuples(st.integers(0, 3), st.sampled_from([1, 2, 5, 8, 10, 12, 14, 16, 18, 60])), max_size=10),
    cached=st.booleans(),
    dies=st.integers(0, 40),
)
def test_whatever_happens_at_once_no_set_that_exists_lacks_an_object(
    spells: list[tuple[int, int]], cached: bool, dies: int
) -> None:
    """Two sweeps, a set that reuses what is being cleared away, and pruning, in any order of their store calls."""
    bed = Bed()
    old = bed.take(A, B)
    if not cached:
        bed.prune(old)  # what A and B are stored as is needed by nobody, and the cache cannot count on it
        mark(bed.vault, bed.clock)
        bed.day()
        mark(bed.vault, bed.clock)
    taken: list[SetKey] = []
    turns = Turns([actor for actor, count in spells for _ in range(count)])
    for store in (bed.fakes.sets, bed.fakes.media, bed.fakes.state):
        store.before = turns
    left = [dies]

    def careful(action: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            try:
                action()
            except OpsError:
                return  # refused, postponed or overtaken: all are fine, as long as nothing is lost

        return run

    def clear() -> None:
        mark(bed.vault, bed.clock)
        sweep(bed.vault, bed.clock, grace=timedelta(0) if cached else timedelta(hours=24))

    def die_in_between() -> None:
        def count(operation: str, key: str) -> None:
            turns(operation, key)
            left[0] -= 1
            if left[0] == 0:
                raise Killed(key)

        fakes = FakeVault(bed.clock.now)
        fakes.sets, fakes.media, fakes.state = bed.fakes.sets, bed.fakes.media, bed.fakes.state
        vault = fakes.vault(lambda name: (count(name, ""), lambda: None)[1])
        try:
            sweep(vault, bed.clock, grace=timedelta(0))
        except Killed:
            return

    turns.run(
        [
            careful(lambda: taken.append(bed.take(A, C))),
            careful(clear),
            careful(die_in_between),
            careful(lambda: bed.prune(old)),
        ]
    )
    for store in (bed.fakes.sets, bed.fakes.media, bed.fakes.state):
        store.before = lambda operation, key: None
    for _ in range(2):
        for key in taken:
            assert key.manifest in bed.fakes.sets.objects
            name = f"{key.prefix}parts/photos.files.references"
            addresses = [line.split()[0].decode() for line in bed.fakes.sets.objects[name].splitlines()[1:-1]]
            missing = [one for one in addresses if f"media/{one[:2]}/{one}" not in bed.fakes.media.objects]
            assert not missing, "a set that exists lacks an object"
        bed.day()
        mark(bed.vault, bed.clock)
        bed.day()
        sweep(bed.vault, bed.clock)  # and what is left over goes in the end, and only that
    assert len(taken) == 1 or bed.stored() == 0
    if taken:
        assert bed.stored() == 2


@pytest.mark.parametrize("order", [[0, 1] * 80, [1] * 40, [0] * 10 + [1] * 60, [0, 0, 1] * 40])
def test_two_sets_of_equal_contents_at_once_both_have_all(order: list[int]) -> None:
    bed, turns, keys = Bed(), Turns(order), list[SetKey]()
    for store in (bed.fakes.sets, bed.fakes.media, bed.fakes.state):
        store.before = turns
    turns.run([lambda: keys.append(bed.take(A, B)), lambda: keys.append(bed.take(A, C, environment="dev"))])
    for store in (bed.fakes.sets, bed.fakes.media, bed.fakes.state):
        store.before = lambda operation, key: None
    assert len(keys) == 2 and bed.stored() == 3
    assert mark(bed.vault, bed.clock).marked == 0
