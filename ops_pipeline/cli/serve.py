"""`ops serve`: the control plane."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Annotated

import typer

from ops_pipeline.cli.app import app, project
from ops_pipeline.cli.control_plane import READY_SECONDS, ControlPlane, running_pid
from ops_pipeline.cli.output import err, out
from ops_pipeline.errors import Unavailable


@app.command()
def serve(
    detach: Annotated[
        bool, typer.Option("--detach", help="Leave it running in the background, when it is ready")
    ] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the one that runs in the background")] = False,
) -> None:
    """Run the control plane: webserver, daemon and code server.

    They are Dagster's. People reach the webserver, on a Unix socket, through the front door's container. Stopping it
    interrupts no run. It loads the catalogue again whenever the file changes.
    """
    places = project.places
    pid_file = places.run / "serve.pid"
    if stop:
        _stop(running_pid(pid_file))
    elif detach:
        _detach()
    else:
        ControlPlane(places, project.catalogue_path, lambda line: err.print(f"ops serve: {line}")).run()


def _detach() -> None:
    places = project.places
    places.prepare()
    ready, log = places.run / "ready", places.run / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ops_pipeline.cli", "serve"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + READY_SECONDS
    while not (ready.exists() and ready.read_text().strip() == str(process.pid)):
        if process.poll() is not None or time.monotonic() > deadline:
            process.terminate()
            words = log.read_text(errors="replace").strip().splitlines()[-15:]
            raise Unavailable("the control plane did not start:\n" + "\n".join(words), hint=f"All of it: {log}")
        time.sleep(0.1)
    out.print(f"control plane runs as process {process.pid}; its log: {log}")


def _stop(pid: int | None) -> None:
    if pid is None:
        out.print("no control plane runs")
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 60
    while _lives(pid):
        if time.monotonic() > deadline:
            raise Unavailable(f"process {pid} does not end")
        time.sleep(0.1)
    out.print("control plane stopped; runs in progress go on by themselves")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    try:
        # A zombie has ended; whoever started it has not asked yet.
        with open(f"/proc/{pid}/stat") as status:  # noqa: PTH123
            return status.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True
