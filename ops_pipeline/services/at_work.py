"""Getting to work on one (environment, service): hosts and edges prepared, lease taken, former controllers fenced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ops_pipeline.errors import OpsError
from ops_pipeline.ports import Progress
from ops_pipeline.services.engine import ReleaseEngine
from ops_pipeline.services.flags import publish
from ops_pipeline.services.fleet import Fleet, fleet_of, on_each
from ops_pipeline.services.journal import OpenJournal, read_journal
from ops_pipeline.services.lease import acquire
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried
from ops_pipeline.services.topology import topology_of


@dataclass(frozen=True)
class Assignment:
    """On whose behalf the engine works."""

    environment: str
    service: str
    run_id: str
    reason: str
    lease_wait_seconds: float = 0.0
    lease_term_seconds: float = 30.0


@contextmanager
def at_work(
    platform: Platform, assignment: Assignment, progress: Progress, *, strict: bool = True, prepared: bool = False
) -> Iterator[ReleaseEngine]:
    """A release engine that holds the lease and has fenced off everybody else; unfinished work is still there.

    With `strict` every host and edge must answer before the lease is taken. `prepared` leaves that out: for work that
    starts nothing. Raise LeaseHeld, Unavailable, StoreDamaged, BadInput.
    """
    environment, service = assignment.environment, assignment.service
    fleet = fleet_of(platform, environment)
    if not prepared:
        prepare(platform, fleet, environment, strict=strict, progress=progress)
    seen = read_journal(platform, environment, service).generation
    held = acquire(
        platform,
        environment,
        service,
        run_id=assignment.run_id,
        reason=assignment.reason,
        at_least=seen,
        term_seconds=assignment.lease_term_seconds,
        wait_seconds=assignment.lease_wait_seconds,
        progress=progress,
    )
    with held as lease:
        journal = OpenJournal(platform, environment, service, lease)
        engine = ReleaseEngine(platform, fleet, journal, lease, progress)
        engine.take_over(assignment.run_id, strict=strict)
        yield engine


def prepare(platform: Platform, fleet: Fleet, environment: str, *, strict: bool, progress: Progress) -> None:
    """See that every host answers, has the network and the flags, and that its edge knows all services.

    The one moment at which an edge may reload, long before traffic moves. Raise Unavailable, Permanent if `strict`.
    """
    topology = topology_of(platform.catalogue, environment)

    def one(host: str) -> None:
        runtime, edge = fleet.runtimes[host], fleet.edges[host]
        try:
            runtime.check()
            runtime.ensure_network(fleet.network, fleet.subnet)
            if retried(platform.clock, f"declare the services at the edge of {host}", lambda: edge.ensure(topology)):
                progress(f"the edge of {host} took over a new structure (graceful reload)")
        except OpsError as error:
            if strict:
                raise
            progress(f"host {host} is left alone: {error.message}")

    on_each(fleet.hosts, one)
    if platform.catalogue.environments[environment].flags:
        try:
            publish(platform, environment, progress)
        except OpsError as error:
            if strict:
                raise
            progress(f"the flags of {environment} could not be published: {error.message}")
