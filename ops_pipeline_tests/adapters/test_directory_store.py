"""What only the directory store can get wrong: killed writers, stopped writers, disks and folders that refuse."""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ops_pipeline.adapters.directory_store import RESERVED, DirectoryStore
from ops_pipeline.errors import Permanent, Transient

PROJECT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("case", ["first", "overwrite", "conditional", "delete"])
def test_a_writer_killed_before_any_line_harms_nobody(tmp_path: Path, case: str) -> None:
    done = run("-m", "ops_pipeline_tests.adapters.killed_store_writer", str(tmp_path / "store"), case)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) > 20


def test_writers_killed_at_random_leave_whole_objects(tmp_path: Path) -> None:
    size = 4 * 1024 * 1024
    store = DirectoryStore(tmp_path)
    store.write("a/k", b"\0" * size)
    for _ in range(15):
        module = "ops_pipeline_tests.contracts.store_process"
        writer = subprocess.Popen(
            [sys.executable, "-m", module, str(tmp_path), "rewrite", "a/k", str(size)], cwd=PROJECT
        )
        first = store.read("a/k")
        while store.read("a/k") == first:
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.05))
        writer.kill()
        writer.wait()
        blob = store.read("a/k")
        assert blob is not None
        assert blob.data == blob.data[:1] * size
        assert [(info.key, info.size) for info in store.list("")] == [("a/k", size)]
        started = time.monotonic()
        store.write("a/k", b"\0" * size, if_match=blob.etag)
        assert time.monotonic() - started < 2


def test_what_killed_writers_left_is_swept_after_a_day(tmp_path: Path) -> None:
    folder = tmp_path / RESERVED / "tmp"
    folder.mkdir(parents=True)
    old, young = folder / "1-old", folder / "2-young"
    for leftover, age_hours in ((old, 25), (young, 23)):
        leftover.write_bytes(b"unfinished")
        moment = time.time() - age_hours * 3600
        os.utime(leftover, (moment, moment))
    store = DirectoryStore(tmp_path)
    assert list(store.list("")) == []
    store.write("k", b"")
    assert sorted(folder.iterdir()) == [young]
    assert [info.key for info in store.list("")] == ["k"]


def test_a_stopped_writer_is_waited_for_only_so_long(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path, lock_timeout_seconds=0.3)
    etag = store.write("k", b"old")
    with ExitStack() as held:
        for lock in (tmp_path / RESERVED / "locks").iterdir():
            fcntl.flock(held.enter_context(lock.open("rb")), fcntl.LOCK_EX)
        with pytest.raises(Transient, match=r"is busy: another process has locked k for 0\.3 s"):
            store.write("k", b"new", if_match=etag)
        blob = store.read("k")
    assert blob is not None
    assert blob.data == b"old"
    assert not list((tmp_path / RESERVED / "tmp").iterdir())


def test_etags_differ_however_the_clock_stands(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.write("k", b"A")
    far = time.time_ns() + 10**18  # some 30 years ahead: as if the clock had been set back since
    os.utime(tmp_path / "k", ns=(far, far))
    first = store.write("k", b"A")
    store.delete("k")
    second = store.write("k", b"A")
    assert (tmp_path / "k").stat().st_mtime_ns > far
    assert first.split("-")[0] < second.split("-")[0]


def test_lock_files_damaged_by_a_power_cut_do_no_harm(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    etag = store.write("k", b"1")
    for lock in (tmp_path / RESERVED / "locks").iterdir():
        lock.write_bytes(b"\0" * 32)
    store.write("k", b"2", if_match=etag)


def test_objects_are_plain_files_and_other_files_are_not_objects(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.write("current/prod/api", b"7 1.4.0\n")
    assert (tmp_path / "current/prod/api").read_text() == "7 1.4.0\n"
    (tmp_path / "current/prod/.api.swp").write_text("an editor's")
    (tmp_path / "current/prod/api~ copy").write_text("a person's")
    (tmp_path / "current/prod/link").symlink_to("/etc/hostname")
    assert [info.key for info in store.list("current/")] == ["current/prod/api"]
    with pytest.raises(Permanent, match="link"):
        store.read("current/prod/link")


def test_a_key_cannot_be_a_folder_too(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.write("a/b", b"")
    for key in ("a", "a/b/c"):
        with pytest.raises(Permanent, match="store cannot write"):
            store.write(key, b"")
        with pytest.raises(Permanent):
            store.write(key, b"", if_absent=True)
        assert store.read(key) is None
    assert [info.key for info in store.list("")] == ["a/b"]
    assert not list((tmp_path / RESERVED / "tmp").iterdir())


def test_a_root_that_is_a_file_is_named(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.write_text("")
    store = DirectoryStore(root)
    for attempt in (lambda: store.read("k"), lambda: store.write("k", b""), lambda: store.list("")):
        with pytest.raises(Permanent, match=f"{root}"):
            attempt()


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may do everything: act as somebody else meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_refuses_is_named_with_what_to_do(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    etag = store.write("a/k", b"1")
    (tmp_path / "store/a").chmod(0o500)
    (tmp_path / "store" / RESERVED / "tmp").chmod(0o500)
    try:
        with as_nobody():
            for attempt in (lambda: store.write("a/k", b"2", if_match=etag), lambda: store.write("b/k", b"")):
                with pytest.raises(Permanent, match=r"store cannot write .*: Permission denied") as refused:
                    attempt()
                assert "owner and mode" in refused.value.hint
    finally:
        (tmp_path / "store/a").chmod(0o700)
        (tmp_path / "store" / RESERVED / "tmp").chmod(0o700)
    assert [(info.key, info.size) for info in store.list("")] == [("a/k", 1)]


FULL = """
import resource, sys
from pathlib import Path
from ops_pipeline.adapters.directory_store import DirectoryStore
from ops_pipeline.errors import Permanent
store = DirectoryStore(Path(sys.argv[1]))
store.write("k", b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    store.write("k", b"x" * (2 << 20))
except Permanent as error:
    print(error)
"""


def test_a_write_that_fails_half_way_leaves_the_old_object(tmp_path: Path) -> None:
    done = run("-c", FULL, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"store cannot write {tmp_path / 'k'}: File too large")
    assert (tmp_path / "k").read_bytes() == b"old"
    assert not list((tmp_path / RESERVED / "tmp").iterdir())


def test_locks_are_few_however_many_keys(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    for number in range(600):
        store.write(f"scans/{number}.json", b"")
    assert len(list((tmp_path / RESERVED / "locks").iterdir())) <= 256
    assert len(list(store.list("scans/"))) == 600
