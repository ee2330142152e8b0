"""Restoring data: beside, compared, swapped after one confirmation; undone or released later; resumed after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ops_pipeline.core.backup.records import Manifest
from ops_pipeline.core.backup.restore_plan import RestorePlan
from ops_pipeline.errors import NotFound, PolicyRefused, StoreDamaged
from ops_pipeline.ports import Progress, Vault
from ops_pipeline.services.backup.locks import lock
from ops_pipeline.services.backup.restore_journal import (
    BESIDE,
    RESTING,
    SWITCHING,
    RestoreJournal,
    RestoreRecord,
    Stage,
    begin_journal,
    open_journal,
    refuse_while_switching,
    restores,
    unfinished,
)
from ops_pipeline.services.backup.restore_planning import new_token, plan_restore
from ops_pipeline.services.backup.restoring import Confirm, RestoreOutcome, Restoring
from ops_pipeline.services.backup.sets import find_set
from ops_pipeline.services.backup.structure import structure_problems
from ops_pipeline.services.platform import Platform

__all__ = [
    "Confirm",
    "RestoreHold",
    "RestoreOutcome",
    "RestorePlan",
    "abandon_restore",
    "new_token",
    "plan_restore",
    "refuse_while_switching",
    "release_restore_hold",
    "restore",
    "restore_holds",
    "resume_restore",
    "undo_restore",
    "unfinished_restore",
]


@dataclass(frozen=True)
class RestoreHold:
    """Something a restore keeps: what was live before it, or a copy beside. `record` None: nobody wrote it down."""

    token: str
    sources: tuple[str, ...]
    words: str
    record: RestoreRecord | None = None


def restore(
    platform: Platform, plan: RestorePlan, *, confirm: Confirm, progress: Progress, run_id: str = "", by: str = ""
) -> RestoreOutcome:
    """Carry out a plan: `held` (swapped), `kept` (beside, under the plan's name) or `failed` (not confirmed).

    `confirm` is asked once, when all is restored beside and found equal. Raise PolicyRefused (no identity here, or
    another restore is unfinished), LeaseHeld, StoreDamaged naming source and object, Permanent, Unavailable: whatever
    is raised, live data are as they were and what was made is gone, or the journal says what is left to do.
    """
    vault = platform.vault()
    if not vault.sealing.can_open:
        raise PolicyRefused(
            f"restoring {plan.environment}", ["no identity here opens a backup"], hint="Set `backups.identity`."
        )
    with lock(
        platform, vault, plan.environment, run_id=run_id, reason=f"restore {plan.token}", progress=progress
    ) as held:
        other = unfinished(vault, platform.clock, plan.environment)
        if other is not None:
            raise PolicyRefused(f"restoring {plan.environment}", [other.words], hint="Resume it, or abandon it, first.")
        manifest = _manifest(platform, vault, plan.environment, plan.set_id, plan.manifest_sha256)
        names = tuple(one.source for one in plan.sources)
        _whole(platform, vault, manifest, names)
        record = RestoreRecord(
            environment=plan.environment,
            token=plan.token,
            set_id=plan.set_id,
            started_at=manifest.started_at,
            manifest_sha256=plan.manifest_sha256,
            sources=names,
            begun_at=platform.clock.now(),
            only=plan.only,
            into=plan.into,
            run_id=run_id,
            by=by,
        )
        journal = begin_journal(vault, platform.clock, record, by or platform.controller)
        restoring = Restoring(platform, vault, journal, held, progress)
        return _forward(restoring, journal, manifest, confirm, "\n".join(plan.lines))


def resume_restore(
    platform: Platform,
    environment: str,
    token: str = "",
    *,
    confirm: Confirm,
    progress: Progress,
    run_id: str = "",
    by: str = "",
) -> RestoreOutcome:
    """Go on with a restore that was killed ("" = the unfinished one): forward, or back if it was going back.

    Raise NotFound (nothing is unfinished), and as `restore`.
    """
    with _taken_up(platform, environment, token, run_id, by, "resuming a restore", progress) as (journal, restoring):
        stage = journal.record.stage
        if stage in BESIDE:
            record = journal.record
            manifest = _manifest(platform, platform.vault(), environment, record.set_id, record.manifest_sha256)
            return _forward(restoring, journal, manifest, confirm, record.words)
        if stage in (Stage.CONFIRMED, Stage.SWAPPING):
            restoring.swap()
        elif stage is Stage.RETURNING:
            restoring.go_back(journal.record.failure)
        elif stage is Stage.DROPPING:
            restoring.drop(journal.record.failure)
        elif stage is Stage.UNDOING:
            restoring.undo()
        elif stage is Stage.RELEASING:
            restoring.release()
        return restoring.outcome


def abandon_restore(
    platform: Platform, environment: str, token: str = "", *, progress: Progress, run_id: str = "", by: str = ""
) -> RestoreOutcome:
    """Take back a restore that was killed ("" = the unfinished one): live data as before, what it made gone.

    One that was being undone or released is finished as that. Raise NotFound, LeaseHeld, Permanent, Unavailable.
    """
    with _taken_up(platform, environment, token, run_id, by, "abandoning a restore", progress) as (journal, restoring):
        stage = journal.record.stage
        if stage in BESIDE or stage is Stage.DROPPING:
            restoring.drop(journal.record.failure or "abandoned")
        elif stage in (Stage.CONFIRMED, Stage.SWAPPING, Stage.RETURNING):
            restoring.go_back(journal.record.failure or "abandoned")
        elif stage is Stage.UNDOING:
            restoring.undo()
        elif stage is Stage.RELEASING:
            restoring.release()
        return restoring.outcome


def undo_restore(
    platform: Platform,
    environment: str,
    token: str,
    *,
    confirm: Confirm = lambda words: True,
    progress: Progress,
    run_id: str = "",
    by: str = "",
) -> RestoreOutcome:
    """What was live before a restore becomes live again; the restored data stay beside until released.

    Not confirmed = nothing changes. Raise PolicyRefused (nothing of it is held, a later restore is live, another is
    unfinished), NotFound, LeaseHeld, Permanent (could not be undone: the restored data are still live), Unavailable.
    """
    vault = platform.vault()
    with lock(
        platform, vault, environment, run_id=run_id, reason=f"undoing restore {token}", progress=progress
    ) as held:
        journal = open_journal(vault, platform.clock, environment, token, by or platform.controller)
        record = journal.record
        reasons = _why_not_undone(restores(vault, platform.clock, environment), record)
        if reasons:
            raise PolicyRefused(f"undoing restore {token}", reasons)
        restoring = Restoring(platform, vault, journal, held, progress)
        if record.stage is Stage.UNDOING or confirm(
            f"{environment}: {', '.join(record.sources)} go back to what was live before "
            f"{record.begun_at:%Y-%m-%d %H:%M} UTC; what was written since is kept beside until released"
        ):
            restoring.undo()
        return restoring.outcome


def release_restore_hold(
    platform: Platform, environment: str, token: str, *, progress: Progress, run_id: str = "", by: str = ""
) -> RestoreOutcome:
    """Remove for good what a restore keeps. Raise PolicyRefused (nothing is kept), NotFound, LeaseHeld, Unavailable."""
    vault = platform.vault()
    reason = f"releasing what restore {token} keeps"
    with lock(platform, vault, environment, run_id=run_id, reason=reason, progress=progress) as held:
        journal = open_journal(vault, platform.clock, environment, token, by or platform.controller)
        if journal.record.stage not in (*RESTING, Stage.RELEASING):
            raise PolicyRefused(f"releasing restore {token}", [journal.record.words])
        restoring = Restoring(platform, vault, journal, held, progress)
        restoring.release()
        return restoring.outcome


def restore_holds(platform: Platform, environment: str) -> tuple[RestoreHold, ...]:
    """What restores keep now, by the journals and by the data sources themselves. Raise StoreDamaged, Unavailable."""
    vault = platform.vault()
    records = restores(vault, platform.clock, environment)
    found = [
        RestoreHold(one.token, one.sources, RestoreOutcome(one).words, one) for one in records if one.stage in RESTING
    ]
    known = {one.token for one in records if one.stage is not Stage.DONE}
    strange: dict[str, list[str]] = {}
    for source in platform.sources(environment):
        for token in source.holds():
            if token not in known:
                strange.setdefault(token, []).append(source.name)
    return (
        *found,
        *(
            RestoreHold(token, tuple(names), f"a hold {token} nobody wrote down, of {', '.join(names)}")
            for token, names in sorted(strange.items())
        ),
    )


def unfinished_restore(platform: Platform, environment: str, *, vault: Vault | None = None) -> RestoreRecord | None:
    """The restore somebody has to finish, or None. Raise StoreDamaged, Unavailable."""
    return unfinished(vault or platform.vault(), platform.clock, environment)


def _forward(
    restoring: Restoring, journal: RestoreJournal, manifest: Manifest, confirm: Confirm, words: str
) -> RestoreOutcome:
    if journal.record.stage is not Stage.CHECKED:
        restoring.beside(manifest)
    if journal.record.stage is Stage.KEPT:
        return restoring.outcome
    try:
        agreed = confirm(f"{words}\nall is restored beside and as it was backed up; swap it in now?")
    except BaseException:
        restoring.drop("nobody confirmed it")
        raise
    if not agreed:
        restoring.drop("it was not confirmed")
        return restoring.outcome
    journal.write("confirmed", stage=Stage.CONFIRMED)
    restoring.swap()
    return restoring.outcome


@contextmanager
def _taken_up(
    platform: Platform, environment: str, token: str, run_id: str, by: str, reason: str, progress: Progress
) -> Iterator[tuple[RestoreJournal, Restoring]]:
    """An unfinished restore, in our hands."""
    vault = platform.vault()
    with lock(platform, vault, environment, run_id=run_id, reason=reason, progress=progress) as held:
        if not token:
            found = unfinished(vault, platform.clock, environment)
            if found is None:
                raise NotFound(f"{environment} has no unfinished restore")
            token = found.token
        journal = open_journal(vault, platform.clock, environment, token, by or platform.controller)
        if journal.record.stage in (*RESTING, Stage.DONE, Stage.FAILED):
            raise NotFound(f"restore {token} of {environment} is not unfinished: it is {journal.record.stage}")
        journal.write(reason)
        yield journal, Restoring(platform, vault, journal, held, progress)


def _manifest(platform: Platform, vault: Vault, environment: str, set_id: str, sha256: str) -> Manifest:
    found = find_set(platform, environment, set_id, vault=vault)
    if found.manifest_sha256 != sha256:
        raise StoreDamaged(
            f"stored object {found.key.manifest} is damaged: it is another one than the restore was planned with"
        )
    return found.manifest


def _whole(platform: Platform, vault: Vault, manifest: Manifest, sources: tuple[str, ...]) -> None:
    """Raise StoreDamaged naming every object that is missing, before anything is made."""
    wanted = replace(manifest, parts=tuple(part for part in manifest.parts if part.source in sources))
    problems = structure_problems(vault, platform.clock, wanted)
    if problems:
        raise StoreDamaged(
            f"set {manifest.id} is damaged: {'; '.join(problems[:10])}",
            hint="Restore the other data sources of it, or take another set. Nothing was changed.",
        )


def _why_not_undone(records: tuple[RestoreRecord, ...], record: RestoreRecord) -> list[str]:
    if record.stage not in (Stage.HELD, Stage.UNDOING):
        return [f"it holds nothing that was live: {record.words}"]
    reasons = []
    for other in records:
        shared = set(other.sources) & set(record.sources)
        later = other.token != record.token and other.begun_at >= record.begun_at
        if later and shared and other.stage is Stage.HELD:
            reasons.append(f"restore {other.token} came later and is live: undo that first")
        elif other.token != record.token and other.stage in SWITCHING:
            reasons.append(other.words)
    return reasons
