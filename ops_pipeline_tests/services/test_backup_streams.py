"""Streams and objects: what was written is what is read, at every border; whatever goes wrong leaves nothing behind."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops_pipeline.core.backup.frames import frame_plain_bytes
from ops_pipeline.core.backup.records import Block, StoredStream
from ops_pipeline.errors import Conflict, Permanent, PolicyRefused, StoreDamaged, Transient
from ops_pipeline.ports import ObjectInfo, ObjectWriter
from ops_pipeline.services.backup.ordered_hash import OrderedHash
from ops_pipeline.services.backup.streams import (
    check_stream,
    open_object,
    read_object,
    read_stream,
    seal_object,
    write_stream,
)
from ops_pipeline_tests.fakes.object_store import Faults, InMemoryObjectStore, Killed
from ops_pipeline_tests.fakes.sealing import FakeSealing

KEY = "sets/prod/parts/listings.dump.sealed"
FRAME = 64
AROUND_FRAMES = st.sampled_from([0, 1, 2, 3, 7]).flatmap(
    lambda frames: st.integers(-2, 2).map(lambda more: max(frames * FRAME + more, 0))
)


def content(size: int) -> bytes:
    return hashlib.shake_256(b"content").digest(size)


def in_pieces(data: bytes, sizes: list[int]) -> Callable[[int], bytes]:
    """A read that gives pieces of these sizes in turn, as pipes and sockets do."""
    source, turn = io.BytesIO(data), iter(sizes * (len(data) + 1))
    return lambda size: source.read(min(size, next(turn)))


def write(
    store: InMemoryObjectStore, data: bytes, *, key: str = KEY, sealing: FakeSealing | None = None, workers: int = 2
) -> StoredStream:
    return write_stream(
        store,
        sealing or FakeSealing(),
        key,
        "set/listings/dump",
        io.BytesIO(data).read,
        workers=workers,
        frame_bytes=FRAME,
    )


# ------------------------------------------------------------------------------------------------ round trips


@settings(max_examples=60)
@given(AROUND_FRAMES, st.booleans(), st.integers(1, 5), st.lists(st.integers(1, 3 * FRAME), min_size=1, max_size=4))
def test_a_stream_comes_back_and_its_record_tells_the_truth(
    size: int, compress: bool, workers: int, pieces: list[int]
) -> None:
    data, store, sealing = content(size // 2) + b"a" * (size - size // 2), InMemoryObjectStore(), FakeSealing()
    heard: list[int] = []
    stream = write_stream(
        store,
        sealing,
        KEY,
        "set/listings/dump",
        in_pieces(data, pieces),
        compress=compress,
        workers=workers,
        on_bytes=heard.append,
        frame_bytes=FRAME,
    )
    stored = store.objects[KEY]
    assert (stream.key, stream.identity, stream.codec) == (KEY, "set/listings/dump", "zstd" if compress else "none")
    assert (stream.plain_size, stream.plain_sha256) == (size, hashlib.sha256(data).hexdigest())
    assert (stream.stored_size, stream.stored_sha256) == (len(stored), hashlib.sha256(stored).hexdigest())
    assert tuple(block.plain_size for block in stream.blocks) == frame_plain_bytes(size, FRAME)
    at = 0
    for block in stream.blocks:
        assert hashlib.sha256(stored[at : at + block.size]).hexdigest() == block.sha256
        at += block.size
    assert at == len(stored) and sum(heard) == size

    given_out: list[int] = []
    assert b"".join(read_stream(store, sealing, stream, workers=workers, on_bytes=given_out.append)) == data
    assert sum(given_out) == size
    assert b"".join(read_object(store, sealing, KEY, stream.identity)) == data
    assert open_object(sealing, stream.identity, stored) == data
    assert check_stream(store, stream, workers=workers) == len(stored)


@settings(max_examples=40)
@given(AROUND_FRAMES, st.booleans())
def test_an_object_comes_back_whole_or_frame_by_frame(size: int, compress: bool) -> None:
    data, store, sealing = content(size), InMemoryObjectStore(shows_puts=True), FakeSealing()
    stored = seal_object(sealing, "media/ab", data, compress, frame_bytes=FRAME)
    store.put("media/ab", stored)
    assert open_object(sealing, "media/ab", stored) == data
    pieces = list(
        read_object(
            store,
            sealing,
            "media/ab",
            "media/ab",
            stored_size=len(stored),
            stored_sha256=hashlib.sha256(stored).hexdigest(),
        )
    )
    assert b"".join(pieces) == data and max(map(len, pieces), default=0) <= FRAME


def test_frames_of_the_usual_size() -> None:
    data, store, sealing = content(100_000) * 180, InMemoryObjectStore(), FakeSealing()
    stream = write_stream(store, sealing, KEY, "i", io.BytesIO(data).read, workers=2)
    assert len(stream.blocks) == 3
    assert b"".join(read_stream(store, sealing, stream, workers=2)) == data


@settings(max_examples=30)
@given(st.permutations(range(12)))
def test_pieces_may_come_in_any_order(order: list[int]) -> None:
    pieces = [bytes([number]) * (number + 1) for number in range(12)]
    ordered, done = OrderedHash(), []
    for index in order:
        ordered.feed(index, pieces[index], lambda index=index: done.append(index))
    assert done == list(range(12))
    assert ordered.hexdigest() == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_pieces_may_come_from_many_threads() -> None:
    pieces = [content(5000 + number) for number in range(200)]
    ordered = OrderedHash()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda index: ordered.feed(index, pieces[index]), reversed(range(200))))
    assert ordered.hexdigest() == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_two_streams_of_one_content_have_nothing_in_common() -> None:
    store = InMemoryObjectStore()
    sealing = FakeSealing()
    one = write(store, b"a" * 500, key="a", sealing=sealing)
    other = write(store, b"a" * 500, key="b", sealing=sealing)
    assert {block.sha256 for block in one.blocks}.isdisjoint(block.sha256 for block in other.blocks)


# ------------------------------------------------------------------------------------------------ what goes wrong


def threads() -> set[str]:
    return {one.name for one in threading.enumerate() if one.name.startswith(("seal", "open"))}


@pytest.mark.parametrize("kind", [Permanent, Transient, KeyboardInterrupt, Killed])
@pytest.mark.parametrize("after", [0, 1, FRAME, 5 * FRAME + 3])
def test_whatever_reading_raises_aborts_the_object_first(kind: type[BaseException], after: int) -> None:
    store, source = InMemoryObjectStore(), io.BytesIO(content(after))

    def read(size: int) -> bytes:
        data = source.read(size)
        if not data:
            raise kind("pg_dump ended with code 1")
        return data

    with pytest.raises(kind, match="code 1"):
        write_stream(store, FakeSealing(), KEY, "i", read, workers=3, frame_bytes=FRAME)
    assert not store.objects and not store.unfinished and not threads()


@pytest.mark.parametrize("error", [Transient("503"), Permanent("disk full"), Killed("gone")])
@pytest.mark.parametrize("operation", ["begin", "block", "commit"])
def test_whatever_the_store_raises_is_passed_on_and_leaves_nothing(error: BaseException, operation: str) -> None:
    def fail(asked: str, key: str) -> None:
        if asked == operation:
            raise error

    store = InMemoryObjectStore(before=fail)
    with pytest.raises(type(error)):
        write(store, content(20 * FRAME))
    store.before = lambda operation, key: None
    assert not store.objects and not store.unfinished and not threads()


def test_killed_at_any_call_nothing_shows_and_a_repetition_succeeds() -> None:
    data = content(6 * FRAME + 5)
    calls = Faults()
    write(InMemoryObjectStore(before=calls), data)
    for number in range(1, len(calls.calls) + 1):
        for moment in ("before", "after"):
            faults = Faults().kill_at(number)
            store = InMemoryObjectStore(**{moment: faults})
            with pytest.raises(Killed):
                write(store, data)
            committed = moment == "after" and faults.calls[number - 1][0] == "commit"
            assert list(store.objects) == ([KEY] if committed else [])
            store.before = store.after = lambda operation, key: None
            store.lose_power()
            stream = write(store, data, key="sets/prod/again/listings.dump.sealed")
            assert b"".join(read_stream(store, FakeSealing(), stream)) == data


def test_a_full_disk_is_told_and_leaves_no_bytes() -> None:
    store = InMemoryObjectStore(capacity=400)
    with pytest.raises(Permanent, match="No space left"):
        write(store, content(100 * FRAME))
    assert not store.objects and not store.unfinished


def test_a_key_that_is_taken_stays_as_it_is() -> None:
    store = InMemoryObjectStore()
    write(store, b"first")
    before = store.objects
    with pytest.raises(Conflict):
        write(store, b"second")
    assert store.objects == before


def test_a_store_that_keeps_less_than_it_was_given_is_found_out() -> None:
    class Lossy(InMemoryObjectStore):
        def finish(self, key: str, data: bytes) -> ObjectInfo:
            return super().finish(key, data[:-1])

    with pytest.raises(StoreDamaged, match="were kept of"):
        write(Lossy(), content(300))


def test_what_listens_to_progress_may_stop_everything() -> None:
    store = InMemoryObjectStore()

    def listen(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_stream(store, FakeSealing(), KEY, "i", io.BytesIO(content(900)).read, on_bytes=listen, frame_bytes=FRAME)
    assert not store.objects and not store.unfinished and not threads()


def test_a_reader_that_stops_early_leaves_no_thread() -> None:
    store = InMemoryObjectStore()
    stream = write(store, content(50 * FRAME))
    chunks = read_stream(store, FakeSealing(), stream)
    assert len(next(chunks)) == FRAME
    chunks.close()  # type: ignore[attr-defined] - a generator, as every caller's «for» closes it
    assert not threads()


@pytest.mark.parametrize("at", [0, 1, 30, 49])
def test_what_the_store_raises_while_reading_is_passed_on(at: int) -> None:
    store = InMemoryObjectStore()
    stream = write(store, content(50 * FRAME))
    calls = iter(range(1000))

    def fail(operation: str, key: str) -> None:
        if next(calls) == at:
            raise Transient("503")

    store.before = fail
    with pytest.raises(Transient):
        list(read_stream(store, FakeSealing(), stream, workers=3))
    calls = iter(range(1000))
    with pytest.raises(Transient):
        check_stream(store, stream, workers=3)
    assert not threads()


def test_without_an_identity_a_stream_is_checked_but_not_read() -> None:
    store = InMemoryObjectStore()
    stream = write(store, content(500))
    check_stream(store, stream)
    with pytest.raises(PolicyRefused):
        list(read_stream(store, FakeSealing(identity=False), stream))


def test_a_share_of_the_blocks_is_checked_and_no_more_is_read() -> None:
    store = InMemoryObjectStore()
    stream = write(store, content(10 * FRAME))
    calls = Faults()
    store.before = calls
    heard: list[int] = []
    assert check_stream(store, stream, [7, 2, 2], heard.append) == stream.blocks[2].size + stream.blocks[7].size
    assert [operation for operation, _ in calls.calls] == ["stat", "get", "get"]
    assert heard == [stream.blocks[2].size, stream.blocks[7].size]
    assert check_stream(store, stream, []) == 0
    with pytest.raises(ValueError, match="10 blocks"):
        check_stream(store, stream, [10])


@pytest.mark.parametrize(
    "blocks",
    [(), (Block(0, "", 0),), (Block(5, "", -1), Block(5, "", 1)), (Block(2**40, "", 1),)],
)
def test_a_list_of_blocks_that_does_not_add_up_is_refused_unread(blocks: tuple[Block, ...]) -> None:
    size, plain = sum(block.size for block in blocks), sum(block.plain_size for block in blocks)
    stream = StoredStream(KEY, "i", "zstd", plain, "", size, "", blocks, "wrapped-00")
    for look in (
        lambda: list(read_stream(InMemoryObjectStore(), FakeSealing(), stream)),
        lambda: check_stream(InMemoryObjectStore(), stream),
    ):
        with pytest.raises(StoreDamaged, match="does not add up"):
            look()


# ------------------------------------------------------------------------------------------------ flat in memory


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_at_most_two_frames_more_than_workers_are_alive(workers: int) -> None:
    """Frames read and not yet stored, with a store so slow that reading would run ahead for ever."""
    store, lock = InMemoryObjectStore(), threading.Lock()
    read_frames = stored_frames = most = 0
    source = io.BytesIO(content(60 * FRAME))

    def read(size: int) -> bytes:
        nonlocal read_frames, most
        with lock:
            read_frames += 1
            most = max(most, read_frames - stored_frames)
        return source.read(size)

    class Slow(ObjectWriter):
        def __init__(self) -> None:
            self._inner = store.begin(KEY)

        def block(self, index: int, data: bytes) -> None:
            nonlocal stored_frames
            # Until reading has gone as far as it may: it is held back, or everything is read.
            paused.wait(0.002)
            self._inner.block(index, data)
            with lock:
                stored_frames += 1

        def commit(self, count: int) -> ObjectInfo:
            return self._inner.commit(count)

        def abort(self) -> None:
            self._inner.abort()

    class SlowStore(InMemoryObjectStore):
        def begin(self, key: str) -> ObjectWriter:
            return Slow()

    paused = threading.Event()
    write_stream(SlowStore(), FakeSealing(), KEY, "i", read, workers=workers, frame_bytes=FRAME)
    # The read that finds the end holds no frame, but was counted; and a frame is counted stored only after it is.
    assert most <= workers + 2
