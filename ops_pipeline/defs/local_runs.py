"""Launching and following runs on this machine when no UI answers."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from dagster import (
    AssetCheckSeverity,
    DagsterEventType,
    DagsterInstance,
    DagsterInvalidConfigError,
    DagsterRun,
    Definitions,
    EventLogEntry,
)
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.origin import DEFAULT_DAGSTER_ENTRY_POINT, RepositoryPythonOrigin
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from ops_pipeline.defs.attribution import USER_TAG
from ops_pipeline.defs.resources import REPOSITORY
from ops_pipeline.defs.run_events import Kind, Launch, RunEvent, Snapshot
from ops_pipeline.errors import BadInput, NotFound, Problem

LOCATION = "ops_pipeline"
MODULE = "ops_pipeline.definitions"
ATTRIBUTE = "defs"


def start(
    instance: DagsterInstance,
    job: str,
    *,
    run_config: Mapping[str, Any],
    tags: Mapping[str, str],
    user: str,
) -> DagsterRun:
    """Create a run and start its process, detached from this one. Needs neither daemon nor webserver.

    Raise what Dagster raises for configuration it does not accept; nothing is launched then.
    """
    # Loaded the way the run's own process will load it.
    pointer = ModuleCodePointer(MODULE, ATTRIBUTE, str(REPOSITORY))
    definition = cast(Definitions, pointer.load_target()).resolve_job_def(job)
    target = LoadableTargetOrigin(
        executable_path=sys.executable, module_name=MODULE, attribute=ATTRIBUTE, working_directory=str(REPOSITORY)
    )
    remote = RemoteRepositoryOrigin(
        ManagedGrpcPythonEnvCodeLocationOrigin(loadable_target_origin=target, location_name=LOCATION),
        SINGLETON_REPOSITORY_NAME,
    )
    code = RepositoryPythonOrigin(
        executable_path=sys.executable,
        code_pointer=pointer,
        entry_point=DEFAULT_DAGSTER_ENTRY_POINT,
    )
    run = instance.create_run_for_job(
        definition,
        run_config=run_config,
        tags={**definition.run_tags, **tags, USER_TAG: user},
        remote_job_origin=remote.get_job_origin(job),
        job_code_origin=code.get_job_origin(job),
    )
    # The workspace is for launchers that ask a code server; ours starts a process.
    instance.launch_run(run.run_id, None)  # type: ignore[arg-type]
    return run


class LocalRuns:
    """Runs on this machine, straight from DAGSTER_HOME; for when no UI answers.

    Runs started here are processes of their own and appear in the UI as soon as it runs.
    """

    def __init__(self, home: Path, user: str, names: tuple[Sequence[str], Sequence[str]]) -> None:
        os.environ["DAGSTER_HOME"] = str(home)
        self._instance = DagsterInstance.get()
        self._user, self._names = user, names

    @property
    def where(self) -> str:
        """This machine."""
        return "this machine (no UI answers)"

    def names(self) -> tuple[Sequence[str], Sequence[str]]:
        """Services and environments of the catalogue."""
        return self._names

    def launch(self, launch: Launch) -> str:
        """Create the run and start its process."""
        try:
            run = start(
                self._instance,
                launch.job,
                run_config=launch.run_config,
                tags=launch.tags,
                user=self._user,
            )
        except DagsterInvalidConfigError as error:
            problems = [Problem("run config", one.message) for one in error.errors or ()]
            raise BadInput(problems, subject=launch.job) from error
        return run.run_id

    def look(self, run_id: str, cursor: str | None) -> Snapshot:
        """State and new events, from the instance's storage."""
        run = self._instance.get_run_by_id(run_id)
        if run is None:
            raise NotFound(f"no run {run_id} in {os.environ['DAGSTER_HOME']}")
        page = self._instance.get_records_for_run(run_id, cursor=cursor, limit=500)
        events = [_event(record.event_log_entry) for record in page.records]
        return Snapshot(run.status.value, events, page.cursor)

    def link(self, run_id: str) -> str:
        """None: no UI runs."""
        return ""

    def stop(self, run_id: str) -> bool:
        """Ask the process to stop."""
        return self._instance.run_launcher.terminate(run_id)


def _event(entry: EventLogEntry) -> RunEvent:
    at = datetime.fromtimestamp(entry.timestamp, UTC)
    step, event = entry.step_key or "", entry.dagster_event
    if event is None:
        return RunEvent(Kind.LOG, entry.user_message, at, step)
    text = event.message or ""
    if event.event_type == DagsterEventType.STEP_FAILURE:
        data = event.step_failure_data
        user = data.user_failure_data
        error = (data.error.cause or data.error) if data.error else None
        words = (user.description if user else None) or (error.message if error else text)
        return RunEvent(Kind.FAILED, words, at, step, _values(user.metadata if user else {}))
    if event.event_type == DagsterEventType.ASSET_MATERIALIZATION:
        made = event.step_materialization_data.materialization
        return RunEvent(Kind.MADE, text, at, step, _values(made.metadata))
    if event.event_type == DagsterEventType.STEP_OUTPUT:
        # What a job without assets has to show.
        return RunEvent(Kind.MADE, text, at, step, _values(event.step_output_data.metadata))
    if event.event_type == DagsterEventType.ASSET_CHECK_EVALUATION:
        check = event.asset_check_evaluation_data
        words = f"{check.check_name}: {check.description or ''}"
        warning = check.severity is AssetCheckSeverity.WARN and not check.passed
        return RunEvent(Kind.CHECK, words, at, step, passed=check.passed, warning=warning)
    if event.event_type in STEP_EVENTS:
        return RunEvent(Kind.STEP, text, at, step)
    return RunEvent(Kind.OTHER, text, at, step)


STEP_EVENTS = (DagsterEventType.STEP_START, DagsterEventType.STEP_SUCCESS, DagsterEventType.STEP_SKIPPED)


def _values(metadata: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: getattr(entry, "value", None) for name, entry in metadata.items()}
    return {name: value for name, value in values.items() if isinstance(value, str | int | float | bool)}
