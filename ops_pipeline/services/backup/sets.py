"""Backup sets as they lie in the vault: listing, finding, choosing by date.

A set exists when its manifest does. Listings read manifests only, in their short form (`Manifest` without the blocks
of its streams); `find_set` and `whole_set` read the manifest itself. A damaged manifest never hides the good ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from ops_pipeline.core.backup.records import Manifest, SetKey, SetState
from ops_pipeline.core.backup.ulid import PATTERN as ULID
from ops_pipeline.errors import BadInput, NotFound, Problem, StoreDamaged
from ops_pipeline.ports import ObjectInfo, Vault
from ops_pipeline.services.backup.heads import Head, read_head
from ops_pipeline.services.backup.manifests import decode_manifest, manifest_hash
from ops_pipeline.services.backup.set_cache import Summary, read_book, without_blocks, write_book
from ops_pipeline.services.backup.set_states import read_state, state_key, trusted_state, write_state
from ops_pipeline.services.backup.wanted import DAY, moment
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried

__all__ = [
    "BackupSet",
    "DamagedSet",
    "Listing",
    "backup_sets",
    "chain_problems",
    "find_set",
    "list_sets",
    "pick",
    "read_state",
    "set_at",
    "set_key_of",
    "state_key",
    "whole_set",
    "write_state",
]

LATEST = "LATEST"
SHORTEST_PREFIX = 4
READERS = 8
_KEY = re.compile(r"sets/(?P<environment>[^/]+)/(?P<day>\d{4}/\d{2}/\d{2})/(?P<id>[^/]+)/manifest\.json")


@dataclass(frozen=True)
class BackupSet:
    """A set that is all there, by its signed manifest, and what happened to it since."""

    manifest: Manifest
    state: SetState
    key: SetKey
    manifest_sha256: str

    @property
    def id(self) -> str:
        """Its ULID."""
        return self.manifest.id

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the data sources it holds, in the order they were taken."""
        return tuple(dict.fromkeys(part.source for part in self.manifest.parts))

    @property
    def trusted(self) -> bool:
        """Neither found damaged nor in quarantine."""
        return not self.state.damaged and not self.state.quarantined

    @property
    def good(self) -> bool:
        """Trusted, and of all the data sources the environment had."""
        return self.trusted and not self.manifest.partial

    def covers(self, sources: Iterable[str]) -> bool:
        """Whether it holds all these data sources."""
        return set(sources) <= set(self.sources)


@dataclass(frozen=True)
class DamagedSet:
    """A set whose manifest cannot be trusted; `problem` names the object."""

    key: SetKey
    problem: str

    @property
    def id(self) -> str:
        """Its id, by its place in the store."""
        return self.key.id


@dataclass(frozen=True)
class Listing:
    """Everything found of an environment. `chain`: what the chain of manifests shows to be gone or replaced."""

    environment: str
    sets: tuple[BackupSet, ...]  # newest first
    damaged: tuple[DamagedSet, ...]  # newest first
    chain: tuple[str, ...]

    @property
    def newest_id(self) -> str:
        """The newest id given out, whole or damaged; "" = none."""
        return max([*(one.id for one in self.sets), *(one.id for one in self.damaged)], default="")

    @property
    def newest_good(self) -> BackupSet | None:
        """The newest good set."""
        return next((one for one in self.sets if one.good), None)


def list_sets(platform: Platform, environment: str, *, vault: Vault | None = None) -> Listing:
    """Everything found of an environment. Raise Unavailable, BadInput (vault)."""
    vault = vault or platform.vault()
    clock = platform.clock
    infos = retried(clock, f"list the sets of {environment}", lambda: _manifests(vault, environment))
    known = read_book(vault, environment)
    fresh = [info for info in infos if info.key not in known or not known[info.key].of(info)]
    summaries = {info.key: known[info.key] for info in infos if info.key in known and known[info.key].of(info)}
    damaged: list[DamagedSet] = []
    with ThreadPoolExecutor(READERS) as pool:
        for info, found in zip(fresh, pool.map(partial(_summary, platform, vault), fresh), strict=True):
            if isinstance(found, Summary):
                summaries[info.key] = found
            else:
                damaged.append(DamagedSet(set_key_of(info.key), found))
        ordered = sorted(summaries.values(), key=lambda one: one.manifest.id, reverse=True)
        states = list(pool.map(partial(_state, platform, vault, environment), [one.manifest.id for one in ordered]))
        head = read_head(vault, clock, environment)
        gone = retried(clock, "list what was pruned", lambda: _pruned(vault, environment))
    if fresh or summaries.keys() != known.keys():
        write_book(vault, environment, summaries)
    sets = tuple(
        BackupSet(one.manifest, state, _key_of(one.manifest), one.sha256)
        for one, state in zip(ordered, states, strict=True)
    )
    broken = tuple(sorted(damaged, key=lambda one: one.id, reverse=True))
    return Listing(environment, sets, broken, chain_problems(sets, {one.id for one in broken}, gone, head))


def backup_sets(
    platform: Platform, environment: str, *, vault: Vault | None = None, good: bool = False
) -> tuple[BackupSet, ...]:
    """Whole sets of an environment, newest first; with `good` only the good ones. Raise Unavailable, BadInput."""
    sets = list_sets(platform, environment, vault=vault).sets
    return tuple(one for one in sets if one.good) if good else sets


def find_set(platform: Platform, environment: str, set_id: str, *, vault: Vault | None = None) -> BackupSet:
    """One set with its whole manifest: by id, by the beginning of an id, or the newest good one ("latest").

    Raise NotFound, BadInput (the beginning of several), StoreDamaged (its manifest cannot be trusted), Unavailable.
    """
    vault = vault or platform.vault()
    return whole_set(platform, pick(list_sets(platform, environment, vault=vault), set_id), vault=vault)


def pick(listing: Listing, set_id: str) -> BackupSet:
    """One set of a listing, in its short form, by the same names as `find_set`.

    Raise NotFound, BadInput (the beginning of several), StoreDamaged (its manifest cannot be trusted).
    """
    environment, wanted = listing.environment, set_id.strip().upper()
    if wanted == LATEST:
        if listing.newest_good is None:
            raise NotFound(f"{environment} has no good backup set", hint=f"Take one: ops backup {environment}")
        return listing.newest_good
    if len(wanted) < SHORTEST_PREFIX:
        raise BadInput(
            [Problem("set", f"`{set_id}` is too short: give {SHORTEST_PREFIX} characters of an id, or more")]
        )
    found = [one for one in listing.sets if one.id.startswith(wanted)]
    broken = [one for one in listing.damaged if one.id.startswith(wanted)]
    if len(found) + len(broken) > 1:
        ids = ", ".join([*(one.id for one in found), *(one.id for one in broken)][:5])
        raise BadInput([Problem("set", f"`{set_id}` is the beginning of several sets: {ids}")])
    if broken:
        raise StoreDamaged(broken[0].problem, hint="Take another set: `ops backups` lists them.")
    if not found:
        raise NotFound(f"{environment} has no backup set {set_id}", hint=f"`ops backups {environment}` lists them.")
    return found[0]


def whole_set(platform: Platform, one: BackupSet, *, vault: Vault | None = None) -> BackupSet:
    """The same set with the blocks of its streams. Raise StoreDamaged when its manifest is another by now."""
    vault = vault or platform.vault()
    if all(part.stream.blocks for part in one.manifest.parts):
        return one
    data = retried(platform.clock, f"read {one.key.manifest}", lambda: vault.sets.get(one.key.manifest))
    manifest = checked_manifest(vault, data, one.key.manifest)
    if manifest_hash(data) != one.manifest_sha256:
        raise StoreDamaged(f"stored object {one.key.manifest} is damaged: it is another one than was listed")
    return BackupSet(manifest, one.state, one.key, one.manifest_sha256)


def set_at(
    platform: Platform,
    environment: str,
    when: str | datetime,
    *,
    sources: Sequence[str] = (),
    vault: Vault | None = None,
) -> BackupSet:
    """The newest set one can trust that was begun by a moment, with its whole manifest.

    `when`: a date (that day's end, UTC), a time, or an aware datetime. With `sources` a set that holds all of these is
    enough; otherwise sets of some sources only are passed over. Raise BadInput (no date), NotFound, Unavailable.
    """
    if isinstance(when, datetime):
        until, day = when.astimezone(UTC), False
    else:
        try:
            until, day = moment(when), bool(DAY.fullmatch(when.strip()))
        except ValueError as error:
            raise BadInput([Problem("date", str(error))]) from None
    vault = vault or platform.vault()
    listing = list_sets(platform, environment, vault=vault)
    fit = [one for one in listing.sets if one.trusted and (one.covers(sources) if sources else one.good)]
    for one in sorted(fit, key=lambda one: (one.manifest.started_at, one.id), reverse=True):
        if one.manifest.started_at < until or (one.manifest.started_at == until and not day):
            return whole_set(platform, one, vault=vault)
    of = f" of {', '.join(sources)}" if sources else ""
    oldest = min((one.manifest.started_at for one in fit), default=None)
    said = f"; the oldest is of {oldest:%Y-%m-%d %H:%M} UTC" if oldest else ""
    raise NotFound(
        f"{environment} has no good backup set{of} taken before {until:%Y-%m-%d %H:%M} UTC{said}",
        hint=f"`ops backups {environment}` lists them.",
    )


def chain_problems(
    sets: Sequence[BackupSet], damaged: Iterable[str], pruned: Iterable[str], head: Head | None
) -> tuple[str, ...]:
    """Given the sets found, ids of damaged and pruned ones, and the newest one remembered, say what is missing."""
    known = {one.id: one.manifest_sha256 for one in sets}
    present, gone = {*known, *damaged}, set(pruned)
    problems = []
    for one in sets:
        before = one.manifest.previous
        if before is None:
            continue
        if before.id not in present and before.id not in gone:
            problems.append(f"set {one.id} names {before.id} as its predecessor, which is gone")
        elif before.id in known and known[before.id] != before.manifest_sha256:
            problems.append(f"set {one.id} names {before.id} as its predecessor, whose manifest is another one now")
    if head is not None and head.id not in present and head.id not in gone:
        problems.insert(0, f"set {head.id}, the newest one remembered, is gone")
    return tuple(problems)


def set_key_of(key: str) -> SetKey:
    """Given the key of a manifest, return the set's. Raise StoreDamaged when it names no day."""
    match = _KEY.fullmatch(key)
    try:
        if match is None:
            raise ValueError
        day = datetime.strptime(match["day"], "%Y/%m/%d").replace(tzinfo=UTC)
    except ValueError:
        raise StoreDamaged(f"stored object {key} has a name no set has") from None
    return SetKey(match["environment"], match["id"], day)


def checked_manifest(vault: Vault, data: bytes, key: str) -> Manifest:
    """A manifest whose signature counts and that belongs where it lies. Raise StoreDamaged naming `key`."""
    manifest = decode_manifest(vault.sealing, data, key)
    own = _key_of(manifest)
    if own.manifest != key:
        raise StoreDamaged(f"stored object {key} is damaged: it is the manifest of {own.manifest}")
    for part in manifest.parts:
        if not part.stream.key.startswith(own.prefix):
            raise StoreDamaged(f"stored object {key} is damaged: {part.source} lies outside the set")
    return manifest


def _key_of(manifest: Manifest) -> SetKey:
    return SetKey(manifest.environment, manifest.id, manifest.started_at)


def _manifests(vault: Vault, environment: str) -> list[ObjectInfo]:
    found = (info for info in vault.sets.list(f"sets/{environment}/") if info.key.endswith("/manifest.json"))
    return [info for info in found if _is_set(info.key)]


def _is_set(key: str) -> bool:
    match = _KEY.fullmatch(key)
    try:
        return match is not None and bool(ULID.fullmatch(match["id"])) and bool(set_key_of(key))
    except StoreDamaged:
        return False


def _summary(platform: Platform, vault: Vault, info: ObjectInfo) -> Summary | str:
    """A manifest in its short form, or why it cannot be trusted."""
    read: Callable[[], bytes] = partial(vault.sets.get, info.key)
    try:
        data = retried(platform.clock, f"read {info.key}", read)
        manifest = checked_manifest(vault, data, info.key)
    except (StoreDamaged, NotFound) as error:
        return error.message
    return Summary(info.etag, len(data), manifest_hash(data), without_blocks(manifest))


def _state(platform: Platform, vault: Vault, environment: str, set_id: str) -> SetState:
    key = state_key(environment, set_id)
    blob = retried(platform.clock, f"read {key}", lambda: vault.state.read(key))
    return trusted_state(None if blob is None else blob.data, environment, set_id)


def _pruned(vault: Vault, environment: str) -> set[str]:
    """Ids named by `tombstones/<environment>/…`: sets that were cleared away on purpose."""
    keys = (info.key.removesuffix(".json") for info in vault.state.list(f"tombstones/{environment}/"))
    return {word for key in keys for word in key.split("/") if ULID.fullmatch(word)}
