"""Runs as processes of their own.

Dagster's default launcher runs them as children of the code server, so that restarting it kills deploys. Here each
run has its own session: it outlives the code server, the webserver, the daemon and the terminal that started it.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from dagster import DagsterRun
from dagster import _check as check
from dagster._config.config_schema import UserConfigSchema
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData, serialize_value

WORKER_TAG = "ops/worker"
"""`host:pid` of the process of a run."""

KEPT_LOGS = 200
FIRST_SECONDS = 1.0


def worker_runs(pid: int, run_id: str) -> bool:
    """Whether process `pid` on this host is the living worker of the run (and not a later process with that id)."""
    if Path("/proc/self").exists():
        try:
            # A zombie's command line is empty.
            return run_id.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False
    listing = subprocess.run(  # noqa: S603
        ["ps", "-o", "args=", "-p", str(pid)],  # noqa: S607
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    return run_id in listing.stdout


class DetachedRunLauncher(RunLauncher[Any], ConfigurableClass):
    """Starts a process (`run_worker.py`) in a session of its own, on this host."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """What dagster.yaml says of this class."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """No configuration."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """Make one from dagster.yaml."""
        return cls(inst_data=inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the process; its standard error goes to a file under DAGSTER_HOME/workers."""
        self._reap()
        run = context.dagster_run
        arguments = ExecuteRunArgs(
            job_origin=check.not_none(context.job_code_origin),
            run_id=run.run_id,
            instance_ref=self._instance.get_ref(),
        )
        with self._log_path(run.run_id).open("wb") as log:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "ops_pipeline.defs.run_worker", serialize_value(arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        self._children[run.run_id] = process
        self._instance.add_run_tags(run.run_id, {WORKER_TAG: f"{platform.node()}:{process.pid}"})

    def terminate(self, run_id: str) -> bool:
        """Ask the run to stop. It undoes what it began, so this returns before it has ended."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        host, pid = self._worker(run)
        self._instance.report_run_canceling(run)
        if host != platform.node() or not worker_runs(pid, run_id):
            self._instance.report_engine_event(
                f"No worker of this run on {platform.node()} (it was started as {host}:{pid}).", run
            )
            return False
        os.kill(pid, signal.SIGTERM)
        self._cancel_if_it_never_began(pid, run_id)
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Yes: run monitoring marks the run of a killed process as failed."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the process still lives."""
        self._reap()
        host, pid = self._worker(run)
        if host != platform.node():
            return CheckRunHealthResult(WorkerStatus.UNKNOWN, f"started on {host or 'an unknown host'}")
        if worker_runs(pid, run.run_id):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(
            WorkerStatus.FAILED, f"process {pid} ended without finishing the run", transient=False
        )

    def get_run_worker_debug_info(self, run: DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """Last lines of the process's standard error."""
        path = self._log_path(run.run_id)
        if not path.exists():
            return None
        return "\n".join(path.read_text(errors="replace").splitlines()[-30:])

    def _cancel_if_it_never_began(self, pid: int, run_id: str) -> None:
        # In the worker's first instant the signal simply ends it: nothing was begun and nobody is left to say so.
        deadline = time.monotonic() + FIRST_SECONDS
        while worker_runs(pid, run_id):
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)
            self._reap()
        run = self._instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            self._instance.report_run_canceled(run, message="Stopped before it began.")

    def _worker(self, run: DagsterRun) -> tuple[str, int]:
        host, _, pid = run.tags.get(WORKER_TAG, "").rpartition(":")
        return host, int(pid) if pid.isdigit() else 0

    def _log_path(self, run_id: str) -> Path:
        folder = Path(self._instance.root_directory) / "workers"
        folder.mkdir(exist_ok=True)
        logs = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)
        for old in logs[:-KEPT_LOGS]:
            old.unlink(missing_ok=True)
        return folder / f"{run_id}.log"

    def _reap(self) -> None:
        # Ended children stay zombies until somebody asks for their exit code.
        self._children = {run_id: child for run_id, child in self._children.items() if child.poll() is None}
