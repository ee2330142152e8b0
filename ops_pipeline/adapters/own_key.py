"""What one key of this control plane does: sign manifests, name contents, seal caches that only it reads again."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ops_pipeline.adapters.backup_keys import public_key
from ops_pipeline.adapters.compression import Compression
from ops_pipeline.core.backup.frames import TAG_BYTES, LayoutError
from ops_pipeline.errors import BadInput, Problem, StoreDamaged

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

OWN_BYTES = 1 << 30
_OWN_MAGIC = b"OPSOWN1\n"
_NONCE_BYTES = 12


class OwnKey:
    """The Ed25519 signing key and what is derived from it (HKDF-SHA256). Thread-safe.

    `make` gives the key, made when absent; `known` only when there is one. `trusted`: public keys whose signatures
    count; empty = only the own one.
    """

    def __init__(
        self,
        trusted: Sequence[str],
        make: Callable[[], Ed25519PrivateKey],
        known: Callable[[], Ed25519PrivateKey],
        compression: Compression,
    ) -> None:
        self._trusted = tuple(trusted)
        self._make, self._known = make, known
        self._compression = compression
        self._key: Ed25519PrivateKey | None = None
        self._lock = threading.Lock()
        self._derived: dict[str, bytes] = {}

    def address(self, plain_sha256: str) -> str:
        """HMAC-SHA256 (hex) of a content's hash, with a key derived from the signing key."""
        return hmac.new(self._derived_key("address"), bytes.fromhex(plain_sha256), hashlib.sha256).hexdigest()

    def seal(self, data: bytes, what: str) -> bytes:
        """Magic, nonce, AES-256-GCM of zstd; `what` is bound in."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if len(data) > OWN_BYTES:
            raise ValueError(f"{what} is larger than {OWN_BYTES} bytes")
        fresh = os.urandom(_NONCE_BYTES)
        packed = self._compression.packed(data)
        return _OWN_MAGIC + fresh + AESGCM(self._derived_key("cache")).encrypt(fresh, packed, what.encode())

    def open(self, data: bytes, what: str) -> bytes:
        """What `seal` sealed for the same `what`. Raise StoreDamaged."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        body = len(_OWN_MAGIC) + _NONCE_BYTES
        if not data.startswith(_OWN_MAGIC) or len(data) < body + TAG_BYTES:
            raise StoreDamaged(f"stored object {what} is damaged: it was not sealed here")
        fresh = data[len(_OWN_MAGIC) : body]
        try:
            packed = AESGCM(self._derived_key("cache")).decrypt(fresh, data[body:], what.encode())
            return self._compression.decompressed(packed, OWN_BYTES)
        except InvalidTag:
            raise StoreDamaged(f"stored object {what} is damaged, or was sealed with another key") from None
        except LayoutError as error:
            raise StoreDamaged(f"stored object {what} is damaged: {error}") from None

    def sign(self, data: bytes) -> Mapping[str, str]:
        """{"key": public key, "signature": …}, both base64. Raise BadInput when own sets would be refused here."""
        key = self.trusted_key()
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
                f"stored object {what} is not trusted: signature.key: it is signed by {signer[:60]!r}",
                hint="If that key is yours, list it in backups.trusted_signers.",
            )
        try:
            raw = base64.b64decode(signature["signature"], validate=True)
            if base64.b64encode(raw).decode() != signature["signature"]:
                raise ValueError("two texts of one signature")
            Ed25519PublicKey.from_public_bytes(base64.b64decode(signer, validate=True)).verify(raw, data)
        except (InvalidSignature, ValueError, binascii.Error):
            raise StoreDamaged(
                f"stored object {what} is damaged: signature: it does not fit the content",
                hint="Somebody or something changed it after it was signed.",
            ) from None

    def trusted_key(self) -> Ed25519PrivateKey:
        """The signing key, made when absent. Raise BadInput when what it signs would not be trusted here."""
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
            if self._key is None:
                self._key = self._make() if make else self._known()
            return self._key

    def _derived_key(self, purpose: str) -> bytes:
        if purpose not in self._derived:
            seed = self._signing_key(make=True).private_bytes_raw()
            self._derived[purpose] = derived(seed, b"", f"ops-backup {purpose} key 1")
        return self._derived[purpose]


def derived(secret: bytes, salt: bytes, purpose: str) -> bytes:
    """HKDF-SHA256 (RFC 5869) to 32 bytes."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=32, salt=salt or None, info=purpose.encode()).derive(secret)
