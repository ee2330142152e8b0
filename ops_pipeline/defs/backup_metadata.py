"""Backups as the UI shows them: sizes, rows and rates as plottable numbers, every part in a table, what is new."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import dagster as dg

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.core.backup.records import Check, DrillResult, Manifest, Part, SetState

Metadata = dict[str, Any]

MB = 1_000_000
SHOWN = 200
"""Rows of a table, and lines of a list, beyond which the rest is only counted."""


def of_set(catalogue: Catalogue, manifest: Manifest, manifest_sha256: str, state: SetState | None) -> Metadata:
    """What `backup` shows of a set."""
    seconds = (manifest.ended_at - manifest.started_at).total_seconds()
    plain = sum(map(plain_size, manifest.parts))
    files = [part.files for part in manifest.parts if part.files]
    shown: Metadata = {
        "set": manifest.id,
        "trigger": manifest.trigger.value,
        "reason": manifest.reason or "not said",
        "taken_by": manifest.taken_by,
        "data_as_of": dg.MetadataValue.timestamp(manifest.started_at),
        "seconds": round(seconds, 2),
        "data_mb": _mb(plain),
        "new_mb": _mb(manifest.stored_size),
        "mb_per_second": round(plain / MB / max(seconds, 0.001), 1),
        "rows": sum(map(rows, manifest.parts)),
        "parts": parts_table(manifest.parts),
        "kept_in": where(catalogue),
        "sealed_for": dg.MetadataValue.md(bullets(manifest.recipients)),
        # The chain of manifests and this log witness each other.
        "manifest_sha256": manifest_sha256,
        "previous_set": manifest.previous.id if manifest.previous else "none: this is the first",
    }
    if files:
        shown |= {
            "files": sum(one.entries for one in files),
            "new_files": sum(one.new_objects for one in files),
            "new_files_mb": _mb(sum(one.new_bytes for one in files)),
        }
    if manifest.images:
        shown["images"] = dg.MetadataValue.json(dict(manifest.images))
    if manifest.commit:
        shown["commit"] = manifest.commit
    if manifest.warnings:
        shown["warnings"] = dg.MetadataValue.md(bullets(manifest.warnings))
    if state is not None and state.quarantined:
        shown["QUARANTINED"] = state.quarantined
    if manifest.run_id:
        shown["taken_in"] = dg.MetadataValue.dagster_run(manifest.run_id)
    return shown


def parts_table(parts: Sequence[Part]) -> dg.TableMetadataValue:
    """One row per stream: what it is, how big, how fast, what proved that it is whole."""
    types = {
        **{"source": "string", "part": "string", "engine": "string", "rows": "int"},
        **{"data_mb": "float", "new_mb": "float", "seconds": "float", "mb_per_second": "float"},
        **{"consistency": "string", "proof_of_end": "string"},
    }
    return table(types, [_part(part) for part in parts])


def _part(part: Part) -> dict[str, Any]:
    seconds = (part.ended_at - part.started_at).total_seconds()
    plain = plain_size(part)
    return {
        "source": part.source,
        "part": part.name,
        "engine": part.arrived.engine,
        "rows": rows(part),
        "data_mb": _mb(plain),
        "new_mb": _mb(part.stream.stored_size + (part.files.new_bytes if part.files else 0)),
        "seconds": round(seconds, 2),
        "mb_per_second": round(plain / MB / max(seconds, 0.001), 1),
        "consistency": part.arrived.consistency,
        "proof_of_end": part.arrived.marker,
    }


def of_checks(found: Sequence[tuple[str, Check, SetState | None]]) -> Metadata:
    """What `integrity` shows: (id of the set, the check, the set's state after it), the newest set first."""
    if not found:
        return {}
    types = {"set": "string", "at": "string", "read_percent": "float", "read_so_far_percent": "float", "problems": "int"}
    rows_ = [
        {
            "set": name,
            "at": clock(check.at),
            "read_percent": round(check.share * 100, 1),
            "read_so_far_percent": round((state.read_share if state else check.share) * 100, 1),
            "problems": len(check.problems),
        }
        for name, check, state in found
    ]
    problems = [f"{name}: {problem}" for name, check, _ in found for problem in check.problems]
    shown: Metadata = {
        "sets": len(found),
        "problems": len(problems),
        "read_percent": rows_[0]["read_percent"],
        "checks": table(types, rows_),
    }
    return shown | ({"damage": dg.MetadataValue.md(bullets(problems))} if problems else {})


def of_drill(set_id: str, result: DrillResult) -> Metadata:
    """What `restore_drill` shows."""
    shown: Metadata = {
        "set": set_id,
        "passed": not result.problems,
        # What a person would wait for, had it been real.
        "recovery_seconds": round(result.seconds, 2),
        "compared": result.compared,
        "problems": len(result.problems),
        "at": dg.MetadataValue.timestamp(result.at),
        "sources": table(
            {"source": "string", "seconds": "float"},
            [{"source": name, "seconds": round(seconds, 2)} for name, seconds in result.sources.items()],
        ),
    }
    if result.problems:
        shown["differences"] = dg.MetadataValue.md(bullets(result.problems))
    if result.run_id:
        shown["drilled_in"] = dg.MetadataValue.dagster_run(result.run_id)
    return shown


def where(catalogue: Catalogue) -> str:
    """Where sets are kept, without anything secret."""
    store = catalogue.backups.store
    if store.azure is not None:
        account = store.azure.sets.account_url or "Azure Blob Storage"
        return f"{account.rstrip('/')}/{store.azure.sets.container}"
    return f"directory {store.directory}"


def rows(part: Part) -> int:
    """Rows, documents or keys of a dump; names of a file part."""
    if part.files:
        return part.files.entries
    contents = part.arrived.contents
    return sum(contents.counts.values()) if contents else 0


def plain_size(part: Part) -> int:
    """Bytes of data behind a part: of the dump, or of the files."""
    return part.files.plain_size if part.files else part.stream.plain_size


def table(types: dict[str, str], found: Sequence[dict[str, Any]]) -> dg.TableMetadataValue:
    """A table with these columns, cut at SHOWN rows."""
    schema = dg.TableSchema(columns=[dg.TableColumn(name=name, type=kind) for name, kind in types.items()])
    return dg.MetadataValue.table([dg.TableRecord(row) for row in found[:SHOWN]], schema=schema)


def bullets(lines: Sequence[str]) -> str:
    """A Markdown list, cut at SHOWN lines."""
    more = [f"- and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n".join([*(f"- {line}" for line in lines[:SHOWN]), *more])


def clock(at: datetime) -> str:
    """A moment in a table."""
    return at.strftime("%Y-%m-%d %H:%M:%SZ")


def _mb(size: float) -> float:
    return round(size / MB, 3)
