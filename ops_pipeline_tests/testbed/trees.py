"""Trees of files for tests: arbitrary ones, and a way to make them live in whatever keeps files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from hypothesis import strategies as st

from ops_pipeline.ports import FileEntry, FileTree

Named = tuple[FileEntry, bytes]
"""A name and, for a file, its bytes without the holes."""

STEP = 65536  # holes on every file system are multiples of its blocks; none has larger ones
ROOT = FileEntry(b"", "directory", 0o755, 0, 0, mtime_ns=1_600_000_000_123_456_789)

_names = st.one_of(
    st.sampled_from([b"a", b"a-b", b"a.b", b"b", b"\n", b"-rf", b" ", b"\xff\xfe", "ü".encode(), b"x" * 255, b"..."]),
    st.binary(min_size=1, max_size=12).filter(lambda raw: b"/" not in raw and b"\0" not in raw),
).filter(lambda raw: raw not in (b".", b".."))
_modes = st.sampled_from([0o644, 0o600, 0o755, 0o4755, 0o2750, 0o1777, 0o000, 0o444])
_owners = st.sampled_from([0, 1, 1000, 65534, 4_000_000_000])
_times = st.integers(0, 2**33 * 10**9)
_attributes = st.dictionaries(
    st.sampled_from([b"user.a", b"user.colour", b"user.\xc3\xbc"]), st.binary(max_size=30), max_size=2
).map(lambda found: tuple(sorted(found.items())))


@st.composite
def trees(draw: st.DrawFn) -> list[Named]:
    """A tree in the order of a walk: every kind of name, holes, hard links, owners, modes, times, attributes."""
    made: dict[bytes, Named] = {b"": (replace(ROOT, mtime_ns=draw(_times)), b"")}
    directories = [b""]
    linkable: list[bytes] = []
    for _ in range(draw(st.integers(0, 12))):
        parent = draw(st.sampled_from(directories))
        name = draw(_names)
        path = parent + b"/" + name if parent else name
        if path in made:
            continue
        kind = draw(st.sampled_from(["directory", "directory", "file", "file", "file", "symlink", "fifo", "hardlink"]))
        base = FileEntry(path, kind, draw(_modes), draw(_owners), draw(_owners), mtime_ns=draw(_times))
        if kind == "hardlink":
            if linkable:
                made[path] = (FileEntry(path, "hardlink", 0, 0, 0, link=draw(st.sampled_from(linkable))), b"")
            continue
        if kind == "directory":
            directories.append(path)
            made[path] = (replace(base, xattrs=draw(_attributes)), b"")
        elif kind == "file":
            made[path] = draw(_files(replace(base, xattrs=draw(_attributes))))
            linkable.append(path)
        elif kind == "symlink":
            target = draw(st.sampled_from([b"a", b"/etc/passwd", b"../../..", b"\n\xff", b"nowhere"]))
            made[path] = (replace(base, mode=0o777, link=target), b"")
        else:
            made[path] = (base, b"")
    return _as_walked(made)


@st.composite
def _files(draw: st.DrawFn, base: FileEntry) -> Named:
    data = draw(st.binary(max_size=200))
    if not draw(st.booleans()) or not data:
        return replace(base, size=len(data)), data
    # Sparse: a hole, some bytes that fill a step, perhaps another hole up to the end.
    first, last = draw(st.integers(1, 3)) * STEP, draw(st.integers(0, 2)) * STEP
    filled = (data * (STEP // len(data) + 1))[:STEP]
    holes = [(0, first)] + ([(first + STEP, last)] if last else [])
    return replace(base, size=first + STEP + last, holes=tuple(holes)), filled


def _as_walked(made: dict[bytes, Named]) -> list[Named]:
    """Of the names of one file the first one has everything, the others are links to it."""
    names: dict[bytes, list[bytes]] = {}
    for path, (entry, _) in made.items():
        names.setdefault(entry.link if entry.kind == "hardlink" else path, []).append(path)
    result: dict[bytes, Named] = {}
    for origin, paths in names.items():
        first, *others = sorted(paths)
        entry, data = made[origin]
        links = len(paths) if entry.kind != "directory" else 1
        result[first] = (replace(entry, path=first, links=links), data)
        for other in others:
            result[other] = (FileEntry(other, "hardlink", 0, 0, 0, link=first), b"")
    return [result[path] for path in sorted(result)]


def plain(entry: FileEntry) -> FileEntry:
    """An entry without what no tree can promise to keep."""
    return replace(entry, ctime_ns=0, inode=0, device=0)


def make_live(tree: FileTree, named: Sequence[Named], token: str = "seed") -> None:
    """Make these names the whole live tree."""
    tree.drop_beside(token)
    tree.beside(token)
    tree.write(token, writing(named))
    tree.swap(token)
    tree.drop_hold(token)


def writing(named: Sequence[Named]) -> Iterator[tuple[FileEntry, Iterator[bytes]]]:
    """What `FileTree.write` takes: further names of a file after all files, directories last once more."""
    for entry, data in named:
        if entry.kind != "hardlink":
            yield entry, iter([data] if data else [])
    for entry, _ in named:
        if entry.kind == "hardlink":
            yield entry, iter(())


def contents(tree: FileTree, entries: Sequence[FileEntry]) -> dict[bytes, bytes]:
    """Bytes of live files, which must hold still."""
    files = [entry for entry in entries if entry.kind == "file"]
    found: dict[bytes, bytes] = {}
    for index, piece, _ in tree.read(files):
        assert isinstance(piece, bytes), piece
        path = files[index].path
        found[path] = found.get(path, b"") + piece
    return found
