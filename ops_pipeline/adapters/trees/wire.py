"""What a courier and its user say to one another: frames of a kind (1 byte), a length (4) and a payload."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

from ops_pipeline.core.backup.file_entry import FileEntry, from_fields, to_fields

REQUEST, ENTRY, DATA, DONE, CANCEL = b"Q", b"N", b"D", b"Z", b"X"
ENTRIES, PIECE, CHANGED, ERROR = b"J", b"P", b"C", b"E"

HEAD = struct.Struct(">cI")
PIECE_HEAD = struct.Struct(">I?")
MOST_BYTES = 64 * 1024 * 1024


class WireError(Exception):
    """The other side ended, or said what it never says."""


def frame_head(kind: bytes, length: int) -> bytes:
    """Beginning of a frame."""
    return HEAD.pack(kind, length)


def read_frame(read: Callable[[int], bytes]) -> tuple[bytes, bytes]:
    """One frame; `read(n)` gives exactly n bytes or raises WireError."""
    kind, length = HEAD.unpack(read(HEAD.size))
    if length > MOST_BYTES:
        raise WireError("a frame is too long")
    return kind, read(length) if length else b""


def pack(value: Any) -> bytes:
    """JSON as bytes."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def unpack(data: bytes) -> Any:
    """What `pack` packed. Raise WireError."""
    try:
        return json.loads(data)
    except ValueError as error:
        raise WireError("a frame is no JSON") from error


def full_fields(entry: FileEntry) -> dict[str, Any]:
    """An entry with what is never restored."""
    return {**to_fields(entry), "at": [entry.ctime_ns, entry.inode, entry.device]}


def full_entry(fields: dict[str, Any]) -> FileEntry:
    """The entry of `full_fields`. Raise WireError."""
    try:
        ctime, inode, device = fields["at"]
        plain = from_fields(fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WireError("an entry is none") from error
    return FileEntry(
        plain.path, plain.kind, plain.mode, plain.uid, plain.gid, plain.size, plain.mtime_ns,
        ctime, inode, device, plain.link, plain.holes, plain.xattrs, plain.links,
    )  # fmt: skip
