"""A FileTree in memory, held to the same contract as the directory and the volume."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ops_pipeline.core.backup.patterns import Patterns
from ops_pipeline.core.backup.records import Kind
from ops_pipeline.errors import NotFound, Permanent
from ops_pipeline.ports import Changed, FileEntry, FileTree, Piece

Hook = Callable[[str], None]
PIECE_BYTES = 8 * 1024 * 1024


def _nothing(call: str) -> None: ...


@dataclass
class _Node:
    """A file of one or several names; `data` is without holes."""

    entry: FileEntry
    data: bytes = b""


@dataclass
class _Tree:
    """Names and what they stand for."""

    nodes: dict[bytes, _Node] = field(default_factory=dict)


class FakeFileTree(FileTree):
    """Names in memory. `before` is called with the name of every call and step of a swap; it may raise.

    `moving` are paths that change each time they are read, so often as the number says.
    """

    def __init__(self, name: str = "photos", kind: Kind = "directory", *, exclude: Sequence[str] = ()) -> None:
        self._name = name
        self._kind = kind
        self._excluded = Patterns(exclude)
        self._numbers = itertools.count(1)
        self.before: Hook = _nothing
        self.moving: dict[bytes, int] = {}
        self._live: _Tree | None = _Tree()
        self._beside: dict[str, _Tree] = {}
        self._held: dict[str, _Tree | None] = {}
        self._swapped: set[str] = set()
        self._node(self._tree(), FileEntry(b"", "directory", 0o755, 0, 0))

    # ------------------------------------------------------------------------------------------------ for tests

    def put(self, path: str | bytes, data: bytes = b"", *, mtime_ns: int = 1_700_000_000_000_000_000) -> None:
        """Write a live file, with the directories above it."""
        raw = path.encode() if isinstance(path, str) else path
        parent = raw.rpartition(b"/")[0]
        if parent and parent not in self._tree().nodes:
            self.make(FileEntry(parent, "directory", 0o755, 0, 0, mtime_ns=1))
        self.make(FileEntry(raw, "file", 0o644, 1000, 1000, size=len(data), mtime_ns=mtime_ns), data)

    def make(self, entry: FileEntry, data: bytes = b"") -> None:
        """Make a live name of any kind."""
        self._node(self._tree(), entry, data)

    def remove(self, path: str | bytes) -> None:
        """Remove a live name and what is below it."""
        raw = path.encode() if isinstance(path, str) else path
        tree = self._tree()
        tree.nodes = {
            each: node for each, node in tree.nodes.items() if each != raw and not each.startswith(raw + b"/")
        }

    def destroy(self) -> None:
        """The live tree is gone."""
        self._live = None

    def content(self) -> dict[bytes, bytes]:
        """Live files and their bytes, without holes."""
        return {path: node.data for path, node in self._tree().nodes.items() if node.entry.kind == "file"}

    # ------------------------------------------------------------------------------------------------ the port

    @property
    def name(self) -> str:
        return self._name

    @property
    def kind(self) -> Kind:
        return self._kind

    def check(self) -> Sequence[str]:
        self.before("check")
        self._tree()
        return ()

    def walk(self) -> Iterator[FileEntry]:
        self.before("walk")
        return self._walked(self._tree(), self._excluded)

    def read(self, entries: Sequence[FileEntry]) -> Iterator[Piece]:
        self.before("read")
        return self._read(self._tree(), entries)

    def beside(self, token: str) -> None:
        self.before("beside")
        tree = self._beside.setdefault(token, _Tree())
        if b"" not in tree.nodes:
            self._node(tree, FileEntry(b"", "directory", 0o700, 0, 0))

    def write(self, token: str, entries: Iterator[tuple[FileEntry, Iterator[bytes]]], *, durable: bool = True) -> None:
        tree = self._of(token)
        for entry, content in entries:
            self.before("write")
            data = b"".join(content)
            _check(entry, data, tree)
            self._node(tree, replace(entry, ctime_ns=0, inode=0, device=0), data)

    def walk_beside(self, token: str) -> Iterator[FileEntry]:
        self.before("walk_beside")
        return self._walked(self._of(token), Patterns(()))

    def read_beside(self, token: str, entries: Sequence[FileEntry]) -> Iterator[Piece]:
        self.before("read_beside")
        return self._read(self._of(token), entries)

    def swap(self, token: str) -> None:
        if token in self._swapped:
            return
        self.before("swap")
        coming = self._of(token)
        self._held[token], self._live = self._live, coming
        del self._beside[token]
        self._swapped.add(token)
        self.before("swap done")

    def swapped(self, token: str) -> bool:
        self.before("swapped")
        return token in self._swapped

    def unswap(self, token: str) -> None:
        self.before("unswap")
        if token not in self._swapped:
            if token in self._beside and token not in self._held:
                return
            raise Permanent(f"nothing was swapped with the token {token}")
        if self._live is not None:
            self._beside[token] = self._live
        self._live = self._held.pop(token)
        self._swapped.discard(token)
        self.before("unswap done")

    def drop_beside(self, token: str) -> None:
        self.before("drop_beside")
        self._beside.pop(token, None)

    def holds(self) -> Sequence[str]:
        self.before("holds")
        return sorted(self._held)

    def drop_hold(self, token: str) -> None:
        self.before("drop_hold")
        self._held.pop(token, None)
        self._swapped.discard(token)

    # ------------------------------------------------------------------------------------------------ inside

    def _tree(self) -> _Tree:
        if self._live is None:
            raise NotFound(f"files {self._name}: there is no such tree")
        return self._live

    def _of(self, token: str) -> _Tree:
        if token not in self._beside:
            raise NotFound(f"files {self._name}: nothing is being restored with the token {token}")
        return self._beside[token]

    def _node(self, tree: _Tree, entry: FileEntry, data: bytes = b"") -> None:
        if entry.kind == "hardlink":
            node = tree.nodes[entry.link]
            node.entry = replace(node.entry, links=node.entry.links + 1)
            tree.nodes[entry.path] = node
            return
        number = next(self._numbers)
        stamped = replace(entry, inode=number, device=1, ctime_ns=entry.ctime_ns or number, links=1)
        tree.nodes[entry.path] = _Node(stamped, data)

    def _walked(self, tree: _Tree, excluded: Patterns) -> Iterator[FileEntry]:
        first: dict[int, bytes] = {}
        for path in sorted(tree.nodes):
            if excluded.fits(path) or path not in tree.nodes:
                continue
            entry = tree.nodes[path].entry
            earlier = first.setdefault(entry.inode, path)
            if earlier != path:
                yield FileEntry(path, "hardlink", 0, 0, 0, link=earlier, inode=entry.inode, device=1)
            else:
                yield replace(entry, path=path)

    def _read(self, tree: _Tree, entries: Sequence[FileEntry]) -> Iterator[Piece]:
        for index, entry in enumerate(entries):
            node = tree.nodes.get(entry.path)
            if node is None or node.entry.kind != "file":
                yield index, Changed("it is gone"), True
                continue
            now = replace(node.entry, path=entry.path)
            if now.inode != entry.inode or now.mtime_ns != entry.mtime_ns or now.size != entry.size:
                yield index, Changed("it changed since it was listed", now), True
                continue
            data = node.data if entry.holes == now.holes else _filled(now, node.data)
            moves = self.moving.get(entry.path, 0)
            for start in range(0, max(len(data), 1), PIECE_BYTES):
                last = start + PIECE_BYTES >= len(data)
                yield index, data[start : start + PIECE_BYTES], last and not moves
            if moves:
                self.moving[entry.path] = moves - 1
                node.entry = replace(node.entry, mtime_ns=node.entry.mtime_ns + 1, size=len(data) + 1, holes=())
                node.data = data + b"+"
                yield index, Changed("it changed while it was read", replace(node.entry, path=entry.path)), True


def _filled(entry: FileEntry, data: bytes) -> bytes:
    filled, at = bytearray(entry.size), 0
    position = 0
    for start, length in (*entry.holes, (entry.size, 0)):
        filled[position:start] = data[at : at + start - position]
        at += start - position
        position = start + length
    return bytes(filled)


def _check(entry: FileEntry, data: bytes, tree: _Tree) -> None:
    parts = entry.path.split(b"/") if entry.path else []
    nowhere = not parts and entry.kind != "directory"
    if nowhere or any(part in (b"", b".", b"..") for part in parts) or b"\0" in entry.path:
        raise Permanent("hostile path")
    parent = entry.path.rpartition(b"/")[0]
    if parent not in tree.nodes:
        raise NotFound("the directory above is missing")
    if tree.nodes[parent].entry.kind != "directory":
        raise Permanent("what is above is no directory")
    if entry.kind not in ("directory", "file", "symlink", "hardlink", "fifo"):
        raise Permanent("hostile kind")
    if entry.kind == "hardlink" and (entry.link not in tree.nodes or tree.nodes[entry.link].entry.kind == "directory"):
        raise NotFound("a hard link to nothing")
    if len(data) != entry.stored_bytes:
        raise Permanent(f"{entry.path!r} has another content than its size says")
