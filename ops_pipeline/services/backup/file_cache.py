"""What was stored of every file the last time, so that unchanged files are not read again.

`files/<environment>/<source>/head` in `vault.state` names generations of chunks `…/<generation>/<number>`: a base, that
of the last run that came to its end, and what runs that were killed got done since. All of it is sealed for the
signing key only and can be lost without harm: then every file is read once more.

Chunks hold lines in the order of the paths, as the walk gives them, so both are read side by side in little memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ops_pipeline.core.backup.file_entry import FileEntry, to_raw, to_text
from ops_pipeline.core.backup.file_list import ListedFile, StoredPiece, pieces_from_fields, pieces_to_fields
from ops_pipeline.errors import StoreDamaged
from ops_pipeline.ports import Clock, Vault
from ops_pipeline.services.retrying import retried

MOST_UNFINISHED = 4


@dataclass(frozen=True)
class Remembered:
    """One file as it was, and where its content is."""

    path: bytes
    stamp: tuple[int, int, int, int, int]  # size, mtime_ns, ctime_ns, inode, device
    sha256: str
    pieces: tuple[StoredPiece, ...]
    of_base: bool

    def fits(self, entry: FileEntry) -> bool:
        """Whether the file is still the one that was read."""
        return self.stamp == stamp_of(entry) and sum(one.plain_size for one in self.pieces) == entry.stored_bytes


@dataclass(frozen=True)
class CacheHead:
    """Which chunks count. `manifest` is the key of the set the base belongs to; `runs` turns the share re-read."""

    last: int = 0  # highest generation ever begun
    base: int = 0
    base_chunks: int = 0
    manifest: str = ""
    unfinished: tuple[tuple[int, int], ...] = ()  # (generation, chunks), newest first
    runs: int = 0


def stamp_of(entry: FileEntry) -> tuple[int, int, int, int, int]:
    """What tells a changed file from an unchanged one."""
    return (entry.size, entry.mtime_ns, entry.ctime_ns, entry.inode, entry.device)


class FileCache:
    """The cache of one source."""

    def __init__(self, vault: Vault, clock: Clock, environment: str, source: str) -> None:
        self._vault = vault
        self._clock = clock
        self._prefix = f"files/{environment}/{source}/"
        self.head = self._read_head()
        self._generation = self.head.last + 1
        self._chunks = 0

    def remembered(self) -> Iterator[Remembered]:
        """All that is known, by path; what cannot be read is as if it had never been."""
        covered = b""
        sources = [(each, count, False) for each, count in self.head.unfinished]
        for generation, count, of_base in [*sources, (self.head.base, self.head.base_chunks, True)]:
            last = covered
            for number in range(count):
                for one in self._read_chunk(generation, number, of_base):
                    if one.path > covered:
                        yield one
                    last = max(last, one.path)
            covered = last

    def add(self, listed: Sequence[ListedFile], trusted_before_ns: int) -> None:
        """Remember files whose content is durable now, as what a run got done that may yet be killed.

        A file touched at or after `trusted_before_ns` may change again without a new time: it is read next time.
        """
        rows = [
            [to_text(one.entry.path), stamp_of(one.entry), one.sha256, pieces_to_fields(one.pieces)]
            for one in listed
            if one.pieces and one.entry.inode and max(one.entry.ctime_ns, one.entry.mtime_ns) < trusted_before_ns
        ]
        key = f"{self._prefix}{self._generation}/{self._chunks}"
        self._write(key, json.dumps(rows, separators=(",", ":")).encode())
        self._chunks += 1
        earlier = tuple(one for one in self.head.unfinished if one[0] != self._generation)
        unfinished = ((self._generation, self._chunks), *earlier)[:MOST_UNFINISHED]
        self._write_head(replace(self.head, last=self._generation, unfinished=unfinished))

    def finish(self, manifest: str) -> None:
        """What was added is the whole tree now, as the set with this manifest will have it."""
        self._write_head(CacheHead(self._generation, self._generation, self._chunks, manifest, (), self.head.runs + 1))
        keep = f"{self._prefix}{self._generation}/"
        for info in list(self._vault.state.list(self._prefix)):
            if info.key != f"{self._prefix}head" and not info.key.startswith(keep):
                self._vault.state.delete(info.key)

    def _read_head(self) -> CacheHead:
        data = self._read(f"{self._prefix}head")
        try:
            fields = json.loads(data)
            return CacheHead(**{**fields, "unfinished": tuple((one[0], one[1]) for one in fields["unfinished"])})
        except (ValueError, TypeError, KeyError, IndexError):
            return CacheHead()

    def _write_head(self, head: CacheHead) -> None:
        self._write(f"{self._prefix}head", json.dumps(asdict(head)).encode())
        self.head = head

    def _read_chunk(self, generation: int, number: int, of_base: bool) -> Iterator[Remembered]:
        data = self._read(f"{self._prefix}{generation}/{number}")
        try:
            rows: list[Any] = json.loads(data) if data else []
            for path, stamp, sha256, pieces in rows:
                size, mtime, ctime, inode, device = stamp
                yield Remembered(
                    to_raw(path), (size, mtime, ctime, inode, device), sha256, pieces_from_fields(pieces), of_base
                )
        except (ValueError, TypeError):
            return

    def _read(self, key: str) -> bytes:
        blob = retried(self._clock, f"read {key}", lambda: self._vault.state.read(key))
        try:
            return b"" if blob is None else self._vault.sealing.open_own(blob.data, key)
        except StoreDamaged:
            return b""

    def _write(self, key: str, data: bytes) -> None:
        sealed = self._vault.sealing.seal_own(data, key)
        retried(self._clock, f"write {key}", lambda: self._vault.state.write(key, sealed))
