"""Reading files and storing their contents, however restless they are. One thread per batch."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ops_pipeline.core.backup.file_list import EMPTY_SHA256, PIECE_BYTES, ListedFile, StoredPiece
from ops_pipeline.core.backup.records import FRAME_BYTES
from ops_pipeline.ports import Changed, Clock, FileEntry, FileTree
from ops_pipeline.services.backup.media_storing import MediaWriter
from ops_pipeline.services.retrying import retried

SMALL_BYTES = FRAME_BYTES
"""Larger files are read twice, first for their hash, so that nothing of a file is stored under a wrong name."""

ATTEMPTS = 3
PAUSE_SECONDS = 0.05
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Outcome:
    """What became of one entry: `listed` None = it is gone. `restless`: why it may not be all of one moment."""

    listed: ListedFile | None
    restless: str = ""


class _Moved(Exception):
    """A file changed while it was read."""

    def __init__(self, changed: Changed) -> None:
        super().__init__(changed.why)
        self.changed = changed


class FileReader:
    """Reads entries of one tree into one `MediaWriter`; `on_read` hears of the bytes, from any thread."""

    def __init__(self, tree: FileTree, media: MediaWriter, clock: Clock, on_read: Callable[[int], None]) -> None:
        self._tree = tree
        self._media = media
        self._clock = clock
        self._on_read = on_read

    def read(self, entries: Sequence[FileEntry]) -> list[Outcome]:
        """What became of each entry, in their order. Raise Permanent, Unavailable."""
        if len(entries) == 1 and entries[0].stored_bytes > SMALL_BYTES:
            return [self._large(entries[0])]
        return retried(self._clock, f"read files of {self._tree.name}", lambda: self._small(entries))

    # ------------------------------------------------------------------------------------------------ small files

    def _small(self, entries: Sequence[FileEntry]) -> list[Outcome]:
        outcomes: list[Outcome | None] = [None] * len(entries)
        todo = dict(enumerate(entries))
        for attempt in range(1, ATTEMPTS + 1):
            again: dict[int, FileEntry] = {}
            numbers = list(todo)
            held: list[bytes] = []
            for index, piece, last in self._tree.read(list(todo.values())):
                number, entry = numbers[index], todo[numbers[index]]
                if not isinstance(piece, Changed):
                    held.append(piece)
                if not last:
                    continue
                content = held[0] if len(held) == 1 else b"".join(held)
                held = []
                if not isinstance(piece, Changed):
                    outcomes[number] = Outcome(self._stored(entry, content))
                elif piece.now is None:
                    outcomes[number] = Outcome(None, piece.why)
                elif attempt < ATTEMPTS:
                    again[number] = piece.now
                else:
                    outcomes[number] = self._as_it_was(entry, content, piece)
            todo = again
            if not todo:
                break
            for number in [each for each, entry in todo.items() if entry.stored_bytes > SMALL_BYTES]:
                outcomes[number] = self._large(todo.pop(number))
            self._clock.sleep(PAUSE_SECONDS)
        return [one or Outcome(None, "it never held still") for one in outcomes]

    def _as_it_was(self, entry: FileEntry, content: bytes, changed: Changed) -> Outcome:
        """A file that never holds still is kept as it was read the last time."""
        if len(content) != entry.stored_bytes:
            entry = replace(entry, size=len(content), holes=())
        return Outcome(self._stored(replace(entry, inode=0), content), changed.why)

    def _stored(self, entry: FileEntry, content: bytes) -> ListedFile:
        self._on_read(len(content))
        if not content:
            return ListedFile(entry, EMPTY_SHA256)
        sha256 = hashlib.sha256(content).hexdigest()
        return ListedFile(entry, sha256, (self._media.store(content, sha256),))

    # ------------------------------------------------------------------------------------------------ large files

    def _large(self, entry: FileEntry) -> Outcome:
        now: FileEntry | None = entry
        for attempt in range(1, ATTEMPTS + 1):
            assert now is not None
            try:
                return Outcome(self._hashed_and_stored(now))
            except _Moved as moved:
                now = moved.changed.now
                if now is None:
                    return Outcome(None, moved.changed.why)
                if now.stored_bytes <= SMALL_BYTES:
                    return self._small([now])[0]
                if attempt == ATTEMPTS:
                    return self._large_as_it_was(now)
            self._clock.sleep(PAUSE_SECONDS)
        raise AssertionError("unreachable")

    def _hashed_and_stored(self, entry: FileEntry) -> ListedFile:
        whole, hashes = hashlib.sha256(), []
        for content in _Cut(self._pieces(entry)).parts():
            part, size = hashlib.sha256(), 0
            for piece in content:
                part.update(piece)
                whole.update(piece)
                size += len(piece)
                self._on_read(len(piece))
            hashes.append((part.hexdigest(), size))
        if len(hashes) == 1:
            whole = part
        pieces = [self._media.has(sha256, size) for sha256, size in hashes]
        if not all(pieces):
            for number, content in enumerate(_Cut(self._pieces(entry)).parts()):
                if pieces[number] is None:
                    pieces[number] = self._stream(content, *hashes[number], entry)
                else:
                    for _ in content:
                        pass
        return ListedFile(entry, whole.hexdigest(), tuple(piece for piece in pieces if piece is not None))

    def _stream(self, content: Iterator[bytes], sha256: str, size: int, entry: FileEntry) -> StoredPiece:
        digest = hashlib.sha256()
        reader = _Reader(content)

        def read(wanted: int) -> bytes:
            piece = reader.read(wanted)
            digest.update(piece)
            if not piece and digest.hexdigest() != sha256:
                raise _Moved(Changed("it changed while it was read", entry))
            return piece

        reference, _, _ = self._media.stream("", read, sha256, reader.beginning())
        for _ in content:
            pass  # another writer stored it meanwhile: the rest of this piece is not needed
        return StoredPiece(reference, sha256, size)

    def _large_as_it_was(self, entry: FileEntry) -> Outcome:
        """Stored in one go, under names of its own: nobody could say in time what its content's would be."""
        why, whole, pieces = "it never held still", hashlib.sha256(), []

        def tolerant() -> Iterator[bytes]:
            try:
                for piece in self._pieces(entry):
                    whole.update(piece)
                    self._on_read(len(piece))
                    yield piece
            except _Moved:
                return

        for content in _Cut(tolerant()).parts():
            reader = _Reader(content)
            name = hashlib.sha256(entry.path + f" {entry.mtime_ns} {self._clock.now()} {next(_numbers)}".encode())
            reference, sha256, size = self._media.stream(name.hexdigest(), reader.read, "", reader.beginning())
            if size:
                pieces.append(StoredPiece(reference, sha256, size))
        size = sum(piece.plain_size for piece in pieces)
        if size != entry.stored_bytes:
            entry = replace(entry, size=size, holes=())
        return Outcome(ListedFile(replace(entry, inode=0), whole.hexdigest(), tuple(pieces)), why)

    def _pieces(self, entry: FileEntry) -> Iterator[bytes]:
        for _, piece, _ in self._tree.read([entry]):
            if isinstance(piece, Changed):
                raise _Moved(piece)
            yield piece


class _Cut:
    """Cuts a stream of bytes into parts of 256 MiB."""

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source = source
        self._rest = b""
        self._ended = False

    def parts(self) -> Iterator[Iterator[bytes]]:
        """One iterator per part, each to be used up before the next."""
        while not self._ended:
            if not self._rest:
                self._rest = next(self._source, b"")
                if not self._rest:
                    return
            yield self._part()

    def _part(self) -> Iterator[bytes]:
        left = PIECE_BYTES
        while left:
            piece = self._rest or next(self._source, b"")
            if not piece:
                self._ended = True
                return
            self._rest = piece[left:]
            piece = piece[:left]
            left -= len(piece)
            yield piece


class _Reader:
    """`read(size)` over an iterator of pieces, with a look at the beginning."""

    def __init__(self, content: Iterator[bytes]) -> None:
        self._content = content
        self._rest = b""

    def beginning(self) -> bytes:
        """The first piece, still to be read."""
        self._rest = self._rest or next(self._content, b"")
        return self._rest

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, b"" at the end."""
        piece = self._rest or next(self._content, b"")
        self._rest = piece[size:] if len(piece) > size else b""
        return piece[:size] if len(piece) > size else piece
