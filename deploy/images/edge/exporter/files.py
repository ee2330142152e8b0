"""The files the exporter lives on: HAProxy's log in memory, the edge's routing, and its own state."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import time
from pathlib import Path

from .counting import Book, Key, expected_keys

_KEEP_SIZE_AND_PUNCH_HOLE = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, linux/falloc.h
_PIECE = 1 << 20


class RequestLog:
    """The file HAProxy writes to, read from `offset` on. What was read is given back to memory by `forget`.

    HAProxy's workers share one position in it and write whole lines, each at once. The file only ever grows in name:
    read parts become holes, so the memory it takes is what has not been read, and at most what the file system
    (/dev/shm) has.
    """

    def __init__(self, path: Path, offset: int) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._file).st_size
        self.offset = offset if offset <= size else 0
        self._forgotten = 0
        if self.offset == 0 and size:
            with contextlib.suppress(OSError):  # nothing but a hole
                self.offset = os.lseek(self._file, 0, os.SEEK_DATA)

    def read(self) -> list[bytes]:
        """The complete lines that came since the last call, at most about a megabyte of them."""
        piece = os.pread(self._file, _PIECE, self.offset)
        end = piece.rfind(b"\n") + 1
        if end == 0 and len(piece) == _PIECE:
            end = _PIECE  # no line of ours is that long
        self.offset += end
        # Without its state it begins on the page where the hole ends, which zeros precede.
        return piece[:end].lstrip(b"\0").split(b"\n")[:-1]

    def backlog(self) -> int:
        """Bytes not read yet."""
        return os.fstat(self._file).st_size - self.offset

    def forget(self) -> None:
        """Give back the memory of what was read. Only once nobody will ask for it again."""
        length = self.offset - self._forgotten
        if length < 1 << 16:
            return
        done = _libc().fallocate(
            self._file, _KEEP_SIZE_AND_PUNCH_HOLE, ctypes.c_longlong(self._forgotten), ctypes.c_longlong(length)
        )
        if done == 0:
            self._forgotten = self.offset - self.offset % 4096


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


class RoutingFiles:
    """Which releases the edge may send requests to, from the files it starts with."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._seen = (-1, -1)
        self._keys: set[Key] = set()

    def keys(self) -> set[Key]:
        """Labels of every release in the routing. Files are read again only when one was replaced."""
        # Each is replaced by a rename, which changes its folder's time.
        seen = (_changed(self._state / "services"), _changed(self._state / "frame.cfg"))
        if seen != self._seen:
            texts = []
            for file in sorted((self._state / "services").glob("*.cfg")):
                with contextlib.suppress(OSError, UnicodeDecodeError):
                    texts.append(file.read_text(encoding="utf-8"))
            self._keys = expected_keys(self._environment(), texts)
            # A time that is this young may cover one more change.
            young = max(seen) > time.time_ns() - 2_000_000_000
            self._seen = (-1, -1) if young else seen
        return self._keys

    def _environment(self) -> str:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            for line in (self._state / "frame.cfg").read_text(encoding="utf-8").splitlines():
                words = line.split()
                if words[:2] == ["description", "ops-edge"]:
                    return words[2]
        return "unset"


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def load_state(path: Path) -> tuple[Book, int]:
    """Counters and the position in the log they belong to. Empty and 0 when there are none, or damaged ones."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Book.from_document(document), int(document["offset"])
    except (OSError, ValueError, KeyError, TypeError):
        return Book(), 0


def store_state(path: Path, book: Book, offset: int) -> None:
    """Replace the state atomically: killed at any moment, counters and position still belong together."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps({**book.to_document(), "offset": offset}), encoding="utf-8")
    temporary.replace(path)
