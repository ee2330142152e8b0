"""Layout of a sealed object: a header, then frames. docs/backup-format.md is the same in words for strangers.

    header: magic (8) | version (1) | codec (1) | plain bytes of a frame (4) | length of the wrapped key (2)
            | wrapped key (ASCII) | SHA-256 of all before (32)
    frame:  codec (1) | length of what follows (4) | AES-256-GCM ciphertext with its tag (16)

Numbers are unsigned, most significant byte first. The nonce of a frame is its index (11 bytes) and whether it is the
last (1 byte: 0 or 1), the STREAM construction as age uses it: frames cannot change places and the end cannot be cut
off. The header's hash stands in every frame's associated data, so a frame opens under its own header only.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass

from ops_pipeline.core.backup.records import FRAME_BYTES

MAGIC = b"OPSSEAL\n"
VERSION = 1
CODECS = ("none", "zstd")  # by their number
TAG_BYTES = 16
SALT_BYTES = 32
HASH_BYTES = 32
MAX_WRAPPED_BYTES = 32 * 1024  # some 200 recipients

_FIXED = struct.Struct(">8sBBIH")
_PREFIX = struct.Struct(">BI")
PREFIX_BYTES = _PREFIX.size
MIN_FRAME_STORED = PREFIX_BYTES + TAG_BYTES
MAX_HEADER_BYTES = _FIXED.size + MAX_WRAPPED_BYTES + HASH_BYTES
MAX_FRAME_STORED = PREFIX_BYTES + FRAME_BYTES + TAG_BYTES
"""A frame that compression would make larger is stored as it is, so none is longer than this."""
MAX_INDEX = 2**40  # far above any object, far below the nonce's 2**88


class LayoutError(ValueError):
    """Bytes that are not laid out so. The text completes «… is damaged: »; whoever knows the object names it."""


@dataclass(frozen=True)
class Header:
    """Beginning of every sealed object. `frame_bytes`: plain bytes of every frame but the last."""

    codec: str
    frame_bytes: int
    wrapped_key: str

    def encode(self) -> bytes:
        """The header's bytes. Raise LayoutError when a value has no place in it."""
        wrapped = self.wrapped_key.encode("ascii", "replace")
        if self.codec not in CODECS or not 1 <= self.frame_bytes <= FRAME_BYTES or len(wrapped) > MAX_WRAPPED_BYTES:
            raise LayoutError("the header holds a value out of range")
        fixed = _FIXED.pack(MAGIC, VERSION, CODECS.index(self.codec), self.frame_bytes, len(wrapped))
        return fixed + wrapped + hashlib.sha256(fixed + wrapped).digest()


def parse_header(data: bytes) -> tuple[Header, int]:
    """Given the beginning of an object, return its header and the header's length. Raise LayoutError."""
    if len(data) < _FIXED.size:
        raise LayoutError("it ends inside its header")
    magic, version, codec, frame_bytes, length = _FIXED.unpack_from(data)
    if magic != MAGIC:
        raise LayoutError("it does not begin like a sealed object")
    if version != VERSION:
        raise LayoutError(f"its format is version {version}, known is {VERSION}")
    end = _FIXED.size + length
    if length > MAX_WRAPPED_BYTES or len(data) < end + HASH_BYTES:
        raise LayoutError("it ends inside its header")
    if hashlib.sha256(data[:end]).digest() != data[end : end + HASH_BYTES]:
        raise LayoutError("its header was changed")
    if codec >= len(CODECS) or not 1 <= frame_bytes <= FRAME_BYTES:
        raise LayoutError("its header holds a value out of range")
    try:
        wrapped = data[_FIXED.size : end].decode("ascii")
    except UnicodeDecodeError:
        raise LayoutError("its wrapped key is no text") from None
    return Header(CODECS[codec], frame_bytes, wrapped), end + HASH_BYTES


def bound_identity(identity: str, header: bytes) -> str:
    """Identity of an object's frames: the object's own and the hash that ends its header (hex)."""
    return f"{identity}\n{header[-HASH_BYTES:].hex()}"


def frame_prefix(codec: str, ciphertext_bytes: int) -> bytes:
    """First bytes of a stored frame; `ciphertext_bytes` with the tag."""
    return _PREFIX.pack(CODECS.index(codec), ciphertext_bytes)


def parse_frame_prefix(data: bytes) -> tuple[str, int]:
    """Given the beginning of a frame, return its codec and the length of the ciphertext that follows."""
    if len(data) < PREFIX_BYTES:
        raise LayoutError("it ends inside the length of a frame")
    codec, length = _PREFIX.unpack_from(data)
    if codec >= len(CODECS):
        raise LayoutError(f"a frame has the unknown codec {codec}")
    if not TAG_BYTES <= length <= MAX_FRAME_STORED - PREFIX_BYTES:
        raise LayoutError(f"a frame claims a length of {length} bytes")
    return CODECS[codec], length


def nonce(index: int, last: bool) -> bytes:
    """Twelve bytes that no other frame of the object has."""
    if not 0 <= index < MAX_INDEX:
        raise LayoutError(f"there is no frame {index}")
    return index.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


def associated_data(identity: str, index: int, last: bool, codec: str) -> bytes:
    """What a frame's tag covers beside its content."""
    return struct.pack(">19sBQ?", b"ops-backup frame 1\n", CODECS.index(codec), index, last) + identity.encode()


def frame_plain_bytes(plain_size: int, frame_bytes: int) -> tuple[int, ...]:
    """Sizes of the frames that a stream of `plain_size` bytes is cut into: at least one, also of no bytes."""
    full, rest = divmod(plain_size, frame_bytes)
    return (frame_bytes,) * full + ((rest,) if rest or not full else ())


def pack_wrapped(salt: bytes, age_file: bytes) -> str:
    """Wrapped key as text: base64 of the salt and of the age file that holds the run key."""
    return base64.b64encode(salt + age_file).decode("ascii")


def unpack_wrapped(wrapped: str) -> tuple[bytes, bytes]:
    """Given a wrapped key, return salt and age file. Raise LayoutError."""
    try:
        raw = base64.b64decode(wrapped, validate=True)
    except (binascii.Error, ValueError):
        raise LayoutError("its wrapped key is not base64") from None
    if len(raw) <= SALT_BYTES or len(wrapped) > MAX_WRAPPED_BYTES:
        raise LayoutError("its wrapped key is cut")
    return raw[:SALT_BYTES], raw[SALT_BYTES:]
