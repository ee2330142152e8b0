"""Clearing away the sets that are over their time: planned, re-read before every deletion, safe to kill anywhere.

Order of one deletion: it is written down (`tombstones.py`), the manifest goes (from here on the set does not exist),
then its parts, its state, and the note that it is being done. Who comes after a kill finishes or takes back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from ops_pipeline.core.backup.retention import Decision, RetentionPlan
from ops_pipeline.errors import BadInput, Conflict, Permanent, PolicyRefused, Problem, StoreDamaged, Unavailable
from ops_pipeline.ports import Progress, Vault
from ops_pipeline.services.backup import media_gc
from ops_pipeline.services.backup.inflight import ABANDONED, InFlight, in_flight
from ops_pipeline.services.backup.locks import lock
from ops_pipeline.services.backup.orphans import sweep_orphans
from ops_pipeline.services.backup.pruning_plan import plan_for, plan_prune, why_not_good
from ops_pipeline.services.backup.sets import BackupSet, DamagedSet, Listing, list_sets, read_state, state_key
from ops_pipeline.services.backup.tombstones import Tombstone, begin, begun, end, withdraw
from ops_pipeline.services.lease import HeldLease
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried

__all__ = ["PruneOutcome", "forget_set", "live", "plan_prune", "prune", "prune_vault", "refuse_while_taken"]

T = TypeVar("T")
LIVE = timedelta(minutes=15)
"""A set being taken whose heartbeat is younger keeps everybody from pruning."""
PLAN_SECONDS = 30.0
"""After so long the plan is made anew from the store."""
MOST_PLANS = 200


@dataclass(frozen=True)
class PruneOutcome:
    """What was cleared away. `problems`: what could not be, one sentence each. Sizes in bytes."""

    environment: str
    plan: RetentionPlan
    deleted: tuple[Decision, ...] = ()
    deleted_bytes: int = 0
    orphans: tuple[str, ...] = ()  # ids of sets that never came to be and whose parts are gone now
    orphan_bytes: int = 0
    problems: tuple[str, ...] = ()
    media: tuple[str, ...] = ()  # what became of files no set needs any more, in words

    @property
    def words(self) -> str:
        """In one sentence."""
        text = f"{self.environment}: {len(self.deleted)} sets cleared away ({self.deleted_bytes:,} bytes)"
        if self.plan.frozen:
            text = f"{self.environment}: {self.plan.words}"
        if self.orphans:
            text += f"; parts of {len(self.orphans)} sets that never came to be ({self.orphan_bytes:,} bytes)"
        return text + "".join(f"; {problem}" for problem in self.problems)


def prune(platform: Platform, environment: str, *, progress: Progress, run_id: str = "", by: str = "") -> PruneOutcome:
    """Clear away what the plan says, then parts of sets that never came to be, then files no set needs any more.

    Raise PolicyRefused while a set is being taken, LeaseHeld, BadInput, Unavailable. What a store refuses to delete
    (still immutable) is a problem of the outcome.
    """
    vault = prune_vault(platform)
    with lock(platform, vault, environment, run_id=run_id, reason="clearing away old sets", progress=progress) as held:
        refuse_while_taken(platform, vault, environment)
        pruning = _Pruning(platform, vault, environment, held, run_id, by, progress)
        pruning.finish_begun()
        pruning.run()
        orphans, size, problems = sweep_orphans(platform, vault, environment, held, progress)
    media, damage = _clear_media(platform, vault, progress)
    return PruneOutcome(
        environment,
        pruning.plan,
        tuple(pruning.deleted),
        pruning.bytes,
        orphans,
        size,
        (*pruning.problems, *problems, *damage),
        media,
    )


def forget_set(
    platform: Platform,
    environment: str,
    set_id: str,
    *,
    reason: str,
    progress: Progress,
    run_id: str = "",
    by: str = "",
) -> None:
    """Clear away one set a person names by its whole id, also one that is damaged or in quarantine.

    Raise BadInput (no reason, no such set), PolicyRefused (held, or the newest good one, or a set is being taken),
    LeaseHeld, Unavailable, Permanent (the store refuses).
    """
    if not reason.strip():
        raise BadInput([Problem("reason", "is empty")], subject="forget a set")
    vault = prune_vault(platform)
    with lock(platform, vault, environment, run_id=run_id, reason=f"forgetting {set_id}", progress=progress) as held:
        refuse_while_taken(platform, vault, environment)
        listing = list_sets(platform, environment, vault=vault)
        pruning = _Pruning(platform, vault, environment, held, run_id, by, progress)
        pruning.finish_begun()
        found = _by_id(listing).get(set_id)
        if found is None:
            raise BadInput([Problem("set", f"{environment} has no set of the id `{set_id}`; give all of it")])
        if isinstance(found, BackupSet):
            if found.state.holds:
                names = ", ".join(hold.name for hold in found.state.holds)
                raise PolicyRefused(f"forgetting {set_id}", [f"it is held: {names}"], hint="Release that first.")
            newest = next((one for one in listing.sets if not why_not_good(one)), None)
            if newest is not None and newest.id == set_id:
                raise PolicyRefused(f"forgetting {set_id}", ["it is the newest good set"])
        pruning.delete(_stone(found, platform.clock.now(), reason.strip(), run_id, by))


def prune_vault(platform: Platform) -> Vault:
    """The vault with credentials that may delete. Raise BadInput, Permanent."""
    return platform.vault() if platform.prune_vault is None else platform.prune_vault()


def refuse_while_taken(platform: Platform, vault: Vault, environment: str) -> None:
    """Raise PolicyRefused naming the set that is being taken, by its heartbeat."""
    now = platform.clock.now()
    for found, _ in in_flight(vault, platform.clock, environment):
        if live(found, now):
            raise PolicyRefused(
                f"pruning {environment}",
                [
                    f"set {found.id} is being taken by {found.controller} (run {found.run_id or 'none'}; last sign of "
                    f"life {found.beat_at:%H:%M:%S} UTC)"
                ],
                hint="Start again when it is done; a dead one stops counting after 15 minutes.",
            )


def live(found: InFlight, now: datetime) -> bool:
    """Whether somebody may still be at work on it. A heartbeat from the future counts as life."""
    return found.stage != ABANDONED and now - found.beat_at < LIVE


def _clear_media(platform: Platform, vault: Vault, progress: Progress) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What became of files no set of any environment needs, and problems. Needs no lock: see `media_gc.py`."""
    try:
        swept = media_gc.sweep(vault, platform.clock, progress=progress)
        seen = media_gc.mark(vault, platform.clock, progress=progress)
    except StoreDamaged as error:
        return (), (f"no file was cleared away, since what sets need is not known: {error.message}",)
    except Unavailable:
        raise
    except Permanent as error:
        return (), (f"files no set needs could not be cleared away: {error.message}",)
    gone = f"{swept.deleted:,} files no set needs are gone ({swept.deleted_bytes:,} bytes)"
    return (
        f"files: {swept.postponed or gone}",
        f"files: {seen.marked:,} of {seen.objects:,} are marked ({seen.marked_bytes:,} bytes): needed by no set now",
    ), ()


def _by_id(listing: Listing) -> dict[str, BackupSet | DamagedSet]:
    found: dict[str, BackupSet | DamagedSet] = {one.id: one for one in listing.damaged}
    return {**found, **{one.id: one for one in listing.sets}}


def _stone(found: BackupSet | DamagedSet, at: datetime, reason: str, run_id: str, by: str) -> Tombstone:
    whole = found if isinstance(found, BackupSet) else None
    before = whole.manifest.previous if whole else None
    return Tombstone(
        environment=found.key.environment,
        id=found.id,
        started_at=found.key.started_at,
        manifest_sha256=whole.manifest_sha256 if whole else "",
        previous=before.id if before else "",
        reason=reason,
        at=at,
        run_id=run_id,
        by=by,
    )


@dataclass
class _Pruning:
    """One prune under way."""

    platform: Platform
    vault: Vault
    environment: str
    held: HeldLease
    run_id: str
    by: str
    progress: Progress
    plan: RetentionPlan = field(default_factory=lambda: RetentionPlan(()))
    deleted: list[Decision] = field(default_factory=list)
    bytes: int = 0
    problems: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)

    def finish_begun(self) -> None:
        """Carry out or take back what an earlier prune was killed at."""
        for stone in begun(self.vault, self.platform.clock, self.environment):
            self.held.check()
            if self._stat(stone) is not None:
                withdraw(self.vault, self.platform.clock, stone)
                continue
            self.progress(f"set {stone.id}: finishing a deletion that was begun")
            self._delete_rest(stone)

    def run(self) -> None:
        """Delete what the plan says; the plan is made anew whenever it got old."""
        clock = self.platform.clock
        for _ in range(MOST_PLANS):
            listing = list_sets(self.platform, self.environment, vault=self.vault)
            made, planned = plan_for(self.platform, listing), clock.monotonic()
            if not self.deleted:
                self.plan = made
                self._say_what_piles_up(listing, made)
            self.progress(f"{self.environment}: {made.words}")
            due = [one for one in made.deleted if one.id not in self.refused]
            found = _by_id(listing)
            for decision in due:
                if clock.monotonic() - planned > PLAN_SECONDS or not self._still(decision, made, found):
                    break
                stone = _stone(found[decision.id], clock.now(), decision.reason, self.run_id, self.by)
                try:
                    self.delete(stone)
                except (Unavailable, Conflict):
                    raise
                except Permanent as error:
                    self.refused.add(decision.id)
                    self.problems.append(f"set {decision.id} could not be deleted: {error.message}")
                    continue
                self.deleted.append(decision)
                self.progress(f"set {decision.id} of {decision.taken_at:%Y-%m-%d %H:%M} UTC is gone: {decision.reason}")
            else:
                return
        self.problems.append("what is stored changes all the time; the rest is for the next time")

    def _say_what_piles_up(self, listing: Listing, made: RetentionPlan) -> None:
        """Frozen while old sets are there: somebody has to look. A quarantine has told people itself."""
        keep = timedelta(days=self.platform.catalogue.backups.retention.keep_days)
        moments = [decision.taken_at for decision in made.decisions]
        quarantined = any(one.state.quarantined for one in listing.sets)
        piles_up = "old sets pile up while nothing is deleted"
        if made.frozen and not quarantined and max(moments) - min(moments) > keep and piles_up not in self.problems:
            self.problems.append(piles_up)

    def delete(self, stone: Tombstone) -> None:
        """One set: written down, manifest first, then the rest."""
        info = self._stat(stone)
        self.held.check()
        begin(self.vault, self.platform.clock, stone)
        if info is not None:
            key = stone.key.manifest
            try:
                self._retried(f"delete {key}", lambda: self.vault.sets.delete(key, etag=info[1]))
            except Permanent:
                if self._stat(stone) is not None:
                    withdraw(self.vault, self.platform.clock, stone)
                raise
            self.bytes += info[0]
        self._delete_rest(stone)

    def _still(self, decision: Decision, made: RetentionPlan, found: dict[str, BackupSet | DamagedSet]) -> bool:
        """Whether what the decision rests on is as it was: this set, the newest good one and the bridge. Re-read."""
        self.held.check()
        refuse_while_taken(self.platform, self.vault, self.environment)
        for set_id in dict.fromkeys((decision.id, made.newest_good, made.bridge)):
            one = found.get(set_id)
            if not isinstance(one, BackupSet):
                continue
            if read_state(self.vault, self.platform.clock, self.environment, set_id) != one.state:
                return False
            if set_id != decision.id and self._size_and_etag(one.key.manifest) is None:
                return False
        return True

    def _delete_rest(self, stone: Tombstone) -> None:
        prefix = stone.key.prefix
        objects = self._retried(f"list {prefix}", lambda: list(self.vault.sets.list(prefix)))
        for info in objects:
            self.held.check()
            self._retried(f"delete {info.key}", partial(self.vault.sets.delete, info.key))
            self.bytes += info.size
        key = state_key(stone.environment, stone.id)
        self._retried(f"delete {key}", lambda: self.vault.state.delete(key))
        end(self.vault, self.platform.clock, stone)

    def _stat(self, stone: Tombstone) -> tuple[int, str] | None:
        return self._size_and_etag(stone.key.manifest)

    def _size_and_etag(self, key: str) -> tuple[int, str] | None:
        info = self._retried(f"look at {key}", lambda: self.vault.sets.stat(key))
        return None if info is None else (info.size, info.etag)

    def _retried(self, what: str, action: Callable[[], T]) -> T:
        return retried(self.platform.clock, what, action)
