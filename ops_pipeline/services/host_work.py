"""What a controller does on the hosts of an environment, under its lease: route, start, pull, stop and remove."""

from __future__ import annotations

from collections.abc import Mapping

from ops_pipeline.core.journal import Journal, wanted
from ops_pipeline.core.release import ServiceConfiguration
from ops_pipeline.core.routing import Routing
from ops_pipeline.core.steps import Needs
from ops_pipeline.core.world import World
from ops_pipeline.errors import LeaseHeld, OpsError, StaleGeneration
from ops_pipeline.ports import Progress
from ops_pipeline.services.fleet import Fleet, on_each
from ops_pipeline.services.instances import Launch, start_replica
from ops_pipeline.services.journal import OpenJournal
from ops_pipeline.services.lease import HeldLease
from ops_pipeline.services.observation import look
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried

REMEMBERED_SECONDS = 5.0
"""An edge that was changed and read back under this lease is not asked again for so long."""


class HostWork:
    """Hands of a controller on one (environment, service) while it holds the lease."""

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
        self._read_back: dict[str, tuple[float, Routing]] = {}
        self._secrets: Mapping[str, str] = {}

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

    def use_secrets(self, secrets: Mapping[str, str]) -> None:
        """Secrets of the containers started from here on."""
        self._secrets = secrets

    def fence(self, *, strict: bool) -> None:
        """From here on every edge refuses former controllers.

        With `strict` an edge that does not answer is an error (Unavailable); otherwise its host is left alone.
        """
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
        self.ask_all_again()

    def ask_all_again(self) -> None:
        """Forget which hosts failed a change; one that could not be fenced stays out."""
        self._away = dict(self._unfenced)

    def look(self, wanted_facts: Needs, *, patience: int = 3, patience_seconds: float = 0.3) -> World:
        """Look at the world now."""
        fresh = self.platform.clock.monotonic() - REMEMBERED_SECONDS
        known = {host: routing for host, (at, routing) in self._read_back.items() if at >= fresh}
        return look(
            self.platform,
            self.fleet,
            self.environment,
            self.service,
            wanted_facts,
            away=self._away,
            known=known,
            patience=patience,
            patience_seconds=patience_seconds,
        )

    def route(self) -> None:
        """Make every edge equal the wanted routing. A host where that fails counts as away from here on."""

        def on_host(host: str) -> None:
            self.lease.check()
            edge, routing = self.fleet.edges[host], wanted(self.journal, host)
            self._read_back.pop(host, None)
            try:
                retried(
                    self.platform.clock,
                    f"change the edge of {host}",
                    lambda: edge.apply(self.service, routing, self.lease.generation),
                    progress=self.progress,
                )
            except (StaleGeneration, LeaseHeld):
                raise
            except OpsError as error:
                self.progress(f"the edge of {host} could not be changed: {error.message}")
                self._away[host] = error.message
            else:
                self._read_back[host] = (self.platform.clock.monotonic(), routing)

        on_each([host for host in self.fleet.hosts if host not in self._away], on_host)

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
