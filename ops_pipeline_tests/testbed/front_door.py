"""What the tests of the front door share: a running one, launching through it, looking whether anything happened."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops_pipeline_tests.testbed import free_port
from ops_pipeline_tests.testbed.control_plane import ControlPlaneBed, front_door, project, serving, until

LAUNCH = """
mutation($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on Error { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
SELECTOR = {"repositoryLocationName": "ops_pipeline", "repositoryName": "__repository__", "pipelineName": "reconcile"}
INLINE = (
    'mutation{launchRun(executionParams:{selector:{repositoryLocationName:"ops_pipeline",'
    'repositoryName:"__repository__",pipelineName:"reconcile"}}){__typename}}'
)
RUN = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status tags { key value } } } }"
CHECK = "/report_asset_check/scan_report?check_name=vulnerability_policy&passed=true"
"""An address where Dagster takes results by hand."""


@pytest.fixture(scope="session")
def guarded() -> Iterator[ControlPlaneBed]:
    """A project behind its front door; made once for all tests of the process."""
    with project() as made, serving(made), front_door(made):
        launch(made)  # definitions are loaded, launching works: refusals are refusals
        yield made


@contextlib.contextmanager
def nothing_happens(bed: ControlPlaneBed) -> Iterator[None]:
    bed.settle()
    before = bed.counts()
    yield
    assert bed.counts() == before


def launch(bed: ControlPlaneBed, tags: dict[str, str] | None = None, **headers: str) -> str:
    listed = [{"key": key, "value": value} for key, value in (tags or {}).items()]
    params = {"selector": SELECTOR, "executionMetadata": {"tags": listed}}
    answer = bed.ask(LAUNCH, {"params": params}, **headers)["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return str(answer["run"]["runId"])


def tags_of(bed: ControlPlaneBed, run_id: str) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in bed.ask(RUN, {"id": run_id})["runOrError"]["tags"]}


@contextlib.contextmanager
def stock_webserver(bed: ControlPlaneBed, home: Path) -> Iterator[int]:
    """Dagster's own webserver, open on a loopback port."""
    port = free_port()
    workspace = bed.root / ".ops" / "run" / "workspace.yaml"
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster_webserver", "-h", "127.0.0.1", "-p", str(port), "-w", str(workspace)],
        env={**bed.environment, "DAGSTER_HOME": str(home)},
        cwd=bed.root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: _answers(port), 60, "Dagster's own webserver")
        yield port
    finally:
        process.terminate()
        process.wait(30)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
