"""The remote client against answers of a UI, good and bad; following; exit codes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from rich.console import Console

from ops_pipeline.cli.follow import RunFailed, follow
from ops_pipeline.cli.remote import RemoteRuns
from ops_pipeline.defs.run_events import Kind, Launch, RunEvent, Snapshot
from ops_pipeline.errors import BadInput, NotFound, OpsError, Permanent, PolicyRefused, Transient, Unavailable

Answer = Callable[[dict[str, Any]], httpx.Response]


def ui(answer: Answer) -> RemoteRuns:
    """A client of a UI that answers so."""
    transport = httpx.MockTransport(lambda request: answer(json.loads(request.content)))
    return RemoteRuns("http://ui", transport=transport)


def says(data: dict[str, Any], status: int = 200) -> Answer:
    return lambda _: httpx.Response(status, json={"data": data})


def gone(_: dict[str, Any]) -> httpx.Response:
    raise httpx.ConnectError("refused")


@pytest.mark.parametrize(
    ("answer", "there"),
    [
        (says({"version": "1.13.27"}), True),
        (gone, False),
        (lambda _: httpx.Response(503, text="starting"), False),
    ],
)
def test_whether_a_ui_is_there(answer: Answer, there: bool) -> None:
    assert ui(answer).answers() is there


@pytest.mark.parametrize("response", [httpx.Response(200, text="hello"), httpx.Response(401, text="log in first")])
def test_something_else_at_the_address_is_no_ui(response: httpx.Response) -> None:
    with pytest.raises(Unavailable, match="not as a Dagster UI"):
        ui(lambda _: response).answers()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"__typename": "RunConfigValidationInvalid", "errors": [{"message": "a"}, {"message": "b"}]}, BadInput),
        ({"__typename": "UnauthorizedError", "message": "no"}, PolicyRefused),
        ({"__typename": "PipelineNotFoundError", "message": "no such job"}, Permanent),
        ({"__typename": "PythonError", "message": "boom"}, Permanent),
    ],
)
def test_a_launch_that_is_not_accepted(answer: dict[str, Any], error: type[OpsError]) -> None:
    with pytest.raises(error):
        ui(says({"launchRun": answer})).launch(Launch("deploy"))


def test_a_launch_sends_job_configuration_and_partition() -> None:
    sent: list[dict[str, Any]] = []

    def answer(body: dict[str, Any]) -> httpx.Response:
        sent.append(body["variables"]["params"])
        run = {"__typename": "LaunchRunSuccess", "run": {"runId": "r1"}}
        return httpx.Response(200, json={"data": {"launchRun": run}})

    launch = Launch("rollback", {"release": {"to": 7}}, {"dagster/partition": "prod|api"})
    assert ui(answer).launch(launch) == "r1"
    assert sent[0]["selector"]["pipelineName"] == "rollback"
    assert sent[0]["runConfigData"] == {"ops": {"release": {"config": {"to": 7}}}}
    assert sent[0]["executionMetadata"]["tags"] == [{"key": "dagster/partition", "value": "prod|api"}]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (gone, Transient),
        (lambda _: httpx.Response(503, text="starting"), Transient),
        (lambda _: httpx.Response(200, text="<html>"), Unavailable),
        (lambda _: httpx.Response(400, json={"errors": [{"message": "bad query"}]}), Unavailable),
        (says({"runOrError": {"__typename": "RunNotFoundError"}, "logsForRun": {}}), NotFound),
    ],
)
def test_a_look_that_fails(answer: Answer, error: type[OpsError]) -> None:
    with pytest.raises(error):
        ui(answer).look("r1", None)


def test_the_mistakes_of_the_catalogue_are_passed_on() -> None:
    entry = {"locationOrLoadError": {"message": "outer", "causes": [{"message": "catalogue: 2 problems"}]}}
    data = {"assetNodeOrError": {"__typename": "AssetNotFoundError"}, "workspaceOrError": {"locationEntries": [entry]}}
    with pytest.raises(Unavailable, match="catalogue: 2 problems"):
        ui(says(data)).names()


# ------------------------------------------------------------------------------------------------ following


class Script:
    """A run client that plays snapshots."""

    where = "the test"

    def __init__(self, snapshots: Sequence[Snapshot | OpsError]) -> None:
        self._left = list(snapshots)

    def look(self, run_id: str, cursor: str | None) -> Snapshot:
        step = self._left.pop(0) if self._left else Snapshot("SUCCESS", (), cursor)
        if isinstance(step, OpsError):
            raise step
        return step

    def names(self) -> tuple[Sequence[str], Sequence[str]]:
        return (), ()

    def launch(self, launch: Launch) -> str:
        return "r1"

    def link(self, run_id: str) -> str:
        return ""

    def stop(self, run_id: str) -> bool:
        return False


AT = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)


def event(kind: Kind, text: str, **more: Any) -> RunEvent:
    return RunEvent(kind, text, AT, **more)


def test_following_shows_lines_checks_and_the_result() -> None:
    screen = io.StringIO()
    script = Script(
        [
            Snapshot("QUEUED", (), None),
            Snapshot("STARTED", (event(Kind.LOG, "starting [1/2]"), event(Kind.LOG, "Dependencies for step x")), "1"),
            Transient("the UI is being restarted"),
            Snapshot("SUCCESS", (event(Kind.MADE, "", metadata={"release": 7}),), "2"),
            Snapshot("SUCCESS", (event(Kind.CHECK, "healthy: 3 probes", passed=True),), "3"),
        ]
    )
    outcome = follow(script, "r1", Console(file=screen, width=120))
    outcome.raise_if_bad()
    assert outcome.made == {"release": 7}
    shown = screen.getvalue()
    assert "starting [1/2]" in shown and "check passed: healthy: 3 probes" in shown
    assert "Dependencies" not in shown


@pytest.mark.parametrize(
    ("snapshot", "code", "words"),
    [
        (
            Snapshot(
                "FAILURE",
                (event(Kind.FAILED, "refused: CVE", metadata={"error": "PolicyRefused", "exit_code": 3}),),
                "1",
            ),
            3,
            "refused: CVE",
        ),
        (Snapshot("FAILURE", (event(Kind.FAILED, "TypeError: x"),), "1"), 1, "TypeError"),
        (Snapshot("FAILURE", (), "1"), 1, "without saying why"),
        (Snapshot("CANCELED", (), "1"), 7, "was stopped"),
    ],
)
def test_a_bad_end_keeps_the_runs_words_and_exit_code(snapshot: Snapshot, code: int, words: str) -> None:
    outcome = follow(Script([snapshot, Snapshot(snapshot.status, (), "2")]), "r1", Console(file=io.StringIO()))
    with pytest.raises(RunFailed, match=words) as caught:
        outcome.raise_if_bad()
    assert caught.value.exit_code == code
