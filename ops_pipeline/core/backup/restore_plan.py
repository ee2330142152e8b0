"""What a restore would do, in words, before anything is done: which set a date means, how old its data are, what is
lost, and which releases belong to them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ops_pipeline.core.backup.records import FILE_KINDS, Kind, Manifest, Part, counted_once

NEWEST = "the newest good set"
_UNITS = ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute"), (1.0, "second"))


@dataclass(frozen=True)
class Offer:
    """One set as a restore sees it. `unfit` says why nobody should rely on it ("" = nothing against it)."""

    id: str
    started_at: datetime
    ended_at: datetime
    sources: tuple[str, ...]
    partial: bool = False
    unfit: str = ""


@dataclass(frozen=True)
class Choice:
    """The set a moment means, and in words why this one."""

    id: str
    words: str


def choose(offers: Iterable[Offer], until: datetime | None, sources: Sequence[str] = ()) -> Choice | None:
    """The newest fit set that was whole by `until` (None = now), or None.

    Its end counts, not its beginning: whoever wants the state before an accident gets none of what came after it. A
    set of some data sources only counts when it holds all of `sources`.
    """
    newest_first = sorted(offers, key=lambda one: (one.started_at, one.id), reverse=True)
    passed: list[str] = []
    later: Offer | None = None
    for one in newest_first:
        if until is not None and one.ended_at > until:
            later = one
            continue
        missing = [name for name in sources if name not in one.sources]
        why = one.unfit or (f"without {', '.join(missing)}" if missing else "")
        why = why or ("of some data sources only" if one.partial and not sources else "")
        if why:
            passed.append(f"{one.id} ({why})")
            continue
        words = f"{NEWEST}" if until is None else f"the last good set that was whole by {minute(until)}"
        if passed:
            words += f"; passed over: {_some(passed)}"
        if later is not None:
            words += f"; the next one is of {minute(later.started_at)}"
        return Choice(one.id, words)
    return None


@dataclass(frozen=True)
class SourcePlan:
    """One data source to restore. Data are those of `taken_from` … `taken_until` (the same moment for a snapshot)."""

    source: str
    kind: Kind
    parts: tuple[str, ...]
    plain_size: int
    stored_size: int
    taken_from: datetime
    taken_until: datetime
    consistency: str
    things: str  # "1,200 rows in 4 tables", "3,000 files"


@dataclass(frozen=True)
class CodeThen:
    """What one service ran when the set was taken, and what it runs now. Labels like "#12 (1.4.0)" where known."""

    service: str
    then: str
    now: str
    release_then: int | None = None  # number to roll back to, None when unknown or the same

    @property
    def same(self) -> bool:
        """Whether the code is the same."""
        return self.then == self.now


@dataclass(frozen=True)
class RestorePlan:
    """A restore before it begins. `token` names everything it makes; `into` = it stays beside and is never swapped."""

    environment: str
    set_id: str
    manifest_sha256: str
    token: str
    why: str  # which set that is and why this one
    made_at: datetime
    sources: tuple[SourcePlan, ...]
    left_out: tuple[str, ...] = ()  # data sources of the set that are not restored
    into: str = ""
    only: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    code: tuple[CodeThen, ...] = ()

    @property
    def taken_until(self) -> datetime:
        """The newest moment any of the restored data is of."""
        return max(one.taken_until for one in self.sources)

    @property
    def age_seconds(self) -> float:
        """Age of the oldest of the data when the plan was made."""
        return (self.made_at - min(one.taken_from for one in self.sources)).total_seconds()

    @property
    def lines(self) -> tuple[str, ...]:
        """The plan in words, one line each."""
        return (*self._what(), *self._effect(), *self._code(), *(f"warning: {text}" for text in self.warnings))

    def _what(self) -> list[str]:
        oldest = min(one.taken_from for one in self.sources)
        lines = [
            f"{self.environment}: set {self.set_id}, {self.why}",
            f"its data are of {minute(oldest)}: {span(self.age_seconds)} old",
        ]
        for one in self.sources:
            skew = (one.taken_until - one.taken_from).total_seconds()
            moment = minute(one.taken_from) + (f", over {span(skew)}" if skew >= 60 else "")
            # Files lie in objects that sets share, so what is stored of them is not this set's.
            stored = "" if one.kind in FILE_KINDS else f" from {size(one.stored_size)} stored"
            lines.append(
                f"{one.source} ({one.kind}): {one.things}, {size(one.plain_size)}{stored}, of {moment} "
                f"({one.consistency})"
            )
        if self.left_out:
            lines.append(f"not restored: {', '.join(self.left_out)}")
        return lines

    def _effect(self) -> list[str]:
        if self.into:
            what = f"what matches {', '.join(self.only)}" if self.only else "all of it"
            return [
                f"{what} is restored beside the live data as `{self.into}` and stays there; live data do not change"
            ]
        return [
            f"each is restored beside the live data (r{self.token}) and compared with what the set says of it",
            "then, after one confirmation, all are swapped: all of them or none",
            f"what was written after {minute(self.taken_until)} ({span(self._lost)}) is not in it: it stays in the "
            f"hold {self.token} until that is released, and undoing the restore brings it back",
        ]

    def _code(self) -> list[str]:
        changed = [one for one in self.code if not one.same]
        if not self.code or self.into:
            return []
        if not changed:
            return ["the same releases were live then as now: code and data fit together"]
        lines = []
        for one in changed:
            back = (
                f": ops rollback {one.service} {self.environment} --to {one.release_then}" if one.release_then else ""
            )
            lines.append(f"{one.service}: {one.then} was live then, {one.now} is live now{back}")
        return [
            *lines,
            "code only: roll back as above and restore nothing; no data are lost",
            f"code and data: restore and roll back; {span(self._lost)} of data are set aside",
            "data only: restore and leave the code as it is, if it can work with data that old",
        ]

    @property
    def _lost(self) -> float:
        return (self.made_at - self.taken_until).total_seconds()


def source_plan(parts: Sequence[Part]) -> SourcePlan:
    """Given the parts of one data source, say what restoring it brings."""
    first = parts[0]
    files = first.kind in FILE_KINDS
    plain = sum(part.files.plain_size if part.files else part.stream.plain_size for part in parts)
    stored = sum(part.stream.stored_size for part in parts)
    return SourcePlan(
        source=first.source,
        kind=first.kind,
        parts=tuple(part.name for part in parts),
        plain_size=plain,
        stored_size=stored,
        taken_from=min(part.started_at for part in parts),
        # A dump's snapshot is of its beginning; files are read one after the other.
        taken_until=max(part.ended_at if files else part.started_at for part in parts),
        consistency=", ".join(dict.fromkeys(part.arrived.consistency for part in parts if part.arrived.consistency)),
        things=_things(parts),
    )


def parts_of(manifest: Manifest, source: str) -> tuple[Part, ...]:
    """Parts of one data source, in the order they were taken."""
    return tuple(part for part in manifest.parts if part.source == source)


def sources_of(manifest: Manifest) -> tuple[str, ...]:
    """Names of the data sources of a set, in the order they were taken: databases first."""
    return tuple(dict.fromkeys(part.source for part in manifest.parts))


def _things(parts: Sequence[Part]) -> str:
    entries = sum(part.files.entries for part in parts if part.files)
    if any(part.files for part in parts):
        return f"{entries:,} names"
    counts: dict[str, int] = {}
    for part in parts:
        if part.arrived.contents is not None:
            counts.update(counted_once(part.kind, part.arrived.contents))
    if not counts:
        return "contents not counted"
    word = {"redis": "keys", "mongodb": "documents"}.get(parts[0].kind, "rows")
    where = {"redis": "database", "mongodb": "collection"}.get(parts[0].kind, "table")
    return f"{sum(counts.values()):,} {word} in {len(counts)} {where}{'' if len(counts) == 1 else 's'}"


def minute(moment: datetime) -> str:
    """ "2026-11-20 18:00 UTC"."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def span(seconds: float) -> str:
    """How long, in the largest unit that fits: "3 days", "1.5 hours". Negative is 0 seconds."""
    seconds = max(seconds, 0.0)
    for length, word in _UNITS:
        if seconds >= length:
            value = f"{seconds / length:.1f}".removesuffix(".0") if length > 1 else f"{seconds:.0f}"
            return f"{value} {word}{'' if value == '1' else 's'}"
    return "0 seconds"


def size(count: int) -> str:
    """Bytes in decimal units: "1.5 GB"."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def _some(texts: Sequence[str]) -> str:
    return ", ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")
