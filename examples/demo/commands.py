"""Running `ops`, compose and the control plane the way a person would, with the output shown."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from examples.demo.output import Block, console, in_block
from examples.demo.project import CATALOGUE, PROJECT, REPOSITORY

BIN = Path(sys.executable).parent
PORTS = {
    "front_door": os.environ.get("OPS_PORT_FRONT_DOOR", "3000"),
    "prod": os.environ.get("OPS_PORT_EDGE_PROD", "8080"),
    "dev": os.environ.get("OPS_PORT_EDGE_DEV", "8081"),
    "prometheus": os.environ.get("OPS_PORT_PROMETHEUS", "9090"),
    "alertmanager": os.environ.get("OPS_PORT_ALERTMANAGER", "9093"),
    "registry": os.environ.get("OPS_PORT_REGISTRY", "5000"),
}
UNDER_WAY = "QUEUED, NOT_STARTED, STARTING, STARTED, CANCELING"
MOVING = ("build_and_scan", "deploy", "promote", "rollback")
"""Jobs that a demonstration which was interrupted may have left; a backup ends by itself."""

_running: set[subprocess.Popen[str]] = set()
_stopping = threading.Event()


class DemoFailed(Exception):
    """The demonstration did not go as it must; the message says where."""


def environment() -> dict[str, str]:
    """Variables `ops` needs to work on the demo's project."""
    return dict(os.environ) | {
        "OPS_CATALOGUE": str(CATALOGUE),
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
    }


def ops(*arguments: str, expect: int = 0, only: Callable[[str], bool] | None = None) -> str:
    """Run one `ops` command, shown as typed, and return what it printed where that was not straight to a terminal.

    Of its lines only those are shown that `only` wants. Raise DemoFailed when its exit code is not `expect`.
    """
    console.print(f"[dim]$[/] [bold]ops {' '.join(arguments)}", soft_wrap=True)
    began = time.monotonic()
    argv, block, said = [str(BIN / "ops"), *arguments], in_block(), list[str]()
    if block is None and only is None and console.is_terminal:
        with _known(subprocess.Popen(argv, env=environment(), cwd=PROJECT, text=True)) as process:
            code = process.wait()
    else:
        with _known(_piped(argv)) as process:
            for line in process.stdout or ():
                said.append(line.rstrip("\n"))
                _show(said[-1], only, block)
            code = process.wait()
    console.print(f"[dim]  {time.monotonic() - began:.1f} s, exit code {code}")
    go_on()
    if code != expect:
        raise DemoFailed(f"`ops {' '.join(arguments)}` ended with exit code {code}, expected {expect}")
    return "\n".join(said)


def _piped(argv: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        argv, env=environment(), cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _show(line: str, only: Callable[[str], bool] | None, block: Block | None) -> None:
    if block is not None and line.strip():
        block.newest = re.sub(r"^\d\d:\d\d:\d\d ", "", line.strip())
    if only is None or only(line):
        console.print(line, markup=False, soft_wrap=True)


def ops_json(*arguments: str) -> Any:
    """What a reading `ops` command says, as data. Raise DemoFailed when it fails."""
    argv = [str(BIN / "ops"), *arguments, "--json"]
    with _known(
        subprocess.Popen(
            argv, env=environment(), cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    ) as process:
        said, complaint = process.communicate()
    go_on()
    if process.returncode != 0:
        raise DemoFailed(f"`ops {' '.join(arguments)} --json` ended with exit code {process.returncode}: {complaint}")
    return json.loads(said)


def newest_release(service: str, environment_name: str) -> int:
    """Number of the newest release, 0 before the first."""
    found = ops_json("releases", service, environment_name, "--limit", "1")
    return int(found[0]["number"]) if found else 0


def ops_together(*commands: tuple[str, ...], only: Callable[[str], bool] | None = None) -> list[str]:
    """Run several `ops` commands at once and return what each printed; it is shown one after the other."""
    began = time.monotonic()
    block = in_block()
    if block is not None:
        block.newest = " and ".join(f"ops {' '.join(command)}" for command in commands)
    running = [(command, _piped([str(BIN / "ops"), *command])) for command in commands]
    failed, outputs = [], []
    for command, process in running:
        with _known(process):
            said, _ = process.communicate()
        outputs.append(said)
        console.print(f"[dim]$[/] [bold]ops {' '.join(command)}", soft_wrap=True)
        for line in said.rstrip().splitlines():
            _show(line, only, None)
        if process.returncode != 0:
            failed.append(f"`ops {' '.join(command)}` (exit code {process.returncode})")
    console.print(f"[dim]  {time.monotonic() - began:.1f} s")
    go_on()
    if failed:
        raise DemoFailed(" and ".join(failed) + " failed")
    return outputs


@contextmanager
def _known(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """While it runs, `stop_everything` ends it."""
    _running.add(process)
    try:
        yield process
    finally:
        _running.discard(process)
        if process.poll() is None:
            process.terminate()
        process.wait()
        if process.stdout:
            process.stdout.close()


def stop_everything() -> None:
    """End the commands that run; the runs they follow go on by themselves. Every act stops at its next step."""
    _stopping.set()
    for process in list(_running):
        process.terminate()


def resume() -> None:
    """Forget that everything was stopped."""
    _stopping.clear()


def go_on() -> None:
    """Raise DemoFailed when another act failed or somebody interrupted."""
    if _stopping.is_set():
        raise DemoFailed("cut short")


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


def stop_what_was_left() -> None:
    """Stop the runs that a demonstration which was interrupted began, and wait until they have undone their work."""
    asked: set[str] = set()
    deadline = time.monotonic() + 90
    while left := _runs_under_way():
        for run_id, job in left:
            if run_id not in asked:
                console.print(f"run {run_id} ({job}) was left by a demonstration that was interrupted")
                asked.add(run_id)
                ops("stop", run_id)
        if time.monotonic() > deadline:
            raise DemoFailed(f"{len(left)} runs do not end; see http://127.0.0.1:{PORTS['front_door']}/runs")
        time.sleep(1)


def _runs_under_way() -> list[tuple[str, str]]:
    answer = _ask_the_ui(
        "{ runsOrError(filter: {statuses: [" + UNDER_WAY + "]}) { ... on Runs { results { runId jobName } } } }"
    )
    found = ((answer or {}).get("runsOrError") or {}).get("results") or []
    return [(one["runId"], one["jobName"]) for one in found if one["jobName"] in MOVING]


def _answers() -> bool:
    answer = _ask_the_ui("{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }")
    return bool(((answer or {}).get("repositoriesOrError") or {}).get("nodes"))


def _ask_the_ui(query: str) -> dict[str, Any] | None:
    """What the Dagster UI answers, None when it does not."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORTS['front_door']}/graphql",
        data=json.dumps({"query": query}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            data = json.load(answer)["data"]
    except (OSError, ValueError, KeyError):
        return None
    return data if isinstance(data, dict) else None


def quietly(argv: list[str], extra: Mapping[str, str]) -> None:
    """Run a tool; its output is shown only when it fails."""
    process = subprocess.Popen(
        argv,
        env=dict(os.environ) | dict(extra),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with _known(process):
        said, _ = process.communicate()
    go_on()
    if process.returncode != 0:
        console.print(said, markup=False, soft_wrap=True)
        raise DemoFailed(f"{' '.join(argv[:3])} … failed")
