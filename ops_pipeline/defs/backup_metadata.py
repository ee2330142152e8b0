"""Backups as the UI shows them: sizes, rows and rates as plottable numbers, every part in a table, what is new."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from ops_pipeline.catalogue.model import Catalogue

if TYPE_CHECKING:
    from ops_pipeline.core.backup.records import Check, DrillResult, Manifest, Part, SetState
    from ops_pipeline.core.backup.restore_plan import RestorePlan
    from ops_pipeline.services.backup.prune import PruneOutcome
    from ops_pipeline.services.backup.restore import RestoreOutcome
    from ops_pipeline.services.backup.sets import BackupSet, Listing

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


def damage(listing: Listing) -> list[str]:
    """Everything known to be wrong with stored sets, one sentence each."""
    return [
        *(f"set {one.id}: {one.problem}" for one in listing.damaged),
        *listing.chain,
        *(f"set {one.id}: {problem}" for one in listing.sets if one.state.damaged for problem in last(one).problems),
    ]


def of_checks(listing: Listing, problems: Sequence[str], weak: Sequence[str] = ()) -> Metadata:
    """What `integrity` shows: every set with its last check, the newest first."""
    types = {"set": "string", "checked": "string", "read_percent": "float", "problems": "int"}
    found = [
        {
            "set": one.id,
            "checked": clock(last(one).at) if one.state.checks else "not yet",
            "read_percent": round(one.state.read_share * 100, 1),
            "problems": len(last(one).problems) if one.state.checks else 0,
        }
        for one in listing.sets
    ]
    shown: Metadata = {"sets": len(listing.sets) + len(listing.damaged), "problems": len(problems)}
    if listing.sets and listing.sets[0].state.checks:
        newest = listing.sets[0]
        shown |= {"newest_set": newest.id, "read_percent_this_time": round(last(newest).share * 100, 1)}
    if problems:
        shown["damage"] = dg.MetadataValue.md(bullets(problems))
    if weak:
        shown["weaknesses_of_the_account"] = dg.MetadataValue.md(bullets(weak))
    return shown | {"checks": table(types, found)}


def last(one: BackupSet) -> Check:
    """The last check of a set that has one."""
    return one.state.checks[-1]


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


def of_restore_plan(plan: RestorePlan) -> Metadata:
    """What `restore` shows before it has done anything."""
    types = {
        **{"source": "string", "kind": "string", "what": "string", "data_mb": "float", "stored_mb": "float"},
        **{"as_of": "string", "consistency": "string"},
    }
    shown: Metadata = {
        "set": plan.set_id,
        "why_this_set": plan.why,
        "age_hours": round(plan.age_seconds / 3600, 2),
        "data_mb": _mb(sum(one.plain_size for one in plan.sources)),
        "sources": table(
            types,
            [
                {
                    "source": one.source,
                    "kind": one.kind,
                    "what": one.things,
                    "data_mb": _mb(one.plain_size),
                    "stored_mb": _mb(one.stored_size),
                    "as_of": clock(one.taken_from),
                    "consistency": one.consistency,
                }
                for one in plan.sources
            ],
        ),
        "plan": dg.MetadataValue.md(bullets(plan.lines)),
        "manifest_sha256": plan.manifest_sha256,
    }
    if plan.warnings:
        shown["warnings"] = dg.MetadataValue.md(bullets(plan.warnings))
    return shown


def of_restore(outcome: RestoreOutcome) -> Metadata:
    """What `restore` shows of what it did."""
    record = outcome.record
    shown: Metadata = {
        "outcome": outcome.words,
        "stage": outcome.stage.value,
        "token": outcome.token,
        "compared": outcome.compared,
        "seconds": round(sum(outcome.seconds.values()), 2),
        "restored": table(
            {"source": "string", "seconds": "float"},
            [{"source": name, "seconds": round(outcome.seconds.get(name, 0.0), 2)} for name in outcome.record.sources],
        ),
        "journal": table(
            {"at": "string", "what": "string"}, [{"at": clock(line.at), "what": line.text} for line in record.lines]
        ),
    }
    if outcome.stage.value == "held":
        shown["to_undo"] = f"ops restore {record.environment} --undo {outcome.token}"
        shown["to_release"] = f"ops restores {record.environment} --release {outcome.token}"
    return shown


def of_prune(outcomes: Sequence[PruneOutcome]) -> Metadata:
    """What `prune_backups` shows: each set with what became of it and why."""
    types = {"environment": "string", "set": "string", "taken": "string", "kept": "bool", "why": "string"}
    rows_ = [
        {
            "environment": outcome.environment,
            "set": one.id,
            "taken": clock(one.taken_at),
            "kept": one.keep,
            "why": one.reason,
        }
        for outcome in outcomes
        for one in outcome.plan.decisions
    ]
    shown: Metadata = {
        "sets": len(rows_),
        "planned_to_go": sum(not row["kept"] for row in rows_),
        "deleted": sum(len(one.deleted) for one in outcomes),
        "deleted_mb": _mb(sum(one.deleted_bytes + one.orphan_bytes for one in outcomes)),
        "never_finished_sets_cleared": sum(len(one.orphans) for one in outcomes),
        "decisions": table(types, sorted(rows_, key=lambda row: bool(row["kept"]))),
    }
    frozen = [f"{one.environment}: {one.plan.frozen}" for one in outcomes if one.plan.frozen]
    media = [f"{one.environment}: {words}" for one in outcomes for words in one.media]
    if frozen:
        shown["FROZEN"] = dg.MetadataValue.md(bullets(frozen))
    if media:
        shown["files"] = dg.MetadataValue.md(bullets(media))
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
    from ops_pipeline.core.backup.records import counted_once

    contents = part.arrived.contents
    return sum(counted_once(part.kind, contents).values()) if contents else 0


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
