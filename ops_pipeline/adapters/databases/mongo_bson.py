"""As much of BSON (bsonspec.org) as commands, their answers and the headers of archives need."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class BsonError(ValueError):
    """Bytes that are no document."""


@dataclass(frozen=True)
class Raw:
    """A value of a type that is only passed on: its type byte and its bytes."""

    kind: int
    data: bytes


def encode(document: Mapping[str, Any]) -> bytes:
    """Given names and values (str, int, float, bool, None, bytes, mappings, lists, Raw), return the document."""
    body = b"".join(_element(name, value) for name, value in document.items())
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def decode(data: bytes) -> dict[str, Any]:
    """Given one whole document, return names and values. Raise BsonError."""
    try:
        found, end = _document(data, 0)
    except (IndexError, ValueError, struct.error, RecursionError) as error:
        raise BsonError(str(error)) from error
    if end != len(data):
        raise BsonError("bytes after its end")
    return found


def _element(name: str, value: Any) -> bytes:
    key = name.encode() + b"\0"
    if "\0" in name:
        raise BsonError("a name with a NUL byte")
    if isinstance(value, Raw):
        return bytes([value.kind]) + key + value.data
    if isinstance(value, bool):
        return b"\x08" + key + bytes([value])
    if isinstance(value, int):
        if -(2**31) <= value < 2**31:
            return b"\x10" + key + struct.pack("<i", value)
        return b"\x12" + key + struct.pack("<q", value)
    if isinstance(value, float):
        return b"\x01" + key + struct.pack("<d", value)
    if isinstance(value, str):
        text = value.encode() + b"\0"
        return b"\x02" + key + struct.pack("<i", len(text)) + text
    if value is None:
        return b"\x0a" + key
    if isinstance(value, bytes):
        return b"\x05" + key + struct.pack("<i", len(value)) + b"\0" + value
    if isinstance(value, Mapping):
        return b"\x03" + key + encode(value)
    if isinstance(value, list | tuple):
        return b"\x04" + key + encode({str(number): each for number, each in enumerate(value)})
    raise BsonError(f"a value of type {type(value).__name__}")


def _document(data: bytes, at: int) -> tuple[dict[str, Any], int]:
    (size,) = struct.unpack_from("<i", data, at)
    end = at + size
    if size < 5 or end > len(data) or data[end - 1]:
        raise BsonError("it is cut")
    at += 4
    found = {}
    while at < end - 1:
        kind = data[at]
        stop = data.index(b"\0", at + 1, end)
        name = data[at + 1 : stop].decode()
        found[name], at = _value(kind, data, stop + 1)
    if at != end - 1:
        raise BsonError("its length is wrong")
    return found, end


_FIXED = {0x06: 0, 0x07: 12, 0x09: 8, 0x11: 8, 0x13: 16, 0x7F: 0, 0xFF: 0}


def _value(kind: int, data: bytes, at: int) -> tuple[Any, int]:
    if kind == 0x01:
        return struct.unpack_from("<d", data, at)[0], at + 8
    if kind == 0x02:
        (size,) = struct.unpack_from("<i", data, at)
        if size < 1:
            raise BsonError("a text of no length")
        return data[at + 4 : at + 3 + size].decode(), at + 4 + size
    if kind == 0x03:
        return _document(data, at)
    if kind == 0x04:
        items, end = _document(data, at)
        return list(items.values()), end
    if kind == 0x05:
        size, subtype = struct.unpack_from("<iB", data, at)
        value = data[at + 5 : at + 5 + size]
        return (value if subtype == 0 else Raw(kind, data[at : at + 5 + size])), at + 5 + size
    if kind == 0x08:
        return bool(data[at]), at + 1
    if kind == 0x0A:
        return None, at
    if kind == 0x10:
        return struct.unpack_from("<i", data, at)[0], at + 4
    if kind == 0x12:
        return struct.unpack_from("<q", data, at)[0], at + 8
    if kind in _FIXED:
        end = at + _FIXED[kind]
    elif kind == 0x0B:
        end = data.index(b"\0", data.index(b"\0", at) + 1) + 1
    elif kind in (0x0D, 0x0E):
        end = at + 4 + int(struct.unpack_from("<i", data, at)[0])
    else:
        raise BsonError(f"the type {kind}")
    return Raw(kind, data[at:end]), end
