"""What every Sealing promises: one suite for the real one and for the one without secrecy that other tests use."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ops_pipeline.core.backup.frames import MAX_FRAME_STORED, PREFIX_BYTES, parse_frame_prefix
from ops_pipeline.core.backup.records import FRAME_BYTES
from ops_pipeline.errors import StoreDamaged
from ops_pipeline.ports import Sealing
from ops_pipeline_tests.fakes.sealing import FakeSealing
from ops_pipeline_tests.testbed.keys import Keys

SAME_FIXTURE = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
CONTENTS = st.binary(max_size=300) | st.integers(0, 3000).map(lambda size: b"row " * size)


@pytest.fixture(params=["real", "fake"])
def sealing(request: pytest.FixtureRequest, tmp_path: Path) -> Sealing:
    return Keys(tmp_path).sealing() if request.param == "real" else FakeSealing()


@SAME_FIXTURE
@given(plain=CONTENTS, index=st.integers(0, 2**32), last=st.booleans(), compress=st.booleans())
def test_a_frame_opens_with_the_unwrapped_key(
    sealing: Sealing, plain: bytes, index: int, last: bool, compress: bool
) -> None:
    key = sealing.new_key()
    sealed = sealing.seal(key, "place", index, last, plain, compress=compress)
    assert sealing.open(sealing.unwrap(key.wrapped), "place", index, last, sealed) == plain
    assert parse_frame_prefix(sealed)[1] == len(sealed) - PREFIX_BYTES
    assert compress or parse_frame_prefix(sealed)[0] == "none"


@SAME_FIXTURE
@given(
    other=st.sampled_from(["identity", "index", "last", "key", "bit", "cut", "longer"]),
    plain=CONTENTS,
    compress=st.booleans(),
    where=st.floats(0, 1, exclude_max=True),
)
def test_a_frame_opens_only_as_it_was_sealed(
    sealing: Sealing, other: str, plain: bytes, compress: bool, where: float
) -> None:
    key = sealing.new_key()
    sealed = sealing.seal(key, "place", 3, False, plain, compress=compress)
    changed = bytearray(sealed)
    at = int(where * len(sealed))
    changed[at] ^= 0x10
    forged = {"bit": bytes(changed), "cut": sealed[:at], "longer": sealed + b"\0"}.get(other, sealed)
    with pytest.raises(StoreDamaged, match="frame"):
        sealing.open(
            sealing.new_key() if other == "key" else key,
            "elsewhere" if other == "identity" else "place",
            4 if other == "index" else 3,
            other == "last",
            forged,
        )


def test_no_frame_is_ever_longer_than_a_frame_and_its_envelope(sealing: Sealing) -> None:
    plain = hashlib.shake_256(b"seed").digest(FRAME_BYTES)
    for compress in (True, False):
        sealed = sealing.seal(sealing.new_key(), "place", 0, True, plain, compress=compress)
        assert len(sealed) <= MAX_FRAME_STORED


def test_every_object_has_a_key_of_its_own(sealing: Sealing) -> None:
    keys = [sealing.new_key() for _ in range(20)]
    assert len({key.secret for key in keys}) == len({key.wrapped for key in keys}) == 20
    assert {sealing.unwrap(key.wrapped).secret for key in keys} == {key.secret for key in keys}
    assert keys[0].secret.hex() not in repr(keys[0]) and keys[0].wrapped not in repr(keys[0])


def test_addresses_are_stable_and_tell_nothing(sealing: Sealing) -> None:
    plain = hashlib.sha256(b"photo").hexdigest()
    assert sealing.address(plain) == sealing.address(plain)
    assert len(sealing.address(plain)) == 64 and sealing.address(plain) != plain
    assert sealing.address(plain) != sealing.address(hashlib.sha256(b"other").hexdigest())


def test_own_caches_open_for_their_purpose_only(sealing: Sealing) -> None:
    sealed = sealing.seal_own(b"cache" * 100, "files/prod/photos")
    assert sealing.open_own(sealed, "files/prod/photos") == b"cache" * 100
    assert sealing.open_own(sealing.seal_own(b"", "x"), "x") == b""
    for damaged in (sealed[:-1], sealed[1:], sealed + b"\0", b"", sealed[:20] + b"\xff" + sealed[21:]):
        with pytest.raises(StoreDamaged, match="files/prod/photos"):
            sealing.open_own(damaged, "files/prod/photos")
    with pytest.raises(StoreDamaged, match="files/prod/other"):
        sealing.open_own(sealed, "files/prod/other")


def test_a_signature_holds_for_its_data_and_signer_only(sealing: Sealing) -> None:
    signature = dict(sealing.sign(b"data"))
    sealing.check_signature(b"data", signature, "the manifest")
    for data, wrong in (
        (b"other", signature),
        (b"data", {**signature, "signature": signature["signature"][::-1]}),
        (b"data", {**signature, "key": "A" * 43 + "="}),
        (b"data", {"key": signature["key"]}),
        (b"data", {}),
        (b"data", {**signature, "more": ""}),
    ):
        with pytest.raises(StoreDamaged, match="the manifest"):
            sealing.check_signature(data, wrong, "the manifest")
