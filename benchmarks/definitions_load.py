"""How long the project's definitions take to load, compared with an empty Dagster project.

Each load is a fresh process (start Python, import, build the definitions and the repository). Processor seconds
count, not the clock's, so that whatever else the machine does matters less; loads are interleaved, and the minimum of
each counts, for disturbances only ever add.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
LIMITS = {10: 1.3, 1000: 2.0}
ROUNDS = 5

EMPTY = "import dagster as dg\n\ndefs = dg.Definitions(assets=[])\n"

LOAD = """
import time
from {module} import defs
defs.get_repository_def()
print(time.process_time())
"""


def catalogue(services: int) -> str:
    """A catalogue with so many services, each with its own route, health path, owner and variables."""
    lines = [
        "version: 1",
        "project: bench",
        "registry: {address: '127.0.0.1:5000/bench'}",
        "store: {directory: .ops/store}",
        "environments:",
        "  dev: {hosts: [{name: one}], url: 'http://127.0.0.1:8081', subnet: 10.64.0.0/14}",
        "  prod: {hosts: [{name: one}, {name: two, docker: 'ssh://two'}], url: 'http://127.0.0.1:8080', "
        "subnet: 10.68.0.0/14, promote_from: dev}",
        "services:",
    ]
    for number in range(services):
        lines += [
            f"  service-{number}:",
            f"    build: {{context: services/{number}}}",
            "    port: 8080",
            f"    route: {{path: /service-{number}}}",
            "    health: {path: /ready}",
            f"    owners: ['team:team-{number % 20}']",
            "    environment: {LOG_LEVEL: info}",
        ]
    return "\n".join(lines) + "\n"


def load(folder: Path, module: str, book: Path | None) -> float:
    """Processor seconds one fresh process takes."""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{folder}:{REPOSITORY}", "DAGSTER_DISABLE_TELEMETRY": "yes"}
    if book:
        environment["OPS_CATALOGUE"] = str(book)
    done = subprocess.run(
        [sys.executable, "-c", LOAD.format(module=module)],
        env=environment,
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return float(done.stdout.split()[-1])


def measure(rounds: int) -> dict[str, float]:
    """Processor seconds by project: `empty`, and ours by number of services."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "empty_project.py").write_text(EMPTY)
        books = {services: folder / f"{services}.yaml" for services in LIMITS}
        for services, path in books.items():
            path.write_text(catalogue(services))
        times: dict[str, list[float]] = {}
        for _ in range(rounds + 1):
            times.setdefault("empty", []).append(load(folder, "empty_project", None))
            for services, path in books.items():
                times.setdefault(str(services), []).append(load(folder, "ops_pipeline.definitions", path))
        # The first round compiles byte code.
        return {project: min(seconds[1:]) for project, seconds in times.items()}


def main() -> int:
    """Print the ratios. Return 1 when one is above its limit."""
    found = measure(ROUNDS)
    empty, good = found.pop("empty"), True
    print(f"definitions load: empty project {empty:.2f} s")
    for services, seconds in found.items():
        limit, ratio = LIMITS[int(services)], seconds / empty
        good &= ratio <= limit
        print(f"definitions load: {services:>4} services {seconds:.2f} s = {ratio:.2f} x empty (limit {limit} x)")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
