"""Sealed objects that stand alone: all that is needed to read one is its key, its identity and an age identity."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from ops_pipeline.core.backup.frames import (
    MAX_HEADER_BYTES,
    PREFIX_BYTES,
    Header,
    LayoutError,
    bound_identity,
    parse_frame_prefix,
    parse_header,
)
from ops_pipeline.core.backup.records import FRAME_BYTES
from ops_pipeline.errors import NotFound, StoreDamaged
from ops_pipeline.ports import ObjectStore, Sealing


def seal_object(
    sealing: Sealing, identity: str, plain: bytes, compress: bool = True, *, frame_bytes: int = FRAME_BYTES
) -> bytes:
    """Given a whole content, return the stored object: header and frames, as `write_stream` stores them."""
    key = sealing.new_key()
    header = Header("zstd" if compress else "none", frame_bytes, key.wrapped).encode()
    bound = bound_identity(identity, header)
    starts = range(0, max(len(plain), 1), frame_bytes)
    frames = (
        sealing.seal(key, bound, index, start == starts[-1], plain[start : start + frame_bytes], compress=compress)
        for index, start in enumerate(starts)
    )
    return b"".join((header, *frames))


def open_object(sealing: Sealing, identity: str, stored: bytes, *, key: str = "") -> bytes:
    """Given all stored bytes of an object, return its content. `key` is what an error calls it, else `identity`.

    Raise StoreDamaged, PolicyRefused when no identity here opens it.
    """
    return b"".join(_opened(sealing, identity, _Bytes(stored), key or identity))


def read_object(
    store: ObjectStore,
    sealing: Sealing,
    key: str,
    identity: str,
    *,
    stored_size: int | None = None,
    stored_sha256: str = "",
) -> Iterator[bytes]:
    """Give the content of the object `key` frame by frame, with two frames in memory; no list of blocks is needed.

    With `stored_size` and `stored_sha256` the object as a whole is compared before the last piece is given. Raise
    StoreDamaged naming `key`, PolicyRefused, Transient, Permanent.
    """
    source = _Stored(store, key)
    held: bytes | None = None
    for plain in _opened(sealing, identity, source, key):
        if held is not None:
            yield held
        held = plain
    if (stored_size is not None and source.size != stored_size) or (
        stored_sha256 and source.hash.hexdigest() != stored_sha256
    ):
        raise StoreDamaged(f"stored object {key} is damaged: it is not the one that was stored")
    if held:
        yield held


class _Bytes:
    """An object that is in memory."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def peek(self, size: int) -> bytes:
        return self._data[self._at : self._at + size]

    def skip(self, size: int) -> None:
        self._at += size


class _Stored:
    """An object in a store, fetched in pieces of about a frame."""

    def __init__(self, store: ObjectStore, key: str) -> None:
        self._store, self._key = store, key
        self._buffer = b""
        self._ended = False
        self.size = 0
        self.hash = hashlib.sha256()

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, fewer only at the end."""
        while len(self._buffer) < size and not self._ended:
            wanted = max(size - len(self._buffer), min(FRAME_BYTES, 1 << 20))
            try:
                piece = self._store.get(self._key, self.size, wanted)
            except NotFound:
                raise StoreDamaged(f"stored object {self._key} is missing") from None
            self._ended = len(piece) < wanted
            self.size += len(piece)
            self.hash.update(piece)
            self._buffer += piece
        return self._buffer[:size]

    def skip(self, size: int) -> None:
        self._buffer = self._buffer[size:]


def _opened(sealing: Sealing, identity: str, source: _Bytes | _Stored, name: str) -> Iterator[bytes]:
    """Plain frames of an object; the last one is told by the end of the object, and must be sealed as the last."""
    try:
        beginning = source.peek(MAX_HEADER_BYTES)
        header, length = parse_header(beginning)
        bound = bound_identity(identity, beginning[:length])
        source.skip(length)
        data_key = sealing.unwrap(header.wrapped_key)
        index, last = 0, False
        while not last:
            size = PREFIX_BYTES + parse_frame_prefix(source.peek(PREFIX_BYTES))[1]
            # One byte beyond the frame tells whether another one follows.
            sealed = source.peek(size + 1)
            last = len(sealed) <= size
            plain = sealing.open(data_key, bound, index, last, sealed[:size])
            if len(plain) > header.frame_bytes or not (last or len(plain) == header.frame_bytes):
                raise LayoutError(f"frame {index} holds {len(plain)} bytes")
            source.skip(size)
            index += 1
            yield plain
    except LayoutError as error:
        raise StoreDamaged(f"stored object {name} is damaged: {error}") from None
    except StoreDamaged as error:
        raise StoreDamaged(
            error.message if name in error.message else f"stored object {name} is damaged: {error.message}"
        ) from None
