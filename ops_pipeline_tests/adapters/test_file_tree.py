"""A directory as a FileTree: killed in mid-swap, attacked while it is read and written, mounted elsewhere."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from ops_pipeline.adapters.file_tree import DirectoryTree
from ops_pipeline.adapters.trees.mounts import mounted_somewhere
from ops_pipeline.adapters.trees.swapping import Places
from ops_pipeline.adapters.trees.wire import full_entry, full_fields
from ops_pipeline.errors import NotFound, Permanent
from ops_pipeline.ports import Changed, FileEntry
from ops_pipeline_tests.fakes.object_store import Killed
from ops_pipeline_tests.testbed.trees import Named, make_live, plain, writing

UID, GID = os.geteuid(), os.getegid()


def folder(path: bytes, mode: int = 0o755) -> Named:
    return FileEntry(path, "directory", mode, UID, GID, mtime_ns=10**18), b""


def file(path: bytes, data: bytes = b"x") -> Named:
    return FileEntry(path, "file", 0o644, UID, GID, size=len(data), mtime_ns=10**18), data


OLD = [folder(b""), file(b"both", b"old"), folder(b"dir"), file(b"dir/x", b"old"), file(b"gone", b"old")]
NEW = [folder(b"", 0o700), file(b"both", b"new"), folder(b"dir"), file(b"dir/y", b"new"), file(b"made", b"new")]


def paths_and_content(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in root.rglob("*")
        if ".ops-" not in path.as_posix().removeprefix(root.as_posix())
    }


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "top" / "photos"
    made.mkdir(parents=True)
    return made


def prepared(place: Path, inside: bool) -> DirectoryTree:
    """Old is live, new lies beside with the token `kill`."""
    shutil.rmtree(place.parent)
    place.mkdir(parents=True)
    tree = DirectoryTree("photos", place, inside=inside)
    make_live(tree, OLD)
    tree.beside("kill")
    tree.write("kill", writing(NEW))
    return tree


def state(tree: DirectoryTree) -> list[FileEntry]:
    return [plain(entry) for entry in tree.walk()]


def run_until(place: Path, inside: bool, verb: str, die_at: int) -> tuple[bool, str]:
    """Whether the verb was killed before its `die_at`-th change, and before which."""
    steps: list[str] = []

    def before(step: str) -> None:
        steps.append(step)
        if len(steps) == die_at:
            raise Killed(step)

    places = Places(os.fsencode(place), inside=inside, before=before)
    try:
        getattr(places, verb)("kill")
    except Killed:
        return True, steps[-1]
    finally:
        places.close()
    return False, ""


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "whole"])
@pytest.mark.parametrize("then", ["swap", "swap and back"])
def test_a_swap_killed_between_any_two_changes_is_finished_by_a_repetition(
    place: Path, inside: bool, then: str
) -> None:
    die_at, killed_before = 0, set()
    while True:
        die_at += 1
        tree = prepared(place, inside)
        killed, step = run_until(place, inside, "swap", die_at)
        if not killed:
            break
        killed_before.add(step)
        content = paths_and_content(place)
        for name, data in content.items():
            assert data in (b"", b"old", b"new"), name
        if not inside:
            assert content in (_content(OLD), _content(NEW)), "a whole directory is one or the other at any moment"
        held = len([path for path in place.parent.rglob("*") if path.is_file() and path.read_bytes() == b"old"])
        assert held == 3, "nothing of the old content is lost at any moment"
        tree.swap("kill")
        assert tree.swapped("kill") and list(tree.holds()) == ["kill"]
        assert state(tree) == [plain(entry) for entry, _ in NEW]
        if then == "swap and back":
            tree.unswap("kill")
            assert state(tree) == [plain(entry) for entry, _ in OLD]
            tree.drop_beside("kill")
        else:
            tree.drop_hold("kill")
        assert not [path for path in place.parent.rglob("*") if ".ops-" in path.name], "nothing is left behind"
    assert die_at > 5 and {"exchange", "state swapped"} <= killed_before


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "whole"])
def test_a_return_killed_between_any_two_changes_is_finished_by_a_repetition(place: Path, inside: bool) -> None:
    die_at = 0
    while True:
        die_at += 1
        tree = prepared(place, inside)
        tree.swap("kill")
        killed, _ = run_until(place, inside, "unswap", die_at)
        if not killed:
            break
        tree.unswap("kill")
        assert not tree.swapped("kill") and list(tree.holds()) == []
        assert state(tree) == [plain(entry) for entry, _ in OLD]
        assert [plain(entry) for entry in tree.walk_beside("kill")] == [plain(entry) for entry, _ in NEW]
    assert die_at > 4


def _content(named: list[Named]) -> dict[str, bytes]:
    return {entry.path.decode(): data for entry, data in named if entry.path}


def test_a_hold_and_a_restored_tree_are_not_removed_in_mid_swap(place: Path) -> None:
    tree = prepared(place, True)
    assert run_until(place, True, "swap", 5)[0]
    for remove in (tree.drop_beside, tree.drop_hold):
        with pytest.raises(Permanent, match="not finished"):
            remove("kill")
    tree.swap("kill")


def test_a_process_really_killed_in_mid_swap(place: Path) -> None:
    tree = prepared(place, True)
    program = (
        "import os,signal,sys\n"
        "from ops_pipeline.adapters.trees.swapping import Places\n"
        "left=[6]\n"
        "def before(step):\n"
        "    left[0]-=1\n"
        "    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Places(os.fsencode(sys.argv[1]), inside=True, before=before).swap('kill')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(place)], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    tree.swap("kill")
    assert state(tree) == [plain(entry) for entry, _ in NEW]


def test_what_a_running_program_writes_in_mid_swap_is_kept_with_the_old_content(place: Path) -> None:
    tree = prepared(place, True)

    def before(step: str) -> None:
        if step == "dress":
            return
        if step in ("exchange", "put away"):
            (place / "late").write_bytes(b"late")

    places = Places(os.fsencode(place), inside=True, before=before)
    places.swap("kill")
    places.close()
    assert paths_and_content(place) == _content(NEW)
    tree.unswap("kill")
    assert paths_and_content(place) == {**_content(OLD), "late": b"late"}


def test_a_tree_that_was_destroyed_is_restored_and_the_restore_taken_back(place: Path) -> None:
    tree = DirectoryTree("photos", place)
    shutil.rmtree(place)
    with pytest.raises(NotFound):
        tree.check()
    with pytest.raises(NotFound):
        list(tree.walk())
    tree.beside("back")
    tree.write("back", writing(NEW))
    tree.swap("back")
    assert state(tree) == [plain(entry) for entry, _ in NEW]
    tree.unswap("back")
    assert not place.exists()
    tree.swap("back")
    tree.drop_hold("back")
    assert state(tree) == [plain(entry) for entry, _ in NEW]


# ---------------------------------------------------------------------------------------------------- attacks


def test_a_directory_exchanged_for_a_link_while_it_is_written(place: Path, tmp_path: Path) -> None:
    """At every moment between two names; nothing lands where the link points to."""
    outside = tmp_path / "outside"
    outside.mkdir()
    names = [folder(b""), folder(b"a"), file(b"a/1"), folder(b"a/b"), file(b"a/b/2"), file(b"a/3")]
    for moment in range(2, len(names)):
        tree = DirectoryTree("photos", place)
        tree.drop_beside("evil")
        tree.beside("evil")
        beside = place.parent / ".photos.ops-restore-evil" / "tree"

        def attack(moment: int = moment, beside: Path = beside) -> Iterator[tuple[FileEntry, Iterator[bytes]]]:
            for number, (entry, data) in enumerate(names):
                if number == moment:
                    (beside / "a").rename(beside / "moved")
                    (beside / "a").symlink_to(outside)
                yield entry, iter([data])

        # Either it is noticed, or the directory was open already and the names land in it, wherever it is called now.
        with suppress(Permanent):
            tree.write("evil", attack())
        assert list(outside.iterdir()) == []


def test_a_place_beside_that_is_somebody_elses_is_not_used(place: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    tree = DirectoryTree("photos", place, inside=True)
    (place / ".ops-restore-evil").symlink_to(outside)
    with pytest.raises(Permanent):
        tree.beside("evil")
    (place / ".ops-restore-evil").unlink()
    (place / ".ops-restore-evil").mkdir(mode=0o777)
    (place / ".ops-restore-evil").chmod(0o777)
    with pytest.raises(Permanent, match="not ours alone"):
        tree.beside("evil")
    assert list(outside.iterdir()) == []


def test_links_are_never_followed_by_a_walk(place: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    for name in ("a", "b", "c"):
        (place / name).mkdir()
        (place / name / "x").write_text("x")
    (place / "link").symlink_to(outside)
    tree = DirectoryTree("photos", place)
    found = []
    for entry in tree.walk():
        found.append(entry)
        if entry.path == b"b":
            shutil.rmtree(place / "b")
            (place / "b").symlink_to(outside)
    assert not [entry for entry in found if b"secret" in entry.path]
    stale = FileEntry(b"b/secret", "file", 0o644, 0, 0, size=6)
    assert [type(piece) for _, piece, _ in tree.read([stale])] == [Changed]


def test_a_file_exchanged_for_a_fifo_blocks_nobody(place: Path) -> None:
    (place / "f").write_text("content")
    tree = DirectoryTree("photos", place)
    (entry,) = [entry for entry in tree.walk() if entry.kind == "file"]
    (place / "f").unlink()
    os.mkfifo(place / "f")
    ((index, piece, last),) = tree.read([entry])
    assert index == 0 and last and isinstance(piece, Changed)


# ---------------------------------------------------------------------------------------------------- oddities


def test_sockets_are_left_out_and_so_is_what_restores_keep(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place / "s"))
        (place / ".ops-hold-abcd").mkdir()
        (place / ".ops-hold-kept by the user").mkdir()
        tree = DirectoryTree("photos", place)
        assert [entry.path for entry in tree.walk()] == [b"", b".ops-hold-kept by the user"]


def test_a_file_that_is_cut_while_it_is_read(place: Path) -> None:
    (place / "f").write_bytes(b"x" * (20 << 20))
    tree = DirectoryTree("photos", place)
    (entry,) = [entry for entry in tree.walk() if entry.kind == "file"]
    pieces = []
    for index, piece, last in tree.read([entry]):
        pieces.append((index, piece, last))
        os.truncate(place / "f", 100)
    assert isinstance(pieces[-1][1], Changed) and pieces[-1][2]
    assert not any(last for _, _, last in pieces[:-1])


def test_a_tree_far_deeper_than_a_path_may_be_long(place: Path) -> None:
    depth = 900
    names = [b"/".join([b"deep"] * level) for level in range(depth)]
    named = [folder(name) for name in names] + [file(names[-1] + b"/f")]
    tree = DirectoryTree("photos", place)
    make_live(tree, named)
    assert [plain(entry) for entry in tree.walk()] == [plain(entry) for entry, _ in named]
    make_live(tree, [folder(b"")])  # and it can be removed


def test_a_directory_that_a_container_mounts_is_swapped_inside(place: Path) -> None:
    assert not mounted_somewhere(os.fsencode(place))
    sleeper = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /mnt && echo ready && exec sleep 60', str(place)],
        stdout=subprocess.PIPE,
    )
    try:
        assert sleeper.stdout is not None and sleeper.stdout.readline() == b"ready\n"
        assert mounted_somewhere(os.fsencode(place))
        tree = DirectoryTree("photos", place)
        inode = place.stat().st_ino
        tree.beside("mnt1")
        tree.write("mnt1", writing(NEW))
        tree.swap("mnt1")
        assert place.stat().st_ino == inode
        assert Path("/proc", str(sleeper.pid), "root", "mnt", "made").read_bytes() == b"new", "the container sees it"
    finally:
        sleeper.kill()
        sleeper.wait()
    tree.drop_hold("mnt1")


def test_entries_go_over_the_wire_whole() -> None:
    entry = FileEntry(
        b"\xff\n", "file", 0o4755, 4_000_000_000, 1, 10, -5, 6, 7, 8, b"\xfe", ((0, 3),), ((b"user.\xff", b"\0"),), 2
    )
    assert full_entry(full_fields(entry)) == entry
    assert full_entry(full_fields(replace(entry, holes=(), xattrs=()))) == replace(entry, holes=(), xattrs=())
