"""Whether a set differs from the ones before it in a way that speaks of lost, overwritten or encrypted data.

Pure. Every figure is held against the middle one of the last good sets, so that one odd set neither raises an alarm
for the next nor hides it. What is found is a reason to keep the set apart, never to lose it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from ops_pipeline.core.backup.records import FILE_KINDS, Kind, Manifest, Part

LOOKED_AT = 5
"""How many good sets before it a set is held against."""

ACCEPTED = "quarantine lifted"
"""Name of the hold on a set in quarantine that a person found right: from there on sets are held against it."""

SMALL_BYTES = 64 * 1024
"""A database that counts nothing is judged by its size from so many bytes on."""


@dataclass(frozen=True)
class Limits:
    """The catalogue's `backups.anomaly`, which explains them."""

    fall: float = 0.5
    rise: float = 10
    entropy: float = 0.15
    min_rows: int = 100


@dataclass(frozen=True)
class Facts:
    """One data source of one set in numbers.

    `rows`: by table, collection or database; for files {"files": number of names}. `incompressible`: stored share of
    the plain bytes, None when nothing was compressed. `kept`: share of the files' contents of the set before that
    this one still has, None when not known.
    """

    source: str
    kind: Kind
    rows: Mapping[str, int] = field(default_factory=dict)
    plain_size: int = 0
    incompressible: float | None = None
    kept: float | None = None

    @property
    def counted(self) -> int:
        """All rows."""
        return sum(self.rows.values())


def facts_of(manifest: Manifest, kept: Mapping[str, float] | None = None) -> dict[str, Facts]:
    """Given a manifest, return its data sources in numbers. `kept` by source, where it is known."""
    found: dict[str, Facts] = {}
    by_source: dict[str, list[Part]] = {}
    for part in manifest.parts:
        by_source.setdefault(part.source, []).append(part)
    for source, parts in by_source.items():
        kind = parts[0].kind
        if kind in FILE_KINDS:
            summaries = [part.files for part in parts if part.files is not None]
            found[source] = Facts(
                source,
                kind,
                {"files": sum(summary.entries for summary in summaries)},
                sum(summary.plain_size for summary in summaries),
                None,
                (kept or {}).get(source),
            )
            continue
        rows: dict[str, int] = {}
        for part in parts:
            rows |= part.arrived.contents.counts if part.arrived.contents is not None else {}
        packed = [part.stream for part in parts if part.stream.codec != "none"]
        plain = sum(stream.plain_size for stream in packed)
        share = min(sum(stream.stored_size for stream in packed) / plain, 1.0) if plain else None
        found[source] = Facts(source, kind, rows, sum(part.stream.plain_size for part in parts), share)
    return found


def anomalies(now: Mapping[str, Facts], before: Sequence[Mapping[str, Facts]], limits: Limits) -> tuple[str, ...]:
    """Given a set and the good ones before it (newest first), return one sentence for each thing that is odd.

    Sources without a predecessor are not judged, nor are small ones.
    """
    found: list[str] = []
    for source, facts in now.items():
        earlier = [one[source] for one in before if source in one and one[source].kind == facts.kind][:LOOKED_AT]
        if earlier:
            found += [f"{source}: {text}" for text in _odd(facts, earlier, limits)]
    return tuple(found)


def _odd(now: Facts, before: Sequence[Facts], limits: Limits) -> list[str]:
    files = now.kind in FILE_KINDS
    rows, size = median(one.counted for one in before), median(one.plain_size for one in before)
    counts = any(one.rows for one in before)
    if rows < limits.min_rows if counts else size < SMALL_BYTES:
        return []
    said: list[str] = []
    what = "files" if files else "rows"
    if counts and now.counted < rows * (1 - limits.fall):
        said.append(f"{now.counted:,} {what}, {rows:,.0f} in the sets before it ({_change(now.counted, rows)})")
    elif not files:
        said += _emptied(now, before, limits)
    if size and now.plain_size < size * (1 - limits.fall):
        said.append(f"{now.plain_size:,} bytes, {size:,.0f} in the sets before it ({_change(now.plain_size, size)})")
    elif size and now.plain_size > size * limits.rise and now.plain_size >= SMALL_BYTES:
        said.append(f"{now.plain_size:,} bytes, {size:,.0f} in the sets before it ({now.plain_size / size:.0f} times)")
    shares = [one.incompressible for one in before if one.incompressible is not None]
    if shares and now.incompressible is not None and size >= SMALL_BYTES:
        usual = median(shares)
        if now.incompressible - usual > limits.entropy:
            said.append(
                f"{now.incompressible:.0%} of its bytes cannot be compressed, {usual:.0%} in the sets before it: "
                "has something encrypted them?"
            )
    if now.kept is not None and now.kept < 1 - limits.fall:
        said.append(f"only {now.kept:.0%} of the files' contents of the set before it are still there unchanged")
    return said


def _emptied(now: Facts, before: Sequence[Facts], limits: Limits) -> list[str]:
    """Tables that had rows in every set before and have none, or are gone."""
    least: dict[str, int] = {}
    for table in before[0].rows:
        least[table] = min(one.rows.get(table, 0) for one in before)
    gone = sorted(table for table, rows in least.items() if rows >= max(limits.min_rows, 1) and not now.rows.get(table))
    return [f"{table} is {'empty' if table in now.rows else 'gone'}, it had {least[table]:,} rows" for table in gone]


def _change(now: float, before: float) -> str:
    return f"{(now - before) / before:+.1%}"
