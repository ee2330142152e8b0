"""The walker of Redis's RDB: it sees every cut and every changed byte, whatever pieces the stream comes in."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops_pipeline.adapters.databases.redis_end import RdbEnd, crc64
from ops_pipeline.adapters.databases.redis_rdb import RdbWalker
from ops_pipeline.adapters.databases.redis_strings import unpacked
from ops_pipeline.errors import StoreDamaged

MARK = b"4329ec4842141669b46965e0a0b18b8be13129a9"


def length(number: int) -> bytes:
    if number < 64:
        return bytes([number])
    if number < 16384:
        return bytes([0x40 | number >> 8, number & 0xFF])
    return b"\x80" + struct.pack(">I", number) if number < 2**32 else b"\x81" + struct.pack(">Q", number)


def string(data: bytes) -> bytes:
    return length(len(data)) + data


def strings(*items: bytes) -> bytes:
    return b"".join(map(string, items))


STREAM = (
    length(1) + strings(b"k" * 16, b"listpack") + b"".join(map(length, (1, 5, 0, 5, 0, 0, 0, 1)))
    + length(1) + string(b"group") + b"".join(map(length, (5, 0, 1)))
    + length(1) + b"i" * 16 + b"t" * 8 + length(1)
    + length(1) + string(b"consumer") + b"s" * 8 + length(1) + b"i" * 16
)  # fmt: skip
RECORDS = {
    "note": b"\xfa" + strings(b"redis-ver", b"7.0.15"),
    "number as note": b"\xfa" + string(b"redis-bits") + b"\xc0\x40",
    "functions": b"\xf5" + string(b"#!lua name=mine\nreturn"),
    "database": b"\xfe" + length(3) + b"\xfb" + length(9) + length(2),
    "string": b"\x00" + strings(b"a", b"x" * 5000),
    "number": b"\x00" + string(b"n") + b"\xc1\x10\x27",
    "compressed": b"\x00" + string(b"z") + b"\xc3" + length(5) + length(10) + b"\x00a\xe0\x00\x00",
    "expiring": b"\xfc" + b"\x01" * 8 + b"\xf8" + length(70) + b"\x00" + strings(b"e", b"1"),
    "often used": b"\xfd" + b"\x01" * 4 + b"\xf9\x05" + b"\x00" + strings(b"f", b"1"),
    "list": b"\x12" + string(b"l") + length(2) + length(2) + string(b"pack") + length(1) + string(b"plain"),
    "set": b"\x02" + string(b"s") + length(3) + strings(b"1", b"22", b"333"),
    "sorted set": b"\x05" + string(b"zs") + length(1) + string(b"m") + b"\x00" * 8,
    "old sorted set": b"\x03" + string(b"zo") + length(2) + string(b"m") + b"\x011" + string(b"i") + b"\xfe",
    "hash": b"\x04" + string(b"h") + length(1) + strings(b"f", b"v"),
    "packed hash": b"\x10" + strings(b"hp", b"listpack"),
    "stream": b"\x13" + string(b"st") + STREAM,
    "module": b"\x07" + string(b"mo") + b"\x81" + b"\x01" * 8 + b"\x02\x05\x03" + b"\x00" * 4
    + b"\x05" + string(b"t") + b"\x00",
}  # fmt: skip


def rdb(*records: bytes, checksum: bool = True) -> bytes:
    body = b"REDIS0010" + b"".join(records) + b"\xff"
    return body + (struct.pack("<Q", crc64(body)) if checksum else bytes(8))


def walked(data: bytes, pieces: int = 1 << 20) -> tuple[RdbWalker, bytes]:
    end, walker, out = RdbEnd("it"), RdbWalker("it"), b""
    for at in range(0, len(data), pieces):
        passed = end.feed(data[at : at + pieces])
        walker.feed(passed)
        out += passed
    passed = end.finish()
    walker.feed(passed)
    walker.finish()
    return walker, out + passed


WHOLE = rdb(*RECORDS.values())


def test_the_checksum_is_the_one_redis_publishes() -> None:
    assert crc64(b"123456789") == 0xE9C6D914C4B8D9CA  # src/crc64.c
    assert crc64(b"56789", crc64(b"1234")) == crc64(b"123456789")


@pytest.mark.parametrize("mark", [b"", MARK], ids=["from disk", "diskless"])
@pytest.mark.parametrize("checksum", [True, False], ids=["checksum", "no checksum"])
@pytest.mark.parametrize("pieces", [1, 2, 7, 4096, 1 << 20])
def test_every_record_is_stepped_over_in_any_pieces(mark: bytes, checksum: bool, pieces: int) -> None:
    data = rdb(*RECORDS.values(), checksum=checksum)
    walker, out = walked(data + mark, pieces)
    assert (out, walker.unknown, walker.version) == (data, "", 10)
    found = walker.contents()
    assert found is not None
    assert found.counts == {
        "db3": 13, "db3 hash": 2, "db3 list": 1, "db3 module": 1, "db3 set": 1, "db3 stream": 1, "db3 string": 5,
        "db3 zset": 2, "db3 with expiry": 2,
    }  # fmt: skip
    assert set(found.objects) == {"function library mine"}


def test_every_cut_is_seen() -> None:
    for mark in (b"", MARK):
        for keep in range(len(WHOLE) + len(mark)):
            if keep != len(WHOLE):
                with pytest.raises(StoreDamaged):
                    walked((WHOLE + mark)[:keep])


def test_every_cut_at_a_record_is_seen_without_a_checksum() -> None:
    whole = rdb(*RECORDS.values(), checksum=False)
    at = 9
    for record in RECORDS.values():
        for cut in (at, at + 1, at + len(record) // 2, at + len(record) - 1):
            with pytest.raises(StoreDamaged):
                walked(whole[:cut])
        at += len(record)


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_every_changed_byte_is_seen(at: int, change: int) -> None:
    data = bytearray(WHOLE)
    data[at] ^= change
    with pytest.raises(StoreDamaged):
        walked(bytes(data))


def test_what_is_kept_in_no_order_compares_equal_in_any() -> None:
    def sample(*members: bytes) -> object:
        walker, _ = walked(rdb(b"\x02" + string(b"s") + length(len(members)) + strings(*members)))
        found = walker.contents()
        return found and found.samples

    assert sample(b"1", b"22") == sample(b"22", b"1") != sample(b"22", b"2")


def test_a_mark_of_our_own_is_no_content() -> None:
    walker, _ = walked(rdb(b"\xf5" + string(b"#!lua name=ops_mark_tok1\nreturn")))
    found = walker.contents()
    assert found is not None and found.objects == {}


def test_a_newer_redis_is_not_counted_but_its_end_is_proved() -> None:
    record = b"\x19" + string(b"k") + b"\x00" * 20
    walker, out = walked(rdb(RECORDS["string"], record))
    assert walker.unknown == "records of type 25"
    assert walker.contents() is None
    assert out == rdb(RECORDS["string"], record)
    with pytest.raises(StoreDamaged):
        walked(rdb(RECORDS["string"], record)[:-1])


def test_compressed_text_is_unpacked_and_nonsense_is_not() -> None:
    assert unpacked(b"\x00a\xe0\x00\x00", 10) == b"a" * 10
    for bad in (b"\xe0\x00\x05", b"\x20", b"\x00a\xe0\x00\x01"):
        with pytest.raises((ValueError, IndexError)):
            unpacked(bad, 10)


def test_a_long_value_is_stepped_over_without_being_kept() -> None:
    long = b"\x00" + string(b"long") + string(b"y" * 3_000_000)
    first, _ = walked(rdb(long), 100_000)
    second, _ = walked(rdb(long), 1 << 22)
    assert first.contents() == second.contents()
    assert len(first._data) < 2_000_000
