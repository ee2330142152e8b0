"""Checks of what lies in the store, without any key: structure of every set, and a full read of a share each time.

Every stored byte is read once in `read_all_days`: the blocks of each set by a cursor in its state, the files, which
sets share, by one cursor of the environment (`checks/<environment>.json`), so that none is read twice in a round.
What is found is kept in the states of all sets it concerns, and people are alerted.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

from ops_pipeline.core.backup import alerts
from ops_pipeline.core.backup.frames import frame_plain_bytes
from ops_pipeline.core.backup.reading import NOTHING, POSITIONS, WHOLE, Window, due, place_of_block
from ops_pipeline.core.backup.records import FRAME_BYTES, Check, Manifest, SetState
from ops_pipeline.errors import Conflict, OpsError, StoreDamaged
from ops_pipeline.ports import Progress, Vault
from ops_pipeline.services.alerting import settle, tell
from ops_pipeline.services.backup.media_reading import MediaFindings, read_media
from ops_pipeline.services.backup.meter import Meter
from ops_pipeline.services.backup.set_states import write_state
from ops_pipeline.services.backup.sets import LATEST, BackupSet, Listing, list_sets, pick, whole_set
from ops_pipeline.services.backup.streams import check_stream
from ops_pipeline.services.backup.structure import Shelf, shelf_of, structure_problems
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.records import decode, encode
from ops_pipeline.services.retrying import retried

CHECKS_KEPT = 40


@dataclass(frozen=True)
class MediaRound:
    """How far the files of an environment were read: `checks/<environment>.json`."""

    since: datetime
    cursor: int = 0


@dataclass
class _Found:
    """What one look at a set found. `all_bytes`: whether every byte of it was read."""

    problems: list[str] = field(default_factory=list)
    bytes_read: int = 0
    window: Window = NOTHING
    all_bytes: bool = False


def check_set(
    platform: Platform,
    environment: str,
    set_id: str = "latest",
    *,
    share: float | None = None,
    progress: Progress,
    vault: Vault | None = None,
) -> Check:
    """Look at a set ("latest": the newest, good or not) and return what was found; its state keeps the result.

    With `share` (0 … 1) that fraction of this set's bytes is read in full; 1 reads everything and is the only thing
    that clears a problem found before. Without it the environment's due share is read: of the blocks of all its sets,
    and of all their files. Raise NotFound, BadInput, StoreDamaged when the manifest itself is not to be trusted
    (alerted too), Unavailable.
    """
    vault = vault or platform.vault()
    listing = list_sets(platform, environment, vault=vault)
    try:
        newest = listing.sets[0] if set_id.upper() == LATEST and listing.sets else pick(listing, set_id)
        one = whole_set(platform, newest, vault=vault)
    except StoreDamaged as error:
        tell(platform, alerts.damaged(environment, error.message), progress)
        raise
    looking = _Looking(platform, vault, environment, listing, progress)
    if share is not None:
        found = looking.alone(one, share)
        results = {one.id: found}
    else:
        results = looking.due()
        found = results[one.id]
    checks = {set_id: looking.keep(set_id, result, asked=set_id == one.id) for set_id, result in results.items()}
    looking.alert()
    check = checks[one.id]
    state = "nothing wrong" if not check.problems else f"{len(check.problems)} problems"
    progress(f"set {one.id}: {state}; {check.share:.1%} of its bytes were read in full")
    return check


class _Looking:
    """One look at the sets of an environment."""

    def __init__(
        self, platform: Platform, vault: Vault, environment: str, listing: Listing, progress: Progress
    ) -> None:
        self._platform = platform
        self._vault = vault
        self._environment = environment
        self._listing = listing
        self._progress = progress
        self._clock = platform.clock
        self._workers = platform.catalogue.backups.workers
        self._states = {one.id: one.state for one in listing.sets}
        self._problems: dict[str, tuple[str, ...]] = {}

    def alone(self, one: BackupSet, share: float) -> _Found:
        """Structure and a share of one set."""
        begin = self._states[one.id].read_cursor
        window = WHOLE if share >= 1 else Window(begin, begin + max(int(POSITIONS * share), 1))
        found = _Found(list(structure_problems(self._vault, self._clock, one.manifest)), window=window)
        found.all_bytes = share >= 1
        if not found.problems:
            self._read_blocks(whole_set(self._platform, one, vault=self._vault).manifest, window, found)
            media = read_media(self._vault, self._clock, [one.manifest], window, self._meter("files"), self._workers)
            found.bytes_read += media.bytes_read
            found.problems += media.of(one.manifest)
        return found

    def due(self) -> dict[str, _Found]:
        """Structure of all sets, the due share of their blocks, the due share of the environment's files."""
        sets = self._listing.sets
        on_shelf = shelf_of(self._vault.sets, self._clock, f"sets/{self._environment}/")
        files = any(part.files is not None for one in sets for part in one.manifest.parts)
        media_shelf = shelf_of(self._vault.media, self._clock, "media/") if files else Shelf({})
        now, days = self._clock.now(), self._platform.catalogue.backups.read_all_days
        results: dict[str, _Found] = {}
        for one in sets:
            found = _Found(
                list(structure_problems(self._vault, self._clock, one.manifest, sets=on_shelf, media=media_shelf))
            )
            results[one.id] = found
            if one.state.damaged:
                continue  # known, and only a whole read clears it
            found.window = due(one.state.read_cursor, one.manifest.started_at, now, days)
            if not found.problems and _any_block(one.manifest, found.window):
                try:
                    whole = whole_set(self._platform, one, vault=self._vault)
                except StoreDamaged as error:
                    found.problems.append(error.message)
                    continue
                self._read_blocks(whole.manifest, found.window, found)
        if files:
            media = self._due_media([one.manifest for one in sets], now, days)
            for one in sets:
                results[one.id].problems += media.of(one.manifest)
                results[one.id].bytes_read += media.bytes_of(one.manifest)
        return results

    def keep(self, set_id: str, found: _Found, *, asked: bool) -> Check:
        """Bring the result into the set's state and return it as a check. Nothing new is not written for others."""
        one = next(one for one in self._listing.sets if one.id == set_id)
        if found.problems and self._is_gone(one):
            found.problems = []  # pruned while it was looked at
        size = max(_stored(one.manifest), 1)
        at = self._clock.now()
        moved = found.window.end != found.window.begin
        count = _block_count(one.manifest)

        def change(state: SetState) -> SetState:
            known = () if found.all_bytes or not state.checks else state.checks[-1].problems
            problems = tuple(dict.fromkeys((*found.problems, *known)))
            check = Check(at, 1.0 if found.all_bytes else min(found.bytes_read / size, 1.0), problems)
            fresh = asked or problems != known or found.bytes_read > 0
            cursor = max(state.read_cursor, found.window.end) if moved else state.read_cursor
            return replace(
                state,
                checks=(*state.checks, check)[-CHECKS_KEPT:] if fresh else state.checks,
                read_cursor=cursor,
                read_share=1.0
                if found.all_bytes
                else max(
                    sum(place_of_block(index, count) < cursor for index in range(count)) / count, state.read_share
                ),
            )

        if not asked and not found.problems and not found.bytes_read:
            return Check(at, 0.0, ())
        state = write_state(self._vault, self._clock, self._environment, set_id, change)
        self._problems[set_id] = state.checks[-1].problems if state.checks else ()
        return state.checks[-1]

    def alert(self) -> None:
        """Tell people what is damaged by now, or that nothing is any more."""
        said = [f"set {one.id}: {one.problem}" for one in self._listing.damaged] + list(self._listing.chain)
        for one in self._listing.sets:
            known = one.state.checks[-1].problems if one.state.damaged else ()
            said += [f"set {one.id}: {problem}" for problem in self._problems.get(one.id, known)]
        for line in said[:20]:
            self._progress(line)
        words = "\n".join(said[:20])
        (tell if said else settle)(self._platform, alerts.damaged(self._environment, words), self._progress)

    def _read_blocks(self, manifest: Manifest, window: Window, found: _Found) -> None:
        count = sum(len(part.stream.blocks) for part in manifest.parts)
        before = 0
        for part in manifest.parts:
            blocks = [
                index for index in range(len(part.stream.blocks)) if window.has(place_of_block(before + index, count))
            ]
            before += len(part.stream.blocks)
            if not blocks:
                continue
            meter = self._meter(f"{manifest.id} {part.source}")
            try:
                found.bytes_read += retried(
                    self._clock,
                    f"read {part.stream.key}",
                    lambda part=part, blocks=blocks, meter=meter: check_stream(  # type: ignore[misc]
                        self._vault.sets, part.stream, blocks, meter, workers=self._workers
                    ),
                )
            except StoreDamaged as error:
                found.problems.append(f"{part.source}: {error.message}")

    def _due_media(self, manifests: Sequence[Manifest], now: datetime, days: float) -> MediaFindings:
        key = f"checks/{self._environment}.json"
        blob = retried(self._clock, f"read {key}", lambda: self._vault.state.read(key))
        try:
            known = MediaRound(now) if blob is None else decode(MediaRound, blob.data, key)
        except StoreDamaged:
            known = MediaRound(now)  # rebuildable: the round begins anew
        window = due(known.cursor, known.since, now, days)
        found = read_media(self._vault, self._clock, manifests, window, self._meter("files"), self._workers)
        data = encode(replace(known, cursor=window.end))
        with suppress(Conflict):  # somebody else checks at the same time: read twice, recorded once
            retried(
                self._clock,
                f"write {key}",
                lambda: (
                    self._vault.state.write(key, data, if_absent=True)
                    if blob is None
                    else self._vault.state.write(key, data, if_match=blob.etag)
                ),
            )
        return found

    def _is_gone(self, one: BackupSet) -> bool:
        key = one.key.manifest
        try:
            return retried(self._clock, f"look at {key}", lambda: self._vault.sets.stat(key)) is None
        except OpsError:
            return False

    def _meter(self, label: str) -> Meter:
        return Meter(self._progress, self._clock, f"reading {label}")


def _block_count(manifest: Manifest) -> int:
    """How many blocks a set has, told from the short form of its manifest."""
    return max(sum(len(frame_plain_bytes(part.stream.plain_size, FRAME_BYTES)) for part in manifest.parts), 1)


def _any_block(manifest: Manifest, window: Window) -> bool:
    """Whether a block lies in the window."""
    count = _block_count(manifest)
    return any(window.has(place_of_block(index, count)) for index in range(count))


def _stored(manifest: Manifest) -> int:
    """About how many bytes a set consists of in the store, the files it shares with other sets included."""
    return sum(
        part.stream.stored_size + (part.files.plain_size if part.files is not None else 0) for part in manifest.parts
    )
