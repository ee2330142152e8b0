"""The layout of sealed objects: what is written parses, what is changed does not, no two frames share a nonce."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops_pipeline.core.backup.frames import (
    CODECS,
    MAX_HEADER_BYTES,
    MAX_WRAPPED_BYTES,
    PREFIX_BYTES,
    TAG_BYTES,
    Header,
    LayoutError,
    associated_data,
    bound_identity,
    frame_plain_bytes,
    frame_prefix,
    nonce,
    pack_wrapped,
    parse_frame_prefix,
    parse_header,
    unpack_wrapped,
)
from ops_pipeline.core.backup.records import FRAME_BYTES

HEADERS = st.builds(
    Header,
    codec=st.sampled_from(CODECS),
    frame_bytes=st.integers(1, FRAME_BYTES),
    wrapped_key=st.text(st.characters(max_codepoint=127), max_size=200),
)


@given(HEADERS, st.binary(max_size=50))
def test_a_header_parses_and_what_follows_it_does_not_matter(header: Header, rest: bytes) -> None:
    encoded = header.encode()
    assert parse_header(encoded + rest) == (header, len(encoded))
    assert len(encoded) <= MAX_HEADER_BYTES


@settings(max_examples=30)
@given(HEADERS, st.data())
def test_a_header_with_any_bit_changed_or_any_end_cut_off_is_refused(header: Header, data: st.DataObject) -> None:
    encoded = header.encode()
    at = data.draw(st.integers(0, len(encoded) - 1))
    changed = bytearray(encoded)
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    for damaged in (bytes(changed), encoded[:at], bytes(changed) + encoded):
        with pytest.raises(LayoutError):
            parse_header(damaged)


@pytest.mark.parametrize(
    "header",
    [
        Header("lz4", 8, "key"),
        Header("zstd", 0, "key"),
        Header("zstd", FRAME_BYTES + 1, "key"),
        Header("zstd", 8, "k" * (MAX_WRAPPED_BYTES + 1)),
    ],
)
def test_a_header_holds_no_value_that_could_not_be_read(header: Header) -> None:
    with pytest.raises(LayoutError):
        header.encode()


PLACES = st.tuples(st.integers(0, 2**40 - 1), st.booleans())


@given(PLACES, PLACES)
def test_two_frames_of_an_object_never_share_a_nonce(one: tuple[int, bool], other: tuple[int, bool]) -> None:
    assert (nonce(*one) == nonce(*other)) == (one == other)
    assert len(nonce(*one)) == 12


SEALED_AS = st.tuples(st.text(max_size=20), st.integers(0, 2**40), st.booleans(), st.sampled_from(CODECS))


@given(SEALED_AS, SEALED_AS)
def test_associated_data_tell_everything_apart(
    one: tuple[str, int, bool, str], other: tuple[str, int, bool, str]
) -> None:
    assert (associated_data(*one) == associated_data(*other)) == (one == other)


def test_the_identity_of_frames_is_their_objects_and_its_headers() -> None:
    one, other = Header("zstd", 8, "key").encode(), Header("zstd", 9, "key").encode()
    assert len({bound_identity("a", one), bound_identity("b", one), bound_identity("a", other)}) == 3


@given(st.sampled_from(CODECS), st.integers(TAG_BYTES, FRAME_BYTES + TAG_BYTES))
def test_a_frame_tells_codec_and_length(codec: str, length: int) -> None:
    assert parse_frame_prefix(frame_prefix(codec, length) + b"more") == (codec, length)


@pytest.mark.parametrize(
    "data", [b"", b"\x00" * (PREFIX_BYTES - 1), b"\x02\0\0\0\x20", b"\0\0\0\0\x0f", b"\0\xff\0\0\0"]
)
def test_a_length_that_cannot_be_is_refused_before_anything_is_read(data: bytes) -> None:
    with pytest.raises(LayoutError):
        parse_frame_prefix(data)


@given(st.integers(0, 10_000), st.integers(1, 100))
def test_frames_add_up_and_only_the_last_is_short(size: int, frame_bytes: int) -> None:
    frames = frame_plain_bytes(size, frame_bytes)
    assert sum(frames) == size and frames
    assert set(frames[:-1]) <= {frame_bytes} and (0 < frames[-1] <= frame_bytes or frames == (0,))


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=1, max_size=300))
def test_a_wrapped_key_is_text_and_comes_back(salt: bytes, age_file: bytes) -> None:
    assert unpack_wrapped(pack_wrapped(salt, age_file)) == (salt, age_file)


@pytest.mark.parametrize("wrapped", ["", "====", "no base64!", "AAAA", "A" * 40, "QUFB\n"])
def test_a_wrapped_key_that_is_none_is_refused(wrapped: str) -> None:
    with pytest.raises(LayoutError):
        unpack_wrapped(wrapped)
