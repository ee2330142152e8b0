"""`Sealing` with zstd, AES-256-GCM (pyca/cryptography), age (pyrage), Ed25519 and HKDF-SHA256 (RFC 5869).

age wraps a key in a millisecond or so and holds the interpreter meanwhile, so it never sees bulk data: a process
makes one run key, wraps it once for all recipients, and derives the key of every object from it and the object's own
salt. Thousands of small objects cost one wrap, and each still carries all that opens it.
"""

from __future__ import annotations

import base64
import binascii
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ops_pipeline.adapters.allocation import keep_freed_memory
from ops_pipeline.adapters.backup_keys import (
    ensure_signing_key,
    parse_identities,
    parse_recipients,
    read_signing_key,
)
from ops_pipeline.adapters.compression import Compression
from ops_pipeline.adapters.own_key import OwnKey, derived
from ops_pipeline.catalogue.backup_model import Backups
from ops_pipeline.core.backup.frames import (
    PREFIX_BYTES,
    SALT_BYTES,
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
    from pyrage.x25519 import Identity, Recipient

RUN_KEY_SECONDS = 3600.0  # a process that lives for months does not keep one key in memory that opens all its sets
UNWRAPPED_KEPT = 64


class AgeSealing(Sealing):
    """See `Sealing`. Without identities it only seals; without recipients it only opens."""

    def __init__(
        self, recipients: Sequence[Recipient], identities: Sequence[Identity], own: OwnKey, compression: Compression
    ) -> None:
        self._recipients = tuple(recipients)
        self._identities = tuple(identities)
        self._own = own
        self._compression = compression
        self._lock = threading.Lock()
        self._run: tuple[bytes, bytes, float] | None = None  # run key, its age file, made at
        self._unwrapped: OrderedDict[bytes, bytes] = OrderedDict()

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
        self._own.trusted_key()
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

        packed = self._compression.packed_if_smaller(plain) if compress else None
        codec, body = ("none", plain) if packed is None else ("zstd", packed)
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
            return self._compression.decompressed(body, FRAME_BYTES) if codec == "zstd" else body
        except InvalidTag:
            raise StoreDamaged(f"frame {index} is damaged: it is not what was sealed here") from None
        except LayoutError as error:
            raise StoreDamaged(f"frame {index} is damaged: {error}") from None

    # ------------------------------------------------------------------------------------------------ own key

    def address(self, plain_sha256: str) -> str:
        """HMAC-SHA256 (hex) of a content's hash, with a key derived from the signing key."""
        return self._own.address(plain_sha256)

    def seal_own(self, data: bytes, what: str) -> bytes:
        """Compressed, then sealed with a key derived from the signing key. `what` is bound in."""
        return self._own.seal(data, what)

    def open_own(self, data: bytes, what: str) -> bytes:
        """What `seal_own` sealed for the same `what`. Raise StoreDamaged."""
        return self._own.open(data, what)

    def sign(self, data: bytes) -> Mapping[str, str]:
        """{"key": public key, "signature": …}, both base64. Raise BadInput when own sets would be refused here."""
        return self._own.sign(data)

    def check_signature(self, data: bytes, signature: Mapping[str, str], what: str) -> None:
        """Return when a trusted key signed exactly this. Raise StoreDamaged naming `what`."""
        self._own.check_signature(data, signature, what)


def open_sealing(backups: Backups, root: Path, secret: Callable[[str], str]) -> AgeSealing:
    """Given the catalogue's `backups`, the project folder and what reads secrets, return the sealing.

    The signing key is made when it is needed and absent. An identity that is named but not there is none: the same
    catalogue serves the machine that takes backups. Raise BadInput naming every recipient, signer or identity that
    cannot be read.
    """
    keep_freed_memory()
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
    compression = Compression()
    own = OwnKey(
        backups.trusted_signers,
        lambda: ensure_signing_key(backups.signing_key, root, secret),
        lambda: read_signing_key(backups.signing_key, secret),
        compression,
    )
    return AgeSealing(parse_recipients(texts), _identities(backups.identity, root, secret), own, compression)


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
    return derived(run_key, salt, "ops-backup data key 1")
