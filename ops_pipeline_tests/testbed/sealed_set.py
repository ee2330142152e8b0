"""One small sealed set with everything a set can have, as backups store it; frames are tiny so that it stays so."""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ops_pipeline.core.backup.records import (
    Arrived,
    Contents,
    Manifest,
    Part,
    Previous,
    SetKey,
    Trigger,
)
from ops_pipeline.ports import ObjectStore, Sealing
from ops_pipeline.services.backup.manifests import encode_manifest
from ops_pipeline.services.backup.streams import write_stream

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


def seal_set(
    store: ObjectStore,
    sealing: Sealing,
    *,
    number: int = 1,
    previous: Previous | None = None,
) -> SealedSet:
    """Store set `number` of environment prod (each six hours after the one before)."""
    at = TAKEN + timedelta(hours=6 * number)
    place = SetKey("prod", f"01K{number:023d}", at)
    parts = []
    for (source, name), content in CONTENT.items():
        stream = write_stream(
            store,
            sealing,
            place.part(source, name),
            f"{place.id}/{source}/{name}",
            io.BytesIO(content).read,
            compress=source != "cache",
            workers=1,
            frame_bytes=FRAME,
        )
        contents = Contents({"public.listing": 12}, {"table public.listing": "id int"}, {"public.listing": "ab" * 32})
        arrived = Arrived("PostgreSQL 15.14", "pg_dump 15.14", ("pg_dump", "-Fc"), "snapshot", "exit code", 0, contents)
        kind = "redis" if source == "cache" else "postgres"
        parts.append(Part(source, kind, name, stream, arrived, at, at + timedelta(seconds=2)))
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
