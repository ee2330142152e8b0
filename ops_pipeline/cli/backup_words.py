"""A backup set as people read it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console

from ops_pipeline.cli.output import ago, escaped, said, table
from ops_pipeline.core.backup.records import Part, SetState, counted_once
from ops_pipeline.core.backup.restore_plan import size

if TYPE_CHECKING:
    from ops_pipeline.services.backup.sets import BackupSet


def age_words(then: datetime, now: datetime) -> str:
    """ "5 h"; a set that claims to be of the future says so."""
    return ago(then, now) if then <= now else "in the future"


def check_words(state: SetState, now: datetime) -> str:
    """When it was looked at, and how much of it was read since it was taken."""
    if not state.checks:
        return "not yet"
    last = state.checks[-1]
    if last.problems:
        return f"[red]damaged[/red] {ago(last.at, now)} ago"
    return f"{ago(last.at, now)} ago, {state.read_share:.0%} read"


def drill_words(state: SetState, now: datetime) -> str:
    """When it was restored to try, and how that ended."""
    if not state.drills:
        return ""
    last = state.drills[-1]
    if last.problems:
        return f"[red]failed[/red] {ago(last.at, now)} ago"
    return f"[green]passed[/green] {ago(last.at, now)} ago"


def standing_words(one: BackupSet) -> str:
    """Whether it counts, and what keeps it."""
    if one.state.quarantined:
        found = [f"[red]quarantine: {escaped(one.state.quarantined)}[/red]"]
    elif one.state.damaged:
        found = ["[red]damaged[/red]"]
    else:
        found = ["some sources only"] if one.manifest.partial else ["[green]good[/green]"]
    return ", ".join([*found, *(f"held: {escaped(hold.name)}" for hold in one.state.holds)])


def show_set(console: Console, one: BackupSet, now: datetime) -> None:
    """Print everything about a set."""
    manifest, state = one.manifest, one.state
    seconds = (manifest.ended_at - manifest.started_at).total_seconds()
    console.print(f"{escaped(manifest.environment)}: set {one.id}, {standing_words(one)}")
    reason = f" ({manifest.reason})" if manifest.reason else ""
    who = f" by {manifest.taken_by}" if manifest.taken_by else ""
    said(
        console,
        f"{manifest.trigger.value}{reason}{who}: {manifest.started_at:%Y-%m-%d %H:%M:%S} UTC "
        f"({age_words(manifest.started_at, now)} ago), in {seconds:.1f} s",
        first="  ",
    )
    shown = table("source", "part", "engine", "rows", "data", "new", "seconds", "consistency", "proof of its end")
    for part in manifest.parts:
        shown.add_row(
            part.source,
            part.name,
            part.arrived.engine,
            _rows(part),
            size(part.files.plain_size if part.files else part.stream.plain_size),
            size(part.stream.stored_size + (part.files.new_bytes if part.files else 0)),
            f"{(part.ended_at - part.started_at).total_seconds():.1f}",
            part.arrived.consistency,
            part.arrived.marker,
        )
    console.print(shown)
    console.print(f"  manifest {one.key.manifest}", markup=False)
    console.print(f"  SHA-256 {one.manifest_sha256}", markup=False)
    if manifest.run_id:
        console.print(f"  taken in run {manifest.run_id}", markup=False)
    for service, digest in manifest.images.items():
        console.print(f"  live then: {service} {digest}", markup=False)
    console.print(f"  opens for {', '.join(manifest.recipients)}", markup=False)
    console.print(f"  checked: {check_words(state, now)}")
    for drill in state.drills[-3:]:
        words = "; ".join(drill.problems[:5]) or f"passed, {drill.compared:,} comparisons"
        said(console, f"drilled {ago(drill.at, now)} ago in {drill.seconds:.1f} s: {words}", first="  ", indent=4)
    for hold in state.holds:
        said(console, f"held: {hold.name}, {hold.reason} ({hold.by}, {ago(hold.at, now)} ago)", first="  ", indent=4)
    for warning in manifest.warnings:
        said(console, f"warning: {warning}", first="  ", indent=4)
    for problem in state.checks[-1].problems if state.checks else ():
        said(console, f"damage: {problem}", first="  ", indent=4)


def _rows(part: Part) -> str:
    if part.files:
        return f"{part.files.entries:,} names"
    contents = part.arrived.contents
    return f"{sum(counted_once(part.kind, contents).values()):,}" if contents else ""
