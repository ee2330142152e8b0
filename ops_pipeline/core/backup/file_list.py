"""The list of files of a backup: JSON lines, sorted by path, refused when anything about it is not plausible.

    {"format":"ops-files","version":1}
    {"path":"","kind":"directory","mode":493,"uid":0,"gid":0,"mtime_ns":…}
    {"path":"a.jpg","kind":"file",…,"size":…,"sha256":"…","pieces":[["address",stored size,"stored sha256","plain
     sha256",plain size]]}
    {"end":2,"bytes":…}

`sha256` is of the content without its holes; `pieces` are the media objects that hold it one after the other. Lists
come from a store and may be hostile: nothing in one leads out of the tree, and reading one needs memory for the depth
of the tree only, because the order by path shows duplicates and missing parents.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ops_pipeline.core.backup.file_entry import KINDS, FileEntry, from_fields, to_fields, to_raw, to_text
from ops_pipeline.core.backup.media import MediaReference, check_reference

FORMAT, VERSION = "ops-files", 1
PIECE_BYTES = 256 * 1024 * 1024
"""Plain bytes of every media object of a file but the last."""

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
MAX_LINE = 8 * 1024 * 1024
MAX_PATH = 64 * 1024
MAX_DEPTH = 4096
MAX_SIZE = 2**62
MAX_LINKED = 4_000_000
_OWN_NAME = re.compile(rb"\.ops-(restore|hold|state)-[a-z0-9]{4,12}(\.new)?")
_HEX = re.compile(r"[0-9a-f]{64}")
_FIELDS = {
    "path", "kind", "mode", "uid", "gid", "size", "mtime_ns", "link", "holes", "xattrs", "links", "sha256", "pieces",
}  # fmt: skip


class ListError(ValueError):
    """A list that is not one; the text says in which line and why."""


@dataclass(frozen=True)
class StoredPiece:
    """One media object that holds a file's content, or 256 MiB of it."""

    reference: MediaReference
    plain_sha256: str
    plain_size: int


@dataclass(frozen=True)
class ListedFile:
    """One line of a list. `sha256` and `pieces` are empty for everything but files; an empty file has no pieces."""

    entry: FileEntry
    sha256: str = ""
    pieces: tuple[StoredPiece, ...] = ()


def first_line() -> bytes:
    """How a list begins."""
    return _line({"format": FORMAT, "version": VERSION})


def line_of(listed: ListedFile) -> bytes:
    """One line, with its end."""
    fields = to_fields(listed.entry)
    if listed.sha256:
        fields["sha256"] = listed.sha256
    if listed.pieces:
        fields["pieces"] = pieces_to_fields(listed.pieces)
    return _line(fields)


def last_line(entries: int, plain_size: int) -> bytes:
    """How a list ends."""
    return _line({"end": entries, "bytes": plain_size})


def pieces_to_fields(pieces: Iterable[StoredPiece]) -> list[list[Any]]:
    """Pieces as JSON."""
    return [
        [one.reference.address, one.reference.size, one.reference.sha256, one.plain_sha256, one.plain_size]
        for one in pieces
    ]


def pieces_from_fields(fields: Any) -> tuple[StoredPiece, ...]:
    """Pieces from JSON. Raise ValueError, TypeError."""
    pieces = []
    for address, size, sha256, plain_sha256, plain_size in fields:
        check_reference(address, size, sha256)
        if type(plain_size) is not int or not _is_hash(plain_sha256) or not 0 < plain_size <= PIECE_BYTES:
            raise ValueError("a piece has no hash or an impossible size")
        pieces.append(StoredPiece(MediaReference(address, size, sha256), plain_sha256, plain_size))
    return tuple(pieces)


def read_list(chunks: Iterable[bytes], *, entries: int, plain_size: int) -> Iterator[ListedFile]:
    """Given the bytes of a list and what the manifest says about it, give its lines. Raise ListError.

    Paths that are absolute, empty, with "..", "." or NUL, twice or out of order, below what is no directory, or of
    what restores keep for themselves; devices; sizes and holes that cannot be; hard links to nothing; a list cut off,
    longer or larger than said: all refused. What was given before the error was well formed.
    """
    checking = _Checking(entries, plain_size)
    lines = _lines(chunks)
    number, ended = 0, False
    for number, line in enumerate(lines, 1):
        try:
            fields = json.loads(line)
            if not isinstance(fields, dict):
                raise ListError("it is no object")
            if number == 1:
                if fields != {"format": FORMAT, "version": VERSION}:
                    raise ListError("it does not begin like a list of files of a version known here")
            elif ended:
                raise ListError("it goes on after its end")
            elif "end" in fields:
                checking.end(fields)
                ended = True
            else:
                yield checking.line(fields)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ListError(f"line {number}: {_words(error)}") from None
    if not ended:
        raise ListError(f"line {number}: it is cut off")


class _Checking:
    """What must be remembered from line to line."""

    def __init__(self, entries: int, plain_size: int) -> None:
        self._most_entries, self._most_bytes = entries, plain_size
        self._entries = self._bytes = 0
        self._previous: bytes | None = None
        self._open: list[bytes] = []  # directories whose content may still come, outermost first
        self._linked: set[bytes] = set()

    def line(self, fields: dict[str, Any]) -> ListedFile:
        if unknown := set(fields) - _FIELDS:
            raise ListError(f"unknown field {sorted(unknown)[0][:40]!r}")
        entry = from_fields(fields)
        _check_entry(entry)
        self._place(entry)
        sha256, pieces = fields.get("sha256", ""), pieces_from_fields(fields.get("pieces", ()))
        _check_content(entry, sha256, pieces)
        self._entries += 1
        self._bytes += entry.stored_bytes
        if self._entries > self._most_entries or self._bytes > self._most_bytes:
            raise ListError("the list holds more than its manifest says")
        return ListedFile(entry, sha256, pieces)

    def end(self, fields: dict[str, Any]) -> None:
        if fields != {"end": self._entries, "bytes": self._bytes}:
            raise ListError("the end does not fit what came before")
        if (self._entries, self._bytes) != (self._most_entries, self._most_bytes):
            raise ListError("the list holds less than its manifest says")

    def _place(self, entry: FileEntry) -> None:
        path = entry.path
        if self._previous is None:
            if path or entry.kind != "directory":
                raise ListError("the first entry must be the tree itself")
        else:
            if path == self._previous:
                raise ListError(f"{_shown(path)} is there twice")
            if path < self._previous:
                raise ListError(f"{_shown(path)} is out of order")
            # All that begins with "a/" comes before "a0": "0" follows "/".
            while self._open and path >= self._open[-1] + b"0":
                self._open.pop()
            parent = path.rpartition(b"/")[0]
            if parent and not any(each == parent for each in reversed(self._open)):
                raise ListError(f"{_shown(path)} is below what is no directory")
        self._previous = path
        if entry.kind == "directory":
            if path:
                self._open.append(path)
            if len(self._open) > MAX_DEPTH * 4:
                raise ListError("directories are nested too deep")
        elif entry.kind == "hardlink":
            if entry.link not in self._linked:
                raise ListError(f"{_shown(path)} is the same file as {_shown(entry.link)}, which is none")
        elif entry.links > 1:
            self._linked.add(path)
            if len(self._linked) > MAX_LINKED:
                raise ListError("too many files with several names")


def _check_entry(entry: FileEntry) -> None:
    path = entry.path
    parts = path.split(b"/") if path else []
    if len(path) > MAX_PATH or len(parts) > MAX_DEPTH:
        raise ListError("a path is too long")
    if b"\0" in path or any(part in (b"", b".", b"..") or len(part) > 255 for part in parts):
        raise ListError(f"{_shown(path)} is no path below the tree")
    if parts and _OWN_NAME.fullmatch(parts[0]):
        raise ListError(f"{_shown(path)} has a name that restores keep for themselves")
    if entry.kind not in KINDS:
        raise ListError(f"{_shown(path)} is of a kind that is not restored")
    for name, value, least, most in (
        ("mode", entry.mode, 0, 0o7777),
        ("uid", entry.uid, 0, 2**32 - 2),
        ("gid", entry.gid, 0, 2**32 - 2),
        ("size", entry.size, 0, MAX_SIZE),
        ("mtime_ns", entry.mtime_ns, -(2**63), 2**63 - 1),
        ("links", entry.links, 1, 2**31),
    ):
        if type(value) is not int or not least <= value <= most:
            raise ListError(f"{_shown(path)} has an impossible {name}")
    _check_holes(entry)
    if (entry.kind in ("symlink", "hardlink")) != bool(entry.link) or b"\0" in entry.link or len(entry.link) > MAX_PATH:
        raise ListError(f"{_shown(path)} has an impossible link")
    if entry.kind != "file" and entry.size:
        raise ListError(f"{_shown(path)} has content and is no file")
    if len(entry.xattrs) > 1024 or any(
        not name or b"\0" in name or len(name) > 255 or len(value) > 65536 for name, value in entry.xattrs
    ):
        raise ListError(f"{_shown(path)} has impossible attributes")


def _check_holes(entry: FileEntry) -> None:
    at = -1
    for start, length in entry.holes:
        if type(start) is not int or type(length) is not int or start <= at or length <= 0:
            raise ListError(f"{_shown(entry.path)} has impossible holes")
        at = start + length
        if at > entry.size:
            raise ListError(f"{_shown(entry.path)} has impossible holes")


def _check_content(entry: FileEntry, sha256: Any, pieces: tuple[StoredPiece, ...]) -> None:
    if entry.kind != "file":
        if sha256 or pieces:
            raise ListError(f"{_shown(entry.path)} has content and is no file")
        return
    if not _is_hash(sha256) or sum(piece.plain_size for piece in pieces) != entry.stored_bytes:
        raise ListError(f"{_shown(entry.path)} has a size that its content has not")
    if any(piece.plain_size != PIECE_BYTES for piece in pieces[:-1]):
        raise ListError(f"{_shown(entry.path)} is cut into pieces of a wrong size")
    if (not pieces and sha256 != EMPTY_SHA256) or (len(pieces) == 1 and pieces[0].plain_sha256 != sha256):
        raise ListError(f"{_shown(entry.path)} has a hash that its content has not")


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
        if len(rest) > MAX_LINE:
            raise ListError("a line is too long")
    if rest:
        raise ListError("it is cut off inside a line")


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and _HEX.fullmatch(value) is not None


def _shown(path: bytes) -> str:
    text = ascii(to_text(path))[1:-1]
    return text if len(text) <= 120 else f"{text[:60]}…{text[-50:]}"


def _words(error: Exception) -> str:
    if isinstance(error, ListError):
        return str(error)
    if isinstance(error, json.JSONDecodeError):
        return "it is no JSON"
    if isinstance(error, UnicodeEncodeError):
        return "a name is spelt as no name is"
    return f"a field is missing or of a wrong kind ({type(error).__name__})"


def _line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=True).encode("ascii") + b"\n"


__all__ = [
    "ListError",
    "ListedFile",
    "StoredPiece",
    "first_line",
    "last_line",
    "line_of",
    "pieces_from_fields",
    "pieces_to_fields",
    "read_list",
    "to_raw",
    "to_text",
]
