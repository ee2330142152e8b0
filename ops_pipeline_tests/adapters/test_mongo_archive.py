"""The walker of mongodump's archives and the BSON it needs: every cut, changed byte and missing collection is seen."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from fastcrc import crc64
from hypothesis import given, settings
from hypothesis import strategies as st

from ops_pipeline.adapters.databases.mongo_archive import MAGIC, TERMINATOR, ArchiveWalker
from ops_pipeline.adapters.databases.mongo_bson import BsonError, Raw, decode, encode
from ops_pipeline.errors import StoreDamaged


def long(number: int) -> Raw:
    return Raw(0x12, struct.pack("<Q", number))


def described(name: str, kind: str = "", metadata: Mapping[str, Any] | None = None) -> bytes:
    text = json.dumps(metadata or {"options": {}, "indexes": []})
    return encode({"db": "shop", "collection": name, "metadata": text, "size": 0, "type": kind})


def block(name: str, documents: Sequence[bytes]) -> bytes:
    return encode({"db": "shop", "collection": name, "EOF": False, "CRC": long(0)}) + b"".join(documents) + TERMINATOR


def ending(name: str, documents: Sequence[bytes]) -> bytes:
    crc = crc64.xz(b"".join(documents))
    return encode({"db": "shop", "collection": name, "EOF": True, "CRC": long(crc)}) + TERMINATOR


HOUSES = [encode({"_id": number, "t": "x" * number}) for number in range(30)]
LOG = [encode({"_id": "begin"})]
PIECES = [
    MAGIC + encode({"concurrent_collections": 4, "version": "0.1", "server_version": "7", "tool_version": "100"}),
    described("house", metadata={
        "options": {"capped": True, "uuid": "a"}, "indexes": [{"v": 2, "key": {"t": 1, "_id": -1}, "name": "tt"}],
    })
    + described("log") + described("seen", "view", {"options": {"viewOn": "house"}}) + described("none") + TERMINATOR,
    block("house", HOUSES[:10]),
    block("log", LOG),
    block("house", HOUSES[10:]),
    ending("log", LOG),
    ending("none", []),
    ending("house", HOUSES),
]  # fmt: skip
WHOLE = b"".join(PIECES)


def walked(data: bytes, pieces: int = 1 << 20) -> ArchiveWalker:
    walker = ArchiveWalker("it")
    for at in range(0, len(data), pieces):
        walker.feed(data[at : at + pieces])
    walker.finish()
    return walker


@pytest.mark.parametrize("pieces", [1, 3, 4, 5, 1000, 1 << 20])
def test_collections_are_counted_in_any_pieces(pieces: int) -> None:
    found = walked(WHOLE, pieces).contents("shop")
    assert found.counts == {"house": 30, "log": 1, "none": 0}
    assert found.objects == {
        "collection house": '{"capped": true}', "collection log": "{}", "collection none": "{}",
        "view seen": '{"viewOn": "house"}', "index house tt": '{"key": [["t", 1], ["_id", -1]], "name": "tt"}',
    }  # fmt: skip
    assert found == walked(WHOLE).contents("shop")
    assert walked(WHOLE).contents("shop", "lo").counts == {"g": 1}
    assert walked(WHOLE).contents("other").counts == {}


def test_the_order_of_documents_does_not_matter_for_samples() -> None:
    turned = [*PIECES[:2], block("house", HOUSES[::-1]), PIECES[3], *PIECES[5:7], ending("house", HOUSES[::-1])]
    assert walked(b"".join(turned)).contents("shop") == walked(WHOLE).contents("shop")


def test_every_cut_is_seen() -> None:
    for keep in range(len(WHOLE)):
        with pytest.raises(StoreDamaged):
            walked(WHOLE[:keep])


@pytest.mark.parametrize("missing", range(len(PIECES)))
def test_every_missing_piece_is_seen(missing: int) -> None:
    with pytest.raises(StoreDamaged):
        walked(b"".join(PIECES[:missing] + PIECES[missing + 1 :]))


@pytest.mark.parametrize("twice", range(len(PIECES)))
def test_every_repeated_piece_is_seen(twice: int) -> None:
    with pytest.raises(StoreDamaged):
        walked(b"".join(PIECES[: twice + 1] + PIECES[twice:]))


@given(st.integers(len(PIECES[0]) + len(PIECES[1]), len(WHOLE) - 1), st.integers(1, 255))
def test_every_changed_byte_of_the_data_is_seen_or_changes_nothing(at: int, change: int) -> None:
    data = bytearray(WHOLE)
    data[at] ^= change
    try:
        found = walked(bytes(data)).contents("shop")
    except StoreDamaged:
        return
    # A byte of a block's own header that means nothing, like the zero that stands for its CRC.
    assert found == walked(WHOLE).contents("shop")


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"), max_size=9) | st.binary(max_size=9)
    | st.builds(Raw, st.just(0x07), st.binary(min_size=12, max_size=12)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=4)


@settings(max_examples=50)
@given(DOCUMENTS)
def test_documents_come_back_as_they_went(document: dict[str, Any]) -> None:
    assert decode(encode(document)) == document


@settings(max_examples=50)
@given(DOCUMENTS, st.data())
def test_cut_and_foreign_bytes_are_no_documents(document: dict[str, Any], data: st.DataObject) -> None:
    whole = encode(document)
    keep = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(BsonError):
        decode(whole[:keep])
    noise = data.draw(st.binary(max_size=60))
    with contextlib.suppress(BsonError):
        decode(noise)
