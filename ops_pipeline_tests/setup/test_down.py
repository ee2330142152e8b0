"""Which processes `make down` ends: those of this folder's control plane, never a shell that has our variables."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deploy.setup import down, processes
from deploy.setup.commands import STATE
from deploy.setup.venv import PYTHON

SLEEP = "import time; print(flush=True); time.sleep(60)"


@pytest.mark.parametrize(
    ("program", "home", "ours"),
    [
        (str(PYTHON), STATE / "demo" / "dagster", True),
        (str(PYTHON), Path("/somewhere/else"), False),
        ("sh", STATE / "demo" / "dagster", False),
    ],
    ids=["our run", "another installation's run", "a shell with our variables"],
)
def test_only_our_own_processes_are_taken(program: str, home: Path, ours: bool) -> None:
    argv = [program, "-c", SLEEP if program != "sh" else "echo; sleep 60 & wait"]
    child = subprocess.Popen(argv, env={"DAGSTER_HOME": str(home), "PATH": "/usr/bin:/bin"}, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        assert (child.pid in down.control_plane()) is ours
    finally:
        processes.end([*processes.descendants(child.pid), child.pid])
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
