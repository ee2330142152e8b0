"""What an environment's policy demands of its backups before a release may enter it.

`require_backup_minutes`: a good set so young; where there is none one is taken. `require_drill_days`: a restore drill
that passed within so many days. Only ever asked for what brings something new: a return is never refused. Whatever the
policy demands, nothing new enters while a restore that was killed in its swap left data of two moments.

What takes and reads sets is imported where it is needed: every deploy loads this module, few have to do with a backup.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from ops_pipeline.core.alert import Alert
from ops_pipeline.core.backup.freshness import words_of
from ops_pipeline.core.backup.records import Hold, SetState, Trigger
from ops_pipeline.errors import LeaseHeld, OpsError, PolicyRefused
from ops_pipeline.ports import Progress, Vault
from ops_pipeline.services.alerting import tell
from ops_pipeline.services.backup.restore_journal import refuse_while_switching
from ops_pipeline.services.platform import Platform

if TYPE_CHECKING:
    from ops_pipeline.services.backup.sets import BackupSet, Listing

WAIT_SECONDS = 1800.0
"""How long a backup, prune or restore that is at work is waited for."""

POLL_SECONDS = 5.0


def ensure_fresh(
    platform: Platform, environment: str, *, run_id: str = "", taken_by: str = "", progress: Progress
) -> BackupSet | None:
    """Return a good set as young as the policy demands, taking one when there is none; None when it demands nothing.

    A set that another backup finishes meanwhile counts too. Raise PolicyRefused naming what is in the way: no set can
    be taken, the one just taken looks wrong, or a restore was killed in its swap. An environment without data sources
    costs nothing here; one whose policy demands nothing is read one list of names.
    """
    minutes = platform.catalogue.environments[environment].policy.require_backup_minutes
    subject = f"a release to {environment}"
    backed_up = platform.catalogue.environments[environment].backup is not None
    if minutes is None:
        if backed_up:
            _refuse_two_moments(platform, environment, subject, progress)
        return None
    if not backed_up:
        raise PolicyRefused(
            subject,
            [f"its policy demands a backup, but the catalogue names no data sources of {environment}"],
            hint=f"Add environments.{environment}.backup, or take policy.require_backup_minutes away.",
        )
    try:
        vault = platform.vault()
        refuse_while_switching(vault, platform.clock, environment, subject)
        young = _young(platform, vault, environment, minutes)
        if young is not None:
            age = words_of((platform.clock.now() - young.manifest.started_at).total_seconds() / 3600)
            progress(f"backup set {young.id} is {age} old and is reused")
            return young
        return _taken(platform, vault, environment, minutes, run_id, taken_by, progress)
    except PolicyRefused:
        raise
    except OpsError as error:
        words = " ".join(error.message.split())
        raise PolicyRefused(subject, [f"no backup could be taken before it: {words}"], hint=error.hint) from error


def drill_objections(platform: Platform, environment: str) -> tuple[str, ...]:
    """Why the policy's `require_drill_days` is not met, with what to do; empty when it is, or demands nothing."""
    days = platform.catalogue.environments[environment].policy.require_drill_days
    if days is None:
        return ()
    from ops_pipeline.services.backup.sets import list_sets

    wanted = f"the policy of {environment} demands a restore drill passed within {days:g} days"
    try:
        listing = list_sets(platform, environment)
    except OpsError as error:
        return (f"{wanted}, and its backups cannot be read: {error.message}",)
    last = max((at for one in listing.sets if (at := one.state.drilled_at) is not None), default=None)
    todo = f"run one: ops drill {environment}"
    if last is None:
        return (f"{wanted}, and none has passed; {todo}",)
    age = (platform.clock.now() - last).total_seconds() / 3600
    return (f"{wanted}, and the last one passed {words_of(age)} ago; {todo}",) if age > days * 24 else ()


def backup_preview(platform: Platform, environment: str) -> tuple[str, tuple[str, ...]]:
    """What `ensure_fresh` would do now, in words ("" = nothing), and what would keep it from that."""
    from ops_pipeline.services.backup.sets import list_sets

    policy, settings = platform.catalogue.environments[environment].policy, platform.catalogue.environments[environment]
    minutes = policy.require_backup_minutes
    if minutes is None:
        return "", _two_moments(platform, environment) if settings.backup is not None else ()
    if settings.backup is None:
        return "", (f"the policy demands a backup, but the catalogue names no data sources of {environment}",)
    try:
        vault = platform.vault()
        refuse_while_switching(vault, platform.clock, environment)
        listing = list_sets(platform, environment, vault=vault)
        young = _first_young(platform, vault, listing, minutes)
    except PolicyRefused as error:
        return "", tuple(error.reasons)
    except OpsError as error:
        return "", (f"the backups of {environment} cannot be read: {error.message}",)
    now, newest = platform.clock.now(), listing.newest_good
    if young is not None:
        age = words_of((now - young.manifest.started_at).total_seconds() / 3600)
        return f"reuse backup set {young.id}, {age} old (at most {words_of(minutes / 60)} are allowed)", ()
    stops = []
    for source in platform.sources(environment):
        try:
            source.check()
        except OpsError as error:
            stops.append(f"no backup can be taken: {source.name}: {error.message}")
    if newest is None:
        return f"take a backup of {environment} first: there is no good one", tuple(stops)
    age = words_of((now - newest.manifest.started_at).total_seconds() / 3600)
    return f"take a backup of {environment} first: the newest good one is {age} old", tuple(stops)


def hold_after_failure(platform: Platform, environment: str, set_id: str, release: str, reason: str) -> None:
    """Keep the set that was taken before a release which failed or was rolled back; repeating it changes nothing.

    Never raises: the way back must not depend on the backups. People are alerted when the set could not be held.
    """
    from ops_pipeline.services.backup.set_states import write_state
    from ops_pipeline.services.backup.sets import find_set

    name = f"failed {release}"

    def held(state: SetState) -> SetState:
        if any(hold.name == name for hold in state.holds):
            return state
        hold = Hold(name, reason[:500], "deploy", platform.clock.now())
        return replace(state, holds=(*state.holds, hold))

    try:
        vault = platform.vault()
        found = find_set(platform, environment, set_id, vault=vault)
        write_state(vault, platform.clock, environment, found.id, held)
    except OpsError as error:
        text = f"backup set {set_id} of {environment}, taken before {release} failed, could not be held"
        alert = Alert("BackupNotHeld", environment, "", 0, "warning", text, f"{error.message}\nHold it by hand.")
        tell(platform, alert, lambda line: None)


def _refuse_two_moments(platform: Platform, environment: str, subject: str, progress: Progress) -> None:
    """Raise PolicyRefused after a swap that was killed. A store that is away is told and holds up no release here."""
    try:
        refuse_while_switching(platform.vault(), platform.clock, environment, subject)
    except PolicyRefused:
        raise
    except OpsError as error:
        progress(f"warning: whether a restore of {environment} was killed in its swap is not known: {error.message}")


def _two_moments(platform: Platform, environment: str) -> tuple[str, ...]:
    try:
        _refuse_two_moments(platform, environment, "", lambda line: None)
    except PolicyRefused as error:
        return tuple(error.reasons)
    return ()


def _taken(
    platform: Platform,
    vault: Vault,
    environment: str,
    minutes: float,
    run_id: str,
    taken_by: str,
    progress: Progress,
) -> BackupSet:
    """A set taken now, or by somebody else while we waited."""
    from ops_pipeline.services.backup.sets import find_set
    from ops_pipeline.services.backup.take import take_backup

    deadline = platform.clock.monotonic() + WAIT_SECONDS
    told = ""
    while True:
        try:
            manifest = take_backup(
                platform,
                environment,
                trigger=Trigger.PRE_DEPLOY,
                reason="before a release",
                run_id=run_id,
                taken_by=taken_by,
                progress=progress,
                vault=vault,
            )
        except LeaseHeld as error:
            if platform.clock.monotonic() >= deadline:
                raise
            if error.message != told:
                progress(f"waiting: {error.message}")
                told = error.message
            platform.clock.sleep(POLL_SECONDS)
            young = _young(platform, vault, environment, minutes)
            if young is not None:
                progress(f"backup set {young.id} was taken meanwhile and is used")
                return young
            continue
        taken = find_set(platform, environment, manifest.id, vault=vault)
        if not taken.good:
            raise PolicyRefused(
                f"a release to {environment}",
                [f"the backup taken before it, {taken.id}, is kept apart: {taken.state.quarantined}"],
                hint="Look at the data. If they are right, lift the set's quarantine and deploy again.",
            )
        return taken


def _young(platform: Platform, vault: Vault, environment: str, minutes: float) -> BackupSet | None:
    from ops_pipeline.services.backup.sets import list_sets

    return _first_young(platform, vault, list_sets(platform, environment, vault=vault), minutes)


def _first_young(platform: Platform, vault: Vault, listing: Listing, minutes: float) -> BackupSet | None:
    """The newest good set that is young enough, of all data sources there are now, and all there."""
    from ops_pipeline.services.backup.structure import structure_problems

    now, wanted = platform.clock.now(), _sources(platform, listing.environment)
    for one in listing.sets:
        age = (now - one.manifest.started_at).total_seconds() / 60
        if not one.good or not one.covers(wanted) or not 0 <= age <= minutes:
            continue
        if not structure_problems(vault, platform.clock, one.manifest):
            return one
    return None


def _sources(platform: Platform, environment: str) -> Iterable[str]:
    settings = platform.catalogue.environments[environment].backup
    return settings.sources if settings is not None else ()
