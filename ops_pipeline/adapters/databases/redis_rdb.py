"""Reads Redis's RDB format as it streams by: proves that nothing is missing, and counts keys.

The format is what src/rdb.c and rdb.h of Redis 2.6 to 8 write (RDB versions 6 to 12):

    file     "REDIS", version (4 digits), then records, opcode 255, CRC-64 of all before it (0 = switched off)
    length   2 high bits 00: 6 bits; 01: 14 bits; byte 0x80: 4 bytes, 0x81: 8 bytes, both big-endian; 11: special
    string   length and bytes; or special 0, 1, 2: an integer of 1, 2, 4 bytes; 3: compressed length, length, LZF bytes
    record   opcodes 254 database, 251 sizes, 250 note, 253/252 expiry in s/ms, 248/249 idle/frequency, 245 functions,
             247 module data, 244 slots; else the type of a value, its key (string), the value
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Generator

from ops_pipeline.adapters.databases.redis_strings import groups, unpacked
from ops_pipeline.core.backup.records import Contents
from ops_pipeline.errors import StoreDamaged

SAMPLED_KEYS = 50_000  # about; of a database with fewer every key is
SAMPLE_BYTES = 1024 * 1024  # longer values are only counted
MAX_VERSION = 12
OWN_LIBRARY = re.compile(rb"^#!\s*lua\s+name\s*=\s*ops_mark_", re.IGNORECASE)
_LIBRARY = re.compile(rb"^#!\S+(?:\s+\S+)*?\s+name\s*=\s*([^\s]+)", re.IGNORECASE)

# Value types: one string; or a count and so many groups of a few strings.
_ONE = frozenset({0, 9, 10, 11, 12, 13, 16, 17, 20})
_GROUPS = {1: 1, 2: 1, 4: 2, 14: 1}
_UNORDERED = frozenset({2, 4})  # as the hash table of the server had them
_STREAMS = frozenset({15, 19, 21})
_TYPES = {
    "string": (0,),
    "list": (1, 10, 14, 18),
    "set": (2, 11, 20),
    "zset": (3, 5, 12, 17),
    "hash": (4, 9, 13, 16),
    "stream": tuple(_STREAMS),
    "module": (7,),
}
_NAMES = {number: name for name, numbers in _TYPES.items() for number in numbers}


class _UnknownType(Exception):
    """A value this walker cannot step over."""


class RdbWalker:
    """Follows one RDB file. Give it every byte in order by `feed`, then `finish`.

    `unknown` tells why counting was given up ("" = it was not): a value of a newer Redis or of a module. All else that
    cannot be raises StoreDamaged, whose message begins with `what`.
    """

    def __init__(self, what: str) -> None:
        """`what` names the file in messages."""
        self._what = what
        self.version = 0
        self.unknown = ""
        self.ended = False
        self.keys: dict[int, dict[str, int]] = {}  # database → type → keys
        self.expiring: dict[int, int] = {}
        self.functions: dict[str, str] = {}
        self.notes: dict[str, str] = {}
        self._samples: dict[int, list[bytes]] = {}
        self._mask = 0
        self._data = b""
        self._at = 0
        self._keep = -1  # where in the buffer a value begins whose bytes are wanted
        self._machine = self._walk()
        next(self._machine)

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        if self.unknown:
            return
        at = self._at
        if self._keep >= 0 and at - self._keep > SAMPLE_BYTES:
            self._keep = -1
        first = self._keep if self._keep >= 0 else at
        if first >= len(self._data):
            self._data, self._at = data, at - len(self._data)
        else:
            self._data, self._at = self._data[first:] + data, at - first
        if self._keep >= 0:
            self._keep = 0
        if self._at < len(self._data):
            try:
                next(self._machine)
            except _UnknownType as error:
                self.unknown = str(error)
                self._data, self._at = b"", 0

    def finish(self) -> None:
        """The file ended here. Raise StoreDamaged unless it may."""
        if not self.unknown and (not self.ended or self._at != len(self._data)):
            raise StoreDamaged(f"{self._what} is cut off: its last record is not its end")

    def contents(self) -> Contents | None:
        """Keys by database and type, those with an expiry, functions, samples; None when it could not be counted."""
        if self.unknown:
            return None
        counts: dict[str, int] = {}
        for database, types in sorted(self.keys.items()):
            if types:
                counts[f"db{database}"] = sum(types.values())
                counts |= {f"db{database} {name}": count for name, count in sorted(types.items())}
                counts[f"db{database} with expiry"] = self.expiring.get(database, 0)
        samples = {
            f"db{database}": hashlib.sha256(b"".join(sorted(digests))).hexdigest()
            for database, digests in sorted(self._samples.items())
            if digests
        }
        return Contents(counts, {f"function library {name}": code for name, code in self.functions.items()}, samples)

    # ------------------------------------------------------------------------------------------- the machine

    def _walk(self) -> Generator[None]:
        header = yield from self._take(9)
        if header[:5] != b"REDIS" or not header[5:].isdigit():
            raise self._wrong("it does not begin as an RDB file")
        self.version = int(header[5:])
        if self.version > MAX_VERSION:
            raise _UnknownType(f"RDB version {self.version}")
        database, expiry = 0, b""
        while True:
            opcode = (yield from self._take(1))[0]
            if opcode in _NAMES:
                yield from self._key(opcode, database, expiry)
                expiry = b""
            elif opcode in (0xFC, 0xFD):
                expiry = yield from self._take(8 if opcode == 0xFC else 4)
            elif opcode == 0xF8:
                yield from self._length()
            elif opcode == 0xF9:
                yield from self._take(1)
            elif opcode == 0xFE:
                database = yield from self._length()
                self._mask = 0
            elif opcode == 0xFB:
                size = yield from self._length()
                yield from self._length()
                self._mask = (1 << (size // SAMPLED_KEYS).bit_length()) - 1
            elif opcode == 0xF4:
                for _ in range(3):
                    yield from self._length()
            elif opcode == 0xFA:
                name = yield from self._string()
                self.notes[name.decode(errors="replace")] = (yield from self._string()).decode(errors="replace")
            elif opcode == 0xF5:
                code = yield from self._string()
                if not OWN_LIBRARY.match(code):
                    found = _LIBRARY.match(code)
                    name = found[1] if found else b"?"
                    self.functions[name.decode(errors="replace")] = hashlib.sha256(code).hexdigest()
            elif opcode == 0xF7:
                yield from self._length()
                yield from self._module()
            elif opcode == 0xFF:
                yield from self._take(8 if self.version >= 5 else 0)
                break
            else:
                raise _UnknownType(f"records of type {opcode}")
        self.ended = True
        while True:
            if self._at < len(self._data):
                raise self._wrong("something follows its end")
            yield

    def _key(self, opcode: int, database: int, expiry: bytes) -> Generator[None]:
        key = yield from self._string()
        types = self.keys.setdefault(database, {})
        types[_NAMES[opcode]] = types.get(_NAMES[opcode], 0) + 1
        if expiry:
            self.expiring[database] = self.expiring.get(database, 0) + 1
        wanted = opcode != 7 and not zlib.crc32(key) & self._mask
        if wanted:
            self._keep = self._at
        yield from self._value(opcode)
        if not wanted:
            return
        if self._keep >= 0 and self._at - self._keep <= SAMPLE_BYTES:
            value: bytes = self._data[self._keep : self._at]
            if opcode in _UNORDERED:
                value = b"".join(sorted(groups(value, _GROUPS[opcode])))
        else:
            value = b""
        self._keep = -1
        parts = (key, expiry, bytes([opcode]), value)
        digest = hashlib.blake2b(b"".join(len(part).to_bytes(8, "big") + part for part in parts), digest_size=16)
        self._samples.setdefault(database, []).append(digest.digest())

    def _value(self, opcode: int) -> Generator[None]:
        if opcode in _ONE:
            yield from self._skip_string()
        elif opcode in _GROUPS:
            for _ in range((yield from self._length()) * _GROUPS[opcode]):
                yield from self._skip_string()
        elif opcode == 18:
            for _ in range((yield from self._length())):
                yield from self._length()
                yield from self._skip_string()
        elif opcode in (3, 5):
            for _ in range((yield from self._length())):
                yield from self._skip_string()
                size = 8 if opcode == 5 else (yield from self._take(1))[0]
                yield from self._skip(0 if size in (253, 254, 255) else size)
        elif opcode in _STREAMS:
            yield from self._stream(opcode)
        else:
            yield from self._module()

    def _stream(self, opcode: int) -> Generator[None]:
        for _ in range((yield from self._length()) * 2):
            yield from self._skip_string()
        for _ in range(3 if opcode == 15 else 8):
            yield from self._length()
        for _ in range((yield from self._length())):  # groups of consumers
            yield from self._skip_string()
            for _ in range(2 if opcode == 15 else 3):
                yield from self._length()
            for _ in range((yield from self._length())):  # entries nobody acknowledged yet
                yield from self._skip(24)
                yield from self._length()
            for _ in range((yield from self._length())):  # consumers
                yield from self._skip_string()
                yield from self._skip(16 if opcode == 21 else 8)
                yield from self._skip((yield from self._length()) * 16)

    def _module(self) -> Generator[None]:
        yield from self._length()
        while True:
            what = yield from self._length()
            if what == 0:
                return
            if what in (1, 2):
                yield from self._length()
            elif what in (3, 4):
                yield from self._skip(4 if what == 3 else 8)
            elif what == 5:
                yield from self._skip_string()
            else:
                raise self._wrong(f"data of a module have the unknown kind {what}")

    def _take(self, size: int) -> Generator[None, None, bytes]:
        while len(self._data) - self._at < size:
            yield
        at = self._at
        self._at = at + size
        return self._data[at : at + size]

    def _skip(self, size: int) -> Generator[None]:
        self._at += size
        while self._at > len(self._data):
            yield

    def _length(self) -> Generator[None, None, int]:
        number, special = yield from self._number()
        if special:
            raise self._wrong("a length is none")
        return number

    def _number(self) -> Generator[None, None, tuple[int, bool]]:
        while self._at >= len(self._data):
            yield
        first = self._data[self._at]
        self._at += 1
        if first < 0x40:
            return first, False
        if first < 0x80:
            return (first & 0x3F) << 8 | (yield from self._take(1))[0], False
        if first >= 0xC0:
            return first & 0x3F, True
        if first not in (0x80, 0x81):
            raise self._wrong(f"a length begins with {first}")
        return int.from_bytes((yield from self._take(4 if first == 0x80 else 8)), "big"), False

    def _skip_string(self) -> Generator[None]:
        # The hot path: a length of one or two bytes whose string is already here.
        data, at = self._data, self._at
        if at + 1 < len(data):
            first = data[at]
            if first < 0x40:
                at += 1 + first
            elif first < 0x80:
                at += 2 + ((first & 0x3F) << 8 | data[at + 1])
            if self._at < at <= len(data):
                self._at = at
                return
        number, special = yield from self._number()
        if special and number == 3:
            number = yield from self._length()
            yield from self._length()
        elif special:
            number = self._integer_size(number)
        yield from self._skip(number)

    def _string(self) -> Generator[None, None, bytes]:
        number, special = yield from self._number()
        if not special:
            return (yield from self._take(self._short(number)))
        if number == 3:
            size = self._short((yield from self._length()))
            length = self._short((yield from self._length()))
            return self._unpacked((yield from self._take(size)), length)
        data = yield from self._take(self._integer_size(number))
        return str(int.from_bytes(data, "little", signed=True)).encode()

    def _unpacked(self, data: bytes, length: int) -> bytes:
        try:
            return unpacked(data, length)
        except (IndexError, ValueError) as error:
            raise self._wrong("a compressed string cannot be unpacked") from error

    def _integer_size(self, kind: int) -> int:
        if kind > 2:
            raise self._wrong(f"a string has the unknown encoding {kind}")
        return int(1 << kind)

    def _short(self, size: int) -> int:
        if size > 512 * 1024 * 1024:
            raise self._wrong(f"a name of {size} bytes")
        return size

    def _wrong(self, text: str) -> StoreDamaged:
        return StoreDamaged(f"{self._what} is damaged: {text}")


__all__ = ["RdbWalker"]
