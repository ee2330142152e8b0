"""The journal of one (environment, service): which releases stand where, the wanted routing, the unfinished work.

One document, replaced as a whole by conditional writes, always *before* the action it announces. Everything here is
a pure step from one document to the next; `release_plan.py` chooses the steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from ops_pipeline.core.release import POOLS, Action, Instance, Phase, Release, ServiceConfiguration
from ops_pipeline.core.routing import Pool, Routing

LINES_KEPT = 60

MOVED = (Phase.SHIFTING, Phase.LIVE)
"""Stages in which traffic may have moved already."""


@dataclass(frozen=True)
class Placement:
    """A release that has containers now. `containers` is the release number its containers carry as a label."""

    release: int
    timestamp: str
    pool: str
    containers: int
    image: str  # repository@digest
    version: str
    configuration: ServiceConfiguration
    since: datetime  # when it took this place


@dataclass(frozen=True)
class Work:
    """A release being made. `before` is the routing of every host to go back to when it fails."""

    release: Release
    before: Mapping[str, Routing]
    stage: Phase  # planned, starting, healthy or shifting
    entered: datetime  # when it entered that stage
    own_containers: bool  # False: a return to the warm standby's containers
    undo: str = ""  # why it is being undone; "" = going forward


@dataclass(frozen=True)
class PhaseChange:
    """A phase a manifest still has to be told about. Repeating it changes nothing."""

    release: int
    timestamp: str
    phase: Phase
    at: datetime
    reason: str = ""
    instances: tuple[Instance, ...] = ()


@dataclass(frozen=True)
class Line:
    """One line of the journal, written before the action it names."""

    at: datetime
    generation: int
    run_id: str
    text: str


@dataclass(frozen=True)
class Journal:
    """Stored as `journal/<environment>/<service>.json`.

    `outbox` holds the phase changes of this very document; whoever writes or takes over the document first brings
    them into the manifests, so that manifests follow the journal and never lead it.
    """

    environment: str
    service: str
    generation: int = 0
    run_id: str = ""
    last_number: int = 0
    last_timestamp: str = ""
    live: Placement | None = None
    standby: Placement | None = None
    leaving: tuple[Placement, ...] = ()
    work: Work | None = None
    routing: Mapping[str, Routing] = field(default_factory=dict)  # wanted, by host
    outbox: tuple[PhaseChange, ...] = ()
    lines: tuple[Line, ...] = ()

    @property
    def placements(self) -> tuple[Placement, ...]:
        """All releases that have containers, except the one being made."""
        return tuple(place for place in (self.live, self.standby, *self.leaving) if place is not None)


def wanted(journal: Journal, host: str) -> Routing:
    """Wanted routing of one host; a host the journal does not know yet gets nothing."""
    return journal.routing.get(host, Routing())


def free_pool(journal: Journal) -> str | None:
    """A pool no release stands in, or None while an older release still leaves."""
    taken = {place.pool for place in journal.placements}
    return next((pool for pool in POOLS if pool not in taken), None)


def noted(journal: Journal, now: datetime, text: str, *changes: PhaseChange) -> Journal:
    """The journal with one more line and these phase changes to bring into the manifests."""
    line = Line(now, journal.generation, journal.run_id, text)
    return replace(journal, lines=(*journal.lines, line)[-LINES_KEPT:], outbox=changes)


def taken_over(journal: Journal, generation: int, run_id: str, now: datetime) -> Journal:
    """The journal in the hands of a new controller.

    Work whose traffic cannot have moved is undone. Work in `shifting` goes on: `release_plan` looks at the health of
    both sides and then finishes it or goes back. The outbox stays: the former controller may not have emptied it.
    """
    taken = replace(journal, generation=generation, run_id=run_id)
    work = journal.work
    if work is None:
        return taken
    if work.undo:
        return replace(noted(taken, now, f"taken over while {_label(work)} was being undone"), outbox=journal.outbox)
    text = f"taken over while {_label(work)} was {work.stage}"
    if work.stage not in MOVED:
        reason = f"its controller (run {journal.run_id or 'unknown'}) ended while it was {work.stage}"
        taken = withdrawn(taken, reason, now)
    return replace(noted(taken, now, text), outbox=journal.outbox)


def planned(
    journal: Journal, release: Release, hosts: tuple[str, ...], now: datetime, *, own_containers: bool
) -> Journal:
    """The journal with the work on a new release begun: its number and timestamp are taken for good."""
    before = {host: wanted(journal, host) for host in hosts}
    fresh = replace(
        journal,
        last_number=release.number,
        last_timestamp=release.timestamp,
        routing=before,
        lines=(),
        work=Work(release, before, Phase.PLANNED, now, own_containers),
    )
    text = f"{release.label} planned: {release.version} ({release.digest[7:19]}) into pool {release.pool}"
    return noted(fresh, now, text, change_of(release, Phase.PLANNED, now, release.why))


def advanced(
    journal: Journal,
    stage: Phase,
    now: datetime,
    text: str,
    *,
    routing: Mapping[str, Routing] | None = None,
    instances: tuple[Instance, ...] = (),
) -> Journal:
    """The journal with the work in its next stage, and with other wanted routing where given."""
    work = _work(journal)
    moved = replace(
        journal,
        work=replace(work, stage=stage, entered=now),
        routing=journal.routing if routing is None else routing,
    )
    return noted(moved, now, text, change_of(work.release, stage, now, instances=instances))


def withdrawn(journal: Journal, reason: str, now: datetime) -> Journal:
    """The journal with the work turned round: wanted routing is again exactly what it was before."""
    work = _work(journal)
    turned = replace(journal, work=replace(work, undo=reason), routing=work.before)
    return noted(turned, now, f"undo {_label(work)}: {reason}")


def closed(journal: Journal, now: datetime) -> Journal:
    """The journal after an undo: the release has failed and left nothing behind."""
    work = _work(journal)
    done = replace(journal, work=None)
    return noted(
        done, now, f"{_label(work)} failed: {work.undo}", change_of(work.release, Phase.FAILED, now, work.undo)
    )


def committed(journal: Journal, now: datetime, *, keep_standby: bool) -> Journal:
    """The journal after a switch: the new release is live, the one before it standby (or leaving right away)."""
    work, old, spare = _work(journal), journal.live, journal.standby
    new = work.release
    changes = [change_of(new, Phase.LIVE, now, new.why)]
    leaving: tuple[Placement, ...] = ()
    containers = new.number if new.containers_of is None else new.containers_of
    if spare is not None and spare.containers == containers:
        changes.append(_change(spare, Phase.RETIRED, now, f"its containers serve as #{new.number}"))
    elif spare is not None:
        leaving += (replace(spare, since=now),)
    if old is not None:
        old = replace(old, since=now)
        if new.action is Action.ROLLBACK:
            changes.append(_change(old, Phase.ROLLED_BACK, now, f"#{new.number} went back to #{new.root}: {new.why}"))
        else:
            changes.append(_change(old, Phase.STANDBY, now, f"replaced by #{new.number}"))
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
    return noted(done, now, f"{_label(work)} is live", *changes)


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
    return noted(rest, now, f"#{place.release} is retired", _change(place, Phase.RETIRED, now, "drained and removed"))


def with_pool(routing: Routing, name: str, pool: Pool) -> Routing:
    """Routing with one pool set."""
    return replace(routing, pools={**routing.pools, name: pool})


def without_pool(routing: Routing, name: str) -> Routing:
    """Routing without one pool."""
    return replace(routing, pools={key: pool for key, pool in routing.pools.items() if key != name})


def switched(routing: Routing, live: str) -> Routing:
    """Routing with everything going to one pool."""
    return replace(routing, live=live, candidate=None, weight=0)


def same_routing(left: Routing, right: Routing) -> bool:
    """Whether two routings mean the same, whatever the order of servers."""
    return _normal(left) == _normal(right)


def _normal(routing: Routing) -> object:
    pools = {
        name: (pool.release, sorted((server.address, server.port) for server in pool.servers))
        for name, pool in routing.pools.items()
        if pool.servers
    }
    candidate = routing.candidate if routing.weight else None
    return routing.live, candidate, routing.weight, pools


def change_of(
    release: Release, phase: Phase, now: datetime, reason: str = "", instances: tuple[Instance, ...] = ()
) -> PhaseChange:
    """The change that tells a release's manifest about a phase."""
    return PhaseChange(release.number, release.timestamp, phase, now, reason, instances)


def _change(place: Placement, phase: Phase, now: datetime, reason: str) -> PhaseChange:
    return PhaseChange(place.release, place.timestamp, phase, now, reason)


def _work(journal: Journal) -> Work:
    if journal.work is None:
        raise ValueError(f"journal of {journal.environment}/{journal.service} has no work")
    return journal.work


def _label(work: Work) -> str:
    return f"#{work.release.number}"
