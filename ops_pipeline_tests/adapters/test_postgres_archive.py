"""pg_dump's custom format is walked to its proven end, in every version, however it is cut into pieces."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops_pipeline.adapters.databases.postgres_archive import ROWS_END, ArchiveWalker
from ops_pipeline.adapters.databases.postgres_dump import positions
from ops_pipeline.errors import StoreDamaged

VERSIONS = ((1, 14, 0), (1, 15, 0), (1, 16, 0))


def number(value: int) -> bytes:
    return bytes([value < 0]) + abs(value).to_bytes(4, "little")


def string(text: str | None) -> bytes:
    return number(-1) if text is None else number(len(text.encode())) + text.encode()


@dataclass
class Archive:
    """An archive as pg_dump writes it into a pipe; `borders` are the places between two of its structures."""

    version: tuple[int, int, int]
    tables: dict[str, list[bytes]] = field(default_factory=dict)  # "schema.table" → rows
    large: dict[int, list[bytes]] = field(default_factory=dict)
    borders: list[int] = field(default_factory=list)
    data: bytes = b""

    def add(self, piece: bytes) -> None:
        self.data += piece
        self.borders.append(len(self.data))

    def entry(self, id_: int, kind: str, schema: str, tag: str, definition: str, has_data: bool) -> bytes:
        piece = number(id_) + number(has_data) + string("0") + string("0") + string(tag) + string(kind) + number(3)
        piece += string(definition) + string("") + string(None) + string(schema) + string(None) + string("heap")
        piece += number(ord("r")) if self.version >= (1, 16, 0) else b""
        return (
            piece
            + string("owner")
            + string("false")
            + string("7")
            + string(None)
            + bytes([1 if has_data else 3] + [0] * 8)
        )

    def build(self) -> bytes:
        self.add(b"PGDMP")
        self.add(bytes([*self.version, 4, 8, 1]))
        self.add(number(0) if self.version < (1, 15, 0) else b"\0")
        self.add(b"".join(number(value) for value in (1, 2, 3, 4, 5, 126, 0)))
        self.add(string("shop") + string("17.1") + string("17.1"))
        names = list(self.tables)
        self.add(number(len(names) + 2 + bool(self.large)))
        self.add(self.entry(1, "DATABASE", "", "shop", "CREATE DATABASE shop WITH TEMPLATE = template0;\n", False))
        setval = "SELECT pg_catalog.setval('public.\"it''s\"', 42, true);\n"
        self.add(self.entry(2, "SEQUENCE SET", "public", "it's", setval, False))
        for index, name in enumerate(names):
            schema, _, tag = name.partition(".")
            self.add(self.entry(10 + index, "TABLE DATA", schema, tag, "", True))
        if self.large:
            self.add(self.entry(5, "BLOBS", "", "BLOBS", "", True))
        for index, rows in enumerate(self.tables.values()):
            self.add(b"\1" + number(10 + index))
            for row in [*rows, ROWS_END]:
                self.add(number(len(row)) + row)
            self.add(number(0))
        if self.large:
            self.add(b"\3" + number(5))
            for oid, pieces in self.large.items():
                self.add(number(oid))
                for piece in pieces:
                    self.add(number(len(piece)) + piece)
                self.add(number(0))
            self.add(number(0))
        return self.data


def walked(data: bytes, size: int = 1 << 20) -> ArchiveWalker:
    walker = ArchiveWalker("the dump")
    for begin in range(0, len(data), size):
        walker.feed(data[begin : begin + size])
    walker.finish()
    return walker


row = st.binary(min_size=1, max_size=30).map(lambda data: data + b"\n")
archives = st.builds(
    Archive,
    st.sampled_from(VERSIONS),
    st.dictionaries(st.sampled_from(["public.a", "public.b", "we.ird \n☃"]), st.lists(row, max_size=5), max_size=3),
    st.dictionaries(st.integers(1, 2**31 - 1), st.lists(st.binary(min_size=1, max_size=50), max_size=3), max_size=3),
)


@settings(max_examples=60)
@given(archives, st.integers(1, 64))
def test_a_whole_archive_is_whole_in_whatever_pieces_it_comes(archive: Archive, size: int) -> None:
    walker = walked(archive.build(), size)
    assert walker.rows == {name: len(rows) for name, rows in archive.tables.items()}
    assert walker.large_objects == len(archive.large)
    assert walker.header is not None
    assert (walker.header.database, walker.header.version) == ("shop", archive.version)
    assert positions(walker.entries) == {"public.it's": "42"}


@settings(max_examples=30)
@given(archives)
def test_an_archive_cut_anywhere_is_refused(archive: Archive) -> None:
    archive.build()
    for cut in {*archive.borders[:-1], *range(0, len(archive.data), 7)} - {len(archive.data)}:
        with pytest.raises(StoreDamaged):
            walked(archive.data[:cut])


@settings(max_examples=30)
@given(archives, st.binary(min_size=1, max_size=9))
def test_nothing_may_follow(archive: Archive, more: bytes) -> None:
    with pytest.raises(StoreDamaged):
        walked(archive.build() + more)


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("nothing", b""),
        ("another format", b"PGDMP" + bytes([1, 14, 0, 4, 8, 3])),
        ("an unknown version", b"PGDMP" + bytes([1, 17, 0, 4, 8, 1])),
        ("an old version", b"PGDMP" + bytes([1, 13, 0, 4, 8, 1])),
        ("plain SQL", b"--\n-- PostgreSQL database dump\n--\n"),
        ("a huge text", b"PGDMP" + bytes([1, 16, 0, 4, 8, 1, 0]) + number(0) * 7 + number(2**31 - 1)),
    ],
)
def test_what_is_no_archive_is_refused(what: str, data: bytes) -> None:
    with pytest.raises(StoreDamaged, match="the dump"):
        walked(data)


def test_rows_must_end_as_rows_do() -> None:
    whole = Archive((1, 16, 0), {"public.a": [b"1\n"]}).build()
    with pytest.raises(StoreDamaged, match=r"public\.a"):
        walked(whole.replace(ROWS_END, b"2\n\n\n\n"))
