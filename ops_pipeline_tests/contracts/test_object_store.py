"""What every ObjectStore promises: one suite for the memory, the directory and Azure Blob (on Azurite)."""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ops_pipeline.errors import Conflict, NotFound, Permanent
from ops_pipeline.ports import ObjectInfo, ObjectStore
from ops_pipeline_tests.contracts.object_store_process import BLOCKS, PUTS, STEPS, open_store
from ops_pipeline_tests.fakes.object_store import InMemoryObjectStore
from ops_pipeline_tests.testbed.azurite import Azurite, azurite

MIB = 1024 * 1024
PART = "sets/prod/2026/11/21/01JD/parts/shop.dump.sealed"


@dataclass(frozen=True)
class Subject:
    """A store under test. `location` lets other processes open the same one; "" when they cannot."""

    store: ObjectStore
    location: str

    def another(self) -> ObjectStore:
        """The same store as another process would open it."""
        return open_store(self.location) if self.location else self.store


@pytest.fixture(scope="module")
def running_azurite() -> Iterator[Azurite]:
    with azurite() as running:
        yield running


@pytest.fixture(params=["memory", "directory", pytest.param("azure", marks=pytest.mark.real)])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    if request.param == "memory":
        return Subject(InMemoryObjectStore(), "")
    if request.param == "directory":
        location = str(tmp_path / "store")
    else:
        running: Azurite = request.getfixturevalue("running_azurite")
        location = f"{running.connection_string}#c{uuid.uuid4().hex}"
    return Subject(open_store(location), location)


@pytest.fixture
def store(subject: Subject) -> ObjectStore:
    return subject.store


def stored(store: ObjectStore, key: str, *blocks: bytes) -> ObjectInfo:
    writer = store.begin(key)
    for index, block in enumerate(blocks):
        writer.block(index, block)
    return writer.commit(len(blocks))


def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


def test_an_empty_store_has_nothing(store: ObjectStore) -> None:
    assert store.stat("a/b") is None
    assert list(store.list("")) == []
    assert list(store.list("a/")) == []
    store.delete("a/b")
    store.delete("a/b", etag='"x"')
    store.flush()
    with pytest.raises(NotFound, match="no stored object a/b"):
        store.get("a/b")


def test_nothing_shows_before_the_commit(store: ObjectStore) -> None:
    writer = store.begin(PART)
    for index in (2, 0, 1):
        writer.block(index, bytes([index]) * 10)
        assert store.stat(PART) is None
        assert keys(store) == []
    with pytest.raises(NotFound):
        store.get(PART)
    before = datetime.now(UTC) - timedelta(seconds=5)
    info = writer.commit(3)
    assert (info.key, info.size) == (PART, 30)
    assert before < info.modified < datetime.now(UTC) + timedelta(seconds=5)
    assert store.get(PART) == b"\0" * 10 + b"\1" * 10 + b"\2" * 10
    assert [(found.key, found.size, found.etag) for found in store.list("sets/")] == [(PART, 30, info.etag)]
    found = store.stat(PART)
    assert found is not None
    assert (found.key, found.size, found.etag) == (info.key, info.size, info.etag)


def test_blocks_come_in_any_order_from_many_threads(store: ObjectStore) -> None:
    blocks = [bytes([index]) * (20_000 + 37 * index) for index in range(60)]
    writer = store.begin("k")
    order = [index ^ 5 if index ^ 5 < len(blocks) else index for index in range(len(blocks))]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda index: writer.block(index, blocks[index]), order))
    writer.commit(len(blocks))
    assert store.get("k") == b"".join(blocks)


@pytest.mark.parametrize("again", [b"xyz", b"", b"much longer than before"])
def test_the_same_block_again_replaces_it(store: ObjectStore, again: bytes) -> None:
    writer = store.begin("k")
    for index, block in enumerate((b"aaa", b"bbb", b"ccc")):
        writer.block(index, block)
    writer.block(1, again)
    writer.block(3, b"ddd")
    assert writer.commit(4).size == 9 + len(again)
    assert store.get("k") == b"aaa" + again + b"cccddd"


def test_blocks_behind_the_count_are_no_part_of_it(store: ObjectStore) -> None:
    writer = store.begin("k")
    for index in range(4):
        writer.block(index, bytes([65 + index]))
    writer.commit(2)
    assert store.get("k") == b"AB"


def test_an_object_may_be_empty(store: ObjectStore) -> None:
    assert stored(store, "a").size == 0
    store.put("b", b"")
    store.flush()
    assert [(info.key, info.size) for info in store.list("")] == [("a", 0), ("b", 0)]
    assert store.get("a") == store.get("b") == store.get("b", 0, 5) == store.get("b", 5) == b""


def test_a_commit_without_all_blocks_makes_nothing(store: ObjectStore) -> None:
    writer = store.begin("k")
    writer.block(0, b"a")
    writer.block(2, b"c")
    with pytest.raises(Permanent, match="block 1 of 3 never came"):
        writer.commit(3)
    assert keys(store) == []
    writer.block(1, b"b")
    writer.commit(3)
    assert store.get("k") == b"abc"


def test_a_commit_may_be_repeated_and_an_abort_after_it_changes_nothing(store: ObjectStore) -> None:
    writer = store.begin("k")
    writer.block(0, b"a")
    info = writer.commit(1)
    assert writer.commit(1) == info
    writer.abort()
    assert store.get("k") == b"a"


def test_what_is_given_up_leaves_nothing(store: ObjectStore) -> None:
    writer = store.begin("k")
    writer.block(0, b"a")
    writer.block(5, b"waits for the ones before it")
    writer.abort()
    writer.abort()
    for late in (lambda: writer.block(1, b"b"), lambda: writer.commit(1)):
        with pytest.raises(Permanent, match=r"given up|takes no block"):
            late()
    assert keys(store) == []
    store.put("k", b"another")
    store.flush()
    assert store.get("k") == b"another"


def test_an_object_is_never_replaced(store: ObjectStore) -> None:
    stored(store, "a", b"first")
    store.put("b", b"first")
    store.flush()
    for key in ("a", "b"):
        with pytest.raises(Conflict, match=f"{key} already exists"):
            store.put(key, b"second")
        with pytest.raises(Conflict, match=f"{key} already exists"):
            stored(store, key, b"second")
        assert store.get(key) == b"first"
    store.flush()


def test_a_key_is_put_once_also_before_the_flush(store: ObjectStore) -> None:
    store.put("k", b"first")
    with pytest.raises(Conflict):
        store.put("k", b"second")
    store.flush()
    assert store.get("k") == b"first"


def test_two_writers_of_one_key_never_mix(store: ObjectStore) -> None:
    one, other = store.begin("k"), store.begin("k")
    for index in range(3):
        one.block(index, b"one-%d;" % index)
        other.block(index, b"other-%d;" % index)
    one.commit(3)
    with pytest.raises(Conflict, match="k already exists"):
        other.commit(3)
    assert store.get("k") == b"one-0;one-1;one-2;"


def test_of_many_writers_at_once_one_wins(subject: Subject) -> None:
    for way in ("blocks", "put"):
        start = threading.Barrier(8)
        won: list[bytes] = []

        def attempt(number: int, way: str = way, start: threading.Barrier = start, won: list[bytes] = won) -> None:
            store, data = subject.another(), b"%d" % number * 100
            start.wait()
            try:
                if way == "put":
                    store.put(way, data)
                    store.flush()
                else:
                    stored(store, way, data[:50], data[50:])
            except Conflict:
                return
            won.append(data)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(attempt, range(8)))
        subject.store.flush()
        assert won == [subject.store.get(way)]


def test_a_flush_that_finds_places_taken_stores_everything_else(subject: Subject) -> None:
    ours, theirs = subject.another(), subject.another()
    ours.put("a", b"ours")
    ours.put("c", b"ours")
    taken = False
    try:
        theirs.put("b", b"theirs")
        ours.put("b", b"ours")
    except Conflict:
        taken = True  # this store, or this Azure, knows at once
    theirs.flush()
    if taken:
        ours.flush()
    else:
        with pytest.raises(Conflict, match="b already exists"):
            ours.flush()
    ours.flush()
    assert {key: subject.store.get(key) for key in keys(subject.store)} == {"a": b"ours", "b": b"theirs", "c": b"ours"}


RANGES = [(0, None), (0, 0), (0, 1), (5, 10), (999, 1), (999, 100), (1000, 1), (1000, None), (5000, 7), (100, None)]


@pytest.mark.parametrize(("offset", "length"), RANGES)
def test_ranges(store: ObjectStore, offset: int, length: int | None) -> None:
    data = bytes(range(250)) * 4
    stored(store, "k", data[:300], data[300:])
    assert store.get("k", offset, length) == data[offset : None if length is None else offset + length]
    with pytest.raises(NotFound):
        store.get("other", offset, length)


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1), (-1, None)])
def test_ranges_that_cannot_be(store: ObjectStore, offset: int, length: int | None) -> None:
    with pytest.raises(Permanent, match="no such range"):
        store.get("k", offset, length)


def test_large_blocks_and_ranges_across_them(store: ObjectStore) -> None:
    blocks = [bytes([index]) * (3 * MIB + 17) for index in range(4)]
    stored(store, "k", *blocks)
    store.put("p", blocks[3])
    store.flush()
    whole = b"".join(blocks)
    assert store.get("k") == whole
    assert store.get("k", 3 * MIB, 4 * MIB) == whole[3 * MIB : 7 * MIB]
    assert store.get("p", MIB, 2 * MIB) == blocks[3][MIB : 3 * MIB]


def test_listing_is_by_prefix_in_the_order_of_keys(store: ObjectStore) -> None:
    names = ["a/b/1", "a/b-2", "a/b.3", "a/bc/1", "a/B/1", "b/1", "leases/prod/api.json", "_x", "-y", "a-1", "a/b_c/z"]
    for name in names:
        store.put(name, name.encode())
    store.flush()
    assert keys(store) == sorted(names)
    assert keys(store, "a/b") == sorted(name for name in names if name.startswith("a/b"))
    assert keys(store, "a/b/") == ["a/b/1"]
    assert keys(store, "nothing/here") == keys(store, "b/1/deeper") == []
    assert all(info.size == len(info.key) for info in store.list(""))


def test_listing_goes_over_many_pages(store: ObjectStore) -> None:
    names = [f"media/{number % 5:02x}/{number:04d}" for number in range(60)] + [f"media/0{n}-x" for n in range(5)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: store.put(name, b"x"), names))
    store.flush()
    assert keys(store) == sorted(names)
    assert keys(store, "media/02") == sorted(name for name in names if name.startswith("media/02"))
    listing = store.list("media/")
    first = next(listing)
    store.delete(sorted(names)[-1])
    assert first.key == sorted(names)[0]
    assert [info.key for info in listing] in (sorted(names)[1:-1], sorted(names)[1:])


def test_deleting(store: ObjectStore) -> None:
    first = stored(store, "a/k", b"1")
    stored(store, "a/kk", b"2")
    store.delete("a/k", etag=first.etag)
    store.delete("a/k", etag=first.etag)
    store.delete("a/k")
    store.delete("a")
    store.delete("a/kk/deeper")
    assert keys(store) == ["a/kk"]
    second = stored(store, "a/k", b"1")
    assert second.etag != first.etag
    with pytest.raises(Conflict, match=r"another one by now; nothing was deleted"):
        store.delete("a/k", etag=first.etag)
    assert keys(store) == ["a/k", "a/kk"]
    store.delete("a/k", etag=second.etag)
    store.delete("a/kk")
    assert keys(store) == []


def test_etags_of_objects_that_came_and_went_differ(store: ObjectStore) -> None:
    seen = set()
    for _ in range(30):
        store.put("k", b"same")
        store.flush()
        info = store.stat("k")
        assert info is not None
        seen.add(info.etag)
        store.delete("k")
    assert len(seen) == 30


def test_deletions_and_writes_in_one_folder_at_once(store: ObjectStore) -> None:
    def work(worker: int) -> None:
        for number in range(15):
            key = f"media/aa/{worker}-{number}"
            store.put(key, b"x")
            store.flush()
            assert store.get(key) == b"x"
            store.delete(key)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert keys(store) == []


@pytest.mark.parametrize(
    "key",
    ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", ".store/tmp/x", "a/.hidden", "a/b.", "a b", "a\\b",
     "a\nb", "a\0b", "ä", "a%2e", "a?b", "a#b", "~", "x" * 201, "/".join(["x" * 100] * 6)],
)  # fmt: skip
def test_other_keys_are_refused(store: ObjectStore, key: str) -> None:
    for attempt in (
        lambda: store.get(key),
        lambda: store.put(key, b""),
        lambda: store.begin(key),
        lambda: store.stat(key),
        lambda: store.delete(key),
    ):
        with pytest.raises(Permanent, match="not a store key"):
            attempt()
    assert keys(store) == []


@pytest.mark.parametrize("prefix", ["..", "../", "/", "a/../b", ".store/", ".", "a//", "a b", "ä"])
def test_other_prefixes_are_refused(store: ObjectStore, prefix: str) -> None:
    with pytest.raises(Permanent, match="not a prefix"):
        store.list(prefix)


@pytest.mark.parametrize("step", STEPS)
def test_a_writer_killed_after_any_step_leaves_whole_objects_or_none(subject: Subject, step: str) -> None:
    if not subject.location:
        return  # the memory belongs to one process
    module = "ops_pipeline_tests.contracts.object_store_process"
    writer = subprocess.Popen(
        [sys.executable, "-m", module, subject.location, step], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"done\n"
    writer.kill()
    writer.wait()
    writer.stdout.close()
    store = subject.store
    found = {info.key: store.get(info.key) for info in store.list("")}
    part, whole = "sets/a/parts/shop.dump.sealed", b"".join(BLOCKS)
    assert found.pop(part, None) == (None if step == "block" else whole)
    if step == "flush":
        assert found == PUTS
    else:  # what was put may show, or not; what shows is whole
        assert found.items() <= (PUTS if step == "put" else {}).items()
    # The next writer is not in anybody's way, and need not know what happened.
    if part not in keys(store):
        stored(store, part, *BLOCKS)
    for key, data in PUTS.items():
        if store.stat(key) is None:
            store.put(key, data)
    store.flush()
    assert {info.key: store.get(info.key) for info in store.list("")} == {part: whole, **PUTS}


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(
    blocks=st.lists(st.binary(max_size=40), max_size=9),
    order=st.randoms(use_true_random=False),
    again=st.lists(st.tuples(st.integers(0, 8), st.binary(max_size=40)), max_size=4),
    window=st.tuples(st.integers(0, 400), st.none() | st.integers(0, 400)),
)
def test_any_blocks_in_any_order(
    tmp_path_factory: pytest.TempPathFactory,
    blocks: list[bytes],
    order: object,
    again: list[tuple[int, bytes]],
    window: tuple[int, int | None],
) -> None:
    offset, length = window
    for store in (InMemoryObjectStore(), open_store(str(tmp_path_factory.mktemp("objects")))):
        expected = list(blocks)
        writer = store.begin("k")
        arriving = list(enumerate(blocks))
        order.shuffle(arriving)  # type: ignore[attr-defined]
        for index, block in arriving:
            writer.block(index, block)
        for index, block in again:
            if index < len(blocks):
                expected[index] = block
                writer.block(index, block)
        info = writer.commit(len(blocks))
        data = b"".join(expected)
        assert info.size == len(data)
        assert store.get("k", offset, length) == data[offset : None if length is None else offset + length]
