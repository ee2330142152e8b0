"""Bytes written past the page cache are the bytes that are read, wherever pieces begin and end."""

from __future__ import annotations

import os
import random
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ops_pipeline.adapters.bulk_writing import BLOCK_BYTES, BUFFER_BYTES, BULK_FROM, BulkFile

_NEAR = [0, 1, BLOCK_BYTES, BULK_FROM, BULK_FROM + BLOCK_BYTES, BUFFER_BYTES]
SIZES = st.builds(lambda near, by: max(near + by, 0), st.sampled_from(_NEAR), st.integers(-BLOCK_BYTES, BLOCK_BYTES))


@settings(max_examples=25)
@given(sizes=st.lists(SIZES, min_size=1, max_size=8), again=st.booleans(), seed=st.integers(0, 1000))
def test_pieces_side_by_side_in_any_order_from_many_threads(sizes: list[int], again: bool, seed: int) -> None:
    chance = random.Random(seed)
    pieces = [chance.randbytes(size) for size in sizes]
    places = [sum(sizes[:index]) for index in range(len(sizes))]
    with tempfile.TemporaryDirectory() as folder:
        name = f"{folder}/file"
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            bulk = BulkFile(name, descriptor)
            todo = list(zip(pieces, places, strict=True)) * (2 if again else 1)
            chance.shuffle(todo)
            if again:  # each range by one thread at a time
                for piece, place in todo:
                    bulk.write(piece, place)
            else:
                with ThreadPoolExecutor(4) as pool:
                    list(pool.map(lambda each: bulk.write(*each), todo))
            bulk.close()
            assert Path(name).read_bytes() == b"".join(pieces)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        assert Path(name).read_bytes() == b"".join(pieces)


def test_a_file_that_cannot_be_opened_twice_is_written_all_the_same(tmp_path: Path) -> None:
    data = os.urandom(BUFFER_BYTES)
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        BulkFile(str(tmp_path / "no such name"), descriptor).write(data, 3)
    finally:
        os.close(descriptor)
    assert (tmp_path / "file").read_bytes() == b"\0\0\0" + data
