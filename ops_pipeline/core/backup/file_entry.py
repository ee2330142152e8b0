"""One name in a tree of files, and how it is spelt as JSON.

Standard library only and no other import: the courier runs this module, sent to it as text, inside a container.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

KINDS = ("directory", "file", "symlink", "hardlink", "fifo")


@dataclass(frozen=True)
class FileEntry:
    """One name in a tree. `path` is relative, raw bytes (never beginning with "/"), directories before their content.

    The tree itself is the directory with the path b"". `size` counts holes too. `link`: target of a symbolic link,
    or, for a hard link, path of the first name of the same file (`kind` "hardlink"; all else then stands there).
    `holes`: (offset, length) of what is not stored on disk. `mtime_ns`, `ctime_ns` in nanoseconds; `inode` with
    `device` tells renamed from new; these three are never restored.
    """

    path: bytes
    kind: str  # "file" | "directory" | "symlink" | "hardlink" | "fifo"
    mode: int
    uid: int
    gid: int
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    inode: int = 0
    device: int = 0
    link: bytes = b""
    holes: tuple[tuple[int, int], ...] = ()
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    links: int = 1  # names of this file; above 1 a later entry may be a hard link to it. Never restored

    @property
    def stored_bytes(self) -> int:
        """Bytes of content that are read and kept: the size without the holes."""
        return self.size - sum(length for _, length in self.holes)


@dataclass(frozen=True)
class Changed:
    """A file that did not hold still while it was read: `now` is what the name is by now, None when it is gone."""

    why: str
    now: FileEntry | None = None


Piece = tuple[int, bytes | Changed, bool]
"""What `FileTree.read` yields: index of the entry, a piece of its content, whether it is the last of this entry.

A `Changed` is always the last of its entry; the pieces before it are what was read until then.
"""


def to_text(raw: bytes) -> str:
    """Bytes of a name as text: UTF-8, and every byte that is not as U+DC80 … U+DCFF (PEP 383). Reversible."""
    return raw.decode("utf-8", "surrogateescape")


def to_raw(text: str) -> bytes:
    """The bytes `to_text` was given. Raise UnicodeEncodeError for what it never returns."""
    return text.encode("utf-8", "surrogateescape")


def to_fields(entry: FileEntry) -> dict[str, Any]:
    """An entry as JSON fields; what is empty is left out. `ctime_ns`, `inode` and `device` are not among them."""
    fields: dict[str, Any] = {
        "path": to_text(entry.path),
        "kind": entry.kind,
        "mode": entry.mode,
        "uid": entry.uid,
        "gid": entry.gid,
        "mtime_ns": entry.mtime_ns,
    }
    if entry.size:
        fields["size"] = entry.size
    if entry.link:
        fields["link"] = to_text(entry.link)
    if entry.holes:
        fields["holes"] = [list(hole) for hole in entry.holes]
    if entry.links > 1 and entry.kind != "directory":
        fields["links"] = entry.links
    if entry.xattrs:
        fields["xattrs"] = {to_text(name): b64encode(value).decode() for name, value in entry.xattrs}
    return fields


def from_fields(fields: Mapping[str, Any]) -> FileEntry:
    """The entry of such fields, not checked for sense. Raise KeyError, TypeError, ValueError, AttributeError."""
    return FileEntry(
        path=to_raw(fields["path"]),
        kind=fields["kind"],
        mode=fields["mode"],
        uid=fields["uid"],
        gid=fields["gid"],
        size=fields.get("size", 0),
        mtime_ns=fields["mtime_ns"],
        link=to_raw(fields.get("link", "")),
        holes=tuple((start, length) for start, length in fields.get("holes", ())),
        xattrs=tuple(
            sorted((to_raw(name), b64decode(value, validate=True)) for name, value in fields.get("xattrs", {}).items())
        ),
        links=fields.get("links", 1),
    )
