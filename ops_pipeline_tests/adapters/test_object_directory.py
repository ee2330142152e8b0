"""What only the directory of objects can get wrong: killed writers, full disks, folders that refuse, durability."""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ops_pipeline.adapters.directory_store import RESERVED
from ops_pipeline.adapters.object_directory import ObjectDirectory
from ops_pipeline.errors import Conflict, NotFound, Permanent, Transient
from ops_pipeline_tests.adapters.test_directory_store import as_nobody

PROJECT = Path(__file__).parents[2]
MIB = 1024 * 1024


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=PROJECT, capture_output=True, text=True, timeout=240, check=False
    )


def leftovers(root: Path) -> list[Path]:
    return sorted((root / RESERVED / "tmp").iterdir())


@pytest.mark.parametrize("case", ["blocks", "puts", "delete"])
def test_a_writer_killed_before_any_line_harms_nobody(tmp_path: Path, case: str) -> None:
    done = run("-m", "ops_pipeline_tests.adapters.killed_object_writer", str(tmp_path / "store"), case)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) > 15


WRITER = """
import itertools, sys
from pathlib import Path
from ops_pipeline.adapters.object_directory import ObjectDirectory
store = ObjectDirectory(Path(sys.argv[1]))
for number in itertools.count(int(sys.argv[2])):
    for part in range(5):
        store.put(f"media/{part:02x}/{number}", bytes([part]) * 200_000)
    store.flush()
    print(number, flush=True)
"""


def test_writers_killed_at_random_lose_nothing_that_was_flushed(tmp_path: Path) -> None:
    store, start = ObjectDirectory(tmp_path), 0
    flushed: set[int] = set()  # of what a killed writer had begun, some parts may show
    for _ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(start)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(random.uniform(0, 0.03))
        writer.kill()
        flushed |= {start, *(int(line) for line in writer.stdout.read().splitlines() if line)}
        writer.wait()
        writer.stdout.close()
        found = {info.key: info.size for info in store.list("")}
        assert set(found.values()) == {200_000}
        for number in flushed:
            for part in range(5):
                assert store.get(f"media/{part:02x}/{number}", 0, 10) == bytes([part]) * 10
        start = max(int(key.rpartition("/")[2]) for key in found) + 1


def test_what_killed_writers_left_is_swept_after_two_days(tmp_path: Path) -> None:
    folder = tmp_path / RESERVED / "tmp"
    folder.mkdir(parents=True)
    old, young = folder / "1-old", folder / "2-young"
    for leftover, age_hours in ((old, 49), (young, 47)):
        leftover.write_bytes(b"unfinished")
        moment = time.time() - age_hours * 3600
        os.utime(leftover, (moment, moment))
    store = ObjectDirectory(tmp_path)
    assert list(store.list("")) == []
    store.put("k", b"x")
    mine = [path for path in leftovers(tmp_path) if path != young]
    assert len(mine) == 1
    moment = time.time() - 100 * 3600
    os.utime(mine[0], (moment, moment))
    assert store.sweep() == 0  # its own is not swept, however the clock stands
    assert store.sweep(age_seconds=46 * 3600) == 1
    store.flush()
    assert leftovers(tmp_path) == []
    assert [info.key for info in store.list("")] == ["k"]


FULL = """
import os, resource, sys
from pathlib import Path
from ops_pipeline.adapters.object_directory import ObjectDirectory
from ops_pipeline.errors import Permanent
store = ObjectDirectory(Path(sys.argv[1]))
store.put("media/a", b"whole")
writer = store.begin("sets/dump")
writer.block(0, b"x" * 500_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
for attempt in (lambda: store.put("media/b", b"x" * (2 << 20)), lambda: writer.block(1, b"x" * (2 << 20))):
    try:
        attempt()
    except Permanent as error:
        print(error.message)
writer.abort()
store.flush()
"""


def test_a_disk_that_is_full_half_way_leaves_nothing_half(tmp_path: Path) -> None:
    done = run("-c", FULL, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"store cannot write {tmp_path / key}: File too large" for key in ("media/b", "sets/dump")
    ]
    assert [(info.key, info.size) for info in ObjectDirectory(tmp_path).list("")] == [("media/a", 5)]
    assert leftovers(tmp_path) == []


def test_what_could_not_get_its_name_is_told_and_can_be_put_again(tmp_path: Path) -> None:
    store = ObjectDirectory(tmp_path)
    for key in ("a/1", "b/2", "c/3"):
        store.put(key, key.encode())
    (tmp_path / "b").write_text("in the way")
    with pytest.raises(Permanent, match=r"store cannot write .*/b/2: Not a directory"):
        store.flush()
    assert store.get("a/1") == b"a/1"
    store.flush()
    assert store.get("c/3") == b"c/3"
    (tmp_path / "b").unlink()
    store.put("b/2", b"2")
    store.flush()
    assert [info.key for info in store.list("")] == ["a/1", "b/2", "c/3"]
    assert leftovers(tmp_path) == []


def test_a_folder_that_refuses_is_named_with_what_to_do(tmp_path: Path) -> None:
    store = ObjectDirectory(tmp_path / "store")
    store.put("a/k", b"1")
    store.flush()
    info = store.stat("a/k")
    assert info is not None
    tmp_path.chmod(0o755)
    for folder in ("store", "store/a", f"store/{RESERVED}", f"store/{RESERVED}/tmp"):
        (tmp_path / folder).chmod(0o555)
    attempts: list[tuple[str, Callable[[], object]]] = [
        ("write", lambda: store.put("a/x", b"2")),
        ("write", lambda: store.begin("a/x")),
        ("delete", lambda: store.delete("a/k")),
    ]
    try:
        with as_nobody():
            for what, attempt in attempts:
                with pytest.raises(Permanent, match=rf"store cannot {what} .*: Permission denied") as refused:
                    attempt()
                assert "owner and mode" in refused.value.hint
    finally:
        for folder in ("store", "store/a", f"store/{RESERVED}", f"store/{RESERVED}/tmp"):
            (tmp_path / folder).chmod(0o755)
    assert list(store.list("")) == [info]


def test_a_put_that_failed_may_be_repeated(tmp_path: Path) -> None:
    store = ObjectDirectory(tmp_path)
    store.put("warm", b"")
    folder = tmp_path / RESERVED / "tmp"
    aside = folder.rename(tmp_path / RESERVED / "aside")
    with pytest.raises(Permanent, match="No such file"):
        store.put("k", b"1")
    aside.rename(folder)
    store.put("k", b"1")
    store.flush()
    assert store.get("k") == b"1"


def test_what_vanished_before_the_flush_is_told_and_the_rest_is_stored(tmp_path: Path) -> None:
    store = ObjectDirectory(tmp_path)
    for key in "abcdefgh":
        store.put(key, key.encode())
    leftovers(tmp_path)[3].unlink()
    with pytest.raises(Permanent, match="store cannot write"):
        store.flush()
    store.flush()
    missing = [key for key in "abcdefgh" if store.stat(key) is None]
    assert len(missing) == 1
    store.put(missing[0], b"again")
    store.flush()
    assert len(list(store.list(""))) == 8


def test_a_root_that_is_a_file_is_named(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.write_text("")
    store = ObjectDirectory(root)
    attempts: list[Callable[[], object]] = [
        lambda: store.get("k"),
        lambda: store.stat("k"),
        lambda: store.put("k", b""),
        lambda: store.begin("k"),
        lambda: list(store.list("")),
        lambda: store.delete("k"),
    ]
    for attempt in attempts:
        with pytest.raises(Permanent, match=f"{root}"):
            attempt()


def test_objects_are_plain_files_and_other_files_are_not_objects(tmp_path: Path) -> None:
    store = ObjectDirectory(tmp_path)
    store.put("media/aa/x", b"7 1.4.0\n")
    store.flush()
    folder = tmp_path / "media/aa"
    assert (folder / "x").read_text() == "7 1.4.0\n"
    (folder / ".x.swp").write_text("an editor's")
    (folder / "x~ copy").write_text("a person's")
    (folder / "link").symlink_to("/etc/hostname")
    (folder / "loop").symlink_to("..")
    assert [info.key for info in store.list("media/")] == ["media/aa/x"]
    assert store.stat("media/aa/link") is None
    with pytest.raises(Permanent, match="link"):
        store.get("media/aa/link")
    with pytest.raises(Conflict):
        store.put("media/aa/link", b"")
    store.delete("media/aa/link")
    store.delete("media/aa")
    assert (folder / "link").is_symlink()


def test_a_key_cannot_be_a_folder_too(tmp_path: Path) -> None:
    store = ObjectDirectory(tmp_path)
    store.put("a/b", b"")
    store.flush()
    with pytest.raises(Conflict):
        store.put("a", b"")
    with pytest.raises(Permanent, match="store cannot write"):
        store.put("a/b/c", b"")
    writer = store.begin("a/b/c")
    writer.block(0, b"x")
    with pytest.raises(Permanent, match="store cannot write"):
        writer.commit(1)
    writer.abort()
    for key in ("a", "a/b/c"):
        assert store.stat(key) is None
        with pytest.raises(NotFound):
            store.get(key)
    assert [info.key for info in store.list("")] == ["a/b"]
    assert leftovers(tmp_path) == []


def test_folders_that_are_empty_go_with_their_last_object(tmp_path: Path) -> None:
    store = ObjectDirectory(tmp_path)
    for key in ("sets/prod/2026/a/parts/x", "sets/prod/2026/a/manifest", "sets/prod/2026/b"):
        store.put(key, b"")
    store.flush()
    store.delete("sets/prod/2026/a/parts/x")
    assert sorted(path.name for path in (tmp_path / "sets/prod/2026/a").iterdir()) == ["manifest"]
    store.delete("sets/prod/2026/a/manifest")
    assert sorted(path.name for path in (tmp_path / "sets/prod/2026").iterdir()) == ["b"]
    store.delete("sets/prod/2026/b")
    assert sorted(path.name for path in tmp_path.iterdir()) == [RESERVED]


def test_a_stopped_deleter_is_waited_for_only_so_long(tmp_path: Path) -> None:
    store = ObjectDirectory(tmp_path, lock_timeout_seconds=0.3)
    store.put("k", b"1")
    store.flush()
    store.delete("other")
    with (tmp_path / RESERVED / "delete.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Transient, match=r"is busy: another process has been deleting for 0\.3 s"):
            store.delete("k")
        store.put("l", b"2")  # writers are not in its way
        store.flush()
    assert [info.key for info in store.list("")] == ["k", "l"]


def test_blocks_that_come_early_are_not_copied_later(tmp_path: Path) -> None:
    store = ObjectDirectory(tmp_path)
    writer = store.begin("k")
    blocks = [os.urandom(100_000 + index) for index in range(12)]
    for index in (3, 1, 0, 2, 5, 4, 9, 8, 7, 6, 11, 10):
        writer.block(index, blocks[index])
    (before,) = leftovers(tmp_path)
    inode = before.stat().st_ino
    writer.commit(12)
    assert (tmp_path / "k").stat().st_ino == inode
    assert store.get("k") == b"".join(blocks)
