"""A deploy run of an image that is built already, beside its bare steps plus an empty Dagster run.

A run is a fresh process from its start to its end, recorded in a Dagster instance, as the run launcher starts it. The
bare steps are the calls the deploy cannot do without: pull by digest, create and start a container with the same
limits and its secret, ask its health until it answers and once more after the second for which it has to stay healthy,
set HAProxy's server and map, read them back, ask through the edge, see that the container that is two versions old has
no connection left, take it out of HAProxy, stop and remove it. The ratio without that second among the bare steps is
printed too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import docker
import docker.models.containers
import docker.types

from ops_pipeline.adapters.docker_secrets import FOLDER, secrets_archive
from ops_pipeline.core.release_plan import STEADY_SECONDS
from ops_pipeline_tests.testbed.registry import running_registry
from ops_pipeline_tests.testbed.releases import ENVIRONMENT, ReleaseBed, release_bed

ROUNDS = int(os.environ.get("OPS_BENCH_RUNS", "5"))
LIMIT = 1.5  # empty runs on top of the bare steps
REPOSITORY = Path(__file__).parents[1]
MAP = "/var/lib/ops-edge/routing.map"

EMPTY_PROJECT = """
import dagster as dg

@dg.asset
def nothing() -> None: ...

defs = dg.Definitions(assets=[nothing], jobs=[dg.define_asset_job("empty", [nothing])], executor=dg.in_process_executor)
"""

RUN = """
import sys
import dagster as dg
from {module} import defs
with dg.DagsterInstance.get() as instance:
    options = {options}
    assert defs.resolve_job_def("{job}").execute_in_process(instance=instance, **options).success
"""


def run_seconds(module: str, job: str, options: str, environment: dict[str, str], folder: Path) -> float:
    """Wall seconds of one run in a process of its own."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(module=module, job=job, options=options)],
        env=dict(os.environ) | environment,
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-4000:])
    return time.monotonic() - began


class Bare:
    """The same steps with the Docker SDK and HAProxy's socket, nothing recorded, nothing checked twice."""

    def __init__(self, bed: ReleaseBed) -> None:
        self.bed, self.engine, self.edge = bed, bed.edge.engine, bed.edge.container
        self.old: list[tuple[docker.models.containers.Container, str]] = []

    def deploy(self, image: str, number: int) -> float:
        """One deploy; return its wall seconds."""
        began = time.monotonic()
        self.engine.images.pull(image)
        address, pool = f"{self.bed.edge.subnet}.{100 + number}", "abc"[number % 3]
        container = self.engine.containers.create(
            image,
            name=f"ops-testbed-bare-{self.bed.edge.id}-{number}",
            labels=self.bed.edge.labels,
            read_only=True,
            tmpfs={"/tmp": ""},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            init=True,
            mounts=[docker.types.Mount(FOLDER, None)],
            network=self.bed.edge.network.name,
        )
        container.put_archive(FOLDER, secrets_archive({"TOKEN": "secret"}, 10001, 10001))
        self.bed.edge.network.disconnect(container)
        self.bed.edge.network.connect(container, ipv4_address=address)
        container.start()
        while not self._answers(address):
            time.sleep(0.05)
        time.sleep(STEADY_SECONDS)
        if not self._answers(address):
            raise SystemExit("the new container did not stay healthy")
        self._runtime(f"set server bare__{pool}/s1 addr {address} port 8080; set server bare__{pool}/s1 state ready")
        self._runtime(f"set map {MAP} bare {pool}/-/0/1/1/1")
        if f"bare {pool}/" not in self._runtime(f"show map {MAP}"):
            raise SystemExit("HAProxy did not take the switch")
        while self._shell("curl -fsS -m 2 -o /dev/null http://127.0.0.1:8080/bare/load && echo ok") != "ok":
            time.sleep(0.05)
        self.old.append((container, pool))
        if len(self.old) > 2:
            leaving, pool = self.old.pop(0)
            while not _idle(self._runtime(f"show stat bare__{pool} 2 -1")):
                time.sleep(0.05)
            self._runtime(f"set server bare__{pool}/s1 state maint")
            leaving.stop(timeout=5)
            leaving.remove(v=True)
        return time.monotonic() - began

    def _answers(self, address: str) -> bool:
        return self._shell(f"curl -fsS -m 2 -o /dev/null http://{address}:8080/health/ready && echo ok") == "ok"

    def _shell(self, script: str) -> str:
        output: bytes = self.edge.exec_run(["sh", "-c", script]).output
        return output.decode().strip()

    def _runtime(self, commands: str) -> str:
        return self._shell(f"echo '{commands}' | socat -t5 - UNIX-CONNECT:/run/ops-edge/admin.sock")


def _idle(statistics: str) -> bool:
    """Whether HAProxy's row of a backend counts no open session."""
    return statistics.splitlines()[1].split(",")[4] == "0"


def measure(folder: Path) -> dict[str, list[float]]:
    """Wall seconds of the three, interleaved."""
    times: dict[str, list[float]] = {"deploy": [], "bare": [], "empty": []}
    with running_registry() as registry, release_bed(registry.address, folder, {"web": {}, "bare": {}}) as bed:
        project = folder / "project"
        (project / "deploy").mkdir(parents=True)
        (project / "home").mkdir()
        (project / "empty_project.py").write_text(EMPTY_PROJECT)
        catalogue = project / "deploy" / "services.yaml"
        catalogue.write_text(json.dumps(bed.file.catalogue))
        environment = {
            "DAGSTER_HOME": str(project / "home"),
            "OPS_CATALOGUE": str(catalogue),
            "OPS_PROJECT_ROOT": str(folder),
            "PYTHONPATH": f"{project}:{REPOSITORY}",
            "OPS_EXTRA_LABELS": ",".join(f"{key}={value}" for key, value in bed.edge.labels.items()),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
        }
        partition = f'{{"partition_key": "{ENVIRONMENT}|web"}}'
        bare = Bare(bed)
        for number in range(ROUNDS + 3):
            image = bed.image("web", str(number))
            deploy = run_seconds("ops_pipeline.definitions", "deploy", partition, environment, project)
            empty = run_seconds("empty_project", "empty", "{}", environment, project)
            step = bare.deploy(str(image.ref), number)
            if number >= 3:  # from the fourth on, a container leaves with every deploy
                times["deploy"].append(deploy)
                times["empty"].append(empty)
                times["bare"].append(step)
    return times


def main() -> None:
    """Print the ratio to the limit."""
    with tempfile.TemporaryDirectory() as name:
        times = measure(Path(name))
    deploy, bare, empty = (median(times[kind]) for kind in ("deploy", "bare", "empty"))
    limit = bare + LIMIT * empty
    print(
        f"   medians of {ROUNDS}: deploy run {deploy:.2f} s, bare steps {bare:.2f} s, empty Dagster run {empty:.2f} s"
    )
    print(f"   deploy run / (bare steps + {LIMIT} x empty run) = {deploy / limit:.2f} (limit 1)")
    without = deploy / (limit - STEADY_SECONDS)
    print(f"   {without:.2f} without the {STEADY_SECONDS:g} s of the bare steps for staying healthy")


if __name__ == "__main__":
    main()
