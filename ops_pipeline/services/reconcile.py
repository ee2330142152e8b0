"""Reconcile: finish or undo what a stopped controller left, then make the world equal the journal again."""

from __future__ import annotations

from dataclasses import dataclass

from ops_pipeline.core import journal as transitions
from ops_pipeline.core import succession
from ops_pipeline.core.journal import Journal, Placement, taken_over, wanted
from ops_pipeline.core.precedence import Attempt, Gate, Objection, weigh
from ops_pipeline.core.release_plan import Needs, Probing, needs, next_step
from ops_pipeline.core.repair_plan import Mend, Repair, repairs, rerouted
from ops_pipeline.core.world import World
from ops_pipeline.errors import LeaseHeld, OpsError, StaleGeneration, StoreDamaged
from ops_pipeline.ports import Progress
from ops_pipeline.services import ledger
from ops_pipeline.services.at_work import Assignment, at_work
from ops_pipeline.services.configuration import check_names, read_secrets
from ops_pipeline.services.engine import ReleaseEngine
from ops_pipeline.services.fleet import Fleet, fleet_of, on_each
from ops_pipeline.services.instances import find_replicas
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.observation import look
from ops_pipeline.services.platform import Platform

PATIENCE = 5
PATIENCE_SECONDS = 1.0
"""A running container that does not answer is asked for this long before it is restarted."""


@dataclass(frozen=True)
class ReconcileReport:
    """What was found and done, in words. `problems` is what could not be put right; empty = all is as it should be."""

    environment: str
    service: str
    actions: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    dry_run: bool = False

    @property
    def settled(self) -> bool:
        """Whether the world equals the journal now."""
        return not self.problems and not (self.dry_run and self.actions)


def reconcile(
    platform: Platform,
    environment: str,
    service: str,
    *,
    run_id: str = "",
    progress: Progress,
    lease_wait_seconds: float = 0.0,
    dry_run: bool = False,
) -> ReconcileReport:
    """Finish or undo unfinished work, repair what differs, retire a standby that is over its time.

    With `dry_run` nothing is changed and no lease is taken: `actions` says what would be done.
    Raise BadInput, LeaseHeld (somebody works on it), StoreDamaged, Unavailable (store); a host that does not answer
    is left alone and reported.
    """
    check_names(platform.catalogue, environment, service)
    fleet = fleet_of(platform, environment)
    journal = read_journal(platform, environment, service)
    if dry_run:
        return _rehearse(platform, fleet, journal)
    if journal.generation == 0 and not _anything_there(platform, fleet, journal):
        return ReconcileReport(environment, service)
    was_right = _pointer_is_right(platform, journal)
    actions: list[str] = []

    def tell(line: str) -> None:
        actions.append(line)
        progress(line)

    assignment = Assignment(environment, service, run_id, "reconcile", lease_wait_seconds)
    with at_work(platform, assignment, progress, strict=False) as engine:
        engine.progress = tell
        problems: list[str] = []
        if journal.work is not None:
            tell(engine.journal.lines[-1].text)
        try:
            engine.settle()
        except (StaleGeneration, LeaseHeld):
            raise
        except OpsError as error:
            problems.append(error.message)
        else:
            _point(platform, engine, was_right, tell)
            _repair(platform, engine, tell, problems)
    return ReconcileReport(environment, service, tuple(actions), tuple(dict.fromkeys(problems)))


def _rehearse(platform: Platform, fleet: Fleet, journal: Journal) -> ReconcileReport:
    now = platform.clock.now()
    actions: list[str] = []
    if journal.work is not None:
        journal = taken_over(journal, journal.generation, "", now)
        actions.append(journal.lines[-1].text)
    if journal.work is not None or journal.leaving:
        world = look(platform, fleet, journal.environment, journal.service, needs(journal, now))
        actions.append(next_step(journal, world, now).text)
    else:
        world = look(platform, fleet, journal.environment, journal.service, _everything(journal), patience=PATIENCE)
        actions += [repair.text for repair in repairs(journal, world, now, _standby_seconds(platform, journal))]
    problems = tuple(f"host {host} does not answer: {why}" for host, why in world.unreachable.items())
    return ReconcileReport(journal.environment, journal.service, tuple(actions), problems, dry_run=True)


def _anything_there(platform: Platform, fleet: Fleet, journal: Journal) -> bool:
    def on_host(host: str) -> bool:
        try:
            return bool(find_replicas(platform.clock, fleet.runtimes[host], journal.environment, journal.service))
        except OpsError:
            return False

    return any(on_each(fleet.hosts, on_host))


def _point(platform: Platform, engine: ReleaseEngine, was_right: bool, tell: Progress) -> None:
    live = engine.journal.live
    if live is None:
        return
    ledger.point_current(platform.store, engine.environment, engine.service, live)
    if not was_right:
        tell(f"the pointer to what is live did not say #{live.release}: written anew")


def _pointer_is_right(platform: Platform, journal: Journal) -> bool:
    """Whether the pointer says what the journal says is live; a damaged one does not."""
    try:
        current = ledger.read_current(platform.store, journal.environment, journal.service)
    except StoreDamaged:
        return False
    return journal.live is None or (current is not None and current.number == journal.live.release)


def _repair(platform: Platform, engine: ReleaseEngine, tell: Progress, problems: list[str]) -> None:
    world = _look(engine)
    todo = repairs(engine.journal, world, platform.clock.now(), _standby_seconds(platform, engine.journal))
    helpless: set[int] = set()
    for repair in todo:
        tell(f"repair: {repair.text}")
        engine.write(transitions.noted(engine.journal, platform.clock.now(), f"repair: {repair.text}"))
        if repair.release in helpless and repair.mend is Mend.RESTART:
            problems.append(f"{repair.text}: left alone, restarting another replica of #{repair.release} did not help")
            continue
        try:
            fault = _mend(platform, engine, repair)
        except (StaleGeneration, LeaseHeld):
            raise
        except OpsError as error:
            fault = error.message
        if fault:
            helpless.add(repair.release)
            problems.append(f"{repair.text}: {fault}")
    if todo:
        world = _reroute(platform, engine)
    problems += [f"host {host} does not answer: {why}" for host, why in world.unreachable.items()]
    if todo:
        rest = repairs(engine.journal, world, platform.clock.now(), _standby_seconds(platform, engine.journal))
        problems += [repair.text for repair in rest if not any(repair.text in known for known in problems)]


def _mend(platform: Platform, engine: ReleaseEngine, repair: Repair) -> str:
    """Do one repair; return why it did not help, "" when it did."""
    place = _place(engine.journal, repair.release)
    match repair.mend:
        case Mend.REMOVE:
            grace = place.configuration.stop_grace_seconds if place else 10.0
            engine.remove(((repair.host, repair.container),), grace)
        case Mend.DISMISS:
            engine.write(succession.standby_dismissed(engine.journal, platform.clock.now(), repair.text))
            engine.settle()
        case Mend.RESTART if place is not None:
            runtime = engine.fleet.runtimes[repair.host]
            engine.lease.check()
            runtime.stop(repair.container, place.configuration.stop_grace_seconds)
            engine.lease.check()
            runtime.start(repair.container)
            if _wait_ready(platform, engine, place, repair):
                return _anew(platform, engine, place, repair) if place is engine.journal.live else ""
        case Mend.REPLACE | Mend.CREATE if place is not None:
            return _anew(platform, engine, place, repair)
        case _:
            engine.route()
    return ""


def _anew(platform: Platform, engine: ReleaseEngine, place: Placement, repair: Repair) -> str:
    """Start one replica anew, at the address the edge knows; return why it is not ready, "" when it is."""
    digest = place.image.partition("@")[2]
    quarantine = ledger.find_quarantine(platform.store, digest)
    objections = [Objection(Gate.QUARANTINE, f"{digest[:19]} is in quarantine")] if quarantine else []
    refused = weigh(Attempt.REPAIR, objections).reasons
    if refused:
        return f"not started anew: {'; '.join(refused)}"
    engine.use_secrets(read_secrets(platform, place.configuration.secrets))
    runtime = engine.fleet.runtimes[repair.host]
    if not runtime.has_image(place.image):
        engine.pull(place.image, (repair.host,))
    if repair.container:
        engine.remove(((repair.host, repair.container),), place.configuration.stop_grace_seconds)
    taken = {replica.address for replica in _look(engine).of(place.containers, repair.host)}
    pool = wanted(engine.journal, repair.host).pools.get(place.pool)
    free = [server.address for server in pool.servers if server.address not in taken] if pool else []
    launch = engine.launch_of(place.containers, place.version, place.image, place.pool, place.configuration)
    engine.start(launch, ((repair.host, repair.index),), prefer=free[0] if free else "")
    return _wait_ready(platform, engine, place, repair)


def _wait_ready(platform: Platform, engine: ReleaseEngine, place: Placement, repair: Repair) -> str:
    configuration = place.configuration
    probing = Probing(place.containers, configuration.port, configuration.health_path)
    deadline = platform.clock.monotonic() + configuration.start_timeout_seconds
    while True:
        engine.lease.check()
        world = engine.look(Needs(probes=(probing,)))
        mine = [r for r in world.of(place.containers, repair.host) if r.index == repair.index]
        faults = [world.silent[r.key] for r in mine if r.key in world.silent]
        faults += [f"{r.key} is {r.health}" for r in mine if r.health == "unhealthy"]
        if mine and not faults:
            return ""
        if platform.clock.monotonic() > deadline:
            return "; ".join(faults) or "it does not exist"
        platform.clock.sleep(0.25)


def _reroute(platform: Platform, engine: ReleaseEngine) -> World:
    world = _look(engine)
    journal = rerouted(engine.journal, world, platform.clock.now())
    if journal is not engine.journal:
        engine.write(journal)
        engine.route()
        world = _look(engine)
    return world


def _look(engine: ReleaseEngine) -> World:
    return engine.look(_everything(engine.journal), patience=PATIENCE, patience_seconds=PATIENCE_SECONDS)


def _everything(journal: Journal) -> Needs:
    probes = tuple(
        Probing(place.containers, place.configuration.port, place.configuration.health_path)
        for place in (journal.live, journal.standby)
        if place is not None
    )
    return Needs(routing=True, probes=probes, patient=True)


def _place(journal: Journal, containers: int) -> Placement | None:
    return next((place for place in journal.placements if place.containers == containers), None)


def _standby_seconds(platform: Platform, journal: Journal) -> float:
    return platform.catalogue.environments[journal.environment].standby_minutes * 60
