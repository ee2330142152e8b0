"""The release engine: observe, decide, write the journal, act, until nothing is unfinished.

Deploy, roll-back and reconcile all run `ReleaseEngine.settle`; what to do next is `core.release_plan`'s decision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from ops_pipeline.core import journal as transitions
from ops_pipeline.core.journal import Journal, wanted
from ops_pipeline.core.redaction import redact
from ops_pipeline.core.release import Release, ServiceConfiguration
from ops_pipeline.core.release_plan import Do, Needs, Step, needs, next_step
from ops_pipeline.core.world import World
from ops_pipeline.errors import DeployFailed, LeaseHeld, OpsError, Permanent, StaleGeneration, Unavailable
from ops_pipeline.ports import Progress
from ops_pipeline.services import ledger
from ops_pipeline.services.fleet import Fleet, fleet_of, on_each
from ops_pipeline.services.instances import Launch, last_words, start_replica
from ops_pipeline.services.journal import OpenJournal, read_journal
from ops_pipeline.services.lease import HeldLease, acquire
from ops_pipeline.services.observation import look
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried
from ops_pipeline.services.topology import topology_of

LOGS_SHOWN = 3
REPEATS = 4
"""How often one and the same step may be taken in a row without getting anywhere."""


@dataclass(frozen=True)
class Assignment:
    """On whose behalf the engine works."""

    environment: str
    service: str
    run_id: str
    reason: str
    lease_wait_seconds: float = 0.0
    lease_term_seconds: float = 30.0


class ReleaseEngine:
    """Works on one (environment, service) while it holds the lease."""

    def __init__(
        self, platform: Platform, fleet: Fleet, journal: OpenJournal, lease: HeldLease, progress: Progress
    ) -> None:
        self.platform = platform
        self.fleet = fleet
        self.lease = lease
        self.progress = progress
        self._journal = journal
        self._away: dict[str, str] = {}  # hosts that failed a change: not asked again in this direction
        self._unfenced: dict[str, str] = {}
        self._secrets: Mapping[str, str] = {}
        self._logs: list[tuple[str, str]] = []

    @property
    def journal(self) -> Journal:
        """The journal as last written."""
        return self._journal.now

    @property
    def environment(self) -> str:
        """Environment worked on."""
        return self.journal.environment

    @property
    def service(self) -> str:
        """Service worked on."""
        return self.journal.service

    def take_over(self, run_id: str, *, strict: bool) -> None:
        """Fence off every former controller, in the journal and at every edge.

        With `strict` an edge that does not answer is an error (Unavailable); otherwise its host is left alone.
        """
        self._journal.take_over(run_id)
        for host in self.fleet.hosts:
            edge = self.fleet.edges[host]
            try:
                retried(
                    self.platform.clock,
                    f"fence the edge of {host}",
                    lambda edge=edge: edge.fence(self.service, self.lease.generation),  # type: ignore[misc]
                )
            except StaleGeneration:
                raise
            except OpsError as error:
                if strict:
                    raise
                self._unfenced[host] = error.message
        self._away = dict(self._unfenced)

    def make(self, release: Release, secrets: Mapping[str, str]) -> Release:
        """Carry a planned release to live and return its manifest.

        Raise DeployFailed with the reason and the new containers' last words when it was undone: traffic is where it
        was. An interruption (KeyboardInterrupt, Dagster's termination) undoes too, then passes on.
        """
        self.use_secrets(secrets)
        own = release.containers_of is None
        try:
            now = self.platform.clock.now()
            self.write(transitions.planned(self.journal, release, self.fleet.hosts, now, own_containers=own))
            self.progress(self.journal.lines[-1].text)
            self.settle()
        except (StaleGeneration, LeaseHeld):
            raise  # somebody else may own the work by now: not ours to undo
        except OpsError as error:
            if self.journal.last_number < release.number:
                raise  # nothing was begun, not even the plan
            if not self._is_live(release):
                if self.journal.work is not None and not self.journal.work.undo:
                    self._step_back(release, error)
                raise DeployFailed(self._failure(release, error.message), hint=error.hint) from error
            self.progress(f"{release.label} is live, but not all is tidied up: {error.message}")
        except BaseException as interruption:
            self._step_back(release, interruption)
            raise
        if not self._is_live(release):
            raise DeployFailed(self._failure(release, ""), hint="Traffic is where it was; nothing is left behind.")
        return ledger.read_release(self.platform.store, release.environment, release.service, release.timestamp)

    def use_secrets(self, secrets: Mapping[str, str]) -> None:
        """Secrets of the containers started from here on, and masked in everything said about them."""
        self._secrets, self._logs = secrets, []

    def settle(self) -> None:
        """Take steps until no work is unfinished and nothing leaves any more.

        Raise Unavailable when a host has to answer first, whatever a step raises that cannot be undone.
        """
        last, repeats = "", 0
        while True:
            self.lease.check()
            now = self.platform.clock.now()
            world = self.look(needs(self.journal, now))
            step = next_step(self.journal, world, now, keep_standby=self._keeps_standby())
            if step.do is Do.DONE:
                return
            if step.do is Do.BLOCKED:
                raise Unavailable(
                    step.text, hint="Bring the host back or take it out of the catalogue, then `ops reconcile`."
                )
            repeats = repeats + 1 if step.then is None and step.text == last and step.do is not Do.WAIT else 0
            if repeats >= REPEATS:
                raise Permanent(f"no progress after {REPEATS} attempts: {step.text}")
            if step.text != last:
                self.progress(step.text)
            last = step.text
            if step.then is not None:
                self._turn_if_undone(step.then)
                self.write(step.then)
            self._take(step)

    def write(self, journal: Journal) -> None:
        """Write the journal, before the action it announces."""
        self._journal.write(journal)

    def look(self, wanted_facts: Needs, *, patience: int = 3, patience_seconds: float = 0.3) -> World:
        """Look at the world now."""
        return look(
            self.platform,
            self.fleet,
            self.environment,
            self.service,
            wanted_facts,
            away=self._away,
            patience=patience,
            patience_seconds=patience_seconds,
        )

    def route(self) -> None:
        """Make every edge equal the wanted routing. A host where that fails counts as away from here on."""
        for host in self.fleet.hosts:
            if host in self._away:
                continue
            self.lease.check()
            edge, routing = self.fleet.edges[host], wanted(self.journal, host)
            try:
                retried(
                    self.platform.clock,
                    f"change the edge of {host}",
                    lambda edge=edge, routing=routing: edge.apply(  # type: ignore[misc]
                        self.service, routing, self.lease.generation
                    ),
                    progress=self.progress,
                )
            except (StaleGeneration, LeaseHeld):
                raise
            except OpsError as error:
                self.progress(f"the edge of {host} could not be changed: {error.message}")
                self._away[host] = error.message

    def start(self, launch: Launch, replicas: tuple[tuple[str, int], ...], prefer: str = "") -> None:
        """Start replicas (host, index), hosts side by side. Raise what the engine of a host raises."""
        by_host: dict[str, list[int]] = {}
        for host, index in replicas:
            by_host.setdefault(host, []).append(index)

        def on_host(host: str) -> None:
            pools = wanted(self.journal, host).pools.values()
            reserved = {server.address for pool in pools for server in pool.servers}
            for index in by_host[host]:
                self.lease.check()
                address = retried(
                    self.platform.clock,
                    f"start {launch} on {host}",
                    lambda host=host, index=index: start_replica(  # type: ignore[misc]
                        self.fleet.runtimes[host], launch, self.fleet, index, reserved=reserved, prefer=prefer
                    ),
                    progress=self.progress,
                )
                reserved.add(address)

        on_each(by_host, on_host)

    def pull(self, image: str, hosts: tuple[str, ...]) -> None:
        """Make an image present on hosts. Raise NotFound, Unavailable."""

        def on_host(host: str) -> None:
            self.lease.check()
            runtime = self.fleet.runtimes[host]
            retried(
                self.platform.clock,
                f"pull {image} on {host}",
                lambda: runtime.pull(image, self.progress),
                progress=self.progress,
            )

        on_each(hosts, on_host)

    def remove(self, containers: tuple[tuple[str, str], ...], grace_seconds: float) -> None:
        """Stop and remove containers (host, id). A host where that fails counts as away from here on."""

        def one(entry: tuple[str, str]) -> None:
            host, container = entry
            self.lease.check()
            runtime = self.fleet.runtimes[host]
            try:
                retried(
                    self.platform.clock, f"stop a container on {host}", lambda: runtime.stop(container, grace_seconds)
                )
                retried(self.platform.clock, f"remove a container on {host}", lambda: runtime.remove(container))
            except (StaleGeneration, LeaseHeld):
                raise
            except OpsError as error:
                self._away[host] = error.message

        on_each(containers, one)

    def launch_of(
        self, release: int, version: str, image: str, pool: str, configuration: ServiceConfiguration
    ) -> Launch:
        """How containers of a release start, with the secrets read for this work."""
        return Launch(
            environment=self.environment,
            service=self.service,
            release=release,
            version=version,
            image=image,
            pool=pool,
            generation=self.lease.generation,
            configuration=configuration,
            secrets=self._secrets,
        )

    def _take(self, step: Step) -> None:
        try:
            self._act(step)
        except (StaleGeneration, LeaseHeld):
            raise
        except OpsError as error:
            work = self.journal.work
            if work is None or work.undo:
                raise
            turned = transitions.withdrawn(self.journal, error.message, self.platform.clock.now())
            self.progress(turned.lines[-1].text)
            self._turn_if_undone(turned)
            self.write(turned)

    def _act(self, step: Step) -> None:
        work = self.journal.work
        match step.do:
            case Do.PULL if work is not None:
                self.pull(work.release.image, step.hosts)
            case Do.START if work is not None:
                release = work.release
                launch = self.launch_of(
                    release.number, release.version, release.image, release.pool, release.configuration
                )
                self.start(launch, step.replicas)
            case Do.WAIT:
                self.platform.clock.sleep(step.wait_seconds)
            case Do.ROUTE:
                self.route()
            case Do.REMOVE:
                if work is not None:
                    self._keep_last_words(step)
                self.remove(step.containers, step.grace_seconds)
            case _:
                return

    def _turn_if_undone(self, then: Journal) -> None:
        """On the way back every host is asked again, also one that failed on the way forward."""
        turned = then.work is not None and then.work.undo and self.journal.work is not None
        if turned and self.journal.work is not None and not self.journal.work.undo:
            self._away = dict(self._unfenced)

    def _keep_last_words(self, step: Step) -> None:
        seen = {text for _, text in self._logs}
        for host, container in step.containers:
            text = redact(last_words(self.fleet.runtimes[host], container), self._secrets.values())
            if text not in seen and len(self._logs) < LOGS_SHOWN:
                seen.add(text)
                self._logs.append((f"{container[:12]} on {host}", text))

    def _step_back(self, release: Release, cause: BaseException) -> None:
        """Undo after an interruption, as far as the work is still ours and traffic has not been committed."""
        work = self.journal.work
        if work is None or work.release.number != release.number:
            return
        try:
            if not work.undo:
                reason = cause.message if isinstance(cause, OpsError) else f"interrupted ({type(cause).__name__})"
                turned = transitions.withdrawn(self.journal, reason, self.platform.clock.now())
                self.progress(turned.lines[-1].text)
                self._turn_if_undone(turned)
                self.write(turned)
            self.settle()
        except OpsError as error:
            self.progress(f"the undo is unfinished, `ops reconcile` completes it: {error.message}")

    def _is_live(self, release: Release) -> bool:
        live = self.journal.live
        return live is not None and live.release == release.number

    def _failure(self, release: Release, unfinished: str) -> str:
        work = self.journal.work
        reason = work.undo if work is not None and work.undo else self._closed_reason(release)
        text = f"{release.label} ({release.version}) failed: {reason or unfinished}"
        if work is not None and unfinished:
            text += f"; its undo is unfinished: {unfinished}"
        logs = (f"last words of {where}:\n{_indented(words)}" for where, words in self._logs)
        return "\n".join((redact(text, self._secrets.values()), *logs))

    def _closed_reason(self, release: Release) -> str:
        changes = [change for change in self.journal.outbox if change.release == release.number]
        return changes[-1].reason if changes else ""

    def _keeps_standby(self) -> bool:
        return self.platform.catalogue.environments[self.environment].standby_minutes > 0


@contextmanager
def at_work(
    platform: Platform, assignment: Assignment, progress: Progress, *, strict: bool = True
) -> Iterator[ReleaseEngine]:
    """A release engine that holds the lease and has fenced off everybody else; unfinished work is still there.

    With `strict` every host and edge must answer before the lease is taken. Raise LeaseHeld, Unavailable,
    StoreDamaged, BadInput.
    """
    environment, service = assignment.environment, assignment.service
    fleet = fleet_of(platform, environment)
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
    """See that every host answers, has the network, and that its edge knows all services.

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


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
