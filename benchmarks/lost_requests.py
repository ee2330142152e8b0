"""Requests lost during ten deploys and ten roll-backs through the edge, beside `docker-compose up`.

The load is the same for both: 60 keep-alive clients that GET and POST and never retry, one 5-second request a second
and WebSockets, which count as lost when they are cut rather than closed.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import docker

from deploy.setup.docker_cli import ensure_compose
from ops_pipeline.core.release import Release
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.rollback import roll_back
from ops_pipeline_tests.testbed import free_port, testbed_id
from ops_pipeline_tests.testbed.load import Load, LoadPlan, LoadReport
from ops_pipeline_tests.testbed.registry import running_registry
from ops_pipeline_tests.testbed.releases import ENVIRONMENT, release_bed
from ops_pipeline_tests.testbed.upstream import upstream_image

DEPLOYS = 10
REPLACEMENTS = 5
CLIENTS = 60
RATE = 200.0


def quiet(_line: str) -> None:
    """Progress nobody watches."""


def plan(port: int, prefix: str) -> LoadPlan:
    """The mixed load on one published port."""
    return LoadPlan(
        port=port,
        clients=CLIENTS,
        rate=RATE,
        get_path=f"{prefix}/load",
        post_path=f"{prefix}/load",
        slow_path=f"{prefix}/slow?seconds=5",
        websocket_path=f"{prefix}/ws",
    )


def through_the_edge() -> LoadReport:
    """Alternate deploys of new versions and roll-backs to the standby under load."""
    with running_registry() as registry, tempfile.TemporaryDirectory() as folder:
        services = {"web": {"replicas": 2, "drain_seconds": 6, "stop_grace_seconds": 8}}
        with release_bed(registry.address, Path(folder), services) as bed:
            bed.image("web", "1")
            deploy(bed.platform, ENVIRONMENT, "web", progress=quiet)
            for number in range(2, DEPLOYS + 2):
                bed.image("web", str(number))
            times: dict[str, list[float]] = {"deploy": [], "roll-back": []}
            platform = bed.platform

            def timed(kind: str, act: Callable[..., Release], **options: object) -> Release:
                began = time.monotonic()
                release = act(platform, ENVIRONMENT, "web", progress=quiet, **options)
                times[kind].append(time.monotonic() - began)
                time.sleep(0.5)
                return release

            with Load(plan(bed.edge.port, "/web")) as load:
                for number in range(2, DEPLOYS + 2, 2):
                    # Two deploys retire what was live before; one roll-back is a switch, the other starts anew.
                    for version in (number, number + 1):
                        bed.image("web", str(version))
                        timed("deploy", deploy)
                    back = timed("roll-back", roll_back)
                    timed("roll-back", roll_back, to=back.number - 3)
            for kind, seconds in times.items():
                print(f"   {len(seconds)} {kind}s: median {median(seconds):.1f} s, slowest {max(seconds):.1f} s")
            return load.report


def with_compose() -> LoadReport:
    """Replace one container by `docker-compose up` under the same load."""
    engine = docker.from_env()
    project = f"ops-bench-{testbed_id()}"[:40]
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "docker-compose.yml"

        def up(release: str) -> None:
            service = {
                "image": upstream_image(engine),
                "environment": {"RELEASE": release},
                "ports": [f"127.0.0.1:{port}:8080"],
                "labels": [f"ops.testbed={testbed_id()}"],
            }
            file.write_text(json.dumps({"version": "3.4", "services": {"web": service}}))
            subprocess.run(
                [*ensure_compose(), "-p", project, "-f", str(file), "up", "-d", "--timeout", "8"],
                check=True,
                capture_output=True,
            )

        try:
            up("1")
            time.sleep(2)
            with Load(plan(port, "")) as load:
                time.sleep(1)
                for number in range(REPLACEMENTS):
                    up(str(number + 2))
                    time.sleep(2)
            return load.report
        finally:
            subprocess.run(
                [*ensure_compose(), "-p", project, "-f", str(file), "down", "--volumes", "--timeout", "1"],
                check=False,
                capture_output=True,
            )
            engine.close()


def main() -> None:
    """Print both."""
    ours = through_the_edge()
    print(f"   through the edge: {ours}")
    theirs = with_compose()
    print(f"   docker-compose up, {REPLACEMENTS} replacements: {theirs}")
    per_change = ours.total_lost / (2 * DEPLOYS)
    print(
        f"   lost a change: {per_change:g} through the edge, {theirs.total_lost / REPLACEMENTS:g} with docker-compose"
    )


if __name__ == "__main__":
    main()
