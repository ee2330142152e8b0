"""What only the real sealing can show: keys on disk, who may open, bombs, who is trusted."""

from __future__ import annotations

import base64
import os
import resource
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ops_pipeline.adapters.allocation import keep_freed_memory
from ops_pipeline.adapters.backup_keys import write_secret_file
from ops_pipeline.adapters.compression import Compression
from ops_pipeline.core.backup.frames import associated_data, frame_prefix, nonce, parse_frame_prefix, unpack_wrapped
from ops_pipeline.core.backup.records import FRAME_BYTES
from ops_pipeline.errors import BadInput, OpsError, Permanent, PolicyRefused, StoreDamaged
from ops_pipeline.services.backup.streams import seal_object
from ops_pipeline_tests.testbed.keys import Keys


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


# ------------------------------------------------------------------------------------------------ the signing key


def test_the_signing_key_is_made_once_for_its_owner_only_and_openssl_reads_it(keys: Keys) -> None:
    first = keys.sealing().sign(b"x")
    path = keys.root / "keys/signing"
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]
    assert dict(keys.sealing().sign(b"x")) == dict(first)
    shown = subprocess.run(["openssl", "pkey", "-in", str(path), "-pubout", "-outform", "DER"], capture_output=True)
    assert shown.returncode == 0 and base64.b64encode(shown.stdout[-32:]).decode() == first["key"]


def test_of_many_that_make_the_key_at_once_all_get_the_same(keys: Keys) -> None:
    start = threading.Barrier(8)

    def sign(_: int) -> str:
        sealing = keys.sealing()
        start.wait(timeout=60)
        return sealing.sign(b"x")["key"]

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(sign, range(8)))) == 1


def test_what_only_reads_makes_no_key(keys: Keys) -> None:
    (keys.root / "other").mkdir()
    signature = Keys(keys.root / "other").sealing().sign(b"x")
    reader = keys.sealing(trusted_signers=(signature["key"],))
    reader.check_signature(b"x", signature, "manifest")
    with pytest.raises(BadInput, match="signing"):
        keys.sealing().check_signature(b"x", signature, "manifest")
    assert not (keys.root / "keys").exists()


@pytest.mark.parametrize(
    "text", ["", "not a key\n", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"], ids=len
)
def test_a_signing_key_that_is_none_is_named_and_never_replaced(keys: Keys, text: str) -> None:
    (keys.root / "wrong").write_text(text)
    with pytest.raises(BadInput, match="file:wrong") as caught:
        keys.sealing(signing_key="file:wrong").new_key()
    assert "AAAA" not in str(caught.value) and "not a key" not in str(caught.value)
    assert (keys.root / "wrong").read_text() == text


def test_a_key_file_is_never_overwritten_and_an_unwritable_place_is_named(keys: Keys) -> None:
    assert write_secret_file(keys.root / "a", "one\n") is True
    assert write_secret_file(keys.root / "a", "two\n") is False
    assert (keys.root / "a").read_text() == "one\n"
    with pytest.raises(Permanent, match=r"cannot write the key file .*a/b"):
        write_secret_file(keys.root / "a" / "b", "text")


# ------------------------------------------------------------------------------------------------ who may open


def test_without_an_identity_everything_but_opening_works(keys: Keys) -> None:
    sealing = keys.sealing(identity=None)
    key = sealing.new_key()
    sealing.seal(key, "place", 0, True, b"data", compress=True)
    assert not sealing.can_open
    with pytest.raises(PolicyRefused, match="no identity"):
        keys.sealing(identity=None).unwrap(key.wrapped)
    assert keys.sealing().can_open and keys.sealing().unwrap(key.wrapped).secret == key.secret


def test_an_identity_that_is_named_but_not_here_is_none(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPS_TEST_IDENTITY", raising=False)
    assert not keys.sealing(identity="file:elsewhere").can_open
    assert not keys.sealing(identity="env:OPS_TEST_IDENTITY").can_open
    monkeypatch.setenv("OPS_TEST_IDENTITY", keys.identity.text)
    assert keys.sealing(identity="env:OPS_TEST_IDENTITY").can_open


def test_another_identity_is_refused_and_every_recipient_opens(keys: Keys) -> None:
    second, third = keys.new_identity("second"), keys.new_identity("third")
    sealing = keys.sealing(recipients=(keys.identity.recipient, second.recipient))
    assert sealing.recipients == (keys.identity.recipient, second.recipient)
    key = sealing.new_key()
    for name in ("identity", "second"):
        assert keys.sealing(identity=f"file:{name}").unwrap(key.wrapped).secret == key.secret
    with pytest.raises(PolicyRefused, match="other recipients"):
        keys.sealing(identity="file:third").unwrap(key.wrapped)
    # A file may hold several identities.
    (keys.root / "both").write_text(third.text + second.text)
    assert keys.sealing(identity="file:both").unwrap(key.wrapped).secret == key.secret


def test_a_wrapped_key_that_is_cut_or_changed_is_damage(keys: Keys) -> None:
    sealing = keys.sealing()
    wrapped = sealing.new_key().wrapped
    raw = base64.b64decode(wrapped)
    for damaged in (raw[:-1], raw[:60], raw[:33], raw[:-1] + bytes([raw[-1] ^ 1]), raw + b"\0"):
        with pytest.raises(StoreDamaged, match="wrapped key"):
            sealing.unwrap(base64.b64encode(damaged).decode())
    with pytest.raises(StoreDamaged, match="wrapped key"):
        sealing.unwrap(wrapped[:-3])


def test_thousands_of_small_objects_cost_one_wrap(keys: Keys) -> None:
    sealing = keys.sealing()
    age_files = {unpack_wrapped(sealing.new_key().wrapped)[1] for _ in range(3000)}
    assert len(age_files) == 1
    assert unpack_wrapped(keys.sealing().new_key().wrapped)[1] not in age_files  # another process, another run key


def test_the_wrapped_key_opens_with_age_alone(keys: Keys) -> None:
    import pyrage
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    key = keys.sealing().new_key()
    salt, age_file = unpack_wrapped(key.wrapped)
    identity = pyrage.x25519.Identity.from_str(keys.identity.text.splitlines()[-1])
    run_key = pyrage.decrypt(age_file, [identity])
    assert HKDF(SHA256(), 32, salt, b"ops-backup data key 1").derive(run_key) == key.secret


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"recipients": ("age1nonsense", "also wrong")}, ["age1nonsense", "also wrong"]),
        ({"recipients": ("AGE-SECRET-KEY-1QQQQ",)}, ["an identity"]),
        ({"trusted_signers": ("short", "%%%")}, ["short", "%%%"]),
        ({"identity": "file:keyless"}, ["file:keyless", "age identity file"]),
    ],
)
def test_keys_that_are_none_are_all_named(keys: Keys, change: dict[str, object], words: list[str]) -> None:
    (keys.root / "keyless").write_text("# a comment only\n")
    with pytest.raises(BadInput) as caught:
        keys.sealing(**change)  # type: ignore[arg-type]
    assert all(word in str(caught.value) for word in words)
    assert "QQQQ" not in str(caught.value)


def test_without_recipients_nothing_is_sealed(keys: Keys) -> None:
    with pytest.raises(BadInput, match="nobody could ever open"):
        keys.sealing(recipients=()).new_key()


# ------------------------------------------------------------------------------------------------ who is trusted


def test_only_listed_signers_count_and_the_own_key_must_be_listed(keys: Keys) -> None:
    mine = keys.sealing().sign(b"x")["key"]
    theirs = base64.b64encode(Ed25519PrivateKey.generate().public_key().public_bytes_raw()).decode()
    signature = keys.sealing(trusted_signers=(theirs, mine)).sign(b"x")
    keys.sealing(trusted_signers=(theirs, mine)).check_signature(b"x", signature, "manifest")
    stranger = keys.sealing(trusted_signers=(theirs,))
    with pytest.raises(StoreDamaged, match=r"manifest is not trusted: signature\.key"):
        stranger.check_signature(b"x", signature, "manifest")
    for act in (stranger.new_key, lambda: stranger.sign(b"x")):
        with pytest.raises(BadInput, match="does not list this machine's own key"):
            act()


def test_a_signature_has_one_spelling(keys: Keys) -> None:
    sealing = keys.sealing()
    signature = dict(sealing.sign(b"x"))
    text = signature["signature"]
    # The last letter before "==" carries four bits that decoding ignores.
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    twin = text[:-3] + letters[letters.index(text[-3]) ^ 1] + "=="
    assert base64.b64decode(twin) == base64.b64decode(text)
    with pytest.raises(StoreDamaged):
        sealing.check_signature(b"x", {**signature, "signature": twin}, "manifest")


# ------------------------------------------------------------------------------------------------ content


def test_what_does_not_shrink_is_stored_as_it_is(keys: Keys) -> None:
    sealing = keys.sealing()
    key = sealing.new_key()
    noise, rows = os.urandom(2 << 20), b"1234\tBerlin\t2026-11-20\n" * 90_000

    def codec(plain: bytes, compress: bool = True) -> str:
        return parse_frame_prefix(sealing.seal(key, "p", 0, True, plain, compress=compress))[0]

    assert codec(noise) == codec(noise[:1000]) == codec(b"") == codec(rows, compress=False) == "none"
    assert codec(rows) == codec(noise + rows) == codec(rows + noise) == "zstd"


def test_a_bomb_is_refused_before_it_grows(keys: Keys) -> None:
    # Recipients are public: anybody can seal, so what opens may still be hostile.
    sealing = keys.sealing()
    key = sealing.new_key()

    def sealed(body: bytes) -> bytes:
        ciphertext = AESGCM(key.secret).encrypt(nonce(0, True), body, associated_data("p", 0, True, "zstd"))
        return frame_prefix("zstd", len(ciphertext)) + ciphertext

    plain = b"\0" * FRAME_BYTES
    assert sealing.open(key, "p", 0, True, sealed(zstandard.ZstdCompressor().compress(plain))) == plain
    endless = zstandard.ZstdCompressor(write_content_size=False).compress(b"\0" * (16 << 20))
    lying = bytearray(zstandard.ZstdCompressor().compress(b"\0" * 300))
    lying[5:7] = (10).to_bytes(2, "little")
    for body in (
        zstandard.ZstdCompressor().compress(plain + b"\0"),
        endless,
        bytes(lying),
        zstandard.ZstdCompressor().compress(b"x") * 2,
        b"no zstd",
        b"",
    ):
        with pytest.raises(StoreDamaged, match="frame 0"):
            sealing.open(key, "p", 0, True, sealed(body))


def test_every_zstd_frame_carries_size_and_checksum() -> None:
    parameters = zstandard.get_frame_parameters(Compression().packed(b"row " * 1000))
    assert parameters.has_checksum and parameters.content_size == 4000


def test_threads_share_one_sealing(keys: Keys) -> None:
    sealing = keys.sealing()
    key = sealing.new_key()

    def round_trip(index: int) -> bool:
        plain = (b"%d row " % index) * 20_000
        return sealing.open(key, "p", index, False, sealing.seal(key, "p", index, False, plain, compress=True)) == plain

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(round_trip, range(40)))


def test_memory_of_one_object_serves_the_next(keys: Keys) -> None:
    sealing, photo = keys.sealing(), os.urandom(500_000)
    if not keep_freed_memory():  # another C library than glibc
        return

    def faults() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    seal_object(sealing, "media/ab", photo, False)
    before = faults()
    for _ in range(100):
        seal_object(sealing, "media/ab", photo, False)
    # Three blocks of 123 pages each for every object otherwise.
    assert (faults() - before) / 100 < 123


@pytest.mark.parametrize(
    "misuse",
    [
        lambda sealing, key: sealing.seal(key, "p", 0, True, b"\0" * (FRAME_BYTES + 1), compress=True),
        lambda sealing, key: sealing.seal(key, "p", -1, True, b"", compress=True),
    ],
)
def test_misuse_is_no_stored_object(keys: Keys, misuse: Callable[..., bytes]) -> None:
    sealing = keys.sealing()
    with pytest.raises(ValueError) as caught:
        misuse(sealing, sealing.new_key())
    assert not isinstance(caught.value, OpsError)
