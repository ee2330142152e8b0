"""What the use cases need from the outside world. Adapters implement these; fakes are held to the same contract.

Every call is bounded in time by its adapter and raises only `ops_pipeline.errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from ops_pipeline.core.alert import Alert
from ops_pipeline.core.image import ImageConfig, ImageRef
from ops_pipeline.core.measurement import ContainerExit, Metric, Sample, SeriesKey
from ops_pipeline.core.routing import EdgeTopology, Routing, Server
from ops_pipeline.core.scan import ScanReport
from ops_pipeline.core.version import Revision

Progress = Callable[[str], None]
"""Receives one line of progress at a time; must return quickly."""


class Clock(Protocol):
    """Time as the use cases see it."""

    def now(self) -> datetime:
        """Current time, aware, UTC."""

    def monotonic(self) -> float:
        """Seconds that never go back."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


# ---------------------------------------------------------------------------------------------------- the store


@dataclass(frozen=True)
class Blob:
    """Content of one object and the tag a conditional write compares."""

    data: bytes
    etag: str


@dataclass(frozen=True)
class BlobInfo:
    """One line of a listing."""

    key: str
    size: int
    modified: datetime


class BlobStore(Protocol):
    """Flat keys ('/'-separated, `[A-Za-z0-9._/-]`), whole-object reads and atomic conditional writes.

    A reader sees the old object or the new one, never a mixture, also when the writer is killed.
    """

    def read(self, key: str) -> Blob | None:
        """The object, or None when there is none. Raise Transient, Permanent."""

    def write(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        """Store durably and return the new etag.

        `if_match`: only if the object's etag is this one; `if_absent`: only if there is none; neither: always.
        Raise Conflict when the condition fails (nothing written), Transient, Permanent (unwritable, full).
        """

    def delete(self, key: str) -> None:
        """Remove; no error when there is none."""

    def list(self, prefix: str) -> Iterator[BlobInfo]:
        """Objects whose key starts with `prefix`, sorted by key. Unfinished writes never show."""


# ---------------------------------------------------------------------------------------------------- images


@dataclass(frozen=True)
class BuildRequest:
    """One image to build. Paths are absolute; `secrets` maps id → value and must never be logged."""

    context: str
    dockerfile: str  # absolute path
    tag: str  # "127.0.0.1:5000/storefront/api:1.4.0"; "" = only whether it builds matters, the image is not kept
    labels: Mapping[str, str]
    args: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    target: str | None = None
    platforms: tuple[str, ...] = ()
    timeout_seconds: float = 1800.0


@dataclass(frozen=True)
class BuildSource:
    """What lies on disk and would be built: content, Dockerfile, and where git says it stands."""

    files: Mapping[str, str]  # path in the context (ignored files left out) → hash of content and mode
    dockerfile: str  # text
    revision: Revision


class ImageBuilder(Protocol):
    """Builds images on a Docker engine and pushes them."""

    def source(self, context: str, dockerfile: str) -> BuildSource:
        """Read a build context and its Dockerfile (absolute paths). Raise BadInput naming a path that is missing."""

    def build(self, request: BuildRequest, progress: Progress) -> str:
        """Build and return the local image id. Raise Permanent with the failing step and its last output lines."""

    def push(self, tag: str, progress: Progress) -> ImageRef:
        """Push what `tag` names and return it by digest. Raise Transient, Permanent (credentials refused)."""

    def inspect(self, reference: str) -> ImageConfig:
        """Configuration of a local image (id, tag or repository@digest). Raise NotFound."""

    def base_digests(self, dockerfile: str, args: Mapping[str, str]) -> Mapping[str, str]:
        """Base image name → local image id, for every external image a Dockerfile (absolute path) builds on.

        Pulls what is absent. Raise NotFound with what to do, Unavailable.
        """


class Registry(Protocol):
    """The image registry, asked over HTTP."""

    def digest(self, repository: str, tag: str) -> str | None:
        """Digest a tag points to, or None. Raise Transient when the registry does not answer."""

    def exists(self, image: ImageRef) -> bool:
        """Whether the registry still has this digest. Raise Transient."""


class Scanner(Protocol):
    """A vulnerability scanner. Raises Unavailable («could not scan») rather than ever returning a guess."""

    def scan(self, image: ImageRef, progress: Progress) -> ScanReport:
        """Vulnerabilities and secrets of exactly this digest."""

    def sbom(self, image: ImageRef, progress: Progress) -> bytes:
        """CycloneDX JSON document of exactly this digest."""


# ---------------------------------------------------------------------------------------------------- containers


@dataclass(frozen=True)
class ContainerSpec:
    """A container to create. `secrets` maps file name → value, placed under /run/secrets, mode 0400."""

    name: str
    image: str  # repository@digest
    labels: Mapping[str, str]
    network: str
    address: str  # static IPv4 on that network, so that a restart never swaps two containers
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    volumes: Mapping[str, str] = field(default_factory=dict)  # name → path; a path that ends in ":ro" is only read
    command: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    read_only: bool = True
    tmpfs: tuple[str, ...] = ()
    memory_bytes: int | None = None
    cpus: float | None = None


@dataclass(frozen=True)
class Container:
    """A container as the engine sees it now."""

    id: str
    name: str
    labels: Mapping[str, str]
    image: str  # repository@digest it was created from
    state: str  # created | running | restarting | exited | dead | paused | removing
    health: str  # healthy | unhealthy | starting | none
    address: str  # "" when not attached to the network
    exit_code: int | None
    oom_killed: bool
    restarts: int
    started_at: datetime | None


class AddressInUse(Exception):
    """The wanted static address is taken; try the next one. Never leaves `services/instances.py`."""


class ContainerRuntime(Protocol):
    """One Docker host."""

    @property
    def host(self) -> str:
        """Name of the host as the catalogue gives it."""

    def check(self) -> None:
        """Raise Unavailable, with what to do, when the engine does not answer."""

    def pull(self, image: str, progress: Progress) -> None:
        """Make `repository@digest` present. Raise NotFound, Transient."""

    def has_image(self, image: str) -> bool:
        """Whether `repository@digest` is present already."""

    def ensure_network(self, name: str, subnet: str) -> None:
        """Create the bridge network if absent: dynamic addresses only from the upper half of `subnet`."""

    def addresses(self, network: str) -> frozenset[str]:
        """Addresses in use on a network, stopped containers' static ones included."""

    def create(self, spec: ContainerSpec) -> str:
        """Create (not start) and return the id; secrets are in place. Raise AddressInUse, NotFound, Permanent.

        Security: no new privileges, all capabilities dropped, restart policy unless-stopped, bounded json-file log.
        """

    def start(self, container_id: str) -> None:
        """Start. Raise Permanent with the engine's words."""

    def stop(self, container_id: str, grace_seconds: float) -> None:
        """SIGTERM, then SIGKILL after the grace; no error when it does not run or does not exist."""

    def remove(self, container_id: str) -> None:
        """Remove with its secrets volume; no error when it does not exist."""

    def containers(self, labels: Mapping[str, str]) -> Sequence[Container]:
        """All containers, running or not, that carry all these labels, sorted by name."""

    def logs(self, container_id: str, tail: int = 50) -> str:
        """Last lines of stdout and stderr, timestamps off."""

    def exits(self, environment: str, since: datetime) -> Sequence[ContainerExit]:
        """Exits of this environment's release containers since a moment, oldest first, in one call to the engine.

        What the engine itself knows: exit code, OOM kill, and whether somebody had it stopped. Raise Transient.
        """

    def run_once(self, spec: ContainerSpec, timeout_seconds: float) -> tuple[int, str]:
        """Run a one-shot container to its end, remove it, and return exit code and last output lines.

        The same security as `create`, no restart. Past the time-out it is killed and the code is 124.
        """

    def follow_logs(self, container_id: str, tail: int = 50) -> Iterator[str]:
        """Lines as they come, until the container stops or the caller closes the iterator."""


# ---------------------------------------------------------------------------------------------------- the edge


@dataclass(frozen=True)
class Probe:
    """Answer of one health request; `status` 0 means none came, `detail` says why."""

    status: int
    detail: str = ""

    @property
    def ok(self) -> bool:
        """2xx."""
        return 200 <= self.status < 300


ANSWER_BYTES = 64 * 1024
"""How much of an answer's body `Edge.ask` returns."""


@dataclass(frozen=True)
class Answer:
    """Answer of one request; `status` 0 means none came.

    `body` is its beginning, at most ANSWER_BYTES, as text; `cut` tells that there was more. `detail` says why nothing
    came, or why less than was promised ("" = all came).
    """

    status: int
    body: str = ""
    cut: bool = False
    detail: str = ""


class Edge(Protocol):
    """HAProxy of one environment on one host."""

    @property
    def host(self) -> str:
        """Name of the host."""

    def check(self) -> None:
        """Raise Unavailable, with what to do, when the edge does not answer."""

    def ensure(self, topology: EdgeTopology) -> bool:
        """Declare routes, pools and slots. Return whether that needed a graceful reload (never during a deploy)."""

    def fence(self, service: str, generation: int) -> None:
        """From now on refuse changes to `service` by any lower generation. Raise StaleGeneration if we are lower."""

    def apply(self, service: str, routing: Routing, generation: int) -> None:
        """Make the live state and the configuration on disk equal `routing`, read back and compared.

        Idempotent. Raise StaleGeneration (nothing changed), Transient, Permanent when the read-back differs.
        """

    def observe(self, service: str) -> Routing:
        """Live routing, read from the Runtime API."""

    def connections(self, service: str, pool: str) -> int:
        """Connections (requests and WebSockets) open to the pool's servers now."""

    def probe(self, address: str, port: int, path: str, timeout_seconds: float = 2.0) -> Probe:
        """GET from where the edge stands, straight to a replica."""

    def probe_route(self, path: str, host: str = "", timeout_seconds: float = 2.0) -> Probe:
        """GET through the edge's own listener, as a user would."""

    def ask(
        self,
        path: str,
        method: str = "GET",
        *,
        server: Server | None = None,
        host: str = "",
        timeout_seconds: float = 10.0,
    ) -> Answer:
        """Send one request without a body and return the answer; redirections are not followed.

        Straight to a replica from where the edge stands, or, without `server`, through the edge's own listener as a
        user of `host` would. Raise Transient, Unavailable when the edge cannot be asked at all.
        """

    def publish_flags(self, document: bytes) -> None:
        """Replace the flags file that the environment's services read on this host, atomically. Raise Transient."""

    def flags(self) -> bytes | None:
        """The flags file as it stands, None when there is none. Raise Transient."""


# ---------------------------------------------------------------------------------------------------- measurements


class MetricsSource(Protocol):
    """Prometheus, asked for raw counter samples. Every call is bounded in time."""

    def samples(
        self,
        metric: Metric,
        seconds: float,
        *,
        targets: Sequence[tuple[str, str]] = (),
        until: datetime | None = None,
    ) -> Mapping[SeriesKey, tuple[Sample, ...]]:
        """Every scraped sample of the last `seconds`, oldest first, of all series of a metric, in ONE query.

        `targets` are (environment, service) pairs; empty = all there are. A source may return more than asked for.
        `until` ends the window (included); None = now, by the source's own clock.
        NaN and stale markers are left out. Raise Transient when it does not answer in time or answers garbage;
        Permanent naming the histogram's boundaries when a WITHIN's `seconds` is none of them.
        """

    def within(
        self,
        bounds: Sequence[float],
        seconds: float,
        *,
        targets: Sequence[tuple[str, str]] = (),
        until: datetime | None = None,
    ) -> Mapping[float, Mapping[SeriesKey, tuple[Sample, ...]]]:
        """The same for the WITHIN counters of several boundaries, still in ONE query. A bound that is none is absent.

        Raise Transient, and never Permanent: one case with a wrong boundary must not take away what others need.
        """

    def expression(self, metric: Metric, environment: str, service: str, release: int) -> str:
        """The query, in the source's own language, whose answer is a release's raw counters: kept as evidence."""

    def link(self, environment: str, service: str, release: int, seconds: float) -> str:
        """Address where a person sees the same numbers as a graph."""


class Alerts(Protocol):
    """Where people are told. Raise Transient when it cannot be reached: the caller never fails because of that."""

    def fire(self, alert: Alert) -> None:
        """Raise an alert, or refresh it: the same name and labels are one alert."""

    def resolve(self, alert: Alert) -> None:
        """End it."""
