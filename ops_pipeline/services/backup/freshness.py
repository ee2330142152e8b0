"""How old the newest good set of an environment is, held against what the catalogue allows."""

from __future__ import annotations

from ops_pipeline.core.backup import alerts
from ops_pipeline.core.backup.freshness import Freshness, freshness_of
from ops_pipeline.errors import StoreDamaged
from ops_pipeline.ports import Progress, Vault
from ops_pipeline.services.alerting import settle, tell
from ops_pipeline.services.backup.heartbeat import read_heartbeat
from ops_pipeline.services.backup.set_states import read_state
from ops_pipeline.services.backup.sets import BackupSet, Listing, list_sets
from ops_pipeline.services.backup.wanted import check_backed_up
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried

__all__ = ["Freshness", "alert_freshness", "freshness"]


def freshness(platform: Platform, environment: str, *, vault: Vault | None = None) -> Freshness:
    """Age of the newest good set against the catalogue's `fresh_hours`.

    While all is well it reads three small objects; only otherwise the sets are listed. Raise BadInput (names, vault),
    Unavailable.
    """
    check_backed_up(platform.catalogue, environment, "environment")
    settings = platform.catalogue.environments[environment].backup
    hours = settings.fresh_hours if settings is not None else 0.0
    vault = vault or platform.vault()
    quick = _by_heartbeat(platform, vault, environment, hours)
    if quick is not None:
        return quick
    listing = list_sets(platform, environment, vault=vault)
    newest = listing.newest_good
    return freshness_of(
        platform.clock.now(),
        newest.manifest.started_at if newest else None,
        hours,
        set_id=newest.id if newest else "",
        newer=_what_is_wrong_with_newer(listing),
    )


def alert_freshness(
    platform: Platform, environment: str, *, progress: Progress, vault: Vault | None = None
) -> Freshness:
    """The same, and people are alerted as long as it is too old. Raise as `freshness`."""
    found = freshness(platform, environment, vault=vault)
    alert = alerts.stale(environment, found.words)
    (settle if found.fresh else tell)(platform, alert, progress)
    return found


def _by_heartbeat(platform: Platform, vault: Vault, environment: str, hours: float) -> Freshness | None:
    """The answer when the set last heard of is fresh, there and good, else None: then look closely."""
    clock = platform.clock
    try:
        last = read_heartbeat(vault, clock, environment)
        if last is None:
            return None
        state = read_state(vault, clock, environment, last.set_id)
    except StoreDamaged:
        return None
    key = last.key
    if state.damaged or state.quarantined or retried(clock, f"look at {key}", lambda: vault.sets.stat(key)) is None:
        return None
    found = freshness_of(clock.now(), last.begun_at, hours, set_id=last.set_id)
    return found if found.fresh else None


def _what_is_wrong_with_newer(listing: Listing) -> tuple[str, ...]:
    good = listing.newest_good
    newer: list[tuple[str, str]] = [(one.id, _why_not(one)) for one in listing.sets if good is None or one.id > good.id]
    newer += [(one.id, one.problem) for one in listing.damaged if good is None or one.id > good.id]
    ordered = sorted(newer, reverse=True)
    said = [f"{set_id} ({why})" for set_id, why in ordered[:3]]
    return (*said, f"and {len(ordered) - 3} more") if len(ordered) > 3 else tuple(said)


def _why_not(one: BackupSet) -> str:
    if one.state.damaged:
        return f"damaged: {one.state.checks[-1].problems[0]}"
    return f"kept apart: {one.state.quarantined}" if one.state.quarantined else "some data sources only"
