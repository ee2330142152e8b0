"""A Sealing in memory without any secrecy: what it seals opens only as it was sealed, and that is all it promises.

The real one (adapters/sealing.py) costs milliseconds per key; use cases that are run thousands of times take this one.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import zlib
from collections.abc import Mapping

from ops_pipeline.core.backup.frames import PREFIX_BYTES, TAG_BYTES, LayoutError, frame_prefix, parse_frame_prefix
from ops_pipeline.core.backup.records import FRAME_BYTES
from ops_pipeline.errors import PolicyRefused, StoreDamaged
from ops_pipeline.ports import DataKey, Sealing

_OWN_TAG = 32


class FakeSealing(Sealing):
    """`name` stands for the signing key: another name is another machine. `can_open` may be switched off."""

    def __init__(self, name: str = "here", recipients: tuple[str, ...] = ("age1fake",), *, identity: bool = True):
        self._name = name
        self._recipients = recipients
        self._numbers = itertools.count(1)
        self.identity = identity

    @property
    def recipients(self) -> tuple[str, ...]:
        return self._recipients

    @property
    def can_open(self) -> bool:
        return self.identity

    def new_key(self) -> DataKey:
        secret = self._mac(b"key", str(next(self._numbers)).encode())
        return DataKey(secret, f"wrapped-{secret.hex()}")

    def unwrap(self, wrapped: str) -> DataKey:
        if not self.identity:
            raise PolicyRefused("opening a backup", ["no identity here opens it"])
        try:
            return DataKey(bytes.fromhex(wrapped.removeprefix("wrapped-")), wrapped)
        except ValueError as error:
            raise StoreDamaged("a wrapped key is damaged") from error

    def seal(self, key: DataKey, identity: str, index: int, last: bool, plain: bytes, *, compress: bool) -> bytes:
        packed = zlib.compress(plain, 1) if compress else plain
        codec, body = ("zstd", packed) if len(packed) < len(plain) else ("none", plain)
        sealed = _tag(key.secret, identity, index, last, codec, body) + body
        return frame_prefix(codec, len(sealed)) + sealed

    def open(self, key: DataKey, identity: str, index: int, last: bool, sealed: bytes) -> bytes:
        try:
            codec, length = parse_frame_prefix(sealed)
        except LayoutError as error:
            raise StoreDamaged(f"frame {index} is damaged: {error}") from None
        tag, body = sealed[PREFIX_BYTES:][:TAG_BYTES], sealed[PREFIX_BYTES + TAG_BYTES :]
        if len(sealed) != PREFIX_BYTES + length or tag != _tag(key.secret, identity, index, last, codec, body):
            raise StoreDamaged(f"frame {index} is damaged: it is not what was sealed here")
        if codec == "none":
            return body
        opener = zlib.decompressobj()
        plain = opener.decompress(body, FRAME_BYTES)
        if not opener.eof and opener.decompress(opener.unconsumed_tail, 1):
            raise StoreDamaged(f"frame {index} is damaged: it is larger than a frame")
        return plain

    def address(self, plain_sha256: str) -> str:
        return self._mac(b"address", plain_sha256.encode()).hex()

    def seal_own(self, data: bytes, what: str) -> bytes:
        return self._mac(b"own", what.encode(), data) + data

    def open_own(self, data: bytes, what: str) -> bytes:
        tag, plain = data[:_OWN_TAG], data[_OWN_TAG:]
        if tag != self._mac(b"own", what.encode(), plain):
            raise StoreDamaged(f"{what} was not sealed here, or was changed since")
        return plain

    def sign(self, data: bytes) -> Mapping[str, str]:
        return {"key": self._name, "signature": self._mac(b"sign", data).hex()}

    def check_signature(self, data: bytes, signature: Mapping[str, str], what: str) -> None:
        if dict(signature) != dict(self.sign(data)):
            raise StoreDamaged(f"{what} is not signed by a trusted key, or was changed since")

    def _mac(self, *parts: bytes) -> bytes:
        return hmac.digest(self._name.encode(), json.dumps([part.hex() for part in parts]).encode(), "sha256")


def _tag(secret: bytes, identity: str, index: int, last: bool, codec: str, body: bytes) -> bytes:
    place = json.dumps([identity, index, last, codec]).encode()
    return hmac.digest(secret, place + hashlib.sha256(body).digest(), "sha256")[:TAG_BYTES]
