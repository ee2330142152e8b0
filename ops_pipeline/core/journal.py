"""The journal of one (environment, service): which releases stand where, the wanted routing, the unfinished work.

One document, replaced as a whole by conditional writes, always *before* the action it announces. Everything here is
a pure step from one document to the next; `release_plan.py` chooses the steps. What happens to a release that gets
traffic already is in `shifting.py`, who becomes live, standby and leaves in `succession.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from ops_pipeline.core.judgement.verdict import Verdict
from ops_pipeline.core.release import POOLS, Instance, Phase, Release, ServiceConfiguration
from ops_pipeline.core.routing import Pool, Routing
from ops_pipeline.core.watch import Watch

LINES_KEPT = 60


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
    undo_since: datetime | None = None
    because: Verdict | None = None  # a roll-back: the verdict on the release it goes back from
    step: int = 0  # canary: the step it stands at; rolling: the newest replica's index
    step_since: datetime | None = None  # when its share of the traffic last changed
    step_requests: int = 0  # requests it had answered by then
    judged_since: datetime | None = None  # when it first got traffic
    verify_since: datetime | None = None  # when it had everybody's traffic and had passed its tests
    outcome: str = ""  # of the newest verdict; "" = not judged yet
    outcome_since: datetime | None = None
    incident: bool = False  # the newest verdict says that stable is as bad
    held_since: datetime | None = None  # when it first had to wait, for data or for a person, at this step
    paused: bool = False  # waits for a person
    parked: str = ""  # why its traffic was returned to stable for the time being; "" = it was not
    parked_at: datetime | None = None
    parked_stable: int = 0  # requests stable had answered by then
    resumed: bool = False  # in the hands of another controller than began it
    blame: Verdict | None = None  # the verdict it is undone for
    accused: bool = False  # its digest is in quarantine for that


@dataclass(frozen=True)
class PhaseChange:
    """A phase a manifest still has to be told about, and what else must not be forgotten with it.

    Repeating it changes nothing.
    """

    release: int
    timestamp: str
    phase: Phase
    at: datetime
    reason: str = ""
    instances: tuple[Instance, ...] = ()
    watch: Watch | None = None  # live: it is watched from here on
    evidence: Verdict | None = None  # rolled back: the verdict that blames it
    quarantine: str = ""  # the digest nobody may deploy any more because of that


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

    Work that has not begun to switch everybody is undone, a canary and a half-way rolling release too: nobody judged
    them meanwhile. A begun switch goes on: `release_plan` looks at the health of both sides and then finishes it or
    goes back. The outbox stays: the former controller may not have emptied it.
    """
    taken = replace(journal, generation=generation, run_id=run_id)
    work = journal.work
    if work is None:
        return taken
    if work.undo:
        return replace(noted(taken, now, f"taken over while {label(work)} was being undone"), outbox=journal.outbox)
    stood = f"{work.stage} ({share} %)" if (share := weight(journal)) not in (0, 100) else str(work.stage)
    text = f"taken over while {label(work)} was {stood}"
    if switched_over(journal):
        taken = replace(taken, work=replace(work, resumed=True, verify_since=None))
    else:
        reason = f"its controller (run {journal.run_id or 'unknown'}) ended while it was {stood}"
        taken = withdrawn(taken, reason, now)
    return replace(noted(taken, now, text), outbox=journal.outbox)


def weight(journal: Journal) -> int:
    """Share of the users, in percent, that the release being made gets by the wanted routing."""
    work = journal.work
    if work is None:
        return 0
    shares = [
        100 if routing.live == work.release.pool else routing.weight if routing.candidate == work.release.pool else 0
        for routing in journal.routing.values()
    ]
    return max(shares, default=0)


def switched_over(journal: Journal) -> bool:
    """Whether the release being made gets everybody by the wanted routing of every host."""
    work = journal.work
    if work is None or not journal.routing:
        return False
    return all(routing.live == work.release.pool for routing in journal.routing.values())


def planned(
    journal: Journal,
    release: Release,
    hosts: tuple[str, ...],
    now: datetime,
    *,
    own_containers: bool,
    because: Verdict | None = None,
) -> Journal:
    """The journal with the work on a new release begun: its number and timestamp are taken for good.

    `because` is the verdict a roll-back follows.
    """
    before = {host: wanted(journal, host) for host in hosts}
    fresh = replace(
        journal,
        last_number=release.number,
        last_timestamp=release.timestamp,
        routing=before,
        lines=(),
        work=Work(release, before, Phase.PLANNED, now, own_containers, because=because),
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
    told: bool = True,
) -> Journal:
    """The journal with the work in its next stage, and with other wanted routing where given.

    Without `told` the manifest does not hear of it: it was in that stage before.
    """
    work = work_of(journal)
    moved = replace(
        journal,
        work=replace(work, stage=stage, entered=now),
        routing=journal.routing if routing is None else routing,
    )
    changes = (change_of(work.release, stage, now, instances=instances),) if told else ()
    return noted(moved, now, text, *changes)


def withdrawn(journal: Journal, reason: str, now: datetime, *, blame: Verdict | None = None) -> Journal:
    """The journal with the work turned round: wanted routing is again exactly what it was before.

    With `blame` the release is rolled back for that verdict; without, it failed and nobody accuses it.
    """
    work = work_of(journal)
    turned = replace(journal, work=replace(work, undo=reason, undo_since=now, blame=blame), routing=work.before)
    return noted(turned, now, f"undo {label(work)}: {reason}")


def accused(journal: Journal, now: datetime) -> Journal:
    """The journal of an undo with blame: the release is rolled back and its digest goes into quarantine.

    The digest that stays live is never accused: then the configuration is to blame.
    """
    work = work_of(journal)
    release, live = work.release, journal.live
    same = live is not None and live.image.partition("@")[2] == release.digest
    change = replace(
        change_of(release, Phase.ROLLED_BACK, now, work.undo),
        evidence=work.blame,
        quarantine="" if same else release.digest,
    )
    text = f"{label(work)} is rolled back; " + (
        "its image serves as live too, so its configuration is to blame"
        if same
        else f"{release.digest[:19]} goes into quarantine"
    )
    return noted(replace(journal, work=replace(work, accused=True)), now, text, change)


def closed(journal: Journal, now: datetime) -> Journal:
    """The journal after an undo: the release has failed, or was rolled back, and left nothing behind."""
    work = work_of(journal)
    done = replace(journal, work=None)
    if work.blame is not None:
        return noted(done, now, f"{label(work)} is gone: {work.undo}")
    return noted(done, now, f"{label(work)} failed: {work.undo}", change_of(work.release, Phase.FAILED, now, work.undo))


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


def change_at(place: Placement, phase: Phase, now: datetime, reason: str) -> PhaseChange:
    """The change that tells the manifest of a release in service about a phase."""
    return PhaseChange(place.release, place.timestamp, phase, now, reason)


def containers_of(work: Work) -> int:
    """Release number that the containers of the release being made carry."""
    release = work.release
    return release.number if release.containers_of is None else release.containers_of


def work_of(journal: Journal) -> Work:
    """The unfinished work of a journal that has some."""
    if journal.work is None:
        raise ValueError(f"journal of {journal.environment}/{journal.service} has no work")
    return journal.work


def label(work: Work) -> str:
    """How the journal calls the release being made."""
    return f"#{work.release.number}"
