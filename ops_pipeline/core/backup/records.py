"""What a backup set consists of. These dataclasses are the manifest; docs/backup-format.md explains every field.

Sizes are bytes, hashes SHA-256 in hex, times aware UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

SCHEMA = 1
FRAME_BYTES = 8 * 1024 * 1024
"""Plain bytes of every frame but the last: each is compressed, sealed, stored and checked by itself."""

ATTEMPTS = 2
"""How often a part may be begun in one set."""

Kind = str  # "postgres" | "mysql" | "mongodb" | "redis" | "volume" | "directory"
FILE_KINDS = ("volume", "directory")


class Trigger(StrEnum):
    """Why a set was taken."""

    SCHEDULE = "schedule"
    PRE_DEPLOY = "pre-deploy"
    MANUAL = "manual"


@dataclass(frozen=True)
class Block:
    """One sealed frame as it lies in the store, and the plain bytes it holds."""

    size: int
    sha256: str
    plain_size: int


@dataclass(frozen=True)
class StoredStream:
    """A stream of bytes stored as one object of sealed frames, in the order they must be read.

    `identity` is bound into every frame, so that a frame of another object, place or set does not open. The first
    block begins with the object's header, which carries `wrapped_key`.
    """

    key: str
    identity: str
    codec: str  # "zstd" | "none"
    plain_size: int
    plain_sha256: str
    stored_size: int
    stored_sha256: str
    blocks: tuple[Block, ...]
    wrapped_key: str = field(repr=False)  # the data key, sealed for the recipients (age), base64


@dataclass(frozen=True)
class Contents:
    """What a data source holds, as far as a restored copy can be compared with it.

    `counts`: rows, documents or keys by table, collection or database. `objects`: definition (or its hash) by
    "kind name": tables, columns, indexes, constraints, sequences with their position, views, triggers, routines,
    users, grants. `samples`: hash of a sample of the content by table or collection.
    """

    counts: Mapping[str, int]
    objects: Mapping[str, str] = field(default_factory=dict)
    samples: Mapping[str, str] = field(default_factory=dict)


def counted_once(kind: Kind, contents: Contents) -> Mapping[str, int]:
    """Counts of a source of this kind whose sum is how many there are: Redis counts keys by type and expiry as well."""
    if kind != "redis":
        return contents.counts
    return {name: count for name, count in contents.counts.items() if " " not in name}


@dataclass(frozen=True)
class Arrived:
    """What is known about a dump once all of it was read: it ended with code 0 and its end was seen.

    `consistency`: "snapshot" (one moment), "per-file" (each file whole, not all of one moment), or a longer word of
    the engine for anything weaker. `marker`: what proved that nothing is cut off. `contents` were taken in the dump's
    own snapshot, or counted while it streamed.
    """

    engine: str  # "PostgreSQL 15.14"
    client: str  # "pg_dump 15.14"
    command: tuple[str, ...]  # without any secret
    consistency: str
    marker: str
    exit_code: int = 0
    contents: Contents | None = None
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reference:
    """An object that is not secret and can be checked without any key."""

    key: str
    size: int
    sha256: str


@dataclass(frozen=True)
class FilesSummary:
    """A file part in numbers; its stream is the list of files.

    `references` names every media object of the list by address, stored size and stored SHA-256: addresses are keyed
    and tell nothing, so whoever checks or clears away needs no identity.
    """

    entries: int
    plain_size: int
    objects: int
    new_objects: int
    new_bytes: int  # stored by this set
    references: Reference
    changed_while_read: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """One stream of one data source: `name` is "dump", "globals", …, or "files" for the list of a file source."""

    source: str
    kind: Kind
    name: str
    stream: StoredStream
    arrived: Arrived
    started_at: datetime
    ended_at: datetime
    files: FilesSummary | None = None


@dataclass(frozen=True)
class Previous:
    """The set before this one, by id and by the hash of its manifest: a chain shows a set that was taken away."""

    id: str
    manifest_sha256: str


@dataclass(frozen=True)
class Manifest:
    """One atomic backup of all data sources of an environment. Its being stored is what makes the set exist."""

    id: str  # ULID: sorts by time
    environment: str
    project: str
    trigger: Trigger
    reason: str
    run_id: str
    taken_by: str
    started_at: datetime
    ended_at: datetime
    parts: tuple[Part, ...]
    previous: Previous | None
    images: Mapping[str, str]  # service → digest that was live
    commit: str
    recipients: tuple[str, ...]  # public keys that can open it
    warnings: tuple[str, ...] = ()
    partial: bool = False  # somebody asked for some of the data sources only: never the fresh set, nor the latest
    schema: int = SCHEMA

    @property
    def stored_size(self) -> int:
        """Bytes this set added to the store."""
        return sum(part.stream.stored_size + (part.files.new_bytes if part.files else 0) for part in self.parts)


@dataclass(frozen=True)
class SetKey:
    """Where the objects of a set lie."""

    environment: str
    id: str
    started_at: datetime

    @property
    def prefix(self) -> str:
        """`sets/<environment>/<yyyy>/<mm>/<dd>/<id>/`."""
        return f"sets/{self.environment}/{self.started_at:%Y/%m/%d}/{self.id}/"

    @property
    def manifest(self) -> str:
        """Key of the manifest: the commit point."""
        return f"{self.prefix}manifest.json"

    def part(self, source: str, name: str, attempt: int = 1) -> str:
        """Key of one part's stream. Objects are never written twice, so a second attempt has a name of its own."""
        again = f".{attempt}" if attempt > 1 else ""
        return f"{self.prefix}parts/{source}.{name}{again}.sealed"

    def parts(self, source: str, name: str) -> tuple[str, ...]:
        """All keys one part's stream may have."""
        return tuple(self.part(source, name, attempt) for attempt in range(1, ATTEMPTS + 1))


@dataclass(frozen=True)
class Check:
    """One look at stored bytes: `share` is the fraction of them that was read in full."""

    at: datetime
    share: float
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class DrillResult:
    """One restore into a scratch place. `seconds` is the measured recovery time."""

    at: datetime
    run_id: str
    seconds: float
    compared: int
    problems: tuple[str, ...] = ()
    sources: Mapping[str, float] = field(default_factory=dict)  # source → seconds
    set_id: str = ""  # the set that was restored


@dataclass(frozen=True)
class Hold:
    """Keeps a set from being pruned until it is released."""

    name: str
    reason: str
    by: str
    at: datetime


@dataclass(frozen=True)
class SetState:
    """What changed about a set after it was taken: `state/<environment>/<id>.json`. Mutable, unlike the set itself.

    `read_blocks`: fraction of its bytes read in full since it was taken (1.0 = everything, at least once).
    """

    environment: str
    id: str
    checks: tuple[Check, ...] = ()
    read_share: float = 0.0
    read_cursor: int = 0
    drills: tuple[DrillResult, ...] = ()
    holds: tuple[Hold, ...] = ()
    quarantined: str = ""  # why; "" = not

    @property
    def drilled_at(self) -> datetime | None:
        """The last drill that found nothing wrong."""
        good = [drill.at for drill in self.drills if not drill.problems]
        return max(good, default=None)

    @property
    def damaged(self) -> bool:
        """Whether the last check found something wrong."""
        return bool(self.checks) and bool(self.checks[-1].problems)
