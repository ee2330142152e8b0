"""Processor time of an idle control plane with 30 live services, beside an idle plain Dagster.

Counted: webserver, daemon and code server with everything they start, Prometheus scraping every second, and the edge's
exporter. Plain Dagster is `dagster dev` with one asset. First nothing is watched any more, then all 30 are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from deploy.setup import processes
from ops_pipeline.services.deploy import deploy
from ops_pipeline_tests.testbed import free_port
from ops_pipeline_tests.testbed.control_plane import ControlPlaneBed, end_runs, serving, status_of, until
from ops_pipeline_tests.testbed.registry import running_registry
from ops_pipeline_tests.testbed.releases import ENVIRONMENT, MeasuredBed, measured_bed

SERVICES = 30
SECONDS = float(os.environ.get("OPS_BENCH_SECONDS", "60"))
SETTLE_SECONDS = 20.0
LIMIT = 10.0
EMPTY = "import dagster as dg\n@dg.asset\ndef nothing() -> None: ...\ndefs = dg.Definitions(assets=[nothing])\n"


def spent(pid: int) -> float:
    """Processor seconds of a process and of all its children, those that have ended included."""
    ticks = 0
    for each in [pid, *processes.descendants(pid)]:
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def share(pids: dict[str, int]) -> dict[str, float]:
    """Percent of one core that each of these took over the time."""
    began, before = time.monotonic(), {name: spent(pid) for name, pid in pids.items()}
    time.sleep(SECONDS)
    passed = time.monotonic() - began
    return {name: 100 * (spent(pid) - before[name]) / passed for name, pid in pids.items()}


@contextmanager
def plain(folder: Path) -> Iterator[int]:
    """`dagster dev` with one asset; its process id."""
    (folder / "home").mkdir()
    (folder / "empty_project.py").write_text(EMPTY)
    port = free_port()
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("OPS_", "DAGSTER_"))},
        "DAGSTER_HOME": str(folder / "home"),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster", "dev", "-m", "empty_project", "-h", "127.0.0.1", "-p", str(port)],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: status_of(f"http://127.0.0.1:{port}/server_info") == 200, 120, "dagster dev")
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            processes.end([*processes.descendants(process.pid), process.pid])


def ours(measured: MeasuredBed, plane: ControlPlaneBed) -> dict[str, int]:
    """Processes that belong to the control plane and to measuring."""
    found = {
        name: int((plane.root / ".ops" / "run" / f"{name}.pid").read_text())
        for name in ("webserver", "daemon", "code-server")
    }
    container = measured.monitoring.prometheus
    container.reload()
    found["prometheus"] = int(container.attrs["State"]["Pid"])
    (place,) = measured.bed.site.places
    edge = place.engine.api.top(place.edge.id)
    column = edge["Titles"].index("PID")
    exporters = [row for row in edge["Processes"] if "exporter" in row[-1]]
    found["exporter"] = int(exporters[0][column])
    return found


def said(figures: dict[str, float]) -> str:
    """Percentages by name."""
    return ", ".join(f"{name} {value:.1f}" for name, value in figures.items())


def main() -> None:
    """Print the shares and their difference; fail over the limit."""
    with tempfile.TemporaryDirectory(prefix="ops-test-") as name, plain(Path(name)) as pid:
        time.sleep(SETTLE_SECONDS)
        alone = share({"dagster dev": pid})["dagster dev"]
    print(f"   plain Dagster: {alone:.1f} % of one core over {SECONDS:.0f} s", flush=True)
    over = None
    for watched in (False, True):
        figures = with_services("always" if watched else 0)
        difference = sum(figures.values()) - alone
        words = "all watched" if watched else "nothing watched"
        print(f"   {SERVICES} services, {words}: {sum(figures.values()):.1f} % ({said(figures)})")
        print(
            f"   more than plain Dagster: {difference:.1f} % of one core" + ("" if watched else f" (limit {LIMIT:g})")
        )
        over = difference > LIMIT if over is None else over
    if over:
        raise SystemExit("an idle control plane takes too much")


def with_services(watch_minutes: object) -> dict[str, float]:
    """Shares with 30 live services without traffic."""
    services = {f"s{number}": {"memory_mb": 64} for number in range(SERVICES)}
    environment = {"watch_minutes": watch_minutes}
    with (
        running_registry() as registry,
        tempfile.TemporaryDirectory(prefix="ops-test-") as name,
        measured_bed(registry.address, Path(name), services, environment=environment) as measured,
    ):
        root, bed = Path(name), measured.bed

        def bring(service: str) -> None:
            bed.image(service, "1")
            deploy(bed.platform, ENVIRONMENT, service, progress=_quiet)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(bring, services))
        labels = ",".join(f"{key}={value}" for key, value in bed.site.labels.items())
        plane = ControlPlaneBed(root, free_port(), {"OPS_EXTRA_LABELS": labels})
        plane.catalogue.parent.mkdir()
        plane.catalogue.write_text(json.dumps(bed.file.catalogue))
        with serving(plane):
            try:
                time.sleep(SETTLE_SECONDS)
                return share(ours(measured, plane))
            finally:
                end_runs(plane)


_quiet: Callable[[str], None] = lambda line: None  # noqa: E731


if __name__ == "__main__":
    main()
