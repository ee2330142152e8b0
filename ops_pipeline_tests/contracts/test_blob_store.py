"""What every BlobStore promises: one suite for the memory, the directory and Azure Blob (on Azurite)."""

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

from ops_pipeline.errors import Conflict, Permanent
from ops_pipeline.ports import BlobStore
from ops_pipeline_tests.contracts.store_process import count_up, open_store
from ops_pipeline_tests.fakes.store import InMemoryStore
from ops_pipeline_tests.testbed.azurite import Azurite, azurite


@dataclass(frozen=True)
class Subject:
    """A store under test. `location` lets other processes open the same one; "" when they cannot."""

    store: BlobStore
    location: str


@pytest.fixture(scope="module")
def running_azurite() -> Iterator[Azurite]:
    with azurite() as running:
        yield running


@pytest.fixture(params=["memory", "directory", pytest.param("azure", marks=pytest.mark.real)])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    if request.param == "memory":
        return Subject(InMemoryStore(), "")
    if request.param == "directory":
        location = str(tmp_path / "store")
    else:
        running: Azurite = request.getfixturevalue("running_azurite")
        location = f"{running.connection_string}#c{uuid.uuid4().hex}"
    return Subject(open_store(location), location)


@pytest.fixture
def store(subject: Subject) -> BlobStore:
    return subject.store


def test_an_empty_store_has_nothing(store: BlobStore) -> None:
    assert store.read("a/b") is None
    assert list(store.list("")) == []
    store.delete("a/b")


def test_what_is_written_is_read(store: BlobStore) -> None:
    etag = store.write("releases/prod/api/20261121T101500.123Z/manifest.json", b"{}")
    blob = store.read("releases/prod/api/20261121T101500.123Z/manifest.json")
    assert blob is not None
    assert (blob.data, blob.etag) == (b"{}", etag)


@pytest.mark.parametrize("size", [0, 1, 20 * 1024 * 1024])
def test_any_size(store: BlobStore, size: int) -> None:
    data = bytes(range(256)) * (size // 256) if size > 1 else b"x" * size
    etag = store.write("k", data)
    blob = store.read("k")
    assert blob is not None
    assert blob.data == data
    assert store.write("k", b"", if_match=etag)
    assert [(info.key, info.size) for info in store.list("")] == [("k", 0)]


def test_every_write_changes_the_etag_also_of_equal_content(store: BlobStore) -> None:
    etags = [store.write("k", b"A") for _ in range(50)]
    store.delete("k")
    etags.append(store.write("k", b"A"))
    assert len(set(etags)) == 51
    with pytest.raises(Conflict):
        store.write("k", b"B", if_match=etags[0])


def test_if_absent(store: BlobStore) -> None:
    store.write("a/k", b"first", if_absent=True)
    with pytest.raises(Conflict, match="a/k already exists"):
        store.write("a/k", b"second", if_absent=True)
    blob = store.read("a/k")
    assert blob is not None
    assert blob.data == b"first"
    store.delete("a/k")
    store.write("a/k", b"third", if_absent=True)


def test_if_match(store: BlobStore) -> None:
    first = store.write("a/k", b"1")
    second = store.write("a/k", b"2", if_match=first)
    with pytest.raises(Conflict, match="a/k has changed"):
        store.write("a/k", b"3", if_match=first)
    store.delete("a/k")
    with pytest.raises(Conflict, match="gone"):
        store.write("a/k", b"3", if_match=second)
    assert store.read("a/k") is None
    assert list(store.list("")) == []


def test_conditions_exclude_one_another(store: BlobStore) -> None:
    with pytest.raises(Permanent, match="either if_match or if_absent"):
        store.write("k", b"", if_match="x", if_absent=True)


def test_deleting_is_idempotent_and_touches_nothing_else(store: BlobStore) -> None:
    store.write("a/k", b"1")
    store.write("a/kk", b"2")
    store.delete("a/k")
    store.delete("a/k")
    store.delete("a")
    store.delete("a/kk/deeper")
    assert [info.key for info in store.list("")] == ["a/kk"]


def test_listing_is_by_prefix_and_sorted(store: BlobStore) -> None:
    keys = ["a/b/1", "a/b-2", "a/b.3", "a/bc/1", "a/B/1", "b/1", "leases/prod/api.json", "_x", "-y", "a-1"]
    before = datetime.now(UTC) - timedelta(seconds=5)
    for key in keys:
        store.write(key, key.encode())
    assert [info.key for info in store.list("")] == sorted(keys)
    assert [info.key for info in store.list("a/b")] == sorted(key for key in keys if key.startswith("a/b"))
    assert [info.key for info in store.list("a/b/")] == ["a/b/1"]
    assert [info.key for info in store.list("nothing/here")] == []
    assert [info.key for info in store.list("b/1/deeper")] == []
    assert all(info.size == len(info.key) for info in store.list(""))
    assert all(before < info.modified < datetime.now(UTC) + timedelta(seconds=5) for info in store.list(""))


@pytest.mark.parametrize(
    "key",
    ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", "a/./b", ".store/tmp/x", "a/.hidden", "a/b.", "a b",
     "a\\b", "a\nb", "a\0b", "ä", "a%2e", "a?b", "a#b", "a:b", "~", "x" * 201, "/".join(["x" * 100] * 6)],
)  # fmt: skip
def test_other_keys_are_refused(store: BlobStore, key: str) -> None:
    for attempt in (lambda: store.read(key), lambda: store.write(key, b""), lambda: store.delete(key)):
        with pytest.raises(Permanent, match="not a store key"):
            attempt()
    assert list(store.list("")) == []


@pytest.mark.parametrize("prefix", ["..", "../", "/", "a/../b", ".store/", ".", "a//", "a b", "ä"])
def test_other_prefixes_are_refused(store: BlobStore, prefix: str) -> None:
    with pytest.raises(Permanent, match="not a prefix"):
        store.list(prefix)


def test_one_of_many_writers_wins(store: BlobStore) -> None:
    start = threading.Barrier(16)

    def attempt(number: int, etag: str | None) -> bytes | None:
        data = b"%d" % number
        start.wait()
        try:
            if etag is None:
                store.write("k", data, if_absent=True)
            else:
                store.write("k", data, if_match=etag)
        except Conflict:
            return None
        return data

    etag: str | None = None
    with ThreadPoolExecutor(16) as pool:
        for _ in range(10):
            winners = [data for data in pool.map(attempt, range(16), [etag] * 16) if data is not None]
            blob = store.read("k")
            assert blob is not None
            assert winners == [blob.data]
            etag = blob.etag


def test_a_counter_shared_by_threads_loses_nothing(store: BlobStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: count_up(store, "leases/prod/api.json", 25), range(4)))
    blob = store.read("leases/prod/api.json")
    assert blob is not None
    assert blob.data == b"100"


def start(location: str, command: str, key: str, number: int) -> subprocess.Popen[bytes]:
    module = "ops_pipeline_tests.contracts.store_process"
    return subprocess.Popen(
        [sys.executable, "-m", module, location, command, key, str(number)],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
    )


def test_a_counter_shared_by_processes_loses_nothing(subject: Subject) -> None:
    if not subject.location:
        count_up(subject.store, "n/k", 80)  # the memory belongs to one process
    processes = [start(subject.location, "count", "n/k", 20) for _ in range(4) if subject.location]
    for process in processes:
        _, problems = process.communicate(timeout=120)
        assert process.returncode == 0, problems.decode()
    blob = subject.store.read("n/k")
    assert blob is not None
    assert blob.data == b"80"


def test_readers_see_the_old_or_the_new_object(store: BlobStore) -> None:
    size = 3 * 1024 * 1024
    store.write("a/k", b"\0" * size)
    stop = threading.Event()

    def rewrite() -> None:
        value = 0
        while not stop.is_set():
            value = (value + 1) % 256
            store.write("a/k", bytes([value]) * size)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        seen = set()
        for _ in range(25):
            blob = store.read("a/k")
            assert blob is not None
            assert len(blob.data) == size
            assert blob.data.count(blob.data[:1]) == size
            assert [(info.key, info.size) for info in store.list("")] == [("a/k", size)]
            seen.add(blob.etag)
    finally:
        stop.set()
        writer.join()
    assert len(seen) > 1
