"""This side of a courier: requests over the connection of a `docker exec`, answers, errors."""

from __future__ import annotations

import contextlib
import importlib.util
import select
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ops_pipeline.adapters.trees.courier import SHIPPED
from ops_pipeline.adapters.trees.places import TreeError
from ops_pipeline.adapters.trees.wire import (
    CANCEL,
    CHANGED,
    DATA,
    DONE,
    ENTRIES,
    ENTRY,
    ERROR,
    PIECE,
    PIECE_HEAD,
    REQUEST,
    WireError,
    frame_head,
    full_entry,
    full_fields,
    pack,
    read_frame,
    unpack,
)
from ops_pipeline.core.backup.file_entry import Changed, FileEntry, Piece

COMMAND = ("python3", "-I", "-u", "/usr/local/bin/courier")
SILENT_SECONDS = 600.0
DATA_BYTES = 4 * 1024 * 1024
_DOCKER = struct.Struct(">BxxxI")


@cache
def shipment() -> bytes:
    """The modules a courier runs, as it reads them."""
    modules = []
    for name in SHIPPED:
        found = importlib.util.find_spec(name)
        assert found is not None and found.origin is not None
        modules.append([name, Path(found.origin).read_text(encoding="utf-8")])
    data = pack(modules)
    return len(data).to_bytes(4, "big") + data


class Session:
    """One courier process. `raw` is the connection's socket. For one thread at a time; raises TreeError, WireError."""

    def __init__(self, stream: Any, raw: Any) -> None:
        self._stream = stream
        self._raw = raw
        self._buffer = bytearray()
        self._at = 0
        self._words = bytearray()
        raw.settimeout(SILENT_SECONDS)
        self._send(shipment())

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            self._raw.close()
        with contextlib.suppress(OSError):
            self._stream.close()

    @property
    def alive(self) -> bool:
        """Whether it waits for a request: one that has something to say now has ended."""
        try:
            return not select.select([self._raw], [], [], 0)[0]
        except (OSError, ValueError):
            return False

    def ask(self, request: dict[str, Any]) -> Any:
        """A request with one answer."""
        self._request(request)
        kind, payload = self._frame()
        return unpack(payload) if kind == DONE else None

    def walk(self, request: dict[str, Any]) -> Iterator[FileEntry]:
        """Entries of a walk."""
        self._request(request)
        while True:
            kind, payload = self._frame()
            if kind == DONE:
                return
            if kind == ENTRIES:
                for fields in unpack(payload):
                    yield full_entry(fields)

    def read(self, request: dict[str, Any]) -> Iterator[Piece]:
        """Pieces of files."""
        self._request(request)
        while True:
            kind, payload = self._frame()
            if kind == DONE:
                return
            if kind == PIECE:
                index, last = PIECE_HEAD.unpack_from(payload)
                yield index, payload[PIECE_HEAD.size :], last
            elif kind == CHANGED:
                index, why, now = unpack(payload)
                yield index, Changed(why, None if now is None else full_entry(now)), True

    def write(self, request: dict[str, Any], entries: Iterator[tuple[FileEntry, Iterator[bytes]]]) -> None:
        """Write entries; stops as soon as the other side refuses one."""
        self._request(request)
        try:
            for entry, content in entries:
                self._say(ENTRY, pack(full_fields(entry)))
                for piece in content:
                    for start in range(0, len(piece), DATA_BYTES):
                        self._say(DATA, memoryview(piece)[start : start + DATA_BYTES])
                if not self.alive:
                    break
            self._say(DONE, b"")
        except WireError:
            pass  # it may have said why before it ended
        except BaseException:
            with contextlib.suppress(WireError):
                self._say(CANCEL, b"")
            raise
        kind, _ = self._frame()
        if kind != DONE:
            raise WireError("an answer nobody asked for")

    # ------------------------------------------------------------------------------------------------ inside

    def _request(self, request: dict[str, Any]) -> None:
        self._say(REQUEST, pack(request))

    def _say(self, kind: bytes, payload: bytes | memoryview) -> None:
        self._send(frame_head(kind, len(payload)))
        if payload:
            self._send(payload)

    def _send(self, data: bytes | memoryview) -> None:
        try:
            self._raw.sendall(data)
        except (OSError, TimeoutError) as error:
            raise WireError(f"the connection broke: {error}") from error

    def _frame(self) -> tuple[bytes, bytes]:
        kind, payload = read_frame(self._exactly)
        if kind == ERROR:
            found = unpack(payload)
            raise TreeError(str(found[0]), str(found[1]))
        return kind, payload

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) - self._at < size:
            self._receive()
        data = bytes(memoryview(self._buffer)[self._at : self._at + size])
        self._at += size
        if self._at > 1 << 20 or self._at == len(self._buffer):
            del self._buffer[: self._at]
            self._at = 0
        return data

    def _receive(self) -> None:
        """One frame of the engine, which interleaves standard output and error."""
        stream, length = _DOCKER.unpack(self._whole(_DOCKER.size))
        if stream == 1:
            self._buffer += self._whole(length)
        else:
            self._words = (self._words + self._whole(length))[-4000:]

    def _whole(self, size: int) -> bytes:
        pieces = []
        while size:
            try:
                piece = self._raw.recv(size)
            except (OSError, TimeoutError) as error:
                raise WireError(f"the connection broke: {error}") from error
            if not piece:
                words = " ".join(self._words.decode(errors="replace").split())[-600:]
                raise WireError(f"the courier ended: {words or 'without a word'}")
            pieces.append(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
