"""Who becomes live, who stays warm, who leaves: steps from one journal to the next after a switch."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from ops_pipeline.core.journal import (
    Journal,
    Placement,
    change_at,
    change_of,
    containers_of,
    label,
    noted,
    without_pool,
    work_of,
)
from ops_pipeline.core.release import Action, Instance, Phase, Release
from ops_pipeline.core.watch import Watch


def committed(journal: Journal, now: datetime, *, keep_standby: bool, instances: tuple[Instance, ...] = ()) -> Journal:
    """The journal after a switch: the new release is live, the one before it standby (or leaving right away)."""
    work, old, spare = work_of(journal), journal.live, journal.standby
    new = work.release
    containers = containers_of(work)
    watch = None if new.action is Action.ROLLBACK else _watch(new, containers, old, now)
    changes = [replace(change_of(new, Phase.LIVE, now, new.why, instances), watch=watch)]
    leaving: tuple[Placement, ...] = ()
    if spare is not None and spare.containers == containers:
        changes.append(change_at(spare, Phase.RETIRED, now, f"its containers serve as #{new.number}"))
    elif spare is not None:
        leaving += (replace(spare, since=now),)
    if old is not None:
        old = replace(old, since=now)
        if new.action is Action.ROLLBACK:
            left = change_at(old, Phase.ROLLED_BACK, now, f"#{new.number} went back to #{new.root}: {new.why}")
            digest = old.image.partition("@")[2]
            # Where the same digest serves again, the configuration was to blame.
            guilty = work.because is not None and digest != new.digest
            changes.append(replace(left, evidence=work.because, quarantine=digest if guilty else ""))
        else:
            changes.append(change_at(old, Phase.STANDBY, now, f"replaced by #{new.number}"))
        if not keep_standby:
            leaving, old = (*leaving, old), None
    live = Placement(
        release=new.number,
        timestamp=new.timestamp,
        pool=new.pool,
        containers=containers,
        image=new.image,
        version=new.version,
        configuration=new.configuration,
        since=now,
    )
    done = replace(journal, live=live, standby=old, leaving=leaving, work=None)
    return noted(done, now, f"{label(work)} is live", *changes)


def standby_dismissed(journal: Journal, now: datetime, reason: str) -> Journal:
    """The journal with the standby on its way out."""
    spare = journal.standby
    if spare is None:
        return journal
    leaving = (*journal.leaving, replace(spare, since=now))
    return noted(replace(journal, standby=None, leaving=leaving), now, f"#{spare.release} leaves: {reason}")


def pool_dropped(journal: Journal, pool: str, now: datetime, text: str) -> Journal:
    """The journal with a pool taken out of the wanted routing of every host."""
    routing = {host: without_pool(routing, pool) for host, routing in journal.routing.items()}
    return noted(replace(journal, routing=routing), now, text)


def retired(journal: Journal, place: Placement, now: datetime) -> Journal:
    """The journal without a release that has left. A release that was rolled back keeps that as its last phase."""
    rest = replace(journal, leaving=tuple(other for other in journal.leaving if other.release != place.release))
    return noted(rest, now, f"#{place.release} is retired", change_at(place, Phase.RETIRED, now, "drained and removed"))


def _watch(release: Release, containers: int, old: Placement | None, now: datetime) -> Watch:
    return Watch(
        environment=release.environment,
        service=release.service,
        release=release.number,
        timestamp=release.timestamp,
        digest=release.digest,
        version=release.version,
        containers=containers,
        stable=None if old is None else old.containers,
        replicas=release.configuration.replicas,
        rollout=release.rollout,
        since=now,
        set_id=release.set_id,
    )
