"""A real Prometheus for tests, on the host's network, so that it reaches what a test serves on loopback."""

from __future__ import annotations

import contextlib
import io
import tarfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import docker
from docker.models.containers import Container

from deploy.setup import stack_images
from ops_pipeline_tests.testbed import free_port, testbed_id

JOB = "edge-requests"


@dataclass(frozen=True)
class RunningPrometheus:
    """`url` is its base address. `pause` holds it (connections are accepted, nobody answers)."""

    url: str
    container: Container
    scrape_seconds: float

    def pause(self) -> None:
        self.container.pause()

    def resume(self) -> None:
        self.container.unpause()

    def stop(self) -> None:
        self.container.stop(timeout=5)

    def start(self) -> None:
        self.container.start()
        wait_until_ready(self.url)

    def scrape(self, *targets: str) -> None:
        """Scrape these "host:port" from now on, and no others."""
        self.container.put_archive("/etc/prometheus", _configuration(targets, self.scrape_seconds))
        self.container.kill("SIGHUP")


@contextmanager
def prometheus(
    targets: Sequence[str] = (), *, scrape_seconds: float = 1.0, arguments: Sequence[str] = ()
) -> Iterator[RunningPrometheus]:
    """Start the stack's Prometheus on a free loopback port; it scrapes /metrics of the targets ("host:port").

    `arguments` go to the program besides. The container and its data are removed afterwards.
    """
    stack_images.ensure(("prometheus",))
    engine = docker.from_env(timeout=60)
    port = free_port()
    container = engine.containers.create(
        stack_images.tag(stack_images.image("prometheus")),
        [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn", *arguments],
        name=f"ops-testbed-prometheus-{uuid.uuid4().hex[:10]}",
        labels={"ops.testbed": testbed_id()},
        network_mode="host",
        healthcheck={"test": ["NONE"]},
    )
    try:
        container.put_archive("/etc/prometheus", _configuration(targets, scrape_seconds))
        container.start()
        wait_until_ready(f"http://127.0.0.1:{port}")
        yield RunningPrometheus(f"http://127.0.0.1:{port}", container, scrape_seconds)
    finally:
        container.remove(v=True, force=True)
        engine.close()


@contextmanager
def exporter(text: Callable[[], str]) -> Iterator[str]:
    """Serve what `text` returns under /metrics on a free loopback port; give "127.0.0.1:port"."""

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = text().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def wait_until_ready(url: str, seconds: float = 30.0) -> None:
    """Wait until a Prometheus or an Alertmanager says that it is ready."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/-/ready", timeout=2) as answer:
            if answer.status == 200:
                return
        assert time.monotonic() < deadline, f"{url} is not ready"
        time.sleep(0.1)


def _configuration(targets: Sequence[str], scrape_seconds: float) -> bytes:
    listed = ", ".join(f'"{target}"' for target in targets)
    interval = f"{round(scrape_seconds * 1000)}ms"
    text = (
        f"global: {{scrape_interval: {interval}, scrape_timeout: {interval}}}\n"
        f"scrape_configs:\n- job_name: {JOB}\n  static_configs:\n  - targets: [{listed}]\n"
    ).encode()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("prometheus.yml")
        entry.size, entry.mode = len(text), 0o644
        archive.addfile(entry, io.BytesIO(text))
    return stream.getvalue()
