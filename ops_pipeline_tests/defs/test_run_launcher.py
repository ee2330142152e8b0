"""Runs are processes of their own: they outlive who started them, undo when stopped, and are missed when killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.launcher.base import WorkerStatus

from ops_pipeline.defs.run_launcher import WORKER_TAG, worker_runs
from ops_pipeline_tests.testbed.control_plane import REPOSITORY, until

LAUNCH = """
import sys, dagster as dg
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.origin import RepositoryPythonOrigin
from ops_pipeline_tests.testbed.slow_definitions import slow_job
pointer = ModuleCodePointer("ops_pipeline_tests.testbed.slow_definitions", "defs", sys.argv[1])
origin = RepositoryPythonOrigin(sys.executable, pointer, entry_point=["dagster"]).get_job_origin("slow_job")
with dg.DagsterInstance.get() as instance:
    run = instance.create_run_for_job(slow_job, job_code_origin=origin)
    instance.launch_run(run.run_id, None)
print(run.run_id)
"""


class Home:
    """A DAGSTER_HOME with the project's own dagster.yaml."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "dagster.yaml").write_text((REPOSITORY / "dagster.yaml").read_text())
        self.instance = dg.DagsterInstance.from_config(str(folder))

    def launch(self, seconds: float, *, begun: bool = True) -> str:
        """Launch from another process, which then ends; wait until the run has begun its work."""
        done = subprocess.run(
            [sys.executable, "-c", LAUNCH, str(REPOSITORY)],
            env={
                **os.environ,
                "DAGSTER_HOME": str(self.folder),
                "PYTHONPATH": str(REPOSITORY),
                "SLOW_FOLDER": str(self.folder),
                "SLOW_SECONDS": str(seconds),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        run_id = done.stdout.split()[-1]
        if begun:
            until(lambda: (self.folder / "begun").exists(), 60, "the start of the run")
        return run_id

    def status(self, run_id: str) -> str:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status.value

    def pid(self, run_id: str) -> int:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return int(run.tags[WORKER_TAG].rpartition(":")[2])

    def health(self, run_id: str) -> WorkerStatus:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return self.instance.run_launcher.check_run_worker_health(run).status


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.instance.dispose()


def test_a_run_outlives_whoever_started_it(home: Home) -> None:
    run_id = home.launch(2)
    pid = home.pid(run_id)
    assert worker_runs(pid, run_id)
    assert os.getsid(pid) == pid
    assert home.health(run_id) is WorkerStatus.RUNNING
    until(lambda: home.status(run_id) == "SUCCESS", 60, "success")
    until(lambda: not worker_runs(pid, run_id), 30, "the end of the process")
    assert (home.folder / "done").exists()


def test_a_stopped_run_undoes_what_it_began(home: Home) -> None:
    run_id = home.launch(120)
    assert home.instance.run_launcher.terminate(run_id)
    until(lambda: home.status(run_id) == "CANCELED", 60, "the end of the run")
    assert (home.folder / "undone").exists() and not (home.folder / "done").exists()
    until(lambda: not worker_runs(home.pid(run_id), run_id), 30, "the end of the process")
    assert not home.instance.run_launcher.terminate(run_id)


@pytest.mark.parametrize("after", [0.0, 0.3, 0.8])
def test_a_run_stopped_while_it_loads_never_begins_or_undoes(home: Home, after: float) -> None:
    run_id = home.launch(120, begun=False)
    time.sleep(after)
    assert home.instance.run_launcher.terminate(run_id)
    # Between two of Dagster's own steps it sometimes takes the stop for a failure.
    until(lambda: home.status(run_id) in ("CANCELED", "FAILURE"), 30, "the end of the run")
    assert not (home.folder / "done").exists()
    assert (home.folder / "undone").exists() == (home.folder / "begun").exists()
    until(lambda: not worker_runs(home.pid(run_id), run_id), 30, "the end of the process")


def test_a_killed_run_is_missed(home: Home) -> None:
    run_id = home.launch(120)
    pid = home.pid(run_id)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not worker_runs(pid, run_id), 30, "the end of the process")
    assert home.health(run_id) is WorkerStatus.FAILED
    assert not home.instance.run_launcher.terminate(run_id)


def test_a_run_whose_definitions_cannot_be_loaded_fails_and_says_so(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW_BROKEN_FROM_NOW", "1")
    run_id = home.launch(1, begun=False)
    until(lambda: home.status(run_id) == "FAILURE", 60, "the failure")


def test_a_later_process_with_the_same_id_is_left_alone(home: Home) -> None:
    run_id = home.launch(1)
    until(lambda: home.status(run_id) == "SUCCESS", 60, "success")
    with subprocess.Popen(["sleep", "60"]) as other:
        home.instance.add_run_tags(run_id, {WORKER_TAG: f"{os.uname().nodename}:{other.pid}"})
        assert not worker_runs(other.pid, run_id)
        assert not home.instance.run_launcher.terminate(run_id)
        assert other.poll() is None
        other.kill()
