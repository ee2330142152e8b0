"""A real edge for tests: a network, the edge's container on a free loopback port, cheap upstreams beside it."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import random
import socket
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.models.containers import Container
from docker.models.networks import Network

from ops_pipeline.adapters.haproxy_edge import HaproxyEdge
from ops_pipeline.core.routing import Pool, Server
from ops_pipeline.errors import OpsError
from ops_pipeline_tests.testbed.upstream import upstream_image

IMAGE_FOLDER = Path(__file__).parents[2] / "deploy" / "images" / "edge"
DOCKER_URL = "unix:///var/run/docker.sock"


QUICK = {
    "CONFIG": """
defaults
    mode http
    timeout client 60s
    timeout http-keep-alive 60s
frontend all
    bind :8080
    http-request return status 200 content-type text/plain string ok
"""
}


def edge_image(engine: docker.DockerClient) -> str:
    """Build the edge's image unless this very content is there already; return its name with a content tag."""
    files = [file for file in sorted(IMAGE_FOLDER.rglob("*")) if file.is_file() and "__pycache__" not in file.parts]
    content = b"".join(file.read_bytes() for file in files)
    name = f"ops-testbed-edge:{hashlib.sha256(content).hexdigest()[:12]}"
    try:
        engine.images.get(name)
    except docker.errors.ImageNotFound:
        engine.images.build(path=str(IMAGE_FOLDER), tag=name, rm=True, forcerm=True)
    return name


def free_port() -> int:
    """A loopback port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Answer:
    """What a client got; `status` 0 means no answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def release(self) -> str:
        return self.headers.get("x-release", "")


@dataclass(frozen=True)
class Upstream:
    """A running release of the test upstream."""

    container: Container
    server: Server


def total(exposition: str, name: str, **labels: str) -> float:
    """Sum over the series of a metric that carry all these labels."""
    wanted = {f'{label}="{value}"' for label, value in labels.items()}
    found = 0.0
    for line in exposition.splitlines():
        series, _, value = line.rpartition(" ")
        metric, _, rest = series.partition("{")
        if metric == name and wanted <= set(rest.rstrip("}").split(",")):
            found += float(value)
    return found


class EdgeBed:
    """Everything a test needs around one edge. Make it with `edge_bed()`, which also clears it away."""

    def __init__(
        self, engine: docker.DockerClient, environment: str = "test", volume_options: dict[str, str] | None = None
    ) -> None:
        self.engine = engine
        self.environment = environment
        self.id = uuid.uuid4().hex[:10]
        self.labels = {"ops.testbed": self.id}
        self.port = free_port()
        self.requests_port = free_port()
        self._next = 9
        self.network = self._make_network()
        self.volume = engine.volumes.create(
            f"ops-testbed-{self.id}", labels=self.labels, driver_opts=volume_options or {}
        )
        self.container = self._make_edge()
        self.edge = HaproxyEdge(DOCKER_URL, "local", environment, self.container.name or "")
        self.wait()

    def _make_network(self) -> Network:
        for _ in range(50):
            self.subnet = f"10.{random.randint(224, 250)}.{random.randint(0, 254)}"
            pool = docker.types.IPAMPool(subnet=f"{self.subnet}.0/24", iprange=f"{self.subnet}.128/25")
            try:
                return self.engine.networks.create(
                    f"ops-testbed-{self.id}", ipam=docker.types.IPAMConfig(pool_configs=[pool]), labels=self.labels
                )
            except docker.errors.APIError as error:
                if "overlap" not in str(error):
                    raise
        raise AssertionError("no free subnet for a test network")

    def _make_edge(self) -> Container:
        return self.engine.containers.run(
            edge_image(self.engine),
            name=f"ops-testbed-edge-{self.id}",
            detach=True,
            labels=self.labels,
            healthcheck={"interval": 60 * 10**9},
            network=self.network.name,
            ports={"8080/tcp": ("127.0.0.1", self.port), "8406/tcp": ("127.0.0.1", self.requests_port)},
            volumes={self.volume.name: {"bind": "/var/lib/ops-edge", "mode": "rw"}},
            read_only=True,
            tmpfs={"/run/ops-edge": ""},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            restart_policy={"Name": "always"},
        )

    def wait(self, seconds: float = 10.0) -> float:
        """Wait until the edge answers its script; return how long that took."""
        begin = time.monotonic()
        while True:
            try:
                self.edge.check()
                return time.monotonic() - begin
            except OpsError as error:
                if time.monotonic() - begin > seconds:
                    error.add_note(self.container.logs(tail=20).decode())
                    raise
                time.sleep(0.05)

    def upstream(self, release: str, **environment: str) -> Upstream:
        """Start a release of the test upstream and wait until it answers (unless it is told not to)."""
        return self.program(
            upstream_image(self.engine), None, {"RELEASE": release, **environment}, wait=not environment
        )

    def quick_upstream(self) -> Upstream:
        """An upstream that answers 200 to anything and costs next to nothing: a HAProxy without servers."""
        return self.program(
            edge_image(self.engine), ["sh", "-c", 'printf "%s" "$CONFIG" >/tmp/c && exec haproxy -f /tmp/c'], QUICK
        )

    def misbehaving_upstream(self) -> Upstream:
        """The raw upstream of misbehaving.py."""
        program = Path(__file__).with_name("misbehaving.py").read_text(encoding="utf-8")
        return self.program(upstream_image(self.engine), ["python3", "-c", program], {})

    def program(
        self, image: str, entrypoint: list[str] | None, environment: dict[str, str], *, wait: bool = True
    ) -> Upstream:
        """Start any image on the network under an address of its own; wait until it is healthy on port 8080."""
        self._next += 1
        address = f"{self.subnet}.{self._next}"
        container = self.engine.containers.create(
            image,
            name=f"ops-testbed-up-{self.id}-{self._next}",
            labels=self.labels,
            environment=environment,
            entrypoint=entrypoint,
        )
        self.network.connect(container, ipv4_address=address)
        with contextlib.suppress(docker.errors.APIError):
            self.engine.networks.get("bridge").disconnect(container)
        container.start()
        deadline = time.monotonic() + 10
        while wait and not self.edge.probe(address, 8080, "/health/ready").ok:
            assert time.monotonic() < deadline, container.logs()
            time.sleep(0.05)
        return Upstream(container, Server(address, 8080))

    def pool(self, number: int, *upstreams: Upstream) -> Pool:
        """A pool of these upstreams as release `number`."""
        return Pool(number, tuple(upstream.server for upstream in upstreams))

    def request(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        """One request on its own connection. Header names take `_` for `-`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        except (OSError, http.client.HTTPException):
            return Answer(0, {}, b"")
        finally:
            connection.close()

    def counted(self, name: str, **labels: str) -> float:
        """Sum over the series of a metric of the edge's own exporter that carry all these labels, as of now."""
        return total(self.scrape(), name, **labels)

    def scrape(self) -> str:
        """What the edge's own exporter shows Prometheus now."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.requests_port}/metrics", timeout=5) as answer:
            text: bytes = answer.read()
        return text.decode()

    def until(self, path: str, status: int, seconds: float = 5.0) -> float:
        """Ask until `status` comes; return the seconds that took."""
        begin = time.monotonic()
        while self.request(path).status != status:
            assert time.monotonic() - begin < seconds, f"no {status} on {path} within {seconds} s"
            time.sleep(0.02)
        return time.monotonic() - begin

    def shell(self, script: str) -> str:
        """Run a line of shell inside the edge's container."""
        output = self.container.exec_run(["sh", "-c", script]).output
        assert isinstance(output, bytes)
        return output.decode()

    def kill_haproxy(self) -> float:
        """SIGKILL the worker, so that HAProxy goes down; return the seconds for which users got no answer."""
        pid = self.worker_pid()
        begin = time.monotonic()
        back, gaps = threading.Event(), [0.0]

        def ask() -> None:
            last = time.monotonic()
            while not back.is_set():
                if self.request("/x/../y").status == 400:  # answered by the edge itself, counted for no service
                    gaps.append(time.monotonic() - last)
                    last = time.monotonic()
                time.sleep(0.01)

        user = threading.Thread(target=ask)
        user.start()
        try:
            self.shell(f"kill -9 {pid}")
            while self.worker_pid() in {"", pid}:
                assert time.monotonic() - begin < 30, self.container.logs(tail=20)
                time.sleep(0.02)
            self.wait(20)
            time.sleep(0.1)
        finally:
            back.set()
            user.join()
        return max(gaps)

    def worker_pid(self) -> str:
        """Process id of the current worker; empty while there is none, also while the engine starts it again."""
        ask = "printf 'show info\\n' | socat - UNIX-CONNECT:/run/ops-edge/admin.sock 2>/dev/null"
        try:
            return self.shell(f"{ask} | sed -n 's/^Pid: //p'").strip()
        except docker.errors.APIError as error:
            if error.status_code != 409:
                raise
            return ""

    def close(self) -> None:
        """Remove every container, also what a control plane started on the network, the network and the volumes."""
        mine = self.engine.containers.list(all=True, filters={"label": f"ops.testbed={self.id}"})
        mine += self.engine.containers.list(all=True, filters={"network": self.network.name})
        for container in {container.id: container for container in mine}.values():
            named = [mount["Name"] for mount in container.attrs.get("Mounts", []) if mount.get("Type") == "volume"]
            with contextlib.suppress(docker.errors.NotFound):
                container.remove(force=True, v=True)
            for name in named:
                with contextlib.suppress(docker.errors.NotFound, docker.errors.APIError):
                    self.engine.volumes.get(name).remove()
        with contextlib.suppress(docker.errors.NotFound):
            self.network.remove()
        with contextlib.suppress(docker.errors.NotFound):
            self.volume.remove(force=True)


@contextlib.contextmanager
def edge_bed(environment: str = "test", volume_options: dict[str, str] | None = None) -> Iterator[EdgeBed]:
    """A running edge with nothing deployed; all of it is gone afterwards.

    `volume_options` are those of Docker's `local` driver, e.g. for a state volume of a certain size.
    """
    engine = docker.DockerClient(base_url=DOCKER_URL, version="auto", timeout=60)
    bed = EdgeBed.__new__(EdgeBed)
    try:
        bed.__init__(engine, environment, volume_options)  # type: ignore[misc]  # so that a half-made bed is cleared away too
        yield bed
    finally:
        if hasattr(bed, "network"):
            bed.close()
        engine.close()
