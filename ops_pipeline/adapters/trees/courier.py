"""What runs inside a courier container: one request after the other from standard input, answers to standard output.

Sent to the container as text, with the modules it imports (`SHIPPED`); nothing else of the project is there.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ops_pipeline.adapters.trees.places import REFUSED, TRANSIENT, TreeError
from ops_pipeline.adapters.trees.reading import read, walk
from ops_pipeline.adapters.trees.swapping import Places
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
from ops_pipeline.adapters.trees.writing import write
from ops_pipeline.core.backup.file_entry import Changed, FileEntry
from ops_pipeline.core.backup.patterns import Patterns

SHIPPED = (
    "ops_pipeline.core.backup.file_entry",
    "ops_pipeline.core.backup.patterns",
    "ops_pipeline.adapters.trees.places",
    "ops_pipeline.adapters.trees.reading",
    "ops_pipeline.adapters.trees.writing",
    "ops_pipeline.adapters.trees.swapping",
    "ops_pipeline.adapters.trees.wire",
    "ops_pipeline.adapters.trees.courier",
)
"""Modules in the order in which they can be loaded."""

VOLUME = b"/volume"
IDLE_SECONDS = 20
STUCK_SECONDS = 900
_BATCH = 400


def main() -> None:
    """Serve until nobody asks any more."""
    Courier(sys.stdin.fileno(), sys.stdout.fileno(), VOLUME).serve()


class Courier:
    """Serves one tree over two descriptors."""

    def __init__(self, source: int, target: int, root: bytes) -> None:
        self._source = source
        self._target = target
        self._root = root

    def serve(self) -> None:
        """Answer requests until the other side ends, is silent for 20 s between two, or for 15 min in one."""
        while True:
            signal.alarm(STUCK_SECONDS)
            ready, _, _ = select.select([self._source], [], [], IDLE_SECONDS)
            if not ready:
                return
            try:
                kind, payload = read_frame(self._read)
                if kind != REQUEST:
                    raise WireError("not a request")
                self._answer(unpack(payload))
            except WireError:
                return

    def _answer(self, request: dict[str, Any]) -> None:
        try:
            result = _ACTIONS[request["do"]](self, request)
        except TreeError as error:
            self._say(ERROR, pack([error.kind, error.text]))
        except OSError as error:
            self._say(ERROR, pack([REFUSED, error.strerror or str(error)]))
        except MemoryError:
            self._say(ERROR, pack([TRANSIENT, "the courier ran out of memory"]))
        else:
            self._say(DONE, pack(result))

    # ------------------------------------------------------------------------------------------------ reading

    def walk(self, request: dict[str, Any]) -> None:
        """Say all entries of the live tree, or of the restored one of a token."""
        root = self._open(request.get("token", ""))
        try:
            batch: list[dict[str, Any]] = []
            for entry in walk(root, Patterns(request.get("exclude", ()))):
                batch.append(full_fields(entry))
                if len(batch) >= _BATCH:
                    self._say(ENTRIES, pack(batch))
                    batch = []
            self._say(ENTRIES, pack(batch))
        finally:
            os.close(root)

    def read(self, request: dict[str, Any]) -> None:
        """Say the contents of some files."""
        entries = [full_entry(fields) for fields in request["entries"]]
        root = self._open(request.get("token", ""))
        try:
            for index, piece, last in read(root, entries):
                if isinstance(piece, Changed):
                    now = None if piece.now is None else full_fields(piece.now)
                    self._say(CHANGED, pack([index, piece.why, now]))
                else:
                    self._say(PIECE, PIECE_HEAD.pack(index, last), piece)
        finally:
            os.close(root)

    # ------------------------------------------------------------------------------------------------ writing

    def write(self, request: dict[str, Any]) -> None:
        """Write the entries that follow."""
        failure: TreeError | None = None
        frames = self._frames()
        root = self._open(request["token"])
        try:
            write(root, self._incoming(frames), durable=request["durable"])
        except TreeError as error:
            failure = error
        finally:
            os.close(root)
        if failure is not None:
            # The other side stops as soon as it has seen the error; what is still under way is thrown away.
            self._say(ERROR, pack([failure.kind, failure.text]))
            for _ in frames:
                pass
            raise WireError("over")

    def _frames(self) -> Iterator[tuple[bytes, bytes]]:
        while True:
            kind, payload = read_frame(self._read)
            if kind == DONE:
                return
            if kind == CANCEL:
                raise WireError("given up")
            yield kind, payload

    def _incoming(self, frames: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[FileEntry, Iterator[bytes]]]:
        ahead: list[bytes] = []

        def content() -> Iterator[bytes]:
            for kind, payload in frames:
                if kind == ENTRY:
                    ahead.append(payload)
                    return
                yield payload

        for kind, payload in frames:
            if kind != ENTRY:
                raise WireError("content without a name")
            ahead.append(payload)
            while ahead:
                entry = full_entry(unpack(ahead.pop()))
                pieces = content()
                yield entry, pieces
                for _ in pieces:
                    pass

    # ------------------------------------------------------------------------------------------------ swapping

    def place(self, request: dict[str, Any]) -> object:
        """Make, swap, turn back or remove what lies beside."""
        places = Places(self._root, inside=True)
        try:
            action = request["action"]
            if action == "holds":
                return places.holds()
            token = request["token"]
            if action == "swapped":
                return places.swapped(token)
            actions: dict[str, Callable[[str], None]] = {
                "beside": places.make_beside,
                "swap": places.swap,
                "unswap": places.unswap,
                "drop_beside": places.drop_beside,
                "drop_hold": places.drop_hold,
            }
            actions[action](token)
            return None
        finally:
            places.close()

    # ------------------------------------------------------------------------------------------------ inside

    def _open(self, token: str) -> int:
        if not token:
            return os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        places = Places(self._root, inside=True)
        try:
            return places.beside(token)
        finally:
            places.close()

    def _read(self, size: int) -> bytes:
        pieces = []
        while size:
            piece = os.read(self._source, min(size, 1 << 20))
            if not piece:
                raise WireError("the other side ended")
            pieces.append(piece)
            size -= len(piece)
        signal.alarm(STUCK_SECONDS)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _say(self, kind: bytes, *parts: bytes) -> None:
        for part in (frame_head(kind, sum(map(len, parts))), *parts):
            view = memoryview(part)
            while view:
                view = view[os.write(self._target, view) :]
        signal.alarm(STUCK_SECONDS)


_ACTIONS: dict[str, Callable[[Courier, dict[str, Any]], object]] = {
    "walk": Courier.walk,
    "read": Courier.read,
    "write": Courier.write,
    "place": Courier.place,
}

__all__ = ["DATA", "SHIPPED", "Courier", "main"]
