"""What the control plane takes: resident memory of its three processes, time to ready, time of a run that does nothing.

A project of its own with `ops serve`; no engine is asked. The run is a deploy that its first gate ends (nothing is
built yet): all of Dagster's way from the queue to a finished run, and nothing of ours.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import httpx

from ops_pipeline.cli.control_plane import resident_bytes
from ops_pipeline.cli.remote import RemoteRuns
from ops_pipeline.defs.attribution import SECRET_HEADER
from ops_pipeline.defs.run_events import Launch
from ops_pipeline_tests.testbed.control_plane import ControlPlaneBed, project, serving

RUNS = 5
TAGS = {"dagster/partition": "dev|api", "dagster/partition/environment": "dev", "dagster/partition/service": "api"}


def main() -> int:
    """Print the figures."""
    with project() as bed:
        began = time.monotonic()
        with serving(bed):
            print(f"control plane: ready after {time.monotonic() - began:.1f} s")
            seconds = [run_seconds(bed) for _ in range(RUNS)]
            print(
                f"empty run: median {statistics.median(seconds):.2f} s from launch to end "
                f"(of {RUNS}: {min(seconds):.2f} to {max(seconds):.2f})"
            )
            total = 0
            for name in ("webserver", "daemon", "code-server"):
                pid = int((bed.root / ".ops" / "run" / f"{name}.pid").read_text())
                size, peak = resident_bytes(pid), peak_bytes(pid)
                total += size
                print(f"memory: {name:11} {size / 1e6:4.0f} MB resident, {peak / 1e6:4.0f} MB at most")
            print(f"memory: together    {total / 1e6:4.0f} MB")
    return 0


def run_seconds(bed: ControlPlaneBed) -> float:
    """Seconds from launch to the end of a run."""
    secret = (bed.door / "secret").read_text().strip()
    transport = httpx.HTTPTransport(uds=str(bed.door / "webserver.sock"))
    client = RemoteRuns("http://ui", transport=transport, headers={SECRET_HEADER: secret})
    began = time.monotonic()
    run_id = client.launch(Launch("deploy", {"release": {"action": "deploy"}}, TAGS))
    while not client.look(run_id, None).finished:
        time.sleep(0.05)
    return time.monotonic() - began


def peak_bytes(pid: int) -> int:
    """Highest resident memory of a process so far; 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


if __name__ == "__main__":
    sys.exit(main())
