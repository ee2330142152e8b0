"""`Sealing` with zstd, AES-256-GCM (pyca/cryptography), age (pyrage), Ed25519 and HKDF-SHA256 (RFC 5869).

age wraps a key in a millisecond or so and holds the interpreter meanwhile, so it never sees bulk data: a process
makes one run key, wraps it once for all recipients, and derives the key of every object from it and the object's own
salt. Thousands of small objects cost one wrap, and each still carries all that opens it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ops_pipeline.adapters.backup_keys import (
    ensure_signing_key,
    parse_identities,
    parse_recipients,
    public_key,
    read_signing_key,
)
from ops_pipeline.catalogue.backup_model import Backups
from ops_pipeline.core.backup.frames import (
    PREFIX_BYTES,
    SALT_BYTES,
    TAG_BYTES,
    LayoutError,
    associated_data,
    frame_prefix,
    nonce,
    pack_wrapped,
    parse_frame_prefix,
    unpack_wrapped,
)
from ops_pipeline.core.backup.records import FRAME_BYTES
from ops_pipeline.errors import BadInput, PolicyRefused, Problem, StoreDamaged
from ops_pipeline.ports import DataKey, Sealing

if TYPE_CHECKING:
    import zstandard
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from pyrage.x25519 import Identity, Recipient

LEVEL = 3
RUN_KEY_SECONDS = 3600.0  # a process that lives for months does not keep one key in memory that opens all its sets
UNWRAPPED_KEPT = 64
OWN_BYTES = 1 << 30
_OWN_MAGIC = b"OPSOWN1\n"
_PROBE_BYTES = 64 * 1024
_PROBED_FROM = 1 << 20
_WORTH = 0.97
"""Compression that saves less than 3 % costs more on every read than it is worth."""


class AgeSealing(Sealing):
    """See `Sealing`. `signing()` gives the signing key, made when absent; `known()` only when there is one."""

    def __init__(
        self,
        *,
        recipients: Sequence[Recipient],
        identities: Sequence[Identity],
        trusted_signers: Sequence[str],
        signing: Callable[[], Ed25519PrivateKey],
        known: Callable[[], Ed25519PrivateKey],
    ) -> None:
        self._recipients = tuple(recipients)
        self._identities = tuple(identities)
        self._trusted = tuple(trusted_signers)
        self._make_signing, self._read_signing = signing, known
        self._signing: Ed25519PrivateKey | None = None
        self._lock = threading.Lock()
        self._threads = threading.local()
        self._run: tuple[bytes, bytes, float] | None = None  # run key, its age file, made at
        self._unwrapped: OrderedDict[bytes, bytes] = OrderedDict()
        self._derived: dict[str, bytes] = {}

    @property
    def recipients(self) -> tuple[str, ...]:
        """Public keys (age1…) that can open what is sealed now."""
        return tuple(str(one) for one in self._recipients)

    @property
    def can_open(self) -> bool:
        """Whether an identity is at hand here."""
        return bool(self._identities)

    # ------------------------------------------------------------------------------------------------ keys

    def new_key(self) -> DataKey:
        """A data key wrapped for all recipients. Raise BadInput when there are none, or own sets would be refused."""
        self._own_signing_key()
        run_key, age_file = self._run_key()
        salt = os.urandom(SALT_BYTES)
        return DataKey(_data_key(run_key, salt), pack_wrapped(salt, age_file))

    def unwrap(self, wrapped: str) -> DataKey:
        """The key. Raise PolicyRefused when no identity here opens it, StoreDamaged when it is cut or changed."""
        try:
            salt, age_file = unpack_wrapped(wrapped)
        except LayoutError as error:
            raise StoreDamaged(f"a wrapped key is damaged: {error}") from None
        return DataKey(_data_key(self._opened(age_file), salt), wrapped)

    def _run_key(self) -> tuple[bytes, bytes]:
        import pyrage

        if not self._recipients:
            raise BadInput(
                [Problem("backups.recipients", "there are none, so nobody could ever open a backup")],
                subject="keys of backups",
                hint="`ops backup keys` makes a pair; the recipient goes into the catalogue.",
            )
        with self._lock:
            now = time.monotonic()
            if self._run is None or now - self._run[2] > RUN_KEY_SECONDS:
                key = os.urandom(32)
                self._run = (key, pyrage.encrypt(key, list(self._recipients)), now)
            return self._run[0], self._run[1]

    def _opened(self, age_file: bytes) -> bytes:
        import pyrage

        with self._lock:
            found = self._unwrapped.get(age_file)
            if found is not None:
                self._unwrapped.move_to_end(age_file)
                return found
        if not self._identities:
            raise PolicyRefused(
                "opening a backup",
                ["this machine has no identity (backups.identity), on purpose where backups are taken"],
                hint="Restore and drill where the identity is kept.",
            )
        try:
            key: bytes = pyrage.decrypt(age_file, list(self._identities))
        except pyrage.DecryptError as error:
            if "no matching" in str(error).lower():
                raise PolicyRefused(
                    "opening a backup",
                    ["it was sealed for other recipients than the identity at hand"],
                    hint="The set's manifest lists the recipients; one of their identities is needed.",
                ) from None
            raise StoreDamaged("a wrapped key is damaged: age cannot read it") from None
        if len(key) != 32:
            raise StoreDamaged("a wrapped key is damaged: it is not 32 bytes long")
        with self._lock:
            self._unwrapped[age_file] = key
            while len(self._unwrapped) > UNWRAPPED_KEPT:
                self._unwrapped.popitem(last=False)
        return key

    # ------------------------------------------------------------------------------------------------ frames

    def seal(self, key: DataKey, identity: str, index: int, last: bool, plain: bytes, *, compress: bool) -> bytes:
        """One frame: prefix, ciphertext, tag. What compression does not make smaller is sealed as it is."""
        if len(plain) > FRAME_BYTES:
            raise ValueError(f"a frame holds at most {FRAME_BYTES} bytes")
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        codec, body = "none", plain
        if compress and plain and self._compressible(plain):
            packed = self._compressor(LEVEL).compress(plain)
            if len(packed) < _WORTH * len(plain):
                codec, body = "zstd", packed
        sealed = AESGCM(key.secret).encrypt(nonce(index, last), body, associated_data(identity, index, last, codec))
        return frame_prefix(codec, len(sealed)) + sealed

    def open(self, key: DataKey, identity: str, index: int, last: bool, sealed: bytes) -> bytes:
        """The plain bytes of a frame. Raise StoreDamaged."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            codec, length = parse_frame_prefix(sealed)
            if len(sealed) != PREFIX_BYTES + length:
                raise LayoutError(f"it has {len(sealed) - PREFIX_BYTES} bytes and claims {length}")
            body = AESGCM(key.secret).decrypt(
                nonce(index, last), memoryview(sealed)[PREFIX_BYTES:], associated_data(identity, index, last, codec)
            )
            return self._decompressed(body, FRAME_BYTES) if codec == "zstd" else body
        except InvalidTag:
            raise StoreDamaged(f"frame {index} is damaged: it is not what was sealed here") from None
        except LayoutError as error:
            raise StoreDamaged(f"frame {index} is damaged: {error}") from None

    def _compressible(self, plain: bytes) -> bool:
        """Whether compressing is worth trying, told by three small samples: photos and the like are not."""
        if len(plain) < _PROBED_FROM:
            return True
        starts = (0, len(plain) // 2, len(plain) - _PROBE_BYTES)
        samples = [plain[start : start + _PROBE_BYTES] for start in starts]
        return any(len(self._compressor(1).compress(sample)) < _WORTH * len(sample) for sample in samples)

    def _compressor(self, level: int) -> zstandard.ZstdCompressor:
        # A compressor is not thread-safe and costs megabytes to make.
        import zstandard

        found: dict[int, zstandard.ZstdCompressor] = self._threads.__dict__.setdefault("compressors", {})
        if level not in found:
            found[level] = zstandard.ZstdCompressor(level=level, write_checksum=True)
        return found[level]

    def _decompressed(self, body: bytes, most: int) -> bytes:
        """Raise LayoutError when it is no single zstd frame that tells a size of at most `most` and has it."""
        import zstandard

        decompressor: zstandard.ZstdDecompressor | None = getattr(self._threads, "decompressor", None)
        if decompressor is None:
            decompressor = self._threads.decompressor = zstandard.ZstdDecompressor()
        try:
            # The library allocates what the header tells, and stops there: so a bomb is refused before it grows.
            size = zstandard.frame_content_size(body)
            if not 0 <= size <= most:
                raise LayoutError(f"its content would be larger than {most} bytes, or does not tell its size")
            return decompressor.decompress(body, max_output_size=most, allow_extra_data=False)
        except zstandard.ZstdError:
            raise LayoutError("its content does not decompress") from None

    # ------------------------------------------------------------------------------------------------ own key

    def address(self, plain_sha256: str) -> str:
        """HMAC-SHA256 (hex) of a content's hash, with a key derived from the signing key."""
        return hmac.new(self._own_key("address"), bytes.fromhex(plain_sha256), hashlib.sha256).hexdigest()

    def seal_own(self, data: bytes, what: str) -> bytes:
        """Magic, nonce, AES-256-GCM of zstd. `what` is bound in."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        fresh = os.urandom(12)
        packed = self._compressor(LEVEL).compress(data)
        return _OWN_MAGIC + fresh + AESGCM(self._own_key("cache")).encrypt(fresh, packed, what.encode())

    def open_own(self, data: bytes, what: str) -> bytes:
        """What `seal_own` sealed for the same `what`. Raise StoreDamaged."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        head = len(_OWN_MAGIC)
        if not data.startswith(_OWN_MAGIC) or len(data) < head + 12 + TAG_BYTES:
            raise StoreDamaged(f"stored object {what} is damaged: it was not sealed here")
        try:
            packed = AESGCM(self._own_key("cache")).decrypt(data[head : head + 12], data[head + 12 :], what.encode())
            return self._decompressed(packed, OWN_BYTES)
        except InvalidTag:
            raise StoreDamaged(f"stored object {what} is damaged, or was sealed with another key") from None
        except LayoutError as error:
            raise StoreDamaged(f"stored object {what} is damaged: {error}") from None

    def sign(self, data: bytes) -> Mapping[str, str]:
        """{"key": public key, "signature": …}, both base64. Raise BadInput when own sets would be refused here."""
        key = self._own_signing_key()
        return {"key": public_key(key), "signature": base64.b64encode(key.sign(data)).decode("ascii")}

    def check_signature(self, data: bytes, signature: Mapping[str, str], what: str) -> None:
        """Return when a trusted key signed exactly this. Raise StoreDamaged naming `what`."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        if set(signature) != {"key", "signature"} or not all(isinstance(one, str) for one in signature.values()):
            raise StoreDamaged(f"stored object {what} is damaged: signature: must have exactly key and signature")
        signer = signature["key"]
        if signer not in (self._trusted or (public_key(self._signing_key(make=False)),)):
            raise StoreDamaged(
                f"stored object {what} is not trusted: signature.key: it is signed by {signer[:60]}",
                hint="If that key is yours, list it in backups.trusted_signers.",
            )
        try:
            raw = base64.b64decode(signature["signature"], validate=True)
            Ed25519PublicKey.from_public_bytes(base64.b64decode(signer, validate=True)).verify(raw, data)
        except (InvalidSignature, ValueError, binascii.Error):
            raise StoreDamaged(
                f"stored object {what} is damaged: signature: it does not fit the content",
                hint="Somebody or something changed it after it was signed.",
            ) from None

    def _own_signing_key(self) -> Ed25519PrivateKey:
        key = self._signing_key(make=True)
        if self._trusted and public_key(key) not in self._trusted:
            raise BadInput(
                [Problem("backups.trusted_signers", f"does not list this machine's own key {public_key(key)}")],
                subject="keys of backups",
                hint="What it signs would be refused everywhere, here too: add it.",
            )
        return key

    def _signing_key(self, *, make: bool) -> Ed25519PrivateKey:
        with self._lock:
            if self._signing is None:
                self._signing = self._make_signing() if make else self._read_signing()
            return self._signing

    def _own_key(self, purpose: str) -> bytes:
        if purpose not in self._derived:
            seed = self._signing_key(make=True).private_bytes_raw()
            self._derived[purpose] = _hkdf(seed, b"", f"ops-backup {purpose} key 1")
        return self._derived[purpose]


def open_sealing(backups: Backups, root: Path, secret: Callable[[str], str]) -> AgeSealing:
    """Given the catalogue's `backups`, the project folder and what reads secrets, return the sealing.

    The signing key is made when it is needed and absent. An identity that is named but not there is none: the same
    catalogue serves the machine that takes backups. Raise BadInput naming every recipient, signer or identity that
    cannot be read.
    """
    texts = list(backups.recipients)
    if backups.recipients_file:
        texts += _recipient_lines(root / backups.recipients_file, backups.recipients_file)
    problems = [
        Problem("backups.trusted_signers", f"{signer[:60]}: must be base64 of 32 bytes")
        for signer in backups.trusted_signers
        if not _is_public_key(signer)
    ]
    if problems:
        raise BadInput(problems, subject="keys of backups")
    return AgeSealing(
        recipients=parse_recipients(texts),
        identities=_identities(backups.identity, root, secret),
        trusted_signers=backups.trusted_signers,
        signing=lambda: ensure_signing_key(backups.signing_key, root, secret),
        known=lambda: read_signing_key(backups.signing_key, secret),
    )


def _identities(reference: str | None, root: Path, secret: Callable[[str], str]) -> tuple[Identity, ...]:
    if reference is None:
        return ()
    kind, _, name = reference.partition(":")
    absent = (kind == "env" and name not in os.environ) or (kind == "file" and not os.path.lexists(root / name))
    return () if absent else parse_identities(secret(reference), f"backups.identity {reference}")


def _recipient_lines(path: Path, name: str) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise BadInput([Problem(f"backups.recipients_file {name}", str(reason))], subject="keys of backups") from None
    return [line for line in lines if line and not line.startswith("#")]


def _is_public_key(text: str) -> bool:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(raw) == 32 and base64.b64encode(raw).decode() == text


def _data_key(run_key: bytes, salt: bytes) -> bytes:
    return _hkdf(run_key, salt, "ops-backup data key 1")


def _hkdf(secret: bytes, salt: bytes, purpose: str) -> bytes:
    """HKDF-SHA256 to 32 bytes."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=32, salt=salt or None, info=purpose.encode()).derive(secret)
