"""Real releases for tests: a real edge, engine, registry and directory store, and upstream images of many versions.

`python -m ops_pipeline_tests.testbed.releases BED.json VERB SERVICE [DIE_AT]` is a controller in a process of its
own; with DIE_AT it kills itself (SIGKILL) right after that many writes of the journal.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import docker

from ops_pipeline.adapters.alertmanager import Alertmanager
from ops_pipeline.adapters.clock import SystemClock
from ops_pipeline.adapters.directory_store import DirectoryStore
from ops_pipeline.adapters.docker_runtime import DockerRuntime
from ops_pipeline.adapters.haproxy_edge import HaproxyEdge
from ops_pipeline.adapters.prometheus import Prometheus
from ops_pipeline.adapters.registry import HttpRegistry
from ops_pipeline.adapters.secrets import read_secret
from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.core.image import Image, ImageConfig, ImageRef
from ops_pipeline.core.scan import DatabaseInfo, ScanReport
from ops_pipeline.ports import Blob, BlobInfo, BlobStore
from ops_pipeline.services.images import record_image, record_scan
from ops_pipeline.services.platform import Platform
from ops_pipeline_tests.fakes.alerts import FakeAlerts
from ops_pipeline_tests.fakes.builder import FakeBuilder
from ops_pipeline_tests.fakes.scanner import FakeScanner
from ops_pipeline_tests.testbed.edge import EdgeBed
from ops_pipeline_tests.testbed.engine_images import forget_images
from ops_pipeline_tests.testbed.monitoring import Monitoring, monitoring
from ops_pipeline_tests.testbed.places import ENVIRONMENT, Site, one_host, several_hosts
from ops_pipeline_tests.testbed.upstream import upstream_image

__all__ = ["ENVIRONMENT", "BedFile", "MeasuredBed", "ReleaseBed", "measured_bed", "platform_of", "release_bed"]


@dataclass(frozen=True)
class BedFile:
    """What another process needs to be a controller of the same world."""

    root: str
    catalogue: dict[str, object]
    labels: dict[str, str] = field(default_factory=dict)


class DoomedStore:
    """A store whose process ends by SIGKILL right after its `die_at`-th write of a journal."""

    def __init__(self, store: BlobStore, die_at: int) -> None:
        self._store = store
        self._left = die_at

    def read(self, key: str) -> Blob | None:
        return self._store.read(key)

    def write(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        etag = self._store.write(key, data, if_match=if_match, if_absent=if_absent)
        if key.startswith("journal/"):
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return etag

    def delete(self, key: str) -> None:
        self._store.delete(key)

    def list(self, prefix: str) -> Iterator[BlobInfo]:
        return self._store.list(prefix)


def platform_of(bed: BedFile, wrap: Callable[[BlobStore], BlobStore] = lambda store: store) -> Platform:
    """A controller of this process."""
    catalogue = Catalogue.model_validate(bed.catalogue)
    root = Path(bed.root)
    container = catalogue.edge_container(ENVIRONMENT)
    hosts = catalogue.environments[ENVIRONMENT].hosts
    runtimes = [DockerRuntime(host.docker, host.name, bed.labels) for host in hosts]
    edges = [HaproxyEdge(host.docker, host.name, ENVIRONMENT, container) for host in hosts]
    clock, alerts = SystemClock(), catalogue.alertmanager
    return Platform(
        root=root,
        catalogue=catalogue,
        store=wrap(DirectoryStore(root / "store")),
        clock=clock,
        registry=HttpRegistry(),
        builder=FakeBuilder(),
        scanner=FakeScanner(),
        metrics=Prometheus(catalogue.prometheus.url, catalogue.prometheus.timeout_seconds),
        alerts=Alertmanager(alerts.url, clock, alerts.timeout_seconds) if alerts.url else FakeAlerts(),
        runtimes=lambda environment: runtimes,
        edges=lambda environment: edges,
        secret=lambda reference: read_secret(reference, root),
        controller=f"{os.uname().nodename}:{os.getpid()}",
    )


class ReleaseBed:
    """One environment on the hosts of a site. `services` get a route and replicas each.

    `environment` are more settings of the environment, `settings` of the whole catalogue (`prometheus`, ...).
    """

    def __init__(
        self,
        site: Site,
        registry: str,
        root: Path,
        services: Mapping[str, Mapping[str, object]],
        environment: Mapping[str, object] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.site = site
        self._controllers: list[subprocess.Popen[str]] = []
        self.repository = f"{registry}/bed-{site.id.replace('.', '-')}"
        (root / "token").write_text(f"s3cret-{site.id}\n")
        catalogue: dict[str, object] = {
            "version": 1,
            "project": "bed",
            "registry": {"address": self.repository},
            "store": {"directory": "store"},
            "alertmanager": {"url": ""},
            "environments": {
                ENVIRONMENT: {
                    "hosts": [{"name": place.name, "docker": place.docker_url} for place in site.places],
                    "url": f"http://{site.places[0].target}",
                    "subnet": site.subnet,
                    "network": site.network,
                    "edge_container": site.edge_container,
                    **(environment or {}),
                }
            },
            "services": {
                name: {
                    "build": {"context": "x"},
                    "port": 8080,
                    "route": {"path": f"/{name}", "strip_prefix": True},
                    "drain_seconds": 3,
                    "stop_grace_seconds": 5,
                    "secrets": {"TOKEN": "file:token"},
                    "health": {"start_timeout_seconds": 60},
                    "verify": {"seconds": 0},
                    **changes,
                }
                for name, changes in services.items()
            },
            **(settings or {}),
        }
        self.file = BedFile(str(root), catalogue, site.labels)
        self.path = root / "bed.json"
        self.path.write_text(json.dumps(asdict(self.file)))
        self.platform = platform_of(self.file)
        self._images: dict[str, str] = {}
        self._building = threading.Lock()

    @property
    def edge(self) -> EdgeBed:
        """The one edge of a bed on this machine's own engine."""
        assert self.site.edge is not None, "this bed has several hosts"
        return self.site.edge

    def image(self, service: str, version: str, **environment: str) -> Image:
        """A version of a service, pushed and scanned; the upstream with these variables. The latest from here on."""
        digest = self._digest(version, environment)
        ref = ImageRef(self.repository, digest)
        config = ImageConfig(1, "10001", ())
        inputs = hashlib.sha256(f"{service} {version}".encode()).hexdigest()
        image = Image(service, ref, version, "c0ffee0", inputs, datetime.now(UTC), config)
        store = self.platform.store
        record_image(store, image)
        database = DatabaseInfo(datetime.now(UTC), sample=False)
        record_scan(store, ScanReport(digest, "trivy test", datetime.now(UTC), database, ()))
        return image

    def _digest(self, version: str, environment: Mapping[str, str]) -> str:
        with self._building:
            if version not in self._images:
                engine = docker.from_env(timeout=300)
                try:
                    lines = [f"FROM {upstream_image(engine)}", f"ENV RELEASE={version}"]
                    lines += [f"ENV {name}={value}" for name, value in environment.items()]
                    tag = f"{self.repository}:{version}"
                    engine.images.build(fileobj=io.BytesIO("\n".join(lines).encode()), tag=tag, rm=True, forcerm=True)
                    engine.images.push(self.repository, version)
                    self._images[version] = engine.images.get_registry_data(tag).id
                finally:
                    engine.close()
            return self._images[version]

    def controller(self, verb: str, service: str, die_at: int = 0, **arguments: object) -> subprocess.Popen[str]:
        """Start a controller in a process of its own."""
        command = [sys.executable, "-m", __spec__.name, str(self.path), verb, service, str(die_at)]
        process = subprocess.Popen(
            [*command, json.dumps(arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._controllers.append(process)
        return process

    def containers(self, service: str) -> Sequence[str]:
        """Names of the service's containers, running or not, on all hosts."""
        labels = [f"ops.testbed={self.site.id}", f"ops.service={service}", f"ops.environment={ENVIRONMENT}"]
        found = [
            str(container.name)
            for place in self.site.places
            for container in place.engine.containers.list(all=True, filters={"label": labels})
        ]
        return sorted(found)

    def misbehave(self, service: str, release: int, **how: object) -> None:
        """Change how every container of a release behaves (see the upstream's `/control`)."""
        wish = "&".join(f"{name}={value}" for name, value in how.items())
        labels = {"ops.environment": ENVIRONMENT, "ops.service": service, "ops.release": str(release)}
        runtimes = {runtime.host: runtime for runtime in self.platform.runtimes(ENVIRONMENT)}
        for place in self.site.places:
            for container in runtimes[place.name].containers(labels):
                place.inside("curl", "-s", "-m", "2", f"http://{container.address}:8080/control?{wish}")

    def close(self) -> None:
        """End controllers, remove releases and their images from this machine's engine; hosts of their own vanish
        whole."""
        for process in self._controllers:
            process.kill()
        engine = docker.from_env(timeout=300)
        try:
            # Containers first: an image in use cannot be removed.
            for container in engine.containers.list(all=True, filters={"label": f"ops.testbed={self.site.id}"}):
                if container.name != self.site.edge_container:
                    with contextlib.suppress(docker.errors.APIError):
                        container.remove(force=True, v=True)
            forget_images(engine, self.repository)
        finally:
            engine.close()


@contextlib.contextmanager
def release_bed(
    registry: str,
    root: Path,
    services: Mapping[str, Mapping[str, object]],
    *,
    hosts: int = 0,
    environment: Mapping[str, object] | None = None,
    settings: Callable[[Site], Mapping[str, object]] = lambda site: {},
) -> Iterator[ReleaseBed]:
    """A running environment with nothing deployed; all of it is gone afterwards.

    `hosts` > 0: on so many Docker hosts of its own, else on this machine's engine. `settings` are more of the
    catalogue, for who starts something around the site first.
    """
    with several_hosts(hosts, registry) if hosts else one_host() as site:
        bed = ReleaseBed(site, registry, root, services, environment, settings(site))
        try:
            yield bed
        finally:
            bed.close()


@dataclass(frozen=True)
class MeasuredBed:
    """A bed whose edges are scraped."""

    bed: ReleaseBed
    monitoring: Monitoring


@contextlib.contextmanager
def measured_bed(
    registry: str,
    root: Path,
    services: Mapping[str, Mapping[str, object]],
    *,
    hosts: int = 0,
    environment: Mapping[str, object] | None = None,
    settings: Mapping[str, object] | None = None,
) -> Iterator[MeasuredBed]:
    """A release bed with the stack's Prometheus, which scrapes the edges every second, and Alertmanager."""
    with contextlib.ExitStack() as stack:
        started: list[Monitoring] = []

        def scraped(site: Site) -> Mapping[str, object]:
            made = stack.enter_context(monitoring([place.scrape for place in site.places], site.labels))
            started.append(made)
            return {**made.settings, **(settings or {})}

        options = {"hosts": hosts, "environment": environment, "settings": scraped}
        bed = stack.enter_context(release_bed(registry, root, services, **options))  # type: ignore[arg-type]
        yield MeasuredBed(bed, started[0])


def watch_until_back(
    platform: Platform, environment: str, service: str, *, run_id: str, progress: Callable[[str], None]
) -> None:
    """Tick as the sensor does, until the service runs another release than at first and nothing is being done."""
    from ops_pipeline.services.journal import read_journal
    from ops_pipeline.services.judging import Judging
    from ops_pipeline.services.watch import Memory, tick

    judging, memory = Judging(platform), Memory()
    deadline = platform.clock.monotonic() + 180
    while platform.clock.monotonic() < deadline:
        for one in tick(platform, judging, run_id=run_id, memory=memory, progress=progress):
            progress(f"{one.label}: {one.act.value}, {one.why}")
        journal = read_journal(platform, environment, service)
        if journal.work is None and journal.live is not None and journal.live.release != watched(platform, service):
            return
        platform.clock.sleep(1)
    raise SystemExit("nothing was rolled back")


def watched(platform: Platform, service: str) -> int:
    """Number of the newest release a person made."""
    from ops_pipeline.services.ledger import releases

    return max(release.number for release in releases(platform.store, ENVIRONMENT, service) if not release.automatic)


def main(arguments: Sequence[str]) -> None:
    """Be a controller: one verb on one service."""
    from ops_pipeline.services.deploy import deploy
    from ops_pipeline.services.reconcile import reconcile
    from ops_pipeline.services.rollback import roll_back

    path, verb, service, die_at, rest = arguments
    doom = int(die_at)
    wrap: Callable[[BlobStore], BlobStore] = (lambda store: DoomedStore(store, doom)) if doom else (lambda store: store)
    platform = platform_of(BedFile(**json.loads(Path(path).read_text())), wrap)
    named = json.loads(rest)
    verbs: dict[str, Callable[..., object]] = {
        "deploy": deploy,
        "back": roll_back,
        "reconcile": reconcile,
        "watch": watch_until_back,
    }
    run_id = f"run-{uuid.uuid4().hex[:8]}"
    verbs[verb](platform, ENVIRONMENT, service, run_id=run_id, progress=lambda line: print(line, flush=True), **named)


if __name__ == "__main__":
    main(sys.argv[1:])
