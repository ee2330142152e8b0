"""What waits for a reconcile although nobody works on it, and where the world differs from the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ops_pipeline.core.journal import Journal
from ops_pipeline.errors import OpsError
from ops_pipeline.services.flags import stale_flags
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.lease import read_lease
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.reconcile import reconcile
from ops_pipeline.services.watches import read_watch


@dataclass(frozen=True)
class Attention:
    """One (environment, service) that wants a reconcile. `key` names this very occasion, once and for all."""

    environment: str
    service: str
    reason: str
    key: str


def attention(platform: Platform, environment: str, service: str) -> Attention | None:
    """Given a target, return why it waits for a reconcile: work whose controller is gone, or a standby over its time.

    Reads the ledger only, no engine and no edge. None while somebody holds the lease. Raise StoreDamaged, Unavailable.
    """
    now = platform.clock.now()
    lease = read_lease(platform, environment, service)
    if lease is not None and lease.held(now):
        return None
    journal = read_journal(platform, environment, service)
    reason = ""
    if journal.work is not None:
        work = journal.work
        reason = f"run {journal.run_id or 'unknown'} ended while #{work.release.number} was {work.stage}"
    elif journal.leaving:
        reason = f"#{journal.leaving[0].release} was leaving when run {journal.run_id or 'unknown'} ended"
    elif journal.standby is not None:
        warm = timedelta(minutes=platform.catalogue.environments[environment].standby_minutes)
        if now >= journal.standby.since + warm:
            reason = f"standby #{journal.standby.release} has been kept for its {warm.total_seconds() / 60:g} minutes"
    if not reason and _unwatched(platform, journal, now):
        reason = f"run {journal.run_id or 'unknown'} ended before what it had made live was recorded and watched"
    if not reason:
        return None
    return Attention(environment, service, reason, f"{environment}/{service}/{journal.generation}/{len(journal.lines)}")


def _unwatched(platform: Platform, journal: Journal, now: datetime) -> bool:
    """Whether the live release's watch should stand and does not: the journal was written, what follows it was not."""
    owed = [change.watch for change in journal.outbox if change.watch is not None and not change.watch.over(now)]
    if not owed or journal.live is None or journal.live.release != owed[0].release:
        return False
    found = read_watch(platform, journal.environment, journal.service)
    return found is None or found.release < owed[0].release


def drift(platform: Platform, environment: str, service: str) -> tuple[str, ...]:
    """How the world differs from the ledger, in words; empty = it does not. Looks at hosts and edges, changes nothing.

    What cannot be looked at is named too: not seeing a difference is no proof that there is none.
    """
    try:
        report = reconcile(platform, environment, service, progress=lambda line: None, dry_run=True)
        flags = stale_flags(platform, environment) if platform.catalogue.services[service].flags else {}
    except OpsError as error:
        return (f"could not look: {error.message}",)
    return (*report.actions, *report.problems, *(f"flags of host {host}: {why}" for host, why in flags.items()))
