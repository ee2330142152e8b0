"""A project of its own with `ops serve` and the front door's container, on free ports, always removed."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from ops_pipeline_tests.testbed import free_port, testbed_id

REPOSITORY = Path(__file__).parents[2]
FRONT_DOOR = REPOSITORY / "deploy" / "images" / "front-door"
IMAGE = "ops-testbed-front-door"
READY_SECONDS = 120.0

CATALOGUE = """\
version: 1
project: shop
registry: {{address: "127.0.0.1:9/shop"}}
store: {{directory: .ops/store}}
front_door: {{url: "{url}"}}
environments:
  dev:
    hosts: [{{name: local, docker: "unix:///nowhere/docker.sock"}}]
    url: "http://127.0.0.1:7"
    subnet: 10.9.8.0/24
  prod:
    hosts: [{{name: local, docker: "unix:///nowhere/docker.sock"}}]
    url: "http://127.0.0.1:9"
    subnet: 10.9.9.0/24
    promote_from: dev
services:
  api: {{build: {{context: api}}, port: 8000, route: {{path: /api}}}}
  web: {{build: {{context: web}}, port: 8080}}
"""


@dataclass
class ControlPlaneBed:
    """A project folder; `url` is its front door's address, whether or not something answers there."""

    root: Path
    port: int
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def catalogue(self) -> Path:
        return self.root / "deploy" / "services.yaml"

    @property
    def home(self) -> Path:
        return self.root / ".ops" / "dagster"

    @property
    def door(self) -> Path:
        return self.root / ".ops" / "run" / "ui"

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("OPS_", "DAGSTER_"))}
        path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
        return {**kept, "PYTHONPATH": path, "OPS_CATALOGUE": str(self.catalogue), **self.extra}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `ops` with these arguments."""
        return subprocess.Popen(
            [sys.executable, "-m", "ops_pipeline.cli", *arguments],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ops(self, *arguments: str, timeout: float = 90) -> subprocess.CompletedProcess[str]:
        """Run `ops` to its end."""
        process = self.start(*arguments)
        try:
            output, errors = process.communicate(timeout=timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def ask(self, query: str, variables: Mapping[str, Any] | None = None, **headers: str) -> dict[str, Any]:
        """GraphQL through the front door."""
        answer = httpx.post(
            f"{self.url}/graphql", json={"query": query, "variables": variables}, headers=headers, timeout=30
        )
        answer.raise_for_status()
        data: dict[str, Any] = answer.json()["data"]
        return data

    def counts(self) -> dict[str, int]:
        """How many runs, backfills and events the instance has; equal counts = nothing was launched or written."""
        history = self.home / "history"
        return {
            "runs": _rows(history / "runs.db", "runs"),
            "backfills": _rows(history / "runs.db", "bulk_actions"),
            "events": sum(_rows(path, "event_logs") for path in (history / "runs").glob("*.db")),
        }

    def settle(self) -> None:
        """Wait until no run is queued or at work, so that whatever is counted stands still."""
        active = "{ runsOrError(filter: {statuses: [NOT_STARTED, QUEUED, STARTING, STARTED, CANCELING]}) "
        query = active + "{ ... on Runs { count } } }"
        until(lambda: self.ask(query)["runsOrError"]["count"] == 0 and not self.workers(), 120, "the end of all runs")

    def workers(self) -> list[int]:
        """Processes of this project's runs: their command line names its DAGSTER_HOME."""
        home, found = str(self.home).encode(), []
        for process in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                command = (process / "cmdline").read_bytes() if process.name.isdigit() else b""
                if b"run_worker" in command and home in command:
                    found.append(int(process.name))
        return found


def _rows(path: Path, table: str) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
        return int(database.execute(f"select count(*) from {table}").fetchone()[0])


@contextmanager
def project(**extra: str) -> Iterator[ControlPlaneBed]:
    """A project folder without anything running."""
    with tempfile.TemporaryDirectory(prefix="ops-test-") as folder:
        bed = ControlPlaneBed(Path(folder), free_port(), dict(extra))
        bed.catalogue.parent.mkdir()
        bed.catalogue.write_text(CATALOGUE.format(url=bed.url))
        for service in ("api", "web"):
            (bed.root / service).mkdir()
            (bed.root / service / "Dockerfile").write_text("FROM debian:bookworm-slim AS test\n")
        try:
            yield bed
        finally:
            end_runs(bed)
            until(lambda: not bed.workers(), 10, "the end of killed runs")


def end_runs(bed: ControlPlaneBed) -> None:
    """Runs are processes of their own and outlive everything else: give them time to end, then end them."""
    with contextlib.suppress(AssertionError):
        until(lambda: not bed.workers(), 20, "the end of all runs")
    for pid in bed.workers():
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def serving(bed: ControlPlaneBed) -> Iterator[subprocess.Popen[bytes]]:
    """`ops serve` of a project, ready; stopped afterwards."""
    log = bed.root / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ops_pipeline.cli", "serve"],
            cwd=bed.root,
            env=bed.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        ready = bed.root / ".ops" / "run" / "ready"
        until(lambda: ready.exists() or process.poll() is not None, READY_SECONDS, "ops serve")
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def front_door(bed: ControlPlaneBed, **settings: str) -> Iterator[str]:
    """The front door's container for a project; gives its name."""
    name = f"ops-front-door-{uuid.uuid4().hex[:8]}"
    label = f"ops.testbed={testbed_id()}"
    docker("build", "--quiet", "--tag", IMAGE, str(FRONT_DOOR), timeout=300)
    # A network of its own: the default bridge is shared by everything on the engine.
    docker("network", "create", "--label", label, name)
    hosts = f"127.0.0.1:{bed.port} localhost:{bed.port}"
    options = {"OPS_FRONT_DOOR_HOSTS": hosts, **settings}
    try:
        docker(
            "run", "--detach", "--name", name, "--network", name, "--label", label,
            "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true",
            "--tmpfs", "/run/front-door:uid=10213,mode=0700", "--tmpfs", "/tmp",
            *(part for key, value in options.items() for part in ("--env", f"{key}={value}")),
            "--volume", f"{bed.door}:/run/dagster:ro",
            "--publish", f"127.0.0.1:{bed.port}:3000", IMAGE,
        )  # fmt: skip
        until(lambda: status_of(f"{bed.url}/server_info") in (200, 401), 60, "the front door")
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)
        docker("network", "rm", name)


def docker(*arguments: str, timeout: float = 60) -> str:
    """Run Debian's docker CLI (it speaks BuildKit and the classic builder alike)."""
    program = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip() or done.stderr.strip()


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for a condition. Raise AssertionError naming `what` when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.05)


def status_of(url: str) -> int:
    """What an address answers, 0 when it does not."""
    try:
        return httpx.get(url, timeout=2).status_code
    except httpx.HTTPError:
        return 0
