"""Reads pg_dump's custom format as it streams by, and proves that nothing is missing, without any server.

The format is what src/bin/pg_dump/pg_backup_archiver.c (WriteHead, WriteToc, WriteInt, WriteStr, WriteOffset) and
pg_backup_custom.c of PostgreSQL write; archive versions 1.14 (PostgreSQL 12) to 1.16 (PostgreSQL 17 and later):

    header   "PGDMP", version (3 bytes), size of integers, size of offsets, format 1, compression
             (an integer before 1.15, a byte since), 7 integers of time, 3 strings (database, server, pg_dump)
    integer  one byte for the sign, then the absolute value, least significant byte first
    string   integer length (-1 = none), bytes
    contents integer count, then each entry: id, has data, 2 strings (oids), tag, description, section, definition,
             drop, copy, schema, tablespace, access method, (relation kind since 1.16), owner, "false",
             strings of dependencies up to a none, offset (a byte: 1 = not known, 2 = known, 3 = no data; then bytes)
    data     per entry with data a block: byte 1 (rows) or 3 (large objects), the entry's id, then chunks: integer
             length, bytes; length 0 ends it. Large objects: oid before the chunks of each, oid 0 ends the block

The contents come first and have no offsets when pg_dump writes into a pipe. So an archive is whole exactly when every
entry with data had its block, each block was ended, and nothing follows. Rows end with `\\.`, which is checked too.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from dataclasses import dataclass

from ops_pipeline.errors import StoreDamaged

ROWS, LARGE_OBJECTS = 1, 3
NO_DATA = 3
ROWS_END = b"\\.\n\n\n"
MAX_STRING = 512 * 1024 * 1024
MAX_ENTRIES = 20_000_000
_CUSTOM = 1
_KEEP = 16
_COMPRESSIONS = {0: "none", 1: "gzip", 2: "lz4", 3: "zstd"}


@dataclass(frozen=True)
class Entry:
    """One line of an archive's table of contents. `definition` is kept only for the kinds in KEPT, "" otherwise."""

    id: int
    kind: str  # "TABLE DATA", "SEQUENCE SET", …
    schema: str
    tag: str
    definition: str
    has_data: bool
    owner: str = ""


KEPT = frozenset({"DATABASE", "DATABASE PROPERTIES", "SEQUENCE SET", "ACL", "COMMENT"})
_OF_DATABASE = frozenset({"ACL", "COMMENT"})  # kept only where their tag is the database


@dataclass(frozen=True)
class Header:
    """What an archive says about itself."""

    version: tuple[int, int, int]
    compression: str
    database: str
    server: str
    client: str


class ArchiveWalker:
    """Follows one archive. Give it every byte in order by `feed`, then `finish`.

    Raise StoreDamaged as soon as something cannot be; the message begins with `what`.
    """

    def __init__(self, what: str) -> None:
        """`what` names the archive in messages."""
        self._what = what
        self.header: Header | None = None
        self.entries: list[Entry] = []
        self.complete_contents = False  # of the table of contents
        self.rows: dict[str, int] = {}  # "schema.table" → chunks of its data, which are rows if pg_dump does not buffer
        self.large_objects = 0
        self.blocks = 0
        self._wanted: dict[int, Entry] = {}
        self._data = b""
        self._at = 0
        self._integer = struct.Struct("<BI")
        self._int_size = 4
        self._offset_size = 8
        self._between = False  # at a place where the archive may end
        self._machine = self._walk()
        next(self._machine)

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        # What lies just before the place reached is kept: the end of the rows is looked at when their end is seen.
        begin = max(min(self._at, len(self._data)) - _KEEP, 0)
        self._data = self._data[begin:] + data
        self._at -= begin
        if self._at < len(self._data):
            next(self._machine)

    def finish(self) -> None:
        """The archive ended here. Raise StoreDamaged unless it may."""
        if not self.complete_contents:
            raise self._cut("inside its table of contents")
        if self._at != len(self._data) or not self._between:
            raise self._cut("inside a block of data")
        if self._wanted:
            first = next(iter(self._wanted.values()))
            raise self._cut(f"{len(self._wanted)} blocks of data are missing, the first of {first.schema}.{first.tag}")

    # ------------------------------------------------------------------------------------------- the machine

    def _walk(self) -> Generator[None, None, None]:
        yield from self._read_header()
        yield from self._read_contents()
        self.complete_contents = True
        while True:
            self._between = True
            while self._at >= len(self._data):
                yield
            self._between = False
            kind = (yield from self._take(1))[0]
            number = yield from self._number()
            entry = self._wanted.pop(number, None)
            if entry is None:
                raise self._wrong(f"a block of data of entry {number}, which has none or had it already")
            if kind == ROWS:
                rows = yield from self._chunks(entry)
                if entry.kind == "TABLE DATA":
                    self.rows[f"{entry.schema}.{entry.tag}"] = max(rows - 1, 0)
            elif kind == LARGE_OBJECTS:
                while (yield from self._number()) != 0:
                    yield from self._chunks(None)
                    self.large_objects += 1
            else:
                raise self._wrong(f"a block of unknown kind {kind}")
            self.blocks += 1

    def _read_header(self) -> Generator[None, None, None]:
        magic = yield from self._take(5)
        if magic != b"PGDMP":
            raise self._wrong("no archive of pg_dump's custom format")
        version = tuple((yield from self._take(3)))
        if not (1, 14, 0) <= version < (1, 17, 0):
            raise self._wrong(f"archive version {'.'.join(map(str, version))} is not known")
        sizes = yield from self._take(3)
        self._int_size, self._offset_size = sizes[0], sizes[1]
        if self._int_size != 4 or self._offset_size not in (4, 8) or sizes[2] != _CUSTOM:
            raise self._wrong("sizes or format in its header are not known")
        number = (yield from self._number()) if version < (1, 15, 0) else (yield from self._take(1))[0]
        compression = ("none" if number == 0 else "gzip") if version < (1, 15, 0) else _COMPRESSIONS.get(number)
        if compression is None:
            raise self._wrong(f"compression {number} is not known")
        for _ in range(7):
            yield from self._number()
        names = []
        for _ in range(3):
            names.append((yield from self._string()) or "")
        self.header = Header((version[0], version[1], version[2]), compression, names[0], names[1], names[2])

    def _read_contents(self) -> Generator[None, None, None]:
        assert self.header is not None
        with_relation_kind = self.header.version >= (1, 16, 0)
        count = yield from self._number()
        if not 0 <= count <= MAX_ENTRIES:
            raise self._wrong(f"{count} entries")
        for _ in range(count):
            number = yield from self._number()
            yield from self._number()
            yield from self._skip_string()
            yield from self._skip_string()
            tag = (yield from self._string()) or ""
            kind = (yield from self._string()) or ""
            yield from self._number()
            kept = kind in KEPT and (kind not in _OF_DATABASE or tag.startswith("DATABASE "))
            definition = ""
            if kept:
                definition = (yield from self._string()) or ""
            else:
                yield from self._skip_string()
            yield from self._skip_string()
            yield from self._skip_string()
            schema = (yield from self._string()) or ""
            yield from self._skip_string()
            yield from self._skip_string()
            if with_relation_kind:
                yield from self._number()
            owner = (yield from self._string()) or ""
            yield from self._skip_string()
            while (yield from self._skip_string()):
                pass
            state = (yield from self._take(1 + self._offset_size))[0]
            if state not in (1, 2, NO_DATA):
                raise self._wrong(f"entry {number} has the offset kind {state}")
            entry = Entry(number, kind, schema, tag, definition, has_data=state != NO_DATA, owner=owner)
            if entry.has_data:
                if number in self._wanted:
                    raise self._wrong(f"two entries of number {number}")
                self._wanted[number] = entry
            if kept or entry.has_data:
                self.entries.append(entry)

    def _chunks(self, entry: Entry | None) -> Generator[None, None, int]:
        """Pass over chunks up to the empty one; return how many there were. The hot loop: once per row of a table."""
        unpack, count = self._integer.unpack_from, 0
        while True:
            data, at = self._data, self._at
            limit = len(data) - 5
            while at <= limit:
                sign, length = unpack(data, at)
                if not length or sign:
                    break
                count += 1
                at += 5 + length
            else:
                self._at = at
                yield
                continue
            if length:
                raise self._wrong("a chunk of negative length")
            plain = self.header is not None and self.header.compression == "none"
            rows = plain and entry is not None and entry.kind == "TABLE DATA"
            if rows and data[max(at - len(ROWS_END), 0) : at] != ROWS_END:
                raise self._wrong(f"the rows of {entry.schema}.{entry.tag} do not end as rows do" if entry else "rows")
            self._at = at + 5
            return count

    # ------------------------------------------------------------------------------------------- pieces

    def _take(self, size: int) -> Generator[None, None, bytes]:
        while len(self._data) - self._at < size:
            yield
        at = self._at
        self._at = at + size
        return self._data[at : at + size]

    def _number(self) -> Generator[None, None, int]:
        sign, value = self._integer.unpack((yield from self._take(5)))
        return -int(value) if sign else int(value)

    def _string(self) -> Generator[None, None, str | None]:
        length = yield from self._number()
        if length < 0:
            return None
        if length > MAX_STRING:
            raise self._wrong(f"a text of {length} bytes")
        return (yield from self._take(length)).decode(errors="replace")

    def _skip_string(self) -> Generator[None, None, bool]:
        """Pass over a string; return whether there was one."""
        length = yield from self._number()
        if length < 0:
            return False
        if length > MAX_STRING:
            raise self._wrong(f"a text of {length} bytes")
        yield from self._take(length)
        return True

    def _cut(self, where: str) -> StoreDamaged:
        return StoreDamaged(f"{self._what} is cut off: {where}")

    def _wrong(self, why: str) -> StoreDamaged:
        return StoreDamaged(f"{self._what} is damaged: {why}")
