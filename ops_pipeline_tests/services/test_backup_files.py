"""Backing up, restoring and comparing trees of files, on fakes: what is stored, what is read, what survives a kill."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ops_pipeline.core.backup.file_list import first_line, last_line
from ops_pipeline.core.backup.records import FilesSummary, Part, SetKey
from ops_pipeline.errors import BadInput, Conflict, OpsError, StoreDamaged
from ops_pipeline.ports import FileEntry, Vault
from ops_pipeline.services.backup import file_reading, file_taking
from ops_pipeline.services.backup.files import back_up_files, compare_files, listed_files, references, restore_files
from ops_pipeline.services.backup.media_storing import worth_compressing
from ops_pipeline.services.backup.streams import write_stream
from ops_pipeline_tests.fakes.clock import FakeClock
from ops_pipeline_tests.fakes.file_tree import FakeFileTree
from ops_pipeline_tests.fakes.object_store import Faults, Killed
from ops_pipeline_tests.fakes.vault import FakeVault
from ops_pipeline_tests.testbed.trees import Named, make_live, trees


class Bed:
    """A vault, a clock and a way to take sets one after the other; `commit` makes the last one exist."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.fakes = FakeVault(self.clock.now)
        self.number = 0

    @property
    def vault(self) -> Vault:
        return self.fakes.vault()

    def key(self) -> SetKey:
        return SetKey("prod", f"01K{self.number:023d}", self.clock.now())

    def take(self, tree: FakeFileTree, *, commit: bool = True, workers: int = 2) -> Part:
        self.number += 1
        self.clock.advance(3600)
        key = self.key()
        part = back_up_files(self.vault, key, tree, clock=self.clock, workers=workers)
        if commit:
            self.fakes.sets.put(key.manifest, b"manifest")
            self.fakes.sets.flush()
        return part


def tree_of(**files: bytes) -> FakeFileTree:
    tree = FakeFileTree()
    for name, data in files.items():
        tree.put(name.replace("__", "/"), data)
    return tree


def summary(part: Part) -> FilesSummary:
    assert part.files is not None
    return part.files


def read_count(part: Part) -> int:
    return int(part.arrived.details["files read"])


# ---------------------------------------------------------------------------------------------------- round trip


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(named=trees())
def test_any_tree_comes_back_as_it_was(named: list[Named]) -> None:
    bed, tree = Bed(), FakeFileTree()
    make_live(tree, named)
    part = bed.take(tree)
    assert summary(part).entries == len(named)
    assert {one.address for one in references(bed.vault, part)} == {
        piece.reference.address for one in listed_files(bed.vault, part) for piece in one.pieces
    }
    other = FakeFileTree()
    restore_files(bed.vault, part, other, "back", workers=2)
    assert compare_files(bed.vault, part, other, "back").problems == ()
    other.swap("back")
    assert other.content() == tree.content()


def test_a_file_is_cut_into_pieces_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reading, "SMALL_BYTES", 1000)
    monkeypatch.setattr(file_taking, "SMALL_BYTES", 1000)
    bed, data = Bed(), os.urandom(5000)
    part = bed.take(tree_of(large=data, copy=data, small=data[:1000]))
    assert summary(part).objects == 2 and summary(part).new_objects == 2
    other = FakeFileTree()
    restore_files(bed.vault, part, other, "back")
    other.swap("back")
    assert other.content() == {b"large": data, b"copy": data, b"small": data[:1000]}
    again = bed.take(tree_of(large=data))
    assert summary(again).new_objects == 0


# ---------------------------------------------------------------------------------------------------- what is stored


def test_equal_contents_are_stored_once_and_names_tell_nothing() -> None:
    bed = Bed()
    part = bed.take(tree_of(a=b"same" * 50, b=b"same" * 50, c=b"other", empty=b""))
    assert (summary(part).objects, summary(part).new_objects, len(bed.fakes.media.objects)) == (2, 2, 2)
    plain_hash = hashlib.sha256(b"other").hexdigest()
    assert not any(plain_hash in key for key in bed.fakes.media.objects)
    for one in references(bed.vault, part):
        stored = bed.fakes.media.objects[one.key]
        assert (len(stored), hashlib.sha256(stored).hexdigest()) == (one.size, one.sha256)


def test_unchanged_files_are_not_read_and_cost_no_request_each() -> None:
    bed, tree = Bed(), FakeFileTree()
    for number in range(300):
        tree.put(f"d/{number}", b"%d" % number)
    first = bed.take(tree)
    assert read_count(first) == 300
    faults = Faults()
    bed.fakes.media.before = faults
    second = bed.take(tree)
    assert read_count(second) <= 300 // file_taking.REREAD_ONE_IN * 3 and summary(second).new_objects == 0
    assert faults.calls == []
    assert summary(second).references.sha256 == summary(first).references.sha256
    tree.put("d/7", b"changed", mtime_ns=5)
    third = bed.take(tree)
    assert summary(third).new_objects == 1


def test_every_unchanged_file_is_read_once_in_thirty_runs_and_a_silent_change_is_told() -> None:
    bed, tree = Bed(), tree_of(a=b"aa", b=b"bb")
    bed.take(tree)
    node = tree._tree().nodes[b"a"]
    node.data = b"AA"  # the disk rots: same size, same times
    told = [bed.take(tree).arrived.details.get("silently changed", "") for _ in range(file_taking.REREAD_ONE_IN)]
    assert [words for words in told if words] == ["a"]


def test_after_the_set_of_the_cache_was_pruned_what_is_gone_is_stored_again() -> None:
    bed, tree = Bed(), tree_of(a=b"a" * 100, b=b"b" * 100)
    part = bed.take(tree)
    bed.fakes.sets.delete(bed.key().manifest)
    lost = sorted(bed.fakes.media.objects)[0]
    bed.fakes.media.delete(lost)
    again = bed.take(tree)
    assert summary(again).new_objects == 1
    assert {one.address for one in references(bed.vault, again)} == {one.address for one in references(bed.vault, part)}
    assert restore_files(bed.vault, again, FakeFileTree(), "back") == 3


@pytest.mark.parametrize("damage", ["head", "chunk", "everything"])
def test_a_cache_that_cannot_be_read_costs_reading_only(damage: str) -> None:
    bed, tree = Bed(), tree_of(a=b"aa", b=b"bb")
    bed.take(tree)
    for key in list(bed.fakes.state.objects):
        if key.startswith("files/") and (damage == "everything" or key.endswith("head") == (damage == "head")):
            bed.fakes.state.write(key, b"rubbish")
    part = bed.take(tree)
    assert read_count(part) == 2 and summary(part).new_objects == 0
    assert read_count(bed.take(tree)) <= 1


def test_files_that_do_not_hold_still_are_kept_and_named() -> None:
    bed, tree = Bed(), tree_of(calm=b"calm", log=b"line", once=b"once", gone=b"gone")
    tree.moving = {b"log": 99, b"once": 1}

    def before(call: str) -> None:
        if call == "read":
            tree.remove("gone")

    tree.before = before
    part = bed.take(tree)
    named = summary(part).changed_while_read
    assert [words.partition(":")[0] for words in named] == ["gone", "log"]
    found = {one.entry.path: one for one in listed_files(bed.vault, part)}
    assert set(found) == {b"", b"calm", b"log", b"once"} and found[b"once"].entry.size == 5
    other = FakeFileTree()
    restore_files(bed.vault, part, other, "back")
    other.swap("back")
    assert other.content()[b"log"].startswith(b"line") and other.content()[b"once"] == b"once+"


@pytest.mark.parametrize(
    ("beginning", "worth"),
    [
        (b"\xff\xd8\xff" + os.urandom(9000), False),
        (b"\x89PNG\r\n\x1a\n" + b"0" * 9000, False),
        (b"\0\0\0\x18ftypmp42" + b"0" * 9000, False),
        (b"text " * 2000, True),
        (os.urandom(10_000), False),
        (b"short", True),
    ],
)
def test_whether_to_compress_is_seen_in_the_content(beginning: bytes, worth: bool) -> None:
    assert worth_compressing(beginning) is worth


def test_whoever_watches_hears_of_all_bytes_and_may_end_it() -> None:
    bed, tree = Bed(), FakeFileTree()
    for number in range(50):
        tree.put(f"{number}", bytes(1000))
    heard: list[int] = []
    back_up_files(bed.vault, bed.key(), tree, clock=bed.clock, on_bytes=heard.append)
    assert sum(heard) == 50_000

    def enough(count: int) -> None:
        raise Conflict("the lock is somebody else's")

    bed.number += 1
    with pytest.raises(Conflict):
        back_up_files(bed.vault, bed.key(), tree, clock=bed.clock, on_bytes=enough)
    assert not [key for key in bed.fakes.sets.objects if bed.key().id in key]


# ---------------------------------------------------------------------------------------------------- faults


def test_a_store_that_fails_now_and_then_is_tried_again() -> None:
    bed, tree = Bed(), tree_of(a=b"aa", b=b"bb")
    bed.fakes.media.before = Faults().transient(2, "put").transient(1, "list").transient(2, "flush")
    part = bed.take(tree)
    assert summary(part).new_objects == 2
    assert restore_files(bed.vault, part, FakeFileTree(), "back") == 3


def test_another_writer_storing_the_same_contents_at_once_is_believed_and_nothing_else() -> None:
    """Both put the same content before either flushed: the references name the bytes that are there."""
    bed, data = Bed(), b"shared" * 100
    first = FakeVault(bed.clock.now)
    other = bed.take(tree_of(a=data))
    ((key, stored),) = bed.fakes.media.objects.items()

    def other_was_quicker(operation: str, asked: str) -> None:
        if operation == "flush" and key not in first.media.objects:
            first.media._objects[key] = (stored + b"", bed.fakes.media.stat(key))  # type: ignore[assignment]

    first.media.before = other_was_quicker
    part = back_up_files(first.vault(), bed.key(), tree_of(a=data, b=b"own"), clock=bed.clock)
    assert [one for one in references(first.vault(), part) if one.key == key] == list(references(bed.vault, other))
    assert restore_files(first.vault(), part, FakeFileTree(), "back") == 3


def test_killed_at_any_call_and_taken_again_nothing_is_lost_and_what_was_durable_is_found() -> None:
    files = {f"f{number}": b"content %d" % number * 20 for number in range(6)}
    counts = []
    for die_at in range(1, 200):
        bed, tree = Bed(), tree_of(**files)
        faults = Faults().kill_at(die_at)
        for store in (bed.fakes.sets, bed.fakes.media, bed.fakes.state):
            store.before = faults
        killed = False
        try:
            bed.take(tree, commit=False, workers=1)
        except Killed:
            killed = True
        for store in (bed.fakes.sets, bed.fakes.media, bed.fakes.state):
            store.before = lambda operation, key: None
        bed.fakes.media.lose_power()
        bed.fakes.sets.lose_power()
        if not killed:
            break
        durable = len(bed.fakes.media.objects)
        part = bed.take(tree)
        assert summary(part).objects == 6 and summary(part).new_objects == 6 - durable
        other = FakeFileTree()
        restore_files(bed.vault, part, other, "back")
        assert compare_files(bed.vault, part, other, "back").problems == ()
        counts.append(durable)
    assert len(counts) > 10 and 6 in counts and 0 in counts


def test_a_run_that_was_killed_late_reads_only_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_taking, "CHUNK_ENTRIES", 50)
    monkeypatch.setattr(file_taking, "BATCH_FILES", 10)
    bed, tree = Bed(), FakeFileTree()
    for number in range(200):
        tree.put(f"{number:03}", b"%d" % number)

    def die(operation: str, key: str) -> None:
        if operation == "write" and key.endswith("/2"):
            raise Killed(key)

    bed.fakes.state.before = die
    with pytest.raises(Killed):
        bed.take(tree, commit=False)
    bed.fakes.state.before = lambda operation, key: None
    bed.fakes.media.lose_power()
    part = bed.take(tree)
    assert 99 <= read_count(part) <= 115 and summary(part).objects == 200
    assert read_count(bed.take(tree)) <= 20


# ---------------------------------------------------------------------------------------------------- restoring


def taken() -> tuple[Bed, FakeFileTree, Part]:
    bed = Bed()
    tree = tree_of(a__one=b"1" * 500, a__two=b"2" * 500, b__three=b"3", z=b"zz")
    tree.make(FileEntry(b"b/again", "hardlink", 0, 0, 0, link=b"a/one"))
    tree.make(FileEntry(b"b/link", "symlink", 0o777, 5, 6, mtime_ns=9, link=b"../.."))
    return bed, tree, bed.take(tree)


@pytest.mark.parametrize(
    ("only", "names"),
    [
        (["a/*"], [b"", b"a", b"a/one", b"a/two"]),
        (["z", "three"], [b"", b"b", b"b/three", b"z"]),
        (["b"], [b"", b"b", b"b/again", b"b/link", b"b/three"]),
        (["again"], [b"", b"b", b"b/again"]),
    ],
)
def test_a_part_of_a_tree(only: list[str], names: list[bytes]) -> None:
    bed, tree, part = taken()
    other = FakeFileTree()
    restore_files(bed.vault, part, other, "some", only=only)
    assert [entry.path for entry in other.walk_beside("some")] == names
    assert compare_files(bed.vault, part, other, "some", only=only).problems == ()
    other.swap("some")
    assert all(tree.content()[path] == data for path, data in other.content().items())


@pytest.mark.parametrize("only", [["nothing"], ["../x"], [""]])
def test_patterns_that_mean_nothing_are_refused_before_anything_is_written(only: list[str]) -> None:
    bed, _, part = taken()
    other = FakeFileTree()
    with pytest.raises(BadInput):
        restore_files(bed.vault, part, other, "some", only=only)
    with pytest.raises(OpsError):
        list(other.walk_beside("some"))


def test_a_restore_that_was_killed_goes_on_where_it_was() -> None:
    bed, _, part = taken()
    for die_at in range(1, 40):
        other, left = FakeFileTree(), [die_at]

        def before(call: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Killed(call)

        other.before = before
        try:
            restore_files(bed.vault, part, other, "kill", workers=1)
        except Killed:
            other.before = lambda call: None
            restore_files(bed.vault, part, other, "kill", workers=1)
            assert compare_files(bed.vault, part, other, "kill").problems == ()
            continue
        break
    assert die_at > 10


Change = Callable[[FakeFileTree], None]
DIFFERENCES: dict[str, tuple[Change, str]] = {
    "another content": (lambda tree: tree.put("z", b"ZZ"), "z has another content"),
    "a name more": (lambda tree: tree.put("more", b""), "more ought not to be there"),
    "a name less": (lambda tree: tree.remove("z"), "z is missing"),
    "another time": (lambda tree: tree.put("z", b"zz", mtime_ns=1), "z: mtime_ns was"),
    "another size": (lambda tree: tree.put("z", b"zzz"), "z: size was 2, is 3"),
    "another kind": (lambda tree: tree.make(FileEntry(b"z", "fifo", 0o644, 1000, 1000)), "z: kind was 'file'"),
    "another mode": (
        lambda tree: tree.make(replace(tree._tree().nodes[b"a"].entry, mode=0o700)),
        "a: mode was 755, is 700",
    ),
    "another link": (
        lambda tree: tree.make(FileEntry(b"b/link", "symlink", 0o777, 5, 6, mtime_ns=9, link=b"/")),
        "b/link: link was",
    ),
    "a copy instead of a link": (lambda tree: tree.put("b/again", b"1" * 500), "b/again: kind was 'hardlink'"),
}


@pytest.mark.parametrize(("change", "words"), DIFFERENCES.values(), ids=list(DIFFERENCES))
def test_every_difference_is_told(change: Change, words: str) -> None:
    bed, tree, part = taken()
    assert compare_files(bed.vault, part, tree).problems == ()
    change(tree)
    found = compare_files(bed.vault, part, tree)
    assert len(found.problems) == 1 and words in found.problems[0], found


@settings(max_examples=60)
@given(where=st.floats(0, 0.999), flip=st.integers(1, 255), cut=st.booleans(), which=st.integers(0, 3))
def test_damage_anywhere_in_a_media_object_is_told_with_file_and_object(
    where: float, flip: int, cut: bool, which: int
) -> None:
    bed, _, part = taken()
    key = sorted(bed.fakes.media.objects)[which]
    data = bed.fakes.media.objects[key]
    at = int(len(data) * where)
    bed.fakes.media.damage(key, data[:at] if cut else data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])
    with pytest.raises(StoreDamaged) as caught:
        restore_files(bed.vault, part, FakeFileTree(), "back")
    assert key in caught.value.message and "photos" in caught.value.message


def test_objects_that_changed_places_or_are_missing_are_told() -> None:
    bed, _, part = taken()
    one, two = (reference.key for reference in list(references(bed.vault, part))[:2])
    data = bed.fakes.media.objects[one]
    bed.fakes.media.damage(one, bed.fakes.media.objects[two])
    with pytest.raises(StoreDamaged, match=one):
        restore_files(bed.vault, part, FakeFileTree(), "back")
    bed.fakes.media.damage(one, data)
    bed.fakes.media.delete(two)
    with pytest.raises(StoreDamaged, match=two):
        restore_files(bed.vault, part, FakeFileTree(), "back")


def test_a_hostile_list_that_is_sealed_well_writes_nothing() -> None:
    bed, _, part = taken()
    line = b'{"path":"../../evil","kind":"directory","mode":493,"uid":0,"gid":0,"mtime_ns":0}\n'
    top = b'{"path":"","kind":"directory","mode":493,"uid":0,"gid":0,"mtime_ns":0}\n'
    data = iter([first_line() + top + line + last_line(2, 0), b""])
    stream = write_stream(bed.fakes.sets, bed.vault.sealing, "evil", "evil", lambda size: next(data))
    evil = replace(part, stream=stream, files=replace(summary(part), entries=2, plain_size=0))
    other = FakeFileTree()
    with pytest.raises(BadInput, match="no path below the tree"):
        restore_files(bed.vault, evil, other, "back")
    with pytest.raises(OpsError):
        list(other.walk_beside("back"))
