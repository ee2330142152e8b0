"""Reading stored streams: opened in parallel and given in order, or only checked, which needs no key."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import accumulate
from typing import TypeVar

from ops_pipeline.core.backup.frames import (
    MAX_FRAME_STORED,
    MAX_HEADER_BYTES,
    PREFIX_BYTES,
    Header,
    LayoutError,
    bound_identity,
    parse_frame_prefix,
    parse_header,
)
from ops_pipeline.core.backup.records import FRAME_BYTES, Block, StoredStream
from ops_pipeline.errors import NotFound, StoreDamaged
from ops_pipeline.ports import DataKey, ObjectStore, Sealing
from ops_pipeline.services.backup.ordered_hash import OrderedHash

OnBytes = Callable[[int], None]
_MOST_BLOCK = MAX_HEADER_BYTES + MAX_FRAME_STORED
T = TypeVar("T")


def read_stream(
    store: ObjectStore, sealing: Sealing, stream: StoredStream, *, workers: int = 4, on_bytes: OnBytes | None = None
) -> Iterator[bytes]:
    """Give the plain bytes in order, `workers` frames ahead; `on_bytes` hears of plain bytes as they are given.

    Every block's size and hash, every frame's tag, place and size, and before the last piece is given the whole's
    size and hash: so whoever got all got what was written. Whatever came before an error is to be thrown away.
    Raise StoreDamaged naming the object, PolicyRefused when no identity here opens it, Transient, Permanent.
    """
    _consistent(stream)
    reading = _Reading(store, sealing, stream, sealing.unwrap(stream.wrapped_key))
    with closing(_ahead(reading.frame, range(len(stream.blocks)), workers)) as frames:
        for index, plain in enumerate(frames):
            if index + 1 == len(stream.blocks) and reading.plain_hash.hexdigest() != stream.plain_sha256:
                raise _damaged(stream.key, "its content as a whole has another hash")
            if on_bytes is not None:
                on_bytes(len(plain))
            if plain:
                yield plain


def check_stream(
    store: ObjectStore,
    stream: StoredStream,
    blocks: Iterable[int] | None = None,
    on_bytes: OnBytes | None = None,
    *,
    workers: int = 4,
) -> int:
    """Without any key: the object is there, of the right size, and these blocks (None = all) are as they were written.

    Return how many stored bytes were read; `on_bytes` hears of them as they are. Raise StoreDamaged naming the object
    and the block, Transient, Permanent.
    """
    _consistent(stream)
    info = store.stat(stream.key)
    if info is None:
        raise _missing(stream.key)
    if info.size != stream.stored_size:
        raise _damaged(stream.key, f"it has {info.size} bytes and ought to have {stream.stored_size}")
    chosen = sorted(set(range(len(stream.blocks)) if blocks is None else blocks))
    if chosen and not 0 <= chosen[0] <= chosen[-1] < len(stream.blocks):
        raise ValueError(f"{stream.key} has {len(stream.blocks)} blocks")
    offsets = _offsets(stream)

    def look(index: int) -> int:
        data = _block(store, stream, index, offsets[index])
        header = _header(stream, data)[1] if index == 0 else 0
        _frame_length(stream, index, data[header : header + 16], len(data) - header)
        return len(data)

    total = 0
    with closing(_ahead(look, chosen, workers)) as sizes:
        for size in sizes:
            total += size
            if on_bytes is not None:
                on_bytes(size)
    return total


class _Reading:
    """What the threads of one `read_stream` share."""

    def __init__(self, store: ObjectStore, sealing: Sealing, stream: StoredStream, key: DataKey) -> None:
        self._store, self._sealing, self._stream, self._key = store, sealing, stream, key
        self._offsets = _offsets(stream)
        # Frames are bound to their object's header, which the first block brings. It is always begun first.
        self._header: Future[tuple[str, int]] = Future()
        self.plain_hash = OrderedHash()

    def frame(self, index: int) -> bytes:
        """Plain bytes of one frame, checked."""
        stream = self._stream
        try:
            sealed = _block(self._store, stream, index, self._offsets[index])
            if index == 0:
                header, length = _header(stream, sealed)
                self._header.set_result((bound_identity(stream.identity, sealed[:length]), header.frame_bytes))
                sealed = sealed[length:]
        except BaseException as error:
            if index == 0:
                self._header.set_exception(error)
            raise
        identity, frame_bytes = self._header.result()
        last = index + 1 == len(stream.blocks)
        _frame_length(stream, index, sealed[:16], len(sealed))
        try:
            plain = self._sealing.open(self._key, identity, index, last, sealed)
        except StoreDamaged as error:
            raise _damaged(stream.key, error.message) from None
        wanted = stream.blocks[index].plain_size
        if len(plain) != wanted or len(plain) > frame_bytes or not (last or len(plain) == frame_bytes):
            raise _damaged(stream.key, f"frame {index} holds {len(plain)} bytes and ought to hold {wanted}")
        self.plain_hash.feed(index, plain)
        return plain


def _ahead(work: Callable[[int], T], items: Sequence[int], workers: int) -> Generator[T, None, None]:
    """Results of `work` for `items`, in order, `workers` threads at it and one result waiting at most.

    Closing it drops what was not begun and waits for the rest.
    """
    if len(items) <= 1:
        for item in items:
            yield work(item)
        return
    pool = ThreadPoolExecutor(min(workers, len(items)), thread_name_prefix="open")
    try:
        begun: deque[Future[T]] = deque()
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) > workers:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _block(store: ObjectStore, stream: StoredStream, index: int, offset: int) -> bytes:
    """Stored bytes of one block, of the right size and hash; the last one must be where the object ends."""
    block = stream.blocks[index]
    last = index + 1 == len(stream.blocks)
    try:
        # One byte more than there ought to be tells without another request whether something was appended.
        data = store.get(stream.key, offset, block.size + (1 if last else 0))
    except NotFound:
        raise _missing(stream.key) from None
    if len(data) != block.size:
        raise _damaged(stream.key, f"block {index} is {'longer' if len(data) > block.size else 'cut'}")
    if hashlib.sha256(data).hexdigest() != block.sha256:
        raise _damaged(stream.key, f"block {index} has another hash than when it was written")
    return data


def _header(stream: StoredStream, first: bytes) -> tuple[Header, int]:
    try:
        header, length = parse_header(first)
    except LayoutError as error:
        raise _damaged(stream.key, str(error)) from None
    if header.wrapped_key != stream.wrapped_key or header.codec != stream.codec:
        raise _damaged(stream.key, "its header belongs to another object")
    return header, length


def _frame_length(stream: StoredStream, index: int, prefix: bytes, stored: int) -> None:
    try:
        _, length = parse_frame_prefix(prefix)
    except LayoutError as error:
        raise _damaged(stream.key, f"block {index}: {error}") from None
    if stored != PREFIX_BYTES + length:
        raise _damaged(stream.key, f"block {index} is no single frame")


def _offsets(stream: StoredStream) -> list[int]:
    return list(accumulate((block.size for block in stream.blocks), initial=0))


def _consistent(stream: StoredStream) -> None:
    sizes: tuple[Block, ...] = stream.blocks
    if (
        not sizes
        or any(not 0 < block.size <= _MOST_BLOCK or not 0 <= block.plain_size <= FRAME_BYTES for block in sizes)
        or sum(block.size for block in sizes) != stream.stored_size
        or sum(block.plain_size for block in sizes) != stream.plain_size
    ):
        raise _damaged(stream.key, "its list of blocks does not add up")


def _damaged(key: str, text: str) -> StoreDamaged:
    return StoreDamaged(f"stored object {key} is damaged: {text}")


def _missing(key: str) -> StoreDamaged:
    return StoreDamaged(f"stored object {key} is missing")
