"""Retention's view of what lies in the vault, and its plan for it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from ops_pipeline.core.backup.retention import Candidate, Keep, RetentionPlan, plan
from ops_pipeline.core.backup.ulid import ulid_time
from ops_pipeline.services.backup.sets import BackupSet, DamagedSet, Listing, list_sets
from ops_pipeline.services.platform import Platform


def plan_prune(platform: Platform, environment: str) -> RetentionPlan:
    """What pruning would keep and delete now, and why. Nothing is changed. Raise BadInput, Unavailable."""
    return plan_for(platform, list_sets(platform, environment))


def why_not_good(one: BackupSet) -> str:
    """In words why retention does not rely on a set; "" = it does. A quarantine is not named here."""
    state = one.state
    if one.manifest.partial:
        return "it holds some of the data sources only"
    if not state.checks:
        return "it was never checked"
    if state.checks[-1].problems:
        return f"damaged: {state.checks[-1].problems[0]}"
    if state.drills and state.drills[-1].problems:
        return f"its last drill did not pass: {state.drills[-1].problems[0]}"
    return "it is in quarantine" if state.quarantined else ""


def plan_for(platform: Platform, listing: Listing) -> RetentionPlan:
    """The same for a listing that was read already."""
    settings = platform.catalogue.backups.retention
    keep = Keep(settings.keep_days, settings.daily, settings.weekly, settings.monthly, settings.keep_last)
    return plan(_candidates(listing), keep, platform.clock.now())


def _candidates(listing: Listing) -> Iterator[Candidate]:
    for one in listing.sets:
        yield Candidate(
            one.id,
            one.manifest.started_at,
            bad=why_not_good(one),
            quarantined=one.state.quarantined,
            holds=tuple(hold.name for hold in one.state.holds),
        )
    for damaged in listing.damaged:
        yield Candidate(damaged.id, _id_time(damaged), bad="damaged", unreadable=damaged.problem)


def _id_time(damaged: DamagedSet) -> datetime:
    try:
        return ulid_time(damaged.id)
    except ValueError:
        return damaged.key.started_at
