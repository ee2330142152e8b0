"""A whole platform in memory: store, clock, hosts with engines and edges, images that passed their scan.

`Bed.platform()` is one controller. Several controllers share the world; each may die on its own `Lifeline`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.core.image import Image, ImageConfig, ImageRef
from ops_pipeline.core.measurement import SeriesKey
from ops_pipeline.core.routing import Pool
from ops_pipeline.core.scan import DatabaseInfo, Finding, ScanReport
from ops_pipeline.errors import BadInput, Problem
from ops_pipeline.ports import BlobStore, Clock, ContainerRuntime, DataSource, Edge, FileTree, Probe, Vault
from ops_pipeline.services.images import record_image, record_scan
from ops_pipeline.services.platform import Platform
from ops_pipeline_tests.fakes.alerts import FakeAlerts
from ops_pipeline_tests.fakes.builder import FakeBuilder
from ops_pipeline_tests.fakes.clock import FakeClock
from ops_pipeline_tests.fakes.edge import FakeEdge
from ops_pipeline_tests.fakes.metrics import FakeMetrics, Traffic
from ops_pipeline_tests.fakes.registry import InMemoryRegistry
from ops_pipeline_tests.fakes.runtime import Behaviour, FakeRuntime
from ops_pipeline_tests.fakes.scanner import FakeScanner
from ops_pipeline_tests.fakes.store import InMemoryStore

if TYPE_CHECKING:
    from ops_pipeline_tests.fakes.vault import FakeVault

REPOSITORY = "127.0.0.1:5000/shop"


class Killed(BaseException):
    """The process of a controller is gone: whatever it tries from here on does not happen."""


class Lifeline:
    """Counts what a controller asks of the world; `die_at` (counted from 1) is the call it does not live to make.

    `counts` chooses the calls that count (all by default), by name: "store.write journal/prod/api.json",
    "h1.create", "edge h1.apply". `after_each` is called when a call has taken effect.
    """

    def __init__(
        self,
        die_at: int | None = None,
        counts: Callable[[str], bool] = lambda call: True,
        after_each: Callable[[str], None] = lambda call: None,
    ) -> None:
        self.die_at = die_at
        self.counts = counts
        self.after_each = after_each
        self.calls: list[str] = []
        self.dead = False
        self._lock = threading.Lock()

    def beat(self, call: str) -> None:
        """Called before a call takes effect. Raise Killed from the fatal one on."""
        with self._lock:
            if self.dead:
                raise Killed
            if self.counts(call):
                if self.die_at is not None and len(self.calls) + 1 >= self.die_at:
                    self.dead = True
                    raise Killed
                self.calls.append(call)


class Mortal:
    """A port in the hands of a controller that may die between any two calls."""

    def __init__(self, port: object, name: str, lifeline: Lifeline) -> None:
        self._port = port
        self._name = name
        self._lifeline = lifeline

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._port, attribute)
        if not callable(value):
            return value

        def call(*arguments: Any, **named: Any) -> Any:
            key = f" {arguments[0]}" if self._name == "store" and arguments else ""
            name = f"{self._name}.{attribute}{key}"
            self._lifeline.beat(name)
            try:
                return value(*arguments, **named)
            finally:
                self._lifeline.after_each(name)

        return call


def catalogue(**changes: Any) -> Catalogue:
    """Services `api` (/api) and `web` (/), environments `dev` (h1) and `prod` (h1, h2; promotes from dev)."""
    service = {
        "build": {"context": "x"},
        "port": 8080,
        "drain_seconds": 5,
        "health": {"start_timeout_seconds": 20},
        "verify": {"seconds": 0},
    }
    document: dict[str, Any] = {
        "version": 1,
        "project": "shop",
        "registry": {"address": REPOSITORY},
        "store": {"directory": "store"},
        "environments": {
            "dev": {"hosts": [{"name": "h1"}], "url": "http://127.0.0.1:8081", "subnet": "10.9.4.0/24"},
            "prod": {
                "hosts": [{"name": "h1"}, {"name": "h2"}],
                "url": "http://127.0.0.1:8080",
                "subnet": "10.9.5.0/24",
                "promote_from": "dev",
                "services": {"api": {"replicas": 2}},
            },
        },
        "services": {
            "api": {**service, "route": {"path": "/api", "strip_prefix": True}, "secrets": {"TOKEN": "env:TOKEN"}},
            "web": service,
        },
    }
    return Catalogue.model_validate({**document, **changes})


class Bed:
    """The world several controllers share."""

    def __init__(self, book: Catalogue | None = None) -> None:
        self.catalogue = book or catalogue()
        self.clock = FakeClock()
        self.store = InMemoryStore(now=self.clock.now)
        self.registry = InMemoryRegistry()
        self.builder = FakeBuilder(self.registry)
        self.scanner = FakeScanner(now=self.clock.now)
        self.metrics = FakeMetrics(self.clock)
        self.alerts = FakeAlerts()
        self.secrets = {"env:TOKEN": "s3cret-token"}
        self.runtimes: dict[str, list[FakeRuntime]] = {}
        self.edges: dict[str, list[FakeEdge]] = {}
        self.data: dict[str, list[DataSource | FileTree]] = {}  # sources by environment, databases first
        self.ping: Callable[[str], None] = lambda url: None
        for name, settings in self.catalogue.environments.items():
            self.runtimes[name] = [FakeRuntime(host.name, self.clock) for host in settings.hosts]
            self.edges[name] = [FakeEdge(r.host, name, r.answer) for r in self.runtimes[name]]

    @cached_property
    def vault(self) -> FakeVault:
        """Where backups are kept, made when it is first asked for."""
        from ops_pipeline_tests.fakes.vault import FakeVault

        return FakeVault(self.clock.now)

    def platform(
        self, controller: str = "test:1", *, lifeline: Lifeline | None = None, clock: Clock | None = None
    ) -> Platform:
        """One controller's view; with a lifeline its calls are counted and it may die."""

        def of(port: object, name: str) -> Any:
            return port if lifeline is None else Mortal(port, name, lifeline)

        def runtimes(environment: str) -> Sequence[ContainerRuntime]:
            return [cast(ContainerRuntime, of(port, port.host)) for port in self.runtimes[environment]]

        def edges(environment: str) -> Sequence[Edge]:
            return [cast(Edge, of(port, f"edge {port.host}")) for port in self.edges[environment]]

        def beat(call: str) -> Callable[[], None]:
            assert lifeline is not None
            lifeline.beat(call)
            return lambda: lifeline.after_each(call)

        def vault() -> Vault:
            return self.vault.vault(None if lifeline is None else beat)

        def sources(environment: str) -> Sequence[DataSource | FileTree]:
            from ops_pipeline_tests.fakes.vault import announced

            found = self.data.get(environment, [])
            return found if lifeline is None else [announced(source, beat) for source in found]

        return Platform(
            root=Path(),
            catalogue=self.catalogue,
            store=cast(BlobStore, of(self.store, "store")),
            clock=clock or self.clock,
            registry=self.registry,
            builder=self.builder,
            scanner=self.scanner,
            metrics=self.metrics,
            alerts=self.alerts,
            runtimes=runtimes,
            edges=edges,
            secret=self.secret,
            controller=controller,
            vault=vault,
            sources=sources,
            ping=self.ping,
        )

    def secret(self, reference: str) -> str:
        """What the platform reads secrets with."""
        if reference not in self.secrets:
            raise BadInput([Problem(reference, "is not set")])
        return self.secrets[reference]

    def image(
        self,
        version: str,
        behaviour: Behaviour | None = None,
        *,
        service: str = "api",
        findings: tuple[Finding, ...] = (),
        scanned: bool = True,
    ) -> Image:
        """A built, pushed and (unless told otherwise) scanned image; it is the service's latest from here on."""
        digest = "sha256:" + hashlib.sha256(f"{service} {version}".encode()).hexdigest()
        image = Image(
            service=service,
            ref=ImageRef(f"{REPOSITORY}/{service}", digest),
            version=version,
            commit="c0ffee0",
            inputs_hash=digest[7:],
            built_at=self.clock.now(),
            config=ImageConfig(80_000_000, "10001", ("CMD", "true")),
        )
        self.registry.put(image.ref.repository, version, digest)
        record_image(self.store, image)
        if scanned:
            database = DatabaseInfo(self.clock.now(), sample=False)
            record_scan(self.store, ScanReport(digest, "fake 1", self.clock.now(), database, findings))
        for runtimes in self.runtimes.values():
            for runtime in runtimes:
                runtime.images[str(image.ref)] = behaviour or Behaviour()
        return image

    def users(self, per_second: float, environment: str = "prod", service: str = "api") -> None:
        """Let users send requests from now on: the edges' routing says where to, the images' behaviour how it ends.

        The rate is the environment's, divided evenly among its hosts. A replica that does not serve answers 5xx.
        """

        def traffic() -> dict[SeriesKey, Traffic]:
            wanted: dict[SeriesKey, Traffic] = {}
            for runtime, edge in zip(self.runtimes[environment], self.edges[environment], strict=True):
                routing = edge.routings.get(service)
                if routing is None:
                    continue
                rate, weight = per_second / len(self.edges[environment]), routing.weight if routing.candidate else 0
                for name, pool in routing.pools.items():
                    share = {routing.live: 100 - weight, routing.candidate: weight}.get(name, 0) / 100
                    for track in ("stable", "canary"):
                        mine = track == ("canary" if name == routing.candidate else "stable")
                        key = SeriesKey(environment, service, pool.release, track, runtime.host)
                        wanted[key] = self._got(runtime, pool, rate * share if mine else 0.0)
            return wanted

        self.metrics.users(traffic)

    def _got(self, runtime: FakeRuntime, pool: Pool, per_second: float) -> Traffic:
        bad = [runtime.traffic_at(server.address) for server in pool.servers]
        return Traffic(per_second, sum(e for e, _ in bad) / len(bad), sum(s for _, s in bad) / len(bad))

    def ask(self, environment: str = "prod", path: str = "/api") -> dict[str, tuple[int, int | None]]:
        """What a user gets on each host that is up: status and release."""
        answers: dict[str, tuple[int, int | None]] = {}
        for runtime, edge in zip(self.runtimes[environment], self.edges[environment], strict=True):
            if edge.reachable:
                answers[runtime.host] = edge.request(path)
        return answers

    def containers(self, environment: str = "prod", service: str = "api") -> set[tuple[str, str, str]]:
        """(host, name, state) of every container of a service."""
        return {
            (runtime.host, box.spec.name, box.state)
            for runtime in self.runtimes[environment]
            for box in runtime.boxes.values()
            if box.spec.labels.get("ops.service") == service
        }

    def host_down(self, environment: str, host: str, why: str = "connection refused") -> None:
        """Engine and edge of a host stop answering the controller; what runs there goes on."""
        for runtime, edge in zip(self.runtimes[environment], self.edges[environment], strict=True):
            if runtime.host == host:
                runtime.down, edge.reachable = why, False

    def host_up(self, environment: str, host: str) -> None:
        """They answer again."""
        for runtime, edge in zip(self.runtimes[environment], self.edges[environment], strict=True):
            if runtime.host == host:
                runtime.down, edge.reachable = "", True


def healthy(answers: dict[str, tuple[int, int | None]]) -> bool:
    """Whether a user of every host got an answer."""
    return bool(answers) and all(status == Probe(200).status for status, _ in answers.values())


def quiet(line: str) -> None:
    """Progress nobody reads."""
