"""Running `ops`, compose and the control plane the way a person would, with the output shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from examples.demo.project import CATALOGUE, PROJECT, REPOSITORY

console = Console(highlight=False)
BIN = Path(sys.executable).parent
PORTS = {
    "front_door": os.environ.get("OPS_PORT_FRONT_DOOR", "3000"),
    "prod": os.environ.get("OPS_PORT_EDGE_PROD", "8080"),
    "dev": os.environ.get("OPS_PORT_EDGE_DEV", "8081"),
    "prometheus": os.environ.get("OPS_PORT_PROMETHEUS", "9090"),
    "alertmanager": os.environ.get("OPS_PORT_ALERTMANAGER", "9093"),
    "registry": os.environ.get("OPS_PORT_REGISTRY", "5000"),
}


class DemoFailed(Exception):
    """The demonstration did not go as it must; the message says where."""


def environment() -> dict[str, str]:
    """Variables `ops` needs to work on the demo's project."""
    return dict(os.environ) | {
        "OPS_CATALOGUE": str(CATALOGUE),
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
    }


def title(text: str) -> None:
    """Announce a part of the demonstration."""
    console.rule(f"[bold]{text}", align="left")


def ops(*arguments: str, expect: int = 0) -> None:
    """Run one `ops` command, shown as typed. Raise DemoFailed when its exit code is not `expect`."""
    console.print(f"[dim]$[/] [bold]ops {' '.join(arguments)}")
    began = time.monotonic()
    code = subprocess.run([str(BIN / "ops"), *arguments], env=environment(), cwd=PROJECT, check=False).returncode
    console.print(f"[dim]  {time.monotonic() - began:.1f} s, exit code {code}")
    if code != expect:
        raise DemoFailed(f"`ops {' '.join(arguments)}` ended with exit code {code}, expected {expect}")


def ops_json(*arguments: str) -> Any:
    """What a reading `ops` command says, as data. Raise DemoFailed when it fails."""
    done = subprocess.run(
        [str(BIN / "ops"), *arguments, "--json"],
        env=environment(),
        cwd=PROJECT,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise DemoFailed(f"`ops {' '.join(arguments)} --json` ended with exit code {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def newest_release(service: str, environment_name: str) -> int:
    """Number of the newest release, 0 before the first."""
    found = ops_json("releases", service, environment_name, "--limit", "1")
    return int(found[0]["number"]) if found else 0


def ops_together(*commands: tuple[str, ...]) -> None:
    """Run several `ops` commands at once; their output comes one after the other."""
    began = time.monotonic()
    running = [
        (
            command,
            subprocess.Popen(
                [str(BIN / "ops"), *command],
                env=environment(),
                cwd=PROJECT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ),
        )
        for command in commands
    ]
    failed = []
    for command, process in running:
        output, _ = process.communicate()
        console.print(f"[dim]$[/] [bold]ops {' '.join(command)}")
        console.print(output.rstrip(), markup=False)
        if process.returncode != 0:
            failed.append(f"`ops {' '.join(command)}` (exit code {process.returncode})")
    console.print(f"[dim]  {time.monotonic() - began:.1f} s")
    if failed:
        raise DemoFailed(" and ".join(failed) + " failed")


def start_control_plane() -> None:
    """Start the control plane in the background unless it runs already."""
    if _answers():
        console.print("the control plane runs already")
        return
    ops("serve", "--detach")
    deadline = time.monotonic() + 30
    while not _answers():
        if time.monotonic() > deadline:
            raise DemoFailed("the front door does not let anybody in to the Dagster UI")
        time.sleep(0.25)


def _answers() -> bool:
    query = json.dumps({"query": "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"})
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORTS['front_door']}/graphql",
        data=query.encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bool(json.load(answer)["data"]["repositoriesOrError"].get("nodes"))
    except (OSError, ValueError, KeyError):
        return False


def quietly(argv: list[str], extra: Mapping[str, str]) -> None:
    """Run a tool; its output is shown only when it fails."""
    done = subprocess.run(
        argv,
        env=dict(os.environ) | dict(extra),
        cwd=REPOSITORY,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        console.print(done.stdout, markup=False)
        raise DemoFailed(f"{' '.join(argv[:3])} … failed")
