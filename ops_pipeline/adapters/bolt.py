"""Writes a bbolt file, the format of Trivy's database, without Go.

Only what a reader needs: a file that never changes after it is written. Layout: two meta pages, an empty free
list, one leaf page (with overflow) per bucket that has sub-buckets or is at the top. Buckets without sub-buckets
below those are stored inline in their parent, as bbolt itself does with small ones. There are no branch pages,
so a bucket holds at most 65,535 entries.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import TypeAlias

Bucket: TypeAlias = Mapping[str, "bytes | Bucket"]
"""Entries of a bucket by key: a value, or a bucket inside."""

PAGE = 4096
_MAGIC, _VERSION = 0xED0CDAED, 2
_LEAF, _META, _FREELIST = 0x02, 0x04, 0x10
_BUCKET_ENTRY = 0x01
_PAGE_HEADER = struct.Struct("<QHHI")  # id, flags, count, overflow pages
_ENTRY = struct.Struct("<IIII")  # flags, offset from this entry to its key, key size, value size
_BUCKET = struct.Struct("<QQ")  # root page (0 = inline), sequence
_META_BODY = struct.Struct("<IIIIQQQQQ")  # magic, version, page size, flags, root, sequence, freelist, end, txid
_MAX_ENTRIES = 0xFFFF


def encode(root: Bucket) -> bytes:
    """Given the buckets of a database, return the whole file. Raise ValueError when a bucket has too many entries."""
    pages: list[bytes] = []  # each a whole number of pages, the first at page 3

    def place(bucket: Bucket) -> int:
        body = _leaf_body(bucket, inline_value)
        number = 3 + sum(len(page) // PAGE for page in pages)
        overflow = (_PAGE_HEADER.size + len(body) + PAGE - 1) // PAGE - 1
        page = _PAGE_HEADER.pack(number, _LEAF, len(bucket), overflow) + body
        pages.append(page.ljust((overflow + 1) * PAGE, b"\0"))
        return number

    def inline_value(bucket: Bucket) -> bytes:
        if any(not isinstance(value, bytes) for value in bucket.values()):
            return _BUCKET.pack(place(bucket), 0)
        body = _leaf_body(bucket, inline_value)
        return _BUCKET.pack(0, 0) + _PAGE_HEADER.pack(0, _LEAF, len(bucket), 0) + body

    # A top bucket always has its own page: inline ones are meant to be small.
    tops: dict[str, bytes] = {}
    for name, bucket in root.items():
        if isinstance(bucket, bytes):
            raise ValueError(f"{name}: the top level of a bbolt file holds buckets only")
        tops[name] = _BUCKET.pack(place(bucket), 0)
    body = _entries([(name.encode(), _BUCKET_ENTRY, value) for name, value in tops.items()])
    root_number = 3 + sum(len(page) // PAGE for page in pages)
    overflow = (_PAGE_HEADER.size + len(body) + PAGE - 1) // PAGE - 1
    pages.append(
        (_PAGE_HEADER.pack(root_number, _LEAF, len(tops), overflow) + body).ljust((overflow + 1) * PAGE, b"\0")
    )
    end = root_number + overflow + 1
    metas = b"".join(_meta_page(number, root_number, end) for number in (0, 1))
    freelist = _PAGE_HEADER.pack(2, _FREELIST, 0, 0).ljust(PAGE, b"\0")
    return metas + freelist + b"".join(pages)


def _leaf_body(bucket: Bucket, bucket_value: Callable[[Bucket], bytes]) -> bytes:
    return _entries(
        [
            (key.encode(), 0, value) if isinstance(value, bytes) else (key.encode(), _BUCKET_ENTRY, bucket_value(value))
            for key, value in bucket.items()
        ]
    )


def _entries(entries: list[tuple[bytes, int, bytes]]) -> bytes:
    if len(entries) > _MAX_ENTRIES:
        raise ValueError(f"a bucket has {len(entries)} entries, more than {_MAX_ENTRIES}")
    heads, data = bytearray(), bytearray()
    for position, (key, flags, value) in enumerate(sorted(entries)):
        offset = (len(entries) - position) * _ENTRY.size + len(data)
        heads += _ENTRY.pack(flags, offset, len(key), len(value))
        data += key + value
    return bytes(heads + data)


def _meta_page(number: int, root: int, end: int) -> bytes:
    body = _META_BODY.pack(_MAGIC, _VERSION, PAGE, 0, root, 0, 2, end, number)
    checksum = struct.pack("<Q", _fnv1a(body))
    return (_PAGE_HEADER.pack(number, _META, 0, 0) + body + checksum).ljust(PAGE, b"\0")


def _fnv1a(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value
