"""Restoring a tree of files beside the live one, in parallel, every content checked against its hash.

First the whole list is read: a hostile or damaged one is refused before anything is written. Then directories, then
files by several threads, then what hangs on them: hard links, and the directories' own attributes.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from ops_pipeline.core.backup.file_list import ListedFile, StoredPiece
from ops_pipeline.core.backup.patterns import Patterns
from ops_pipeline.core.backup.records import FRAME_BYTES, Part
from ops_pipeline.errors import BadInput, NotFound, OpsError, Problem, StoreDamaged
from ops_pipeline.ports import Changed, Clock, FileEntry, FileTree, Progress, Vault
from ops_pipeline.services.backup.listed_files import listed_files, patiently
from ops_pipeline.services.backup.streams import open_object, read_object

TELL_SECONDS = 1.0
BATCH_FILES = 128
BATCH_BYTES = FRAME_BYTES
_WHOLE_OBJECT = FRAME_BYTES + 65536


def restore_files(
    vault: Vault,
    part: Part,
    tree: FileTree,
    token: str,
    *,
    only: Sequence[str] = (),
    workers: int = 4,
    progress: Progress | None = None,
    on_bytes: Callable[[int], None] | None = None,
    clock: Clock | None = None,
) -> int:
    """Write the part's files, or those `only` means and the directories above them, beside; return how many names.

    What an earlier attempt with this token wrote is read and kept where it is right. Raise StoreDamaged naming file
    and object, BadInput (hostile list, patterns that mean nothing), PolicyRefused, Permanent.
    """
    chosen = Chosen(vault, part, only)
    tree.beside(token)
    there = _there(tree, token)
    restoring = _Restoring(vault, part, tree, token, clock, on_bytes)
    tree.write(token, iter([(_writable(entry), iter(())) for entry in chosen.directories]), durable=False)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="restore")
    begun: deque[Future[None]] = deque()
    since = told = time.monotonic()
    try:
        for batch in _batches(chosen.files()):
            begun.append(pool.submit(restoring.batch, [(one, there.get(one.entry.path)) for one in batch]))
            while len(begun) > workers + 1:
                begun.popleft().result()
            if progress and time.monotonic() - told >= TELL_SECONDS:
                told = time.monotonic()
                progress(f"{part.source}: {restoring.words(told - since)}")
        while begun:
            begun.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    rest = [*chosen.links, *chosen.directories]
    tree.write(token, iter([(entry, iter(())) for entry in rest]))
    if progress:
        progress(f"{part.source}: {chosen.count:,} names restored, {restoring.kept:,} were there already")
    return chosen.count


class Chosen:
    """What of a list is wanted. Reads the list once to the end, which also shows that all of it is in order."""

    def __init__(self, vault: Vault, part: Part, only: Sequence[str]) -> None:
        try:
            self._patterns = Patterns(only) if only else None
        except ValueError as error:
            raise BadInput([Problem("only", str(error))], subject="patterns of files") from None
        self._vault, self._part = vault, part
        self.directories: list[FileEntry] = []
        self.links: list[FileEntry] = []
        self.count = 0
        self._firsts: dict[bytes, bytes] = {}  # first name in the list → first name that is wanted
        above: dict[bytes, FileEntry] = {}
        needed: set[bytes] = set()
        matched = False
        for listed in listed_files(vault, part):
            entry = listed.entry
            wanted = self._wants(entry.path)
            if entry.kind == "directory":
                if self._patterns is None:
                    self.directories.append(entry)
                else:
                    above[entry.path] = entry
            if not wanted:
                continue
            matched = True
            needed.update(_above(entry.path) if self._patterns else ())
            if entry.kind == "directory":
                needed.add(entry.path)
            self.count += 1
            if entry.kind == "hardlink":
                first = self._firsts.setdefault(entry.link, entry.path)
                if first != entry.path:
                    self.links.append(replace(entry, link=first))
            elif entry.links > 1:
                self._firsts[entry.path] = entry.path
        if self._patterns is not None:
            if not matched:
                raise BadInput(
                    [Problem("only", f"nothing in {part.source} has a name like {', '.join(only)}")],
                    subject="patterns of files",
                )
            self.directories = [above[path] for path in sorted(needed)]

    def _wants(self, path: bytes) -> bool:
        return self._patterns is None or self._patterns.fits(path)

    def files(self) -> Iterator[ListedFile]:
        """Everything with content or without that is neither directory nor a further name, in the list's order."""
        moved = {first: name for first, name in self._firsts.items() if first != name}
        for listed in listed_files(self._vault, self._part):
            entry = listed.entry
            if entry.kind in ("directory", "hardlink"):
                continue
            if entry.path in moved:
                # Its first name is not wanted, another one is: that one gets the content.
                yield replace(listed, entry=replace(entry, path=moved[entry.path]))
            elif self._wants(entry.path):
                yield listed

    def all(self) -> Iterator[ListedFile]:
        """What a restored tree must hold, in the list's order."""
        kept = {entry.path for entry in self.directories} if self._patterns else set()
        firsts: dict[bytes, ListedFile] = {}
        for listed in listed_files(self._vault, self._part):
            entry = listed.entry
            if entry.kind == "directory":
                if self._patterns is None or entry.path in kept:
                    yield listed
                continue
            if entry.kind != "hardlink" and self._firsts.get(entry.path, entry.path) != entry.path:
                firsts[entry.path] = listed
            if not self._wants(entry.path):
                continue
            if entry.kind == "hardlink":
                first = self._firsts[entry.link]
                if first == entry.path:
                    content = firsts[entry.link]
                    yield replace(content, entry=replace(content.entry, path=entry.path))
                else:
                    yield replace(listed, entry=replace(entry, link=first))
            else:
                yield listed


class _Restoring:
    """Shared by the threads of one restore."""

    def __init__(
        self,
        vault: Vault,
        part: Part,
        tree: FileTree,
        token: str,
        clock: Clock | None,
        on_bytes: Callable[[int], None] | None,
    ) -> None:
        self._vault, self._part, self._tree, self._token = vault, part, tree, token
        self._clock, self._on_bytes = clock, on_bytes
        self._lock = threading.Lock()
        self._bytes = 0
        self.kept = 0

    def batch(self, files: Sequence[tuple[ListedFile, FileEntry | None]]) -> None:
        """Write some files, leaving out those that are there already and right."""
        there = [(listed, found) for listed, found in files if found is not None and _alike(listed.entry, found)]
        right = self._right(there)
        todo = [listed for listed, _ in files if listed.entry.path not in right]
        if todo:
            self._tree.write(self._token, ((one.entry, self._content(one)) for one in todo), durable=False)
        size = sum(listed.entry.stored_bytes for listed, _ in files)
        with self._lock:
            self.kept += len(right)
            self._bytes += size
            if self._on_bytes:
                self._on_bytes(size)

    def words(self, seconds: float) -> str:
        """How far it is."""
        rate = self._bytes / 1e6 / max(seconds, 0.001)
        total = self._part.files.plain_size if self._part.files else 0
        left = max(total - self._bytes, 0) / 1e6 / rate if rate else 0
        return f"{self._bytes / 1e6:,.0f} MB of {total / 1e6:,.0f} MB, {rate:,.0f} MB/s, {left:,.0f} s left"

    def _right(self, there: Sequence[tuple[ListedFile, FileEntry | None]]) -> set[bytes]:
        right = {listed.entry.path for listed, _ in there if listed.entry.kind != "file"}
        files = [(listed, found) for listed, found in there if listed.entry.kind == "file" and found is not None]
        digest = hashlib.sha256()
        for index, piece, last in self._tree.read_beside(self._token, [found for _, found in files]):
            if not isinstance(piece, Changed):
                digest.update(piece)
            if last:
                if not isinstance(piece, Changed) and digest.hexdigest() == files[index][0].sha256:
                    right.add(files[index][0].entry.path)
                digest = hashlib.sha256()
        return right

    def _content(self, listed: ListedFile) -> Iterator[bytes]:
        whole = hashlib.sha256()
        for piece in listed.pieces:
            try:
                for content in self._piece(piece):
                    if len(listed.pieces) > 1:
                        whole.update(content)
                    yield content
            except StoreDamaged as error:
                raise StoreDamaged(f"{self._part.source}: {_shown(listed)}: {error.message}", hint=error.hint) from None
            except NotFound:
                raise StoreDamaged(
                    f"{self._part.source}: {_shown(listed)}: stored object {piece.reference.key} is missing"
                ) from None
        if len(listed.pieces) > 1 and whole.hexdigest() != listed.sha256:
            raise StoreDamaged(f"{self._part.source}: {_shown(listed)}: its pieces are whole and the file is another")

    def _piece(self, piece: StoredPiece) -> Iterator[bytes]:
        media, sealing, reference = self._vault.media, self._vault.sealing, piece.reference
        key = reference.key
        if reference.size > _WHOLE_OBJECT:
            digest = hashlib.sha256()
            for content in read_object(
                media, sealing, key, key, stored_size=reference.size, stored_sha256=reference.sha256
            ):
                digest.update(content)
                yield content
            if digest.hexdigest() != piece.plain_sha256:
                raise StoreDamaged(f"stored object {key} is damaged: it holds another content")
            return
        stored = patiently(self._clock, f"read {key}", lambda: media.get(key, 0, reference.size + 1))
        if len(stored) != reference.size:
            raise StoreDamaged(f"stored object {key} is damaged: it is not as long as it was stored")
        # The seal and the content's own hash say more than the stored bytes' hash would.
        plain = open_object(sealing, key, stored, key=key)
        if len(plain) != piece.plain_size or hashlib.sha256(plain).hexdigest() != piece.plain_sha256:
            raise StoreDamaged(f"stored object {key} is damaged: it holds another content")
        yield plain


def _batches(files: Iterator[ListedFile]) -> Iterator[list[ListedFile]]:
    batch: list[ListedFile] = []
    size = 0
    for listed in files:
        if batch and (len(batch) >= BATCH_FILES or size + listed.entry.stored_bytes > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(listed)
        size += listed.entry.stored_bytes
    if batch:
        yield batch


def _there(tree: FileTree, token: str) -> dict[bytes, FileEntry]:
    """What an earlier attempt left, but for directories."""
    try:
        return {entry.path: entry for entry in tree.walk_beside(token) if entry.kind in ("file", "symlink", "fifo")}
    except OpsError:
        return {}


def _writable(entry: FileEntry) -> FileEntry:
    """A directory while it is being filled: only for us; its own attributes come last."""
    return replace(entry, mode=0o700, xattrs=())


def _alike(wanted: FileEntry, found: FileEntry) -> bool:
    return comparable(wanted) == comparable(found)


def comparable(entry: FileEntry) -> FileEntry:
    """An entry without what is never restored, for comparing."""
    return replace(entry, ctime_ns=0, inode=0, device=0, links=1)


def _above(path: bytes) -> Iterator[bytes]:
    while path:
        path = path.rpartition(b"/")[0]
        yield path


def _shown(listed: ListedFile) -> str:
    text = listed.entry.path.decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)[:200]
