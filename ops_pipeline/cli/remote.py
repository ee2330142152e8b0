"""Runs of a Dagster UI elsewhere (or here), over GraphQL through its front door."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from ops_pipeline.defs.attribution import SECRET_HEADER, USER_HEADER
from ops_pipeline.defs.run_events import Kind, Launch, RunEvent, Snapshot
from ops_pipeline.errors import BadInput, NotFound, Permanent, PolicyRefused, Problem, Transient, Unavailable

LOCATION = "ops_pipeline"
REPOSITORY = "__repository__"
TIMEOUT_SECONDS = 20.0
PROBE_SECONDS = 3.0

LOOK = """
fragment Entry on MetadataEntry {
  __typename label
  ... on TextMetadataEntry { text } ... on IntMetadataEntry { intRepr } ... on FloatMetadataEntry { floatValue }
  ... on MarkdownMetadataEntry { mdStr } ... on UrlMetadataEntry { url } ... on BoolMetadataEntry { boolValue }
}
query OpsLook($id: ID!, $cursor: String) {
  runOrError(runId: $id) { __typename ... on Run { status } ... on Error { message } }
  logsForRun(runId: $id, afterCursor: $cursor, limit: 500) {
    __typename
    ... on EventConnection {
      cursor
      events {
        __typename
        ... on MessageEvent { message timestamp level stepKey }
        ... on ExecutionStepFailureEvent {
          error { message cause { message } }
          failureMetadata { description metadataEntries { ...Entry } }
        }
        ... on MaterializationEvent { metadataEntries { ...Entry } }
        ... on ExecutionStepOutputEvent { metadataEntries { ...Entry } }
        ... on AssetCheckEvaluationEvent { evaluation { checkName success severity description } }
      }
    }
  }
}
"""

LAUNCH = """
mutation OpsLaunch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on Error { message }
  }
}
"""

NAMES = """
query OpsNames {
  assetNodeOrError(assetKey: {path: ["release"]}) {
    __typename
    ... on AssetNode { partitionKeysByDimension { name partitionKeys } }
  }
  workspaceOrError {
    ... on Workspace {
      locationEntries { name locationOrLoadError { __typename ... on PythonError { message causes { message } } } }
    }
  }
}
"""

WHOSE = """
query OpsWhose {
  assetNodeOrError(assetKey: {path: ["release"]}) {
    ... on AssetNode { metadataEntries { label ... on TextMetadataEntry { text } } }
  }
}
"""

STOP = """
mutation OpsStop($id: String!) {
  terminateRun(runId: $id) { __typename ... on TerminateRunSuccess { run { runId } } ... on Error { message } }
}
"""


class RemoteRuns:
    """The Dagster UI at `url`, or behind `transport` (a Unix socket); `pages` is where a person sees its runs."""

    def __init__(
        self,
        url: str,
        *,
        transport: httpx.BaseTransport | None = None,
        headers: Mapping[str, str] | None = None,
        pages: str | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._pages = self.url if pages is None else pages.rstrip("/")
        self._client = httpx.Client(base_url=self.url, timeout=TIMEOUT_SECONDS, transport=transport, headers=headers)

    @property
    def where(self) -> str:
        """Address of the UI."""
        return self.url

    def answers(self) -> bool:
        """Whether a Dagster UI is there. Raise Unavailable when something else is, or it refuses us."""
        try:
            response = self._client.post("/graphql", json={"query": "{ version }"}, timeout=PROBE_SECONDS)
        except httpx.HTTPError:
            return False
        if response.status_code in (502, 503, 504):
            return False
        with contextlib.suppress(ValueError, TypeError, KeyError):
            if response.json()["data"]["version"]:
                return True
        words = response.text.strip().splitlines()[:1]
        raise Unavailable(
            f"{self.url} answers, but not as a Dagster UI we may use: {response.status_code} {''.join(words)[:200]}",
            hint="Give the address of the front door with --url or OPS_URL.",
        )

    def names(self) -> tuple[Sequence[str], Sequence[str]]:
        """Services and environments the UI knows. Raise Unavailable when its code location is broken."""
        data = self._ask(NAMES, {})
        node = data["assetNodeOrError"]
        if node["__typename"] != "AssetNode":
            entries = data["workspaceOrError"].get("locationEntries", ())
            words = [_root_cause(entry["locationOrLoadError"] or {}) for entry in entries]
            raise Unavailable(
                "the UI has no definitions loaded: " + ("\n".join(filter(None, words)).strip() or "still loading"),
                hint="Check the catalogue: ops catalogue check",
            )
        keys = {dimension["name"]: dimension["partitionKeys"] for dimension in node["partitionKeysByDimension"]}
        return keys["service"], keys["environment"]

    def whose(self) -> tuple[str, str]:
        """Project and installation the UI belongs to; empty while it has no definitions."""
        entries = self._ask(WHOSE, {})["assetNodeOrError"].get("metadataEntries", ())
        known = {entry["label"]: entry.get("text") or "" for entry in entries}
        return known.get("project", ""), known.get("installation", "")

    def launch(self, launch: Launch) -> str:
        """Start a run over GraphQL."""
        selector = {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY, "pipelineName": launch.job}
        params = {
            "selector": selector,
            "runConfigData": launch.run_config,
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in launch.tags.items()]},
        }
        answer = self._ask(LAUNCH, {"params": params})["launchRun"]
        match answer["__typename"]:
            case "LaunchRunSuccess":
                return str(answer["run"]["runId"])
            case "RunConfigValidationInvalid":
                problems = [Problem("run config", error["message"]) for error in answer["errors"]]
                raise BadInput(problems, subject=launch.job)
            case "UnauthorizedError":
                raise PolicyRefused(launch.job, ["the front door's user may not launch runs"])
            case kind:
                raise Permanent(f"the UI did not launch {launch.job}: {answer.get('message', kind)}")

    def look(self, run_id: str, cursor: str | None) -> Snapshot:
        """State and new events of a run."""
        data = self._ask(LOOK, {"id": run_id, "cursor": cursor})
        run, log = data["runOrError"], data["logsForRun"]
        if run["__typename"] != "Run":
            raise NotFound(f"no run {run_id} at {self.url}")
        events = [_event(event) for event in log.get("events", ())]
        return Snapshot(run["status"], events, log.get("cursor", cursor))

    def link(self, run_id: str) -> str:
        """Page of a run."""
        return f"{self._pages}/runs/{run_id}" if self._pages else ""

    def stop(self, run_id: str) -> bool:
        """Ask a run to stop."""
        return bool(self._ask(STOP, {"id": run_id})["terminateRun"]["__typename"] == "TerminateRunSuccess")

    def _ask(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        try:
            response = self._client.post("/graphql", json={"query": query, "variables": variables})
        except httpx.HTTPError as error:
            raise Transient(
                f"the Dagster UI at {self.url} does not answer: {error}", hint="Is it up? Start it with: ops serve"
            ) from error
        try:
            body = response.json()
        except ValueError:
            body = None
        if not isinstance(body, dict) or not isinstance(body.get("data"), dict):
            words = body.get("errors", [{}])[0].get("message") if isinstance(body, dict) else response.text.strip()
            kind = Transient if response.status_code in (502, 503, 504) else Unavailable
            raise kind(f"the Dagster UI at {self.url} answered {response.status_code}: {str(words)[:300]}")
        data: dict[str, Any] = body["data"]
        return data


def through_socket(door: Path, user: str) -> RemoteRuns | None:
    """The control plane of this machine, asked on its own socket in the name of the system user.

    Given the folder the front door mounts, return None when nothing is there or it is not ours to read.
    """
    path = door / "webserver.sock"
    try:
        secret = (door / "secret").read_text().strip()
        reachable = path.is_socket()
    except OSError:
        return None
    if not secret or not reachable:
        return None
    transport = httpx.HTTPTransport(uds=min(str(path), os.path.relpath(path), key=len))
    headers = {SECRET_HEADER: secret, USER_HEADER: user}
    return RemoteRuns("http://control-plane-of-this-machine", transport=transport, headers=headers, pages="")


def _root_cause(error: Mapping[str, Any]) -> str:
    causes = error.get("causes") or [error]
    return str(causes[-1].get("message", ""))


def _event(event: Mapping[str, Any]) -> RunEvent:
    at = datetime.fromtimestamp(float(event.get("timestamp", 0)) / 1000, UTC)
    step, text = event.get("stepKey") or "", event.get("message") or ""
    match event["__typename"]:
        case "LogMessageEvent":
            return RunEvent(Kind.LOG, text, at, step)
        case "ExecutionStepFailureEvent":
            failure = event.get("failureMetadata") or {}
            error = event.get("error") or {}
            # A failure of this project has its own words; a bug has only what was raised last, wrapped by Dagster.
            raised = (error.get("cause") or error).get("message")
            words = failure.get("description") or raised or text
            return RunEvent(Kind.FAILED, words, at, step, _metadata(failure.get("metadataEntries", ())))
        case "MaterializationEvent" | "ExecutionStepOutputEvent":
            return RunEvent(Kind.MADE, text, at, step, _metadata(event.get("metadataEntries", ())))
        case "AssetCheckEvaluationEvent":
            evaluation = event["evaluation"]
            words = f"{evaluation['checkName']}: {evaluation['description'] or ''}"
            passed, warning = bool(evaluation["success"]), evaluation["severity"] == "WARN"
            return RunEvent(Kind.CHECK, words, at, step, passed=passed, warning=warning and not passed)
        case "ExecutionStepStartEvent" | "ExecutionStepSuccessEvent" | "ExecutionStepSkippedEvent":
            return RunEvent(Kind.STEP, text, at, step)
        case _:
            return RunEvent(Kind.OTHER, text, at, step)


def _metadata(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for entry in entries:
        for key, kind in (("text", str), ("mdStr", str), ("url", str), ("intRepr", int), ("floatValue", float)):
            if entry.get(key) is not None:
                values[entry["label"]] = kind(entry[key])
        if entry.get("boolValue") is not None:
            values[entry["label"]] = bool(entry["boolValue"])
    return values
