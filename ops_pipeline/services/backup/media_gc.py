"""Clearing away media objects that no set needs, while sets are being taken, whoever is killed or suspended when.

A sweep does, in this order: (1) writes the names down as condemned, (2) sees that no set is in flight, (3) reads the
reference lists of all sets, (4) deletes what is condemned and named nowhere, each with the etag it was marked with.
A set, in its order: (1) writes that it is in flight, (2) reads what is condemned, (3) reuses objects, but none that is
condemned unless a set that exists names it, (4) commits, (5) is in flight no more. The store is consistent, so either
the set sees the name condemned and stores the content under another name, or the sweep sees the set: in flight, and
deletes nothing, or committed, with its list. A set whose record was silent for an hour is given up first, after which
it cannot commit (`inflight.py`). Condemned names stay so until deleted: a sweep that was suspended meets, under a name
that is used again after that, an object with another etag.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from ops_pipeline.core.backup.media import address_of, media_key
from ops_pipeline.core.backup.media_gc import GRACE, Condemned, Mark, Marks, due, marked
from ops_pipeline.core.backup.records import Reference
from ops_pipeline.errors import Conflict, NotFound, StoreDamaged
from ops_pipeline.ports import Blob, Clock, Progress, Vault
from ops_pipeline.services.backup.inflight import ABANDONED, TAKING, InFlight, give_up
from ops_pipeline.services.backup.listed_files import missing, read_references_of
from ops_pipeline.services.backup.manifests import decode_manifest
from ops_pipeline.services.backup.media_storing import short
from ops_pipeline.services.records import decode, encode
from ops_pipeline.services.retrying import retried

MARKS, CONDEMNED = "media-gc/marks.json", "media-gc/condemned.json"
SILENT = timedelta(hours=1)


@dataclass(frozen=True)
class Marking:
    """What a mark found."""

    objects: int
    needed: int
    marked: int
    marked_bytes: int


@dataclass(frozen=True)
class Sweeping:
    """What a sweep did; `postponed` says why it deleted nothing."""

    deleted: int = 0
    deleted_bytes: int = 0
    postponed: str = ""


def condemned_names(vault: Vault, clock: Clock) -> frozenset[str]:
    """Addresses no set may reuse that does not know a set that names them. Raise StoreDamaged, Unavailable."""
    return frozenset(_condemned(vault, clock)[0].marks)


def mark(vault: Vault, clock: Clock, *, progress: Progress | None = None) -> Marking:
    """Note what no set of any environment needs. Deletes nothing. Raise StoreDamaged (a list that cannot be read)."""
    blob = _read(vault, clock, MARKS)
    before = Marks() if blob is None else decode(Marks, blob.data, MARKS)
    needed = _needed(vault, clock)
    counts = [0, 0]

    def unneeded() -> Iterator[tuple[str, str, int]]:
        for info in vault.media.list("media/"):
            address = address_of(info.key)
            if not address:
                continue
            counts[0] += 1
            if short(address) in needed:
                counts[1] += 1
            else:
                yield address, info.etag, info.size

    found = list(unneeded())
    marks = marked(before.marks, found, clock.now())
    _write(vault, clock, MARKS, Marks(marks), blob)
    result = Marking(counts[0], counts[1], len(marks), sum(one.size for one in marks.values()))
    if progress:
        progress(f"media: {result.objects:,} objects, {result.needed:,} needed, {result.marked:,} marked")
    return result


def sweep(vault: Vault, clock: Clock, *, grace: timedelta = GRACE, progress: Progress | None = None) -> Sweeping:
    """Delete what was marked at least `grace` ago and is needed by nobody still. `vault` must be allowed to delete.

    Raise StoreDamaged when any set's references cannot be read: then nothing is deleted. Safe to kill and repeat,
    safe beside sets being taken and beside another sweep.
    """
    if busy := _in_flight(vault, clock):
        return _postponed(busy, progress)
    marks_blob = _read(vault, clock, MARKS)
    marks = Marks() if marks_blob is None else decode(Marks, marks_blob.data, MARKS)
    ready = due(marks.marks, clock.now(), grace)
    record, blob = _condemned(vault, clock)
    names = {**record.marks, **{address: one for address, one in ready.items() if address not in record.marks}}
    if not names:
        return Sweeping()
    if names != dict(record.marks):
        try:
            _write(vault, clock, CONDEMNED, Condemned(names), blob)
        except Conflict:
            return _postponed("another sweep is at work", progress)
    if busy := _in_flight(vault, clock):
        return _postponed(busy, progress)
    needed = _needed(vault, clock)
    gone: dict[str, Mark] = {}
    for address, one in sorted(names.items()):
        if short(address) in needed:
            continue
        key = media_key(address)
        try:
            retried(clock, f"delete {key}", lambda key=key, one=one: vault.media.delete(key, etag=one.etag))  # type: ignore[misc]
        except Conflict:
            continue  # another object by now: it was deleted and stored again
        gone[address] = one
    _forget(vault, clock, gone)
    result = Sweeping(len(gone), sum(one.size for one in gone.values()))
    if progress:
        progress(f"media: {result.deleted:,} objects deleted, {result.deleted_bytes / 1e6:,.1f} MB")
    return result


def _forget(vault: Vault, clock: Clock, gone: dict[str, Mark]) -> None:
    """Take what was deleted off both records; a record somebody changed meanwhile is left to the next sweep."""
    record, blob = _condemned(vault, clock)
    rest = {address: one for address, one in record.marks.items() if gone.get(address) != one}
    blob_of_marks = _read(vault, clock, MARKS)
    marks = Marks() if blob_of_marks is None else decode(Marks, blob_of_marks.data, MARKS)
    left = {address: one for address, one in marks.marks.items() if gone.get(address) != one}
    try:
        _write(vault, clock, MARKS, Marks(left), blob_of_marks)
        _write(vault, clock, CONDEMNED, Condemned(rest), blob)
    except Conflict:
        return


# ---------------------------------------------------------------------------------------------------- sets in flight


def _in_flight(vault: Vault, clock: Clock) -> str:
    """Which set is being taken, in words; "" when none is. What fell silent is given up, so that it cannot commit."""
    keys = retried(clock, "list the sets being taken", lambda: [info.key for info in vault.state.list("inflight/")])
    for key in keys:
        blob = _read(vault, clock, key)
        if blob is None:
            continue
        try:
            flight = decode(InFlight, blob.data, key)
        except StoreDamaged:
            return f"{key} cannot be read, so a set may be under way"
        if flight.stage == ABANDONED:
            continue
        silent = clock.now() - flight.beat_at
        if flight.stage == TAKING and silent > SILENT and give_up(
            vault, clock, flight, blob.etag, "nothing was heard of it for an hour while media were cleared away"
        ):  # fmt: skip
            continue
        return f"set {flight.id} of {flight.environment} is being taken since {flight.started_at:%H:%M} UTC"
    return ""


def _postponed(why: str, progress: Progress | None) -> Sweeping:
    if progress:
        progress(f"media: nothing is cleared away now: {why}")
    return Sweeping(postponed=why)


# ---------------------------------------------------------------------------------------------------- what is needed


def _needed(vault: Vault, clock: Clock) -> frozenset[int]:
    """All addresses any reference list names (`short`: one taken for another is kept, never deleted)."""
    keys = retried(clock, "list the sets", lambda: [info.key for info in vault.sets.list("sets/")])
    promised: dict[str, Reference] = {}
    for key in keys:
        if not key.endswith("/manifest.json"):
            continue
        data = retried(clock, f"read {key}", lambda key=key: _whole(vault, key))  # type: ignore[misc]
        for part in decode_manifest(vault.sealing, data, key).parts:
            if part.files is not None:
                promised[part.files.references.key] = part.files.references
    # Lists of sets that are not committed count too: they may be in the middle of it, and it costs nothing.
    others = [key for key in keys if ".files.references" in key and key not in promised]
    needed: set[int] = set()
    seen: set[str] = set()
    for key in [*promised, *others]:
        reference = promised.get(key)
        if reference is not None:
            if reference.sha256 in seen:
                if key not in keys:
                    raise missing(key)
                continue
            seen.add(reference.sha256)
        try:
            for one in read_references_of(vault, clock, key, reference):
                needed.add(short(one.address))
        except StoreDamaged:
            if reference is None and vault.sets.stat(key) is None:
                continue  # a set that never came to be, swept away this moment
            raise
    return frozenset(needed)


def _whole(vault: Vault, key: str) -> bytes:
    try:
        return vault.sets.get(key)
    except NotFound:
        raise missing(key) from None


# ---------------------------------------------------------------------------------------------------- records


def _condemned(vault: Vault, clock: Clock) -> tuple[Condemned, Blob | None]:
    blob = _read(vault, clock, CONDEMNED)
    return (Condemned() if blob is None else decode(Condemned, blob.data, CONDEMNED)), blob


def _read(vault: Vault, clock: Clock, key: str) -> Blob | None:
    return retried(clock, f"read {key}", lambda: vault.state.read(key))


def _write(vault: Vault, clock: Clock, key: str, record: Marks | Condemned, blob: Blob | None) -> None:
    """Replace a record. Raise Conflict when somebody changed it since it was read."""
    data = encode(record)

    def write() -> None:
        try:
            if blob is None:
                vault.state.write(key, data, if_absent=True)
            else:
                vault.state.write(key, data, if_match=blob.etag)
        except Conflict:
            now = vault.state.read(key)
            if now is None or now.data != data:
                raise

    retried(clock, f"write {key}", write)


def oldest_mark(vault: Vault, clock: Clock) -> datetime | None:
    """When the oldest object that is waiting to be cleared away was marked."""
    blob = _read(vault, clock, MARKS)
    marks = Marks() if blob is None else decode(Marks, blob.data, MARKS)
    return min((one.at for one in marks.marks.values()), default=None)
