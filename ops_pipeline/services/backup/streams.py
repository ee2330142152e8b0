"""Streams of any length as sealed objects, and back: parallel by frames, flat in memory, checked at every step.

A frame is read, hashed, sealed, written and hashed again by one of `workers` threads; compression, AES and SHA-256
release the interpreter, so they use all cores. Only the two hashes over the whole stream have an order, and whoever
brings the next frame in order carries them on (`OrderedHash`), so nobody waits for them.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ops_pipeline.core.backup.frames import Header, bound_identity
from ops_pipeline.core.backup.records import FRAME_BYTES, Block, StoredStream
from ops_pipeline.errors import StoreDamaged
from ops_pipeline.ports import DataKey, ObjectStore, ObjectWriter, Sealing
from ops_pipeline.services.backup.ordered_hash import OrderedHash
from ops_pipeline.services.backup.sealed_objects import open_object, read_object, seal_object
from ops_pipeline.services.backup.stream_reading import OnBytes, check_stream, read_stream

__all__ = ["check_stream", "open_object", "read_object", "read_stream", "seal_object", "write_stream"]

Read = Callable[[int], bytes]


def write_stream(
    store: ObjectStore,
    sealing: Sealing,
    key: str,
    identity: str,
    read: Read,
    *,
    compress: bool = True,
    workers: int = 4,
    on_bytes: OnBytes | None = None,
    frame_bytes: int = FRAME_BYTES,
) -> StoredStream:
    """Seal what `read` gives, up to b"", into the new object `key`, and return what a manifest says about it.

    `identity` is bound into every frame. `read(size)` may give fewer bytes than asked for; it is called by the
    calling thread only, as is `on_bytes` (plain bytes since its last call). At most workers + 2 frames are alive.
    Whatever `read`, the store or a signal raises: the threads are joined, the object aborted, the error passed on.
    Nothing shows under `key` unless this returns (or its last answer was lost).
    """
    data_key = sealing.new_key()
    header = Header("zstd" if compress else "none", frame_bytes, data_key.wrapped).encode()
    writer = store.begin(key)
    done = False
    try:
        work = _Writing(sealing, writer, data_key, bound_identity(identity, header), header, compress)
        plain_size = _read_frames(work, read, frame_bytes, workers, on_bytes)
        blocks = work.blocks()
        info = writer.commit(len(blocks))
        stored_size = sum(block.size for block in blocks)
        if info.size != stored_size:
            raise StoreDamaged(f"stored object {key} is damaged: {info.size} bytes were kept of {stored_size} written")
        done = True
    finally:
        if not done:
            writer.abort()
    return StoredStream(
        key=key,
        identity=identity,
        codec="zstd" if compress else "none",
        plain_size=plain_size,
        plain_sha256=work.plain_hash.hexdigest(),
        stored_size=stored_size,
        stored_sha256=blocks[0].sha256 if len(blocks) == 1 else work.stored_hash.hexdigest(),
        blocks=blocks,
        wrapped_key=data_key.wrapped,
    )


class _Writing:
    """What the threads of one `write_stream` share."""

    def __init__(
        self,
        sealing: Sealing,
        writer: ObjectWriter,
        data_key: DataKey,
        identity: str,
        header: bytes,
        compress: bool,
    ) -> None:
        self._sealing, self._writer, self._key = sealing, writer, data_key
        self._identity, self._header, self._compress = identity, header, compress
        self._blocks: dict[int, Block] = {}
        self.plain_hash, self.stored_hash = OrderedHash(), OrderedHash()
        self.failure: BaseException | None = None

    def frame(self, index: int, last: bool, plain: list[bytes], release: Callable[[], None]) -> None:
        """Seal and store one frame; `release` is called when nothing of it is in memory any more."""
        try:
            if self.failure is not None:
                return
            content = plain.pop()
            size = len(content)
            both = _second(release)
            self.plain_hash.feed(index, content, both)
            sealed = self._sealing.seal(self._key, self._identity, index, last, content, compress=self._compress)
            del content
            if index == 0:
                sealed = self._header + sealed
            self._blocks[index] = Block(len(sealed), hashlib.sha256(sealed).hexdigest(), size)
            self._writer.block(index, sealed)
            if index == 0 and last:
                both()  # an object of one block has that block's hash
            else:
                self.stored_hash.feed(index, sealed, both)
        except BaseException as error:
            # Also what no ordinary error is: the calling thread must hear of it and stop.
            self.failure = self.failure or error
        finally:
            if self.failure is not None:
                release()

    def blocks(self) -> tuple[Block, ...]:
        return tuple(self._blocks[index] for index in range(len(self._blocks)))


def _read_frames(work: _Writing, read: Read, frame_bytes: int, workers: int, on_bytes: OnBytes | None) -> int:
    """Cut what `read` gives into frames and have them stored; return how many bytes it gave."""
    slots = threading.Semaphore(workers + 2)
    pool: ThreadPoolExecutor | None = None
    total = index = 0
    try:
        slots.acquire()
        frame = _whole_frame(read, frame_bytes)
        while work.failure is None:
            total += len(frame)
            if on_bytes is not None and frame:
                on_bytes(len(frame))
            # Whether a frame is the last one is sealed into it, so the next must be known to be empty or not.
            slots.acquire()
            if work.failure is not None:
                break
            following = _whole_frame(read, frame_bytes) if len(frame) == frame_bytes else b""
            held = [frame]  # a list, so that the thread can let go of it: a queued call would keep its arguments
            del frame
            if pool is None and not following:
                work.frame(index, True, held, slots.release)  # of one frame only: no thread needed
                break
            pool = pool or ThreadPoolExecutor(workers, thread_name_prefix="seal")
            pool.submit(work.frame, index, not following, held, slots.release)
            index += 1
            if not following:
                break
            frame, following = following, b""
    except BaseException as error:
        work.failure = work.failure or error
    finally:
        if pool is not None:
            pool.shutdown(wait=True)
    if work.failure is not None:
        raise work.failure
    return total


def _second(action: Callable[[], None]) -> Callable[[], None]:
    """Something to call twice, from any threads; the second call does it."""
    calls = itertools.count(1)

    def called() -> None:
        if next(calls) == 2:
            action()

    return called


def _whole_frame(read: Read, frame_bytes: int) -> bytes:
    """Up to `frame_bytes` bytes, fewer only at the end of the stream."""
    first = read(frame_bytes)
    size = len(first)
    if not first or size == frame_bytes:
        return first
    pieces = [first]
    while size < frame_bytes:
        piece = read(frame_bytes - size)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)
