"""What backups need from the outside world: objects that are written once, keys, databases, files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ops_pipeline.core.backup.file_entry import Changed, FileEntry, Piece
from ops_pipeline.core.backup.records import Arrived, Contents, Kind
from ops_pipeline.ports.delivery import BlobStore, Progress

# ---------------------------------------------------------------------------------------------------- objects


@dataclass(frozen=True)
class ObjectInfo:
    """One stored object; `etag` is what a conditional delete compares."""

    key: str
    size: int
    modified: datetime
    etag: str


class ObjectWriter(Protocol):
    """One object that comes in blocks; nothing of it shows before `commit`. Threads may bring blocks in any order."""

    def block(self, index: int, data: bytes) -> None:
        """Store block `index` (0, 1, …). The same index again replaces it. Raise Transient, Permanent (full)."""

    def commit(self, count: int) -> ObjectInfo:
        """Make the object of blocks 0 … count-1 exist, durably.

        Raise Conflict when an object of this key exists with other content; a repetition of one's own commit whose
        answer was lost succeeds.
        """

    def abort(self) -> None:
        """Forget the blocks; no error whatever happened before."""


class ObjectStore(Protocol):
    """Objects that are written once and never changed. Keys as in `BlobStore`.

    Errors: Transient (after the adapter's own bounded retries), Permanent (refused, full, unwritable), NotFound.
    """

    def begin(self, key: str) -> ObjectWriter:
        """Start an object of many blocks."""

    def put(self, key: str, data: bytes) -> ObjectInfo:
        """Store a whole small object. Durable only after `flush`. Raise Conflict when there is one already."""

    def flush(self) -> None:
        """Return when all that was put is durable. Until then it may not show, but what shows is never cut."""

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object, fewer than `length` only at its end. Raise NotFound."""

    def stat(self, key: str) -> ObjectInfo | None:
        """What is known without reading it, or None."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects whose key begins so, sorted by key, page by page; what is unfinished never shows."""

    def delete(self, key: str, *, etag: str | None = None) -> None:
        """Remove; no error when there is none. With `etag` raise Conflict when the object is another one by now."""


# ---------------------------------------------------------------------------------------------------- keys


@dataclass(frozen=True)
class DataKey:
    """A fresh key for one object. `secret` never leaves the process; `wrapped` opens only with an identity."""

    secret: bytes
    wrapped: str

    def __repr__(self) -> str:
        return "DataKey(***)"


class Sealing(Protocol):
    """Compression, encryption for age recipients, signatures. Thread-safe; bulk work releases the interpreter."""

    @property
    def recipients(self) -> tuple[str, ...]:
        """Public keys (age1…) that can open what is sealed now."""

    @property
    def can_open(self) -> bool:
        """Whether an identity is at hand here."""

    def new_key(self) -> DataKey:
        """A data key wrapped for all recipients."""

    def unwrap(self, wrapped: str) -> DataKey:
        """Given a wrapped key, return it. Raise PolicyRefused when no identity here opens it, StoreDamaged when cut."""

    def seal(self, key: DataKey, identity: str, index: int, last: bool, plain: bytes, *, compress: bool) -> bytes:
        """One frame, sealed. Index, whether it is the last, and `identity` are bound into it."""

    def open(self, key: DataKey, identity: str, index: int, last: bool, sealed: bytes) -> bytes:
        """The plain bytes, at most FRAME_BYTES. Raise StoreDamaged when anything about it is not as it was sealed."""

    def address(self, plain_sha256: str) -> str:
        """Keyed name (hex) of a content, so that names tell nothing about it. Stable as long as the signing key is."""

    def seal_own(self, data: bytes, what: str) -> bytes:
        """Sealed so that only the holder of the signing key opens it again: for rebuildable caches, never for sets."""

    def open_own(self, data: bytes, what: str) -> bytes:
        """What `seal_own` sealed for the same `what`. Raise StoreDamaged."""

    def sign(self, data: bytes) -> Mapping[str, str]:
        """An Ed25519 signature: {"key": public key, "signature": …}, both base64."""

    def check_signature(self, data: bytes, signature: Mapping[str, str], what: str) -> None:
        """Return when a trusted key signed exactly this. Raise StoreDamaged naming `what`."""


# ---------------------------------------------------------------------------------------------------- data


class Dump(Protocol):
    """One stream of a backup under way. Not thread-safe. `name` becomes the part's name."""

    @property
    def name(self) -> str:
        """ "dump", "globals", …"""

    @property
    def stands(self) -> bool:
        """Whether no row that is written from now on can be in it, however late it is read: its moment is past."""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; b"" only after the tool ended with code 0 and the stream's own end was seen.

        Raise Permanent with the tool's last words when it failed, hung past its time-out or was cut off.
        """

    def arrived(self) -> Arrived:
        """What is known now that everything was read."""

    def close(self) -> None:
        """End the tool if it still runs; no error."""


class Beside(Protocol):
    """An empty place beside the live data (or in a scratch server) that a restore fills."""

    @property
    def name(self) -> str:
        """What it is called in the engine, e.g. the database's name."""

    def load(self, part: str, chunks: Iterator[bytes]) -> None:
        """Load one part, in the order the parts were dumped. Raise Permanent with the tool's last words."""

    def finish(self) -> None:
        """Bring it up to speed after all parts were loaded (statistics, persistence)."""

    def contents(self) -> Contents:
        """The same view of it as a dump's `arrived().contents`."""

    def ask(self, query: str) -> str:
        """Answer of one application query (SQL, `db.collection.count({})`-like, Redis command), as text."""


class DataSource(Protocol):
    """One database of an environment, on its server. Every call is bounded in time.

    Names of what a restore makes: `beside` gets "r<token>", a hold "h<token>" appended by the adapter as its engine
    wants it; `token` is [a-z0-9]{4,12}. All of `swap`, `unswap`, `drop_*` are idempotent and safe to repeat after a
    kill between any two of their steps; live data are never touched by anything but `swap` and `unswap`.
    """

    @property
    def name(self) -> str:
        """Name in the catalogue."""

    @property
    def kind(self) -> Kind:
        """Kind in the catalogue."""

    def check(self) -> Sequence[str]:
        """Warnings for people about what a dump will not hold. Raise Unavailable, Permanent when none can be made."""

    def version(self) -> str:
        """Server and version, e.g. "PostgreSQL 15.14"."""

    def image(self) -> str:
        """Image of the server's container, for a scratch server of the same version."""

    def dumps(self) -> AbstractContextManager[Sequence[Dump]]:
        """The streams of one backup, to be read one after the other; the context holds their common snapshot."""

    def contents(self) -> Contents:
        """The live data's view, now."""

    def ask(self, query: str) -> str:
        """As `Beside.ask`, of the live data now; while `dumps` is open in its snapshot, where the engine shares one.

        Changes nothing, whatever is asked, where the engine can promise that. Raise BadInput, Permanent, Unavailable.
        """

    def beside(self, token: str) -> Beside:
        """An empty place on the live server; what an earlier attempt of the same token left is dropped."""

    def scratch(self, image: str, labels: Mapping[str, str]) -> AbstractContextManager[Beside]:
        """A throw-away server of this image, bounded in memory, gone at the end, without any published port.

        Raise NotFound when the engine has no such image (nothing is fetched).
        """

    def swap(self, token: str) -> None:
        """Live becomes the hold `token`, beside `token` becomes live: both, or neither. Live sessions are ended."""

    def swapped(self, token: str) -> bool:
        """Whether beside `token` is what is live now."""

    def unswap(self, token: str) -> None:
        """The hold `token` becomes live again; what was live becomes beside `token`."""

    def drop_beside(self, token: str) -> None:
        """Remove what `beside` made."""

    def holds(self) -> Sequence[str]:
        """Tokens of the holds that exist."""

    def drop_hold(self, token: str) -> None:
        """Remove a hold."""


class FileTree(Protocol):
    """A directory on this machine, or a Docker volume on any engine. Every call is bounded in time.

    The restored tree lies beside the live one, on the same file system; a swap is renames only. Nothing ever follows
    a symbolic link, and no name may lead out of the tree.
    """

    @property
    def name(self) -> str:
        """Name in the catalogue."""

    @property
    def kind(self) -> Kind:
        """ "volume" or "directory"."""

    def check(self) -> Sequence[str]:
        """Warnings. Raise NotFound, Unavailable, Permanent."""

    def walk(self) -> Iterator[FileEntry]:
        """All names, the tree itself (b"") first, then sorted by path bytes, without what restores keep here.

        Sockets and devices are left out, and what vanishes meanwhile.
        """

    def read(self, entries: Sequence[FileEntry]) -> Iterator[Piece]:
        """Content of several files: (index of the entry, piece, whether it is the last). Holes are not sent.

        Entries come one after the other, in their order; an empty file is one empty piece. A file that is gone or
        changed since it was walked, or while it was read, ends with a `Changed` and the others go on.
        Threads may read different entries at once.
        """

    def beside(self, token: str) -> None:
        """Make the tree beside the live one; what an earlier attempt of the token left stays: restores resume."""

    def write(self, token: str, entries: Iterator[tuple[FileEntry, Iterator[bytes]]], *, durable: bool = True) -> None:
        """Write names with content, modes, owners and times. Raise Permanent (hostile, full).

        With `durable` everything written with this token, by this call and by others that ended before, is durable.

        Names that exist are replaced, directories kept; missing parents are an error. Directories get their
        attributes at the end of the call. Threads may write different names at once below directories that exist.
        """

    def walk_beside(self, token: str) -> Iterator[FileEntry]:
        """What was restored, as `walk`."""

    def read_beside(self, token: str, entries: Sequence[FileEntry]) -> Iterator[Piece]:
        """As `read`."""

    def swap(self, token: str) -> None:
        """Live becomes hold `token`, beside becomes live. Idempotent; a kill in between is finished by a repetition."""

    def swapped(self, token: str) -> bool:
        """Whether beside `token` is what is live now."""

    def unswap(self, token: str) -> None:
        """The hold becomes live again."""

    def drop_beside(self, token: str) -> None:
        """Remove."""

    def holds(self) -> Sequence[str]:
        """Tokens of the holds that exist."""

    def drop_hold(self, token: str) -> None:
        """Remove a hold."""


@dataclass(frozen=True)
class Vault:
    """Where sets are kept, and the keys. `sets` and `media` are written once; `state` is mutable."""

    sets: ObjectStore
    media: ObjectStore
    state: BlobStore
    sealing: Sealing


__all__ = [
    "Beside",
    "Changed",
    "DataKey",
    "DataSource",
    "Dump",
    "FileEntry",
    "FileTree",
    "ObjectInfo",
    "ObjectStore",
    "ObjectWriter",
    "Piece",
    "Progress",
    "Sealing",
    "Vault",
]
