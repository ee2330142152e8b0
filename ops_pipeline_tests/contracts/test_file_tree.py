"""What every FileTree promises: one suite for the memory, a directory (both ways of swapping) and a Docker volume."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ops_pipeline.adapters.file_tree import DirectoryTree
from ops_pipeline.adapters.volume_tree import VolumeTree
from ops_pipeline.errors import NotFound, Permanent
from ops_pipeline.ports import Changed, FileEntry, FileTree
from ops_pipeline_tests.fakes.file_tree import FakeFileTree
from ops_pipeline_tests.testbed import testbed_id
from ops_pipeline_tests.testbed.courier import ENGINE, courier_image, volume
from ops_pipeline_tests.testbed.trees import ROOT, Named, contents, make_live, plain, trees, writing

STRANGER = 1 if os.geteuid() == 0 else os.geteuid()
Fill = Callable[[list[Named]], FileTree]


@pytest.fixture(scope="module")
def volumes() -> Iterator[dict[bool, VolumeTree]]:
    """One volume used directly and one by courier, for all tests: starting a courier takes a second."""
    with volume() as one, volume() as other:
        made = {
            direct: VolumeTree(
                "files", name, docker_url=ENGINE, host="local", image=courier_image(), exclude=("cache/*", "*.tmp"),
                direct=direct, labels={"ops.testbed": testbed_id()},
            )
            for direct, name in ((True, one), (False, other))
        }  # fmt: skip
        try:
            yield made
        finally:
            for tree in made.values():
                tree.close()


@pytest.fixture(
    params=[
        "memory",
        "directory",
        "inside",
        pytest.param("volume", marks=pytest.mark.real),
        pytest.param("courier", marks=pytest.mark.real),
    ]
)
def fill(request: pytest.FixtureRequest, tmp_path: Path) -> Fill:
    """Gives a tree with exactly these names live."""
    real: dict[bool, VolumeTree] = request.getfixturevalue("volumes") if request.param in ("volume", "courier") else {}

    def make(named: list[Named]) -> FileTree:
        exclude = ("cache/*", "*.tmp")
        tree: FileTree
        if request.param == "memory":
            tree = FakeFileTree("files", exclude=exclude)
        elif real:
            tree = real[request.param == "volume"]
            for token in tree.holds():
                tree.drop_hold(token)
        else:
            place = tmp_path / uuid.uuid4().hex / "files"
            place.mkdir(parents=True)
            tree = DirectoryTree("files", place, exclude=exclude, inside=request.param == "inside")
        make_live(tree, named)
        return tree

    return make


def file(path: bytes, data: bytes = b"x") -> Named:
    return FileEntry(path, "file", 0o644, os.geteuid(), os.getegid(), size=len(data), mtime_ns=10**18), data


def folder(path: bytes) -> Named:
    return FileEntry(path, "directory", 0o755, os.geteuid(), os.getegid(), mtime_ns=10**18), b""


TOP: Named = (replace(ROOT, uid=os.geteuid(), gid=os.getegid()), b"")


@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(named=trees())
def test_what_is_written_is_what_is_walked_and_read(fill: Fill, named: list[Named]) -> None:
    if os.geteuid() != 0:
        named = [(replace(entry, uid=os.geteuid(), gid=os.getegid()), data) for entry, data in named]
    tree = fill(named)
    walked = list(tree.walk())
    paths = [entry.path for entry in walked]
    assert paths == sorted(paths) and paths[0] == b""
    wanted = [(plain(entry), data) for entry, data in named]
    excluded = {
        p for p in (e.path for e, _ in wanted) if p.endswith(b".tmp") or b".tmp/" in p or p.startswith(b"cache/")
    }
    assert [plain(entry) for entry in walked] == [entry for entry, _ in wanted if entry.path not in excluded]
    found = contents(tree, walked)
    assert found == {entry.path: data for entry, data in wanted if entry.kind == "file"}


def test_what_is_excluded_is_not_walked(fill: Fill) -> None:
    named = [TOP, folder(b"cache"), file(b"cache/x"), folder(b"d"), file(b"d/a.tmp"), file(b"d/b"), file(b"z.tmp")]
    assert [entry.path for entry in fill(named).walk()] == [b"", b"cache", b"d", b"d/b"]


def test_a_large_file_comes_in_pieces(fill: Fill) -> None:
    data = os.urandom(9 << 20) * 2
    tree = fill([TOP, file(b"large", data), file(b"small", b"s")])
    entries = [entry for entry in tree.walk() if entry.kind == "file"]
    pieces = list(tree.read(entries))
    assert len(pieces) >= 3 and [index for index, _, _ in pieces] == sorted(index for index, _, _ in pieces)
    assert [index for index, _, last in pieces if last] == [0, 1]
    assert b"".join(piece for index, piece, _ in pieces if index == 0 and isinstance(piece, bytes)) == data


def test_files_that_changed_or_are_gone_are_told_and_the_others_go_on(fill: Fill) -> None:
    tree = fill([TOP, file(b"a", b"one"), file(b"b", b"two"), file(b"c", b"three")])
    before = {entry.path: entry for entry in tree.walk() if entry.kind == "file"}
    stale = replace(before[b"a"], mtime_ns=5, size=7)
    gone = replace(before[b"b"], path=b"never")
    found = list(tree.read([stale, gone, before[b"c"]]))
    assert [(index, last) for index, _, last in found] == [(0, True), (1, True), (2, True)]
    changed, missing, content = (piece for _, piece, _ in found)
    assert isinstance(changed, Changed) and changed.now is not None and plain(changed.now) == plain(before[b"a"])
    assert isinstance(missing, Changed) and missing.now is None
    assert content == b"three"


def test_a_restore_may_be_repeated_over_what_an_earlier_attempt_left(fill: Fill) -> None:
    tree = fill([TOP])
    named = [
        TOP,
        folder(b"d"),
        file(b"d/x", b"right"),
        (FileEntry(b"l", "symlink", 0o777, os.geteuid(), os.getegid(), link=b"d"), b""),
    ]
    tree.beside("again")
    tree.write("again", writing([TOP, folder(b"d"), file(b"d/x", b"wrong, longer"), file(b"l", b"was a file")]))
    tree.beside("again")
    tree.write("again", writing(named))
    assert [plain(entry) for entry in tree.walk_beside("again")] == [plain(entry) for entry, _ in named]
    files = [entry for entry in tree.walk_beside("again") if entry.kind == "file"]
    assert [piece for _, piece, _ in tree.read_beside("again", files)] == [b"right"]
    tree.drop_beside("again")
    with pytest.raises(NotFound):
        list(tree.walk_beside("again"))
    tree.drop_beside("again")


OLD = [TOP, file(b"both", b"old"), folder(b"dir"), file(b"dir/x", b"old"), file(b"only-old", b"old")]
NEW = [
    (replace(TOP[0], mode=0o2770, uid=STRANGER, mtime_ns=7 * 10**18), b""),
    file(b"both", b"new"), folder(b"dir"), file(b"dir/y", b"new"), file(b"only-new", b"new"),
]  # fmt: skip


def state(tree: FileTree) -> list[tuple[FileEntry, bytes]]:
    entries = list(tree.walk())
    found = contents(tree, entries)
    return [(plain(entry), found.get(entry.path, b"")) for entry in entries]


def as_state(named: list[Named]) -> list[tuple[FileEntry, bytes]]:
    return [(plain(entry), data) for entry, data in named]


def test_a_swap_and_back_and_forth(fill: Fill) -> None:
    tree = fill(OLD)
    assert not tree.swapped("tok1") and list(tree.holds()) == []
    tree.beside("tok1")
    tree.write("tok1", writing(NEW))
    assert state(tree) == as_state(OLD), "what lies beside is not seen"
    for _ in range(2):
        tree.swap("tok1")
        assert tree.swapped("tok1") and list(tree.holds()) == ["tok1"]
        assert state(tree) == as_state(NEW)
    for _ in range(2):
        tree.unswap("tok1")
        assert not tree.swapped("tok1") and list(tree.holds()) == []
        assert state(tree) == as_state(OLD)
    assert [plain(entry) for entry in tree.walk_beside("tok1")] == [plain(entry) for entry, _ in NEW]
    tree.swap("tok1")
    assert state(tree) == as_state(NEW)
    tree.drop_hold("tok1")
    tree.drop_hold("tok1")
    assert list(tree.holds()) == [] and state(tree) == as_state(NEW)


def test_two_restores_one_after_the_other_each_with_its_hold(fill: Fill) -> None:
    tree = fill(OLD)
    for token, named in (("one1", NEW), ("two2", [TOP, file(b"third", b"3")])):
        tree.beside(token)
        tree.write(token, writing(named))
        tree.swap(token)
    assert list(tree.holds()) == ["one1", "two2"]
    assert [entry.path for entry in tree.walk()] == [b"", b"third"]
    tree.unswap("two2")
    tree.unswap("one1")
    assert state(tree) == as_state(OLD)
    tree.drop_beside("one1")
    tree.drop_beside("two2")
    assert state(tree) == as_state(OLD)


def test_nothing_is_swapped_that_is_not_there(fill: Fill) -> None:
    tree = fill(OLD)
    with pytest.raises(NotFound):
        tree.swap("none")
    with pytest.raises(Permanent):
        tree.unswap("none")
    assert [entry.path for entry in tree.walk()] == [entry.path for entry, _ in OLD]


HOSTILE: dict[str, list[Named]] = {
    "up": [file(b"../x")],
    "up inside": [folder(b"d"), file(b"d/../../x")],
    "absolute": [file(b"/etc/x")],
    "dot": [file(b"./x")],
    "empty part": [folder(b"d"), file(b"d//x")],
    "nul": [file(b"a\0b")],
    "no path": [file(b"")],
    "below a link": [(FileEntry(b"l", "symlink", 0o777, 0, 0, link=b"/tmp"), b""), file(b"l/x")],
    "below a file": [file(b"f"), file(b"f/x")],
    "directory over a link": [(FileEntry(b"l", "symlink", 0o777, 0, 0, link=b"/tmp"), b""), file(b"l/d/x")],
    "below nothing": [file(b"no/x")],
    "a device": [(FileEntry(b"d", "device", 0o666, 0, 0), b"")],
    "link to nothing": [(FileEntry(b"h", "hardlink", 0, 0, 0, link=b"none"), b"")],
    "link out": [(FileEntry(b"h", "hardlink", 0, 0, 0, link=b"../../../../../../etc/passwd"), b"")],
    "link to a directory": [folder(b"d"), (FileEntry(b"h", "hardlink", 0, 0, 0, link=b"d"), b"")],
    "too little": [(FileEntry(b"f", "file", 0o644, 0, 0, size=10), b"short")],
    "too much": [(FileEntry(b"f", "file", 0o644, 0, 0, size=2), b"longer")],
    "holes outside": [(FileEntry(b"f", "file", 0o644, 0, 0, size=10, holes=((5, 100),)), b"12345")],
}


@pytest.mark.parametrize("named", HOSTILE.values(), ids=list(HOSTILE))
def test_what_is_hostile_is_refused(fill: Fill, named: list[Named]) -> None:
    tree = fill([TOP, file(b"live", b"live")])
    tree.beside("evil")
    with pytest.raises(Permanent):
        tree.write("evil", iter([(entry, iter([data])) for entry, data in [TOP, *named]]))
    assert [entry.path for entry in tree.walk()] == [b"", b"live"]
    beside = {entry.path for entry in tree.walk_beside("evil")}
    assert beside <= {b"", b"l", b"f", b"d"}
    tree.drop_beside("evil")


@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from([b"a", b"b", b"..", b".", b"", b"l"]), min_size=1, max_size=5).map(b"/".join))
def test_no_path_leads_out(fill: Fill, path: bytes) -> None:
    tree = fill([TOP])
    tree.beside("path")
    names = [TOP, folder(b"a"), folder(b"b"), (FileEntry(b"l", "symlink", 0o777, 0, 0, link=b"../../.."), b"")]
    parts = path.split(b"/")
    try:
        tree.write("path", writing([*names, file(path, b"here")]))
    except Permanent:
        pass
    else:
        assert not {b"..", b".", b""} & set(parts) and b"l" not in parts[:-1]
        assert path in {entry.path for entry in tree.walk_beside("path")}
    tree.drop_beside("path")
