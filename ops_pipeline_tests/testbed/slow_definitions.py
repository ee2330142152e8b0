"""Definitions whose one job takes its time and undoes what it began when it is stopped."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError

if os.environ.get("SLOW_BROKEN_FROM_NOW") and "run_worker" in sys.argv[0]:
    raise ValueError("broken since the run was launched")


@dg.op
def slow() -> None:
    """Works for some seconds; leaves files that tell how far it came."""
    folder = Path(os.environ["SLOW_FOLDER"])
    (folder / "begun").touch()
    try:
        time.sleep(float(os.environ["SLOW_SECONDS"]))
    except DagsterExecutionInterruptedError:
        time.sleep(0.5)
        (folder / "undone").touch()
        raise
    (folder / "done").touch()


@dg.job(executor_def=dg.in_process_executor)
def slow_job() -> None:
    """The job."""
    slow()


defs = dg.Definitions(jobs=[slow_job])
