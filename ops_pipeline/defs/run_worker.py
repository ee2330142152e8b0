"""The process of one run: `python -m ops_pipeline.defs.run_worker ARGUMENTS`, started by `run_launcher.py`.

Dagster's own `execute_run` leaves a run unfinished for ever when it is stopped, or fails, while definitions are still
being loaded. This one takes a stop from its first moment on, and never ends without saying how the run ended.
"""

from __future__ import annotations

import signal
import sys
import traceback
from types import FrameType

INTERRUPTS = "dagster._utils.interrupts"

_stopped = False


def _note(_signal: int, _frame: FrameType | None) -> None:
    global _stopped
    _stopped = True
    if INTERRUPTS in sys.modules:
        # From here on Dagster looks there before it lets any step begin.
        sys.modules[INTERRUPTS]._received_interrupt["received"] = True


def main(arguments: str) -> None:
    """Execute one run, given as serialized ExecuteRunArgs."""
    signal.signal(signal.SIGTERM, _note)
    signal.signal(signal.SIGINT, _note)
    from dagster._cli.api import execute_run_command

    problem = ""
    try:
        if not _stopped:
            execute_run_command.main([arguments], standalone_mode=False)
    except BaseException:
        problem = traceback.format_exc()
        raise
    finally:
        _finish(arguments, problem)


def _finish(arguments: str, problem: str) -> None:
    from dagster import DagsterInstance, DagsterRunStatus
    from dagster._grpc.types import ExecuteRunArgs
    from dagster._serdes import deserialize_value

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = deserialize_value(arguments, ExecuteRunArgs)
    assert order.instance_ref is not None
    with DagsterInstance.from_ref(order.instance_ref) as instance:
        run = instance.get_run_by_id(order.run_id)
        if run is None or run.is_finished:
            return
        if _stopped or run.status is DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, message="Stopped before it began.")
        else:
            last = problem.strip().splitlines()[-1] if problem else "no reason was given"
            instance.report_run_failed(run, message=f"The run could not be executed: {last}")


if __name__ == "__main__":
    main(sys.argv[1])
