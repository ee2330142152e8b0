"""Nobody acts in somebody else's name through the front door, and nobody reaches the UI around it.

Every refusal is followed by a look at the instance: as many runs, backfills and events as before.
"""

from __future__ import annotations

import subprocess
from typing import Any

import httpx
import pytest

from ops_pipeline_tests.testbed.control_plane import ControlPlaneBed, docker, front_door, project, serving, until
from ops_pipeline_tests.testbed.front_door import CHECK, INLINE, RUN, launch, nothing_happens, stock_webserver, tags_of

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


def test_a_run_belongs_to_the_proxys_user_whatever_the_caller_claims(guarded: ControlPlaneBed) -> None:
    run_id = launch(
        guarded,
        {"ops/user": "eve", "ops/approved": "yes", "team": "shop"},
        **{"X-Ops-User": "eve", "X-Forwarded-User": "eve", "X-Ops-Front-Door": "guess", "X_Ops_User": "eve"},
    )
    tags = tags_of(guarded, run_id)
    assert tags["ops/user"] == "localhost"
    assert tags["team"] == "shop"
    assert "ops/approved" not in tags


def test_backfills_and_re_executions_keep_the_proxys_user(guarded: ControlPlaneBed) -> None:
    started = guarded.ask(
        """
        mutation($params: LaunchBackfillParams!) {
          launchPartitionBackfill(backfillParams: $params) {
            __typename ... on LaunchBackfillSuccess { backfillId } ... on Error { message }
          }
        }
        """,
        {
            "params": {
                "assetSelection": [{"path": ["release"]}],
                "partitionNames": ["dev|api", "dev|web"],
                "tags": [{"key": "ops/user", "value": "eve"}, {"key": "ops/approved", "value": "yes"}],
            }
        },
    )["launchPartitionBackfill"]
    backfill = started["backfillId"]
    query = """
    query($tag: String!) {
      runsOrError(filter: {tags: [{key: "dagster/backfill", value: $tag}]}) {
        ... on Runs { results { runId status tags { key value } } }
      }
    }
    """

    def runs() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = guarded.ask(query, {"tag": backfill})["runsOrError"]["results"]
        return found

    until(lambda: len(runs()) == 2 and all(run["status"] == "FAILURE" for run in runs()), 120, "the backfill's runs")
    for run in runs():
        tags = {tag["key"]: tag["value"] for tag in run["tags"]}
        assert tags["ops/user"] == "localhost"
        assert "ops/approved" not in tags
    again = guarded.ask(
        """
        mutation($id: String!) {
          launchRunReexecution(reexecutionParams: {parentRunId: $id, strategy: ALL_STEPS,
            extraTags: [{key: "ops/user", value: "eve"}]}) {
            __typename ... on LaunchRunSuccess { run { runId } } ... on Error { message }
          }
        }
        """,
        {"id": runs()[0]["runId"]},
    )["launchRunReexecution"]
    assert tags_of(guarded, again["run"]["runId"])["ops/user"] == "localhost"


def test_results_cannot_be_reported_by_hand(guarded: ControlPlaneBed) -> None:
    with nothing_happens(guarded):
        for mutation in (
            'reportRunlessAssetEvents(eventParams: {eventType: ASSET_MATERIALIZATION, assetKey: {path: ["release"]}})',
            'reportAssetCheckEvaluations(eventParams: {assetKey: {path: ["scan_report"]}, passed: true, '
            'checkName: "vulnerability_policy"})',
        ):
            answer = guarded.ask("mutation { " + mutation + " { __typename } }")
            assert {value["__typename"] for value in answer.values()} == {"UnauthorizedError"}


def test_the_socket_answers_only_the_front_door(guarded: ControlPlaneBed) -> None:
    transport = httpx.HTTPTransport(uds=str(guarded.door / "webserver.sock"))
    with nothing_happens(guarded), httpx.Client(transport=transport, base_url="http://ui") as client:
        assert client.get("/server_info").status_code == 200
        for headers in ({}, {"X-Ops-User": "eve"}, {"X-Ops-Front-Door": "guess", "X-Ops-User": "eve"}):
            assert client.post("/graphql", json={"query": INLINE}, headers=headers).status_code == 401
            assert client.get("/", headers=headers).status_code == 401
        assert client.post(CHECK, json={}).status_code == 401


def test_a_webserver_started_beside_it_cannot_launch(guarded: ControlPlaneBed) -> None:
    """Somebody starts Dagster's own webserver on the same DAGSTER_HOME: the coordinator refuses its launches."""
    with stock_webserver(guarded, guarded.home) as port:
        forged = {"X-Ops-User": "eve", "X-Ops-Front-Door": "guess"}
        answer = httpx.post(f"http://127.0.0.1:{port}/graphql", json={"query": INLINE}, headers=forged, timeout=60)
        assert answer.json()["data"]["launchRun"]["__typename"] == "PythonError"
    runs = guarded.ask("{ runsOrError(limit: 1) { ... on Runs { results { status tags { key value } } } } }")
    (newest,) = runs["runsOrError"]["results"]
    assert newest["status"] == "FAILURE"
    assert not [tag for tag in newest["tags"] if tag["key"] == "ops/worker"], "a process was started"


def test_the_secret_shows_nowhere(guarded: ControlPlaneBed) -> None:
    secret = (guarded.door / "secret").read_text().strip()
    launch(guarded)
    names = docker("ps", "--filter", f"publish={guarded.port}", "--format", "{{.Names}}").split()
    assert len(names) == 1
    inspected = docker("inspect", names[0])
    logged = subprocess.run(["/usr/bin/docker", "logs", names[0]], capture_output=True, text=True, check=True)
    for text in (inspected, logged.stdout, logged.stderr, (guarded.root / "serve.log").read_text()):
        assert secret not in text
    assert '"User": "10213"' in inspected and '"ReadonlyRootfs": true' in inspected


def test_headers_that_browsers_must_keep_to(guarded: ControlPlaneBed) -> None:
    headers = httpx.get(guarded.url).headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert "server" not in headers


def test_behind_a_log_in_proxy_the_named_person_counts_and_nobody_else_enters() -> None:
    """`OPS_FRONT_DOOR_TRUSTED_PROXY`: here the Docker bridge's gateway plays the proxy."""
    with project() as made, serving(made):
        with front_door(made, OPS_FRONT_DOOR_TRUSTED_PROXY="10.255.255.1"):
            assert httpx.get(f"{made.url}/", headers={"X-Forwarded-Email": "eve@example.org"}).status_code == 401
        with front_door(made, OPS_FRONT_DOOR_TRUSTED_PROXY="0.0.0.0/0"):
            assert httpx.get(f"{made.url}/").status_code == 401
            run_id = launch(made, {"ops/user": "eve"}, **{"X-Forwarded-Email": "ada@example.org", "X-Ops-User": "eve"})
            named = {"X-Forwarded-Email": "ada@example.org"}
            answer = made.ask(RUN, {"id": run_id}, **named)
            assert {"key": "ops/user", "value": "ada@example.org"} in answer["runOrError"]["tags"]


def test_ops_uses_only_the_ui_of_its_own_project(guarded: ControlPlaneBed) -> None:
    """Another project of the same name, whose catalogue names the same address, acts on its own machine's runs."""
    own = guarded.ops("deploy", "api", "dev")
    assert f"on {guarded.url}" in own.stderr
    with project() as other:
        other.catalogue.write_text(guarded.catalogue.read_text())
        with serving(other), nothing_happens(guarded):
            done = other.ops("deploy", "api", "dev")
            assert "belongs to another project or installation: not used" in done.stderr
            assert "control-plane-of-this-machine" in done.stderr
        other.catalogue.write_text(guarded.catalogue.read_text().replace("project: shop", "project: bakery"))
        with nothing_happens(guarded):
            assert "not used" in other.ops("deploy", "api", "dev").stderr
            refused = other.ops("deploy", "api", "dev", "--url", guarded.url)
            assert refused.returncode == 5 and "is of project shop, not bakery" in refused.stderr
