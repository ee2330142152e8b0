"""Lists of files and of references: what is written is read back, and nothing that is not plausible is believed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops_pipeline.core.backup.file_entry import FileEntry
from ops_pipeline.core.backup.file_list import (
    EMPTY_SHA256,
    PIECE_BYTES,
    ListedFile,
    ListError,
    StoredPiece,
    first_line,
    last_line,
    line_of,
    read_list,
)
from ops_pipeline.core.backup.media import (
    REFERENCES_START,
    MediaReference,
    address_of,
    read_references,
    reference_line,
    references_end,
)
from ops_pipeline.core.backup.patterns import Patterns
from ops_pipeline_tests.testbed.trees import Named, trees


def listed(named: Named) -> ListedFile:
    entry, data = named
    if entry.kind != "file":
        return ListedFile(entry)
    if not data:
        return ListedFile(entry, EMPTY_SHA256)
    sha256 = hashlib.sha256(data).hexdigest()
    reference = MediaReference(hashlib.sha256(b"address" + data).hexdigest(), len(data) + 40, sha256)
    return ListedFile(entry, sha256, (StoredPiece(reference, sha256, len(data)),))


def text_of(files: list[ListedFile]) -> bytes:
    size = sum(one.entry.stored_bytes for one in files)
    return first_line() + b"".join(map(line_of, files)) + last_line(len(files), size)


def read(data: bytes, entries: int, size: int, cut: int = 1 << 20) -> list[ListedFile]:
    chunks = (data[start : start + cut] for start in range(0, len(data), cut))
    return list(read_list(chunks, entries=entries, plain_size=size))


@settings(max_examples=60)
@given(named=trees(), cut=st.integers(1, 300))
def test_what_is_written_is_read_back(named: list[Named], cut: int) -> None:
    files = [listed(one) for one in named]
    size = sum(one.entry.stored_bytes for one in files)
    assert read(text_of(files), len(files), size, cut) == files


@settings(max_examples=40)
@given(named=trees(), where=st.floats(0, 0.999))
def test_a_list_that_is_cut_anywhere_is_refused(named: list[Named], where: float) -> None:
    files = [listed(one) for one in named]
    data = text_of(files)
    with pytest.raises(ListError):
        read(data[: int(len(data) * where)], len(files), sum(one.entry.stored_bytes for one in files))


TOP = FileEntry(b"", "directory", 0o755, 0, 0)
LINK = FileEntry(b"l", "symlink", 0o777, 0, 0, link=b"/etc")
DIRECTORY = FileEntry(b"d", "directory", 0o755, 0, 0)


def file(path: bytes, data: bytes = b"x", **fields: Any) -> ListedFile:
    return listed((FileEntry(path, "file", 0o644, 0, 0, size=len(data), **fields), data))


def entry(path: bytes, kind: str, **fields: Any) -> ListedFile:
    return ListedFile(FileEntry(path, kind, fields.pop("mode", 0o644), 0, 0, **fields))


X = file(b"x", b"abc")
HOSTILE: dict[str, tuple[list[ListedFile], str]] = {
    "up": ([file(b"../x")], "no path below"),
    "up inside": ([ListedFile(DIRECTORY), file(b"d/../../x")], "no path below"),
    "absolute": ([file(b"/etc/passwd")], "no path below"),
    "dot": ([file(b"./x")], "no path below"),
    "nul": ([file(b"a\0b")], "no path below"),
    "long name": ([file(b"x" * 256)], "no path below"),
    "endless path": ([file(b"a/" * 40000 + b"a")], "too long"),
    "twice": ([X, X], "twice"),
    "out of order": ([file(b"b"), file(b"a")], "out of order"),
    "below a link": ([ListedFile(LINK), file(b"l/passwd")], "below what is no directory"),
    "below a file": ([file(b"f"), file(b"f/x")], "below what is no directory"),
    "below nothing": ([file(b"no/x")], "below what is no directory"),
    "below what came and went": ([ListedFile(DIRECTORY), file(b"e"), file(b"e/x")], "below what is no directory"),
    "the tree is a link": ([], "first entry"),
    "device": ([entry(b"d", "device")], "not restored"),
    "block device": ([entry(b"d", "block")], "not restored"),
    "own name": ([ListedFile(replace(DIRECTORY, path=b".ops-hold-abcd"))], "for themselves"),
    "mode": ([entry(b"d", "directory", mode=0o170000)], "impossible mode"),
    "negative size": ([ListedFile(replace(X.entry, size=-1), X.sha256, X.pieces)], "impossible size"),
    "huge size": ([ListedFile(replace(X.entry, size=2**63), X.sha256, X.pieces)], "impossible size"),
    "size without content": ([ListedFile(replace(X.entry, size=2**40), X.sha256, X.pieces)], "has not"),
    "empty with a hash": ([ListedFile(replace(X.entry, size=0), X.sha256)], "hash"),
    "no hash": ([ListedFile(replace(X.entry, size=0), "")], "has not"),
    "content of a directory": ([ListedFile(DIRECTORY, X.sha256, X.pieces)], "is no file"),
    "size of a directory": ([ListedFile(replace(DIRECTORY, size=5))], "is no file"),
    "holes backwards": ([file(b"x", b"abc", holes=((5, 2), (1, 2)))], "holes"),
    "holes outside": ([file(b"x", b"abc", holes=((0, 100),))], "holes"),
    "bomb of holes": ([file(b"x", b"", holes=((0, 2**61),))], "holes"),
    "link to nothing": ([entry(b"h", "hardlink", link=b"none")], "which is none"),
    "link out": ([entry(b"h", "hardlink", link=b"../../etc/passwd")], "which is none"),
    "link to a directory": ([ListedFile(replace(DIRECTORY, links=5)), entry(b"h", "hardlink", link=b"d")], "is none"),
    "link to itself": ([entry(b"h", "hardlink", link=b"h")], "which is none"),
    "link forwards": ([entry(b"a", "hardlink", link=b"b"), file(b"b", b"x", links=2)], "which is none"),
    "empty symbolic link": ([entry(b"s", "symlink")], "link"),
    "nul in a link": ([entry(b"s", "symlink", link=b"a\0b")], "link"),
    "wrong cut": (
        [
            ListedFile(
                replace(X.entry, size=6), X.sha256,
                (X.pieces[0], X.pieces[0]),
            )
        ],
        "wrong size",
    ),
    "attribute without a name": ([file(b"x", b"x", xattrs=((b"", b"v"),))], "attributes"),
}  # fmt: skip


@pytest.mark.parametrize(("files", "words"), HOSTILE.values(), ids=list(HOSTILE))
def test_a_hostile_list_is_refused_with_one_clear_error(files: list[ListedFile], words: str) -> None:
    first = ListedFile(replace(LINK, path=b"")) if not files else ListedFile(TOP)
    everything = [first, *files]
    with pytest.raises(ListError, match=words):
        read(text_of(everything), len(everything), 2**62)


SPELLING: dict[str, Callable[[dict[str, Any]], None]] = {
    "a field more": lambda fields: fields.update(more=1),
    "a field less": lambda fields: fields.pop("mode"),
    "mode as text": lambda fields: fields.update(mode="420"),
    "mode as truth": lambda fields: fields.update(mode=True),
    "size as fraction": lambda fields: fields.update(size=3.0),
    "path as number": lambda fields: fields.update(path=7),
    "path no name can be": lambda fields: fields.update(path="\ud800"),
    "address with a path": lambda fields: fields["pieces"][0].__setitem__(0, "../../x"),
    "address too long": lambda fields: fields["pieces"][0].__setitem__(0, "a" * 65),
    "stored size nothing": lambda fields: fields["pieces"][0].__setitem__(1, 0),
    "hash in capitals": lambda fields: fields.update(sha256="A" * 64),
    "pieces no list": lambda fields: fields.update(pieces=3),
    "kind no text": lambda fields: fields.update(kind=["file"]),
    "attributes no base64": lambda fields: fields.update(xattrs={"user.a": "%"}),
    "piece too large": lambda fields: fields["pieces"][0].__setitem__(4, PIECE_BYTES + 1),
}


@pytest.mark.parametrize("change", SPELLING.values(), ids=list(SPELLING))
def test_a_line_spelt_in_any_other_way_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    fields = json.loads(line_of(X))
    change(fields)
    data = first_line() + line_of(ListedFile(TOP)) + json.dumps(fields).encode() + b"\n" + last_line(2, 3)
    with pytest.raises(ListError, match="line 3"):
        read(data, 2, 3)


@pytest.mark.parametrize(("entries", "size"), [(1, 3), (3, 3), (2, 2), (2, 4), (0, 0)])
def test_a_list_of_another_length_than_its_manifest_says_is_refused(entries: int, size: int) -> None:
    with pytest.raises(ListError):
        read(text_of([ListedFile(TOP), X]), entries, size)


@pytest.mark.parametrize("data", [b"", b"\n", b"[]\n", b"{}\n", b"x" * (9 << 20), first_line(), b"[" * 100_000 + b"\n"])
def test_what_is_no_list_is_refused(data: bytes) -> None:
    with pytest.raises(ListError):
        read(data, 1, 0)


def test_siblings_that_sort_into_a_directory_do_not_end_it() -> None:
    files = [
        ListedFile(TOP),
        entry(b"a", "directory"),
        entry(b"a-b", "directory"),
        *(file(path) for path in (b"a-b/x", b"a.x", b"a/x")),
    ]
    assert read(text_of(files), 6, 3) == files


# ---------------------------------------------------------------------------------------------------- references

ONE = MediaReference("a" * 64, 10, "b" * 64)
TWO = MediaReference("c" * 64 + "-01k0", 2**40, "d" * 64)
WHOLE = REFERENCES_START + reference_line(ONE) + reference_line(TWO) + references_end(2)


@given(cut=st.integers(1, len(WHOLE)))
def test_references_are_read_back_however_they_are_cut(cut: int) -> None:
    assert list(read_references(WHOLE[at : at + cut] for at in range(0, len(WHOLE), cut))) == [ONE, TWO]
    with pytest.raises(ValueError):
        list(read_references([WHOLE[: cut - 1]]))


@settings(max_examples=200)
@given(at=st.integers(0, len(WHOLE) - 1), byte=st.integers(0, 255))
def test_a_changed_reference_list_is_refused_or_still_one(at: int, byte: int) -> None:
    changed = WHOLE[:at] + bytes([byte]) + WHOLE[at + 1 :]
    try:
        found = list(read_references([changed]))
    except ValueError:
        return
    assert len(found) == 2


def test_keys_and_addresses() -> None:
    assert ONE.key == f"media/aa/{'a' * 64}" and address_of(ONE.key) == ONE.address
    assert address_of(TWO.key) == TWO.address
    for key in ("media/ab/" + "a" * 64, "media/aa/short", "other", f"media/aa/{'A' * 64}"):
        assert address_of(key) == ""


# ---------------------------------------------------------------------------------------------------- patterns

PATTERNS: list[tuple[str, list[bytes], list[bytes]]] = [
    ("*.tmp", [b"a.tmp", b"d/e/a.tmp", b"a.tmp/below"], [b"tmp", b"a.tmpx"]),
    ("cache/*", [b"cache/x", b"cache/x/y"], [b"cache", b"d/cache/x"]),
    ("/cache", [b"cache", b"cache/x"], [b"d/cache"]),
    ("a/**/z", [b"a/z", b"a/b/z", b"a/b/c/z"], [b"z", b"az"]),
    ("a/**", [b"a/x", b"a/x/y"], [b"a", b"b/a/x"]),
    ("?", [b"x", b"d/x", b"d/\xff"], [b"xy"]),
    ("[a-c]1", [b"a1", b"x/c1"], [b"d1", b"a"]),
    ("[!a]1", [b"b1"], [b"a1"]),
    ("a.b", [b"a.b"], [b"axb"]),
    ("ü*", ["über".encode()], [b"u"]),
    ("x\ny", [b"x\ny"], [b"x"]),
]


@pytest.mark.parametrize(("pattern", "fit", "others"), PATTERNS, ids=[repr(one[0]) for one in PATTERNS])
def test_patterns(pattern: str, fit: list[bytes], others: list[bytes]) -> None:
    found = Patterns([pattern])
    assert [path for path in fit if not found.fits(path)] == []
    assert [path for path in [*others, b""] if found.fits(path)] == []
    assert not Patterns(()).fits(fit[0])


@pytest.mark.parametrize("pattern", ["", "/", "..", "a/../b", "./a", "a//b", "[z-a]"])
def test_patterns_that_can_fit_nothing_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="not a pattern"):
        Patterns([pattern])
