"""One small sealed set with everything a set can have, as backups store it; frames are tiny so that it stays so."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ops_pipeline.core.backup.file_entry import FileEntry
from ops_pipeline.core.backup.file_list import ListedFile, StoredPiece, first_line, last_line, line_of
from ops_pipeline.core.backup.media import (
    REFERENCES_START,
    MediaReference,
    media_key,
    reference_line,
    references_end,
)
from ops_pipeline.core.backup.records import (
    Arrived,
    Contents,
    FilesSummary,
    Manifest,
    Part,
    Previous,
    Reference,
    SetKey,
    Trigger,
)
from ops_pipeline.ports import ObjectStore, Sealing
from ops_pipeline.services.backup.manifests import encode_manifest
from ops_pipeline.services.backup.streams import seal_object, write_stream

FRAME = 64
TAKEN = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
CONTENT = {
    ("listings", "globals"): b"CREATE ROLE app;\n",
    ("listings", "dump"): b"".join(b"%06d\tBerlin\t2026-11-20\n" % row for row in range(12)),
    ("cache", "dump"): bytes(range(256)),
}


@dataclass(frozen=True)
class SealedSet:
    """What was stored: the manifest's key, its bytes, and the record they hold."""

    key: str
    stored: bytes
    manifest: Manifest

    def part(self, source: str, name: str) -> Part:
        """One of its parts."""
        return next(part for part in self.manifest.parts if (part.source, part.name) == (source, name))


ENTRIES = (
    FileEntry(b"", "directory", 0o755, 0, 0, mtime_ns=1_700_000_000_000_000_001),
    FileEntry(b"empty", "file", 0o600, 0, 0, mtime_ns=1_700_000_000_000_000_002),
    FileEntry(b"link", "symlink", 0o777, 0, 0, mtime_ns=0, link=b"sub/photo.jpg"),
    FileEntry(b"same.jpg", "file", 0o640, 0, 0, size=300, mtime_ns=1_700_000_000_000_000_003, links=2),
    FileEntry(b"sparse", "file", 0o644, 0, 0, size=10_000, mtime_ns=4, holes=((0, 4096), (4106, 5894))),
    FileEntry(b"sub", "directory", 0o750, 0, 0, mtime_ns=1_700_000_000_000_000_005),
    FileEntry(b"sub/new\nline \xff.jpg", "file", 0o644, 0, 0, size=5, mtime_ns=6),
    FileEntry(b"sub/photo.jpg", "hardlink", 0o640, 0, 0, mtime_ns=0, link=b"same.jpg"),
)
FILES = {b"empty": b"", b"same.jpg": b"photo " * 50, b"sparse": b"between it", b"sub/new\nline \xff.jpg": b"hello"}
"""Content of the files, without holes."""


def _files(
    store: ObjectStore, media: ObjectStore, sealing: Sealing, place: SetKey, entries: Sequence[FileEntry]
) -> Part:
    lines, references = [first_line()], []
    for entry in entries:
        if entry.path not in FILES:
            lines.append(line_of(ListedFile(entry)))
            continue
        plain = FILES[entry.path]
        sha256 = hashlib.sha256(plain).hexdigest()
        pieces: tuple[StoredPiece, ...] = ()
        if plain:
            address = sealing.address(sha256)
            stored = seal_object(sealing, media_key(address), plain, frame_bytes=FRAME)
            if media.stat(media_key(address)) is None:
                media.put(media_key(address), stored)
            reference = MediaReference(address, len(stored), hashlib.sha256(stored).hexdigest())
            references.append(reference)
            pieces = (StoredPiece(reference, sha256, len(plain)),)
        lines.append(line_of(ListedFile(entry, sha256, pieces)))
    media.flush()
    size = sum(entry.stored_bytes for entry in entries)
    listed = b"".join((*lines, last_line(len(entries), size)))
    identity = f"prod/{place.id}/photos/files"
    stream = write_stream(
        store, sealing, place.part("photos", "files"), identity, io.BytesIO(listed).read, workers=1, frame_bytes=FRAME
    )
    named = b"".join((REFERENCES_START, *map(reference_line, references), references_end(len(references))))
    key = f"{place.prefix}parts/photos.files.references"
    store.put(key, named)
    summary = FilesSummary(
        entries=len(entries),
        plain_size=size,
        objects=len(references),
        new_objects=len(references),
        new_bytes=sum(one.size for one in references),
        references=Reference(key, len(named), hashlib.sha256(named).hexdigest()),
    )
    arrived = Arrived("directory", "ops_pipeline", (), "per-file", "every file read to its end")
    return Part("photos", "directory", "files", stream, arrived, place.started_at, place.started_at, summary)


def seal_set(
    store: ObjectStore,
    sealing: Sealing,
    *,
    number: int = 1,
    previous: Previous | None = None,
    media: ObjectStore | None = None,
    entries: Sequence[FileEntry] = ENTRIES,
) -> SealedSet:
    """Store set `number` of environment prod (six hours after the one before), with files when there is `media`."""
    at = TAKEN + timedelta(hours=6 * number)
    place = SetKey("prod", f"01K{number:023d}", at)
    parts = []
    for (source, name), content in CONTENT.items():
        stream = write_stream(
            store,
            sealing,
            place.part(source, name),
            f"prod/{place.id}/{source}/{name}",
            io.BytesIO(content).read,
            compress=source != "cache",
            workers=1,
            frame_bytes=FRAME,
        )
        contents = Contents({"public.listing": 12}, {"table public.listing": "id int"}, {"public.listing": "ab" * 32})
        arrived = Arrived("PostgreSQL 15.14", "pg_dump 15.14", ("pg_dump", "-Fc"), "snapshot", "exit code", 0, contents)
        kind = "redis" if source == "cache" else "postgres"
        parts.append(Part(source, kind, name, stream, arrived, at, at + timedelta(seconds=2)))
    if media is not None:
        parts.append(_files(store, media, sealing, place, entries))
    manifest = Manifest(
        id=place.id,
        environment="prod",
        project="market",
        trigger=Trigger.SCHEDULE,
        reason="every six hours – «ü»",
        run_id="run",
        taken_by="host:1",
        started_at=at,
        ended_at=at + timedelta(seconds=3),
        parts=tuple(parts),
        previous=previous,
        images={"api": "sha256:" + "0" * 64},
        commit="0" * 40,
        recipients=sealing.recipients,
        warnings=("a warning",),
    )
    stored = encode_manifest(sealing, manifest)
    store.put(place.manifest, stored)
    store.flush()
    return SealedSet(place.manifest, stored, manifest)
