"""Nobody reaches the Dagster UI around the front door, and nobody acts in somebody else's name through it.

Every refusal is followed by a look at the instance: as many runs, backfills and events as before.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ops_pipeline_tests.testbed import free_port, ui
from ops_pipeline_tests.testbed.control_plane import ControlPlaneBed, docker, front_door, project, serving, until

pytestmark = pytest.mark.real

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


@pytest.fixture(scope="module")
def bed() -> Iterator[ControlPlaneBed]:
    with project() as made, serving(made), front_door(made):
        launch(made)  # definitions are loaded, launching works: refusals below are refusals
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


# ------------------------------------------------------------------------------------------------ raw requests

GET_MUTATION = "/graphql?query=" + urllib.parse.quote(INLINE)
JSON_BODY = json.dumps({"query": INLINE})
JSON = {"Content-Type": "application/json"}
CHECK = "/report_asset_check/scan_report?check_name=vulnerability_policy&passed=true"
MATERIALIZATION = "/report_asset_materialization/release?partition=prod%7Capi"


@pytest.mark.parametrize(
    ("method", "target", "headers", "body"),
    [
        ("GET", GET_MUTATION, {}, ""),
        ("HEAD", GET_MUTATION, {}, ""),
        ("GET", GET_MUTATION, {"Accept": "text/html"}, ""),
        ("GET", GET_MUTATION.replace("/graphql", "/%67raphql"), {}, ""),
        ("GET", GET_MUTATION.replace("/graphql", "//graphql"), {}, ""),
        ("GET", GET_MUTATION.replace("/graphql", "/graphql/"), {}, ""),
        ("GET", GET_MUTATION.replace("/graphql", "/./graphql"), {}, ""),
        ("GET", GET_MUTATION.replace("/graphql", "/GraphQL"), {}, ""),
        ("GET", GET_MUTATION.replace("/graphql", "/x/..%2fgraphql"), {}, ""),
        ("GET", "http://127.0.0.1" + GET_MUTATION, {}, ""),
        ("GET", GET_MUTATION, {"Upgrade": "h2c", "Connection": "Upgrade"}, ""),
        ("GET", GET_MUTATION, {"Upgrade": "websocket", "Connection": "Upgrade"}, ""),
        ("POST", GET_MUTATION, {}, ""),
        ("POST", GET_MUTATION, {"Content-Type": "text/plain"}, "x"),
        ("POST", GET_MUTATION, {"Content-Type": "application/x-www-form-urlencoded"}, "a=b"),
        ("POST", "/graphql", {"Content-Type": "text/plain"}, JSON_BODY),
        ("POST", "/graphql", {"Content-Type": "text/plain; x=application/json"}, JSON_BODY),
        ("POST", "/graphql", {"Content-Type": "application/graphql"}, INLINE),
        ("POST", "/graphql", {"Content-Type": "application/x-www-form-urlencoded; application/json"}, JSON_BODY),
        ("POST", "/%67raphql", JSON, JSON_BODY),
        ("POST", "/graphql", {**JSON, "Origin": "http://evil.example"}, JSON_BODY),
        ("POST", "/graphql", {**JSON, "Origin": "null"}, JSON_BODY),
        ("POST", "/graphql", {**JSON, "Origin": "https://{host}"}, JSON_BODY),
        ("POST", "/graphql", {**JSON, "Origin": "http://{host}.evil.example"}, JSON_BODY),
        ("POST", "/graphql", {**JSON, "Origin": "http://localhost"}, JSON_BODY),
        ("POST", "/graphql", {**JSON, "Sec-Fetch-Site": "cross-site"}, JSON_BODY),
        ("POST", "/graphql", {**JSON, "Sec-Fetch-Site": "same-site"}, JSON_BODY),
        (
            "POST",
            "/graphql",
            {**JSON, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
            JSON_BODY,
        ),
        ("POST", "/graphql", {**JSON, "Host": "rebound.example"}, JSON_BODY),
        ("POST", "/graphql", {**JSON, "Host": "{host}.evil.example"}, JSON_BODY),
        ("PUT", "/graphql", JSON, JSON_BODY),
        ("PATCH", "/graphql", JSON, JSON_BODY),
        ("OPTIONS", "/graphql", {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}, ""),
        ("POST", CHECK, {}, ""),
        ("POST", CHECK, JSON, "{}"),
        ("POST", CHECK.replace("_", "%5F", 2), JSON, "{}"),
        ("POST", CHECK.replace("/report", "//report"), JSON, "{}"),
        ("POST", CHECK.replace("/report", "/%72eport"), JSON, "{}"),
        ("POST", CHECK.upper(), JSON, "{}"),
        ("POST", MATERIALIZATION, JSON, "{}"),
        ("POST", MATERIALIZATION.replace("materialization", "observation"), JSON, "{}"),
        ("POST", "/graphql/../report_asset_check/scan_report?check_name=vulnerability_policy&passed=true", JSON, "{}"),
        ("GET", "/notebook?path=x.ipynb&repoLocName=ops_pipeline", {}, ""),
        ("GET", "/x%zz", {}, ""),
    ],
)
def test_refused(bed: ControlPlaneBed, method: str, target: str, headers: dict[str, str], body: str) -> None:
    with nothing_happens(bed):
        status = raw(bed, method, target, headers, body)
    assert status >= 400 or (status == 200 and "graphql" not in target.lower() and method == "GET")


def test_two_origins_or_two_hosts_are_refused(bed: ControlPlaneBed) -> None:
    own = f"127.0.0.1:{bed.port}"
    twice = f"POST /graphql HTTP/1.1\r\nHost: {own}\r\n"
    origins = f"{twice}Origin: http://{own}\r\nOrigin: http://evil.example\r\n"
    hosts = f"{twice}Host: evil.example\r\n"
    with nothing_happens(bed):
        for head in (origins, hosts):
            assert exchange(bed, head, JSON, JSON_BODY) >= 400


def raw(bed: ControlPlaneBed, method: str, target: str, headers: dict[str, str], body: str) -> int:
    """Send exactly these bytes; libraries would tidy the path."""
    own = f"127.0.0.1:{bed.port}"
    sent = {name: value.replace("{host}", own) for name, value in headers.items()}
    host = sent.pop("Host", own)
    return exchange(bed, f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n", sent, body)


def exchange(bed: ControlPlaneBed, head: str, headers: dict[str, str], body: str) -> int:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    length = f"Content-Length: {len(body.encode())}\r\n"
    close = "" if "Connection" in headers else "Connection: close\r\n"
    with socket.create_connection(("127.0.0.1", bed.port), timeout=20) as connection:
        connection.sendall(f"{head}{lines}{length}{close}\r\n{body}".encode())
        answer = connection.recv(65536).decode("latin-1")
    return int(answer.split()[1])


# ------------------------------------------------------------------------------------------------ identity


def test_a_run_belongs_to_the_proxys_user_whatever_the_caller_claims(bed: ControlPlaneBed) -> None:
    run_id = launch(
        bed,
        {"ops/user": "eve", "ops/approved": "yes", "team": "shop"},
        **{"X-Ops-User": "eve", "X-Forwarded-User": "eve", "X-Ops-Front-Door": "guess", "X_Ops_User": "eve"},
    )
    tags = tags_of(bed, run_id)
    assert tags["ops/user"] == "localhost"
    assert tags["team"] == "shop"
    assert "ops/approved" not in tags


def test_backfills_and_re_executions_keep_the_proxys_user(bed: ControlPlaneBed) -> None:
    started = bed.ask(
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
        found: list[dict[str, Any]] = bed.ask(query, {"tag": backfill})["runsOrError"]["results"]
        return found

    until(lambda: len(runs()) == 2 and all(run["status"] == "FAILURE" for run in runs()), 120, "the backfill's runs")
    for run in runs():
        tags = {tag["key"]: tag["value"] for tag in run["tags"]}
        assert tags["ops/user"] == "localhost"
        assert "ops/approved" not in tags
    again = bed.ask(
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
    assert tags_of(bed, again["run"]["runId"])["ops/user"] == "localhost"


def test_results_cannot_be_reported_by_hand(bed: ControlPlaneBed) -> None:
    with nothing_happens(bed):
        for mutation in (
            'reportRunlessAssetEvents(eventParams: {eventType: ASSET_MATERIALIZATION, assetKey: {path: ["release"]}})',
            'reportAssetCheckEvaluations(eventParams: {assetKey: {path: ["scan_report"]}, passed: true, '
            'checkName: "vulnerability_policy"})',
        ):
            answer = bed.ask("mutation { " + mutation + " { __typename } }")
            assert {value["__typename"] for value in answer.values()} == {"UnauthorizedError"}


def test_the_socket_answers_only_the_front_door(bed: ControlPlaneBed) -> None:
    transport = httpx.HTTPTransport(uds=str(bed.door / "webserver.sock"))
    with nothing_happens(bed), httpx.Client(transport=transport, base_url="http://ui") as client:
        assert client.get("/server_info").status_code == 200
        for headers in ({}, {"X-Ops-User": "eve"}, {"X-Ops-Front-Door": "guess", "X-Ops-User": "eve"}):
            assert client.post("/graphql", json={"query": INLINE}, headers=headers).status_code == 401
            assert client.get("/", headers=headers).status_code == 401
        assert client.post(CHECK, json={}).status_code == 401


def test_a_webserver_started_beside_it_cannot_launch(bed: ControlPlaneBed) -> None:
    """Somebody starts Dagster's own webserver on the same DAGSTER_HOME: the coordinator refuses its launches."""
    with stock_webserver(bed, bed.home) as port:
        forged = {"X-Ops-User": "eve", "X-Ops-Front-Door": "guess"}
        answer = httpx.post(f"http://127.0.0.1:{port}/graphql", json={"query": INLINE}, headers=forged, timeout=60)
        assert answer.json()["data"]["launchRun"]["__typename"] == "PythonError"
    runs = bed.ask("{ runsOrError(limit: 1) { ... on Runs { results { status tags { key value } } } } }")
    (newest,) = runs["runsOrError"]["results"]
    assert newest["status"] == "FAILURE"
    assert not [tag for tag in newest["tags"] if tag["key"] == "ops/worker"], "a process was started"


def test_the_secret_shows_nowhere(bed: ControlPlaneBed) -> None:
    secret = (bed.door / "secret").read_text().strip()
    launch(bed)
    names = docker("ps", "--filter", f"publish={bed.port}", "--format", "{{.Names}}").split()
    assert len(names) == 1
    inspected = docker("inspect", names[0])
    logged = subprocess.run(["/usr/bin/docker", "logs", names[0]], capture_output=True, text=True, check=True)
    for text in (inspected, logged.stdout, logged.stderr, (bed.root / "serve.log").read_text()):
        assert secret not in text
    assert '"User": "10213"' in inspected and '"ReadonlyRootfs": true' in inspected


def test_headers_that_browsers_must_keep_to(bed: ControlPlaneBed) -> None:
    headers = httpx.get(bed.url).headers
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


def test_ops_uses_only_the_ui_of_its_own_project(bed: ControlPlaneBed) -> None:
    """Another project of the same name, whose catalogue names the same address, acts on its own machine's runs."""
    own = bed.ops("deploy", "api", "dev")
    assert f"on {bed.url}" in own.stderr
    with project() as other:
        other.catalogue.write_text(bed.catalogue.read_text())
        with serving(other), nothing_happens(bed):
            done = other.ops("deploy", "api", "dev")
            assert "belongs to another project or installation: not used" in done.stderr
            assert "control-plane-of-this-machine" in done.stderr
        other.catalogue.write_text(bed.catalogue.read_text().replace("project: shop", "project: bakery"))
        with nothing_happens(bed):
            assert "not used" in other.ops("deploy", "api", "dev").stderr
            refused = other.ops("deploy", "api", "dev", "--url", bed.url)
            assert refused.returncode == 5 and "is of project shop, not bakery" in refused.stderr


# ------------------------------------------------------------------------------------------------ a real browser

ATTACK = """<!doctype html><meta charset="utf-8"><title>attack</title><script>
const target = %(target)s, mutation = %(mutation)s;
const get = target + "/graphql?query=" + encodeURIComponent(mutation);
const body = JSON.stringify({query: mutation});
const check = target + "/report_asset_check/scan_report?check_name=vulnerability_policy&passed=true";
const made = target + "/report_asset_materialization/release?partition=prod%%7Capi";
const tries = [];
const attempt = promise => tries.push(Promise.resolve(promise).then(() => "sent", error => "blocked: " + error));
new Image().src = get;
for (const mode of ["no-cors", "cors"]) {
  attempt(fetch(get, {mode}));
  attempt(fetch(get, {mode, credentials: "include"}));
  attempt(fetch(target + "/graphql", {mode, method: "POST", body, headers: {"Content-Type": "text/plain"}}));
  attempt(fetch(target + "/graphql", {mode, method: "POST", body,
    headers: {"Content-Type": "text/plain; x=application/json"}}));
  attempt(fetch(get, {mode, method: "POST"}));
  attempt(fetch(check, {mode, method: "POST"}));
  attempt(fetch(made, {mode, method: "POST"}));
}
attempt(fetch(target + "/graphql", {method: "POST", body, headers: {"Content-Type": "application/json"}}));
navigator.sendBeacon(target + "/graphql", new Blob([body], {type: "text/plain"}));
navigator.sendBeacon(check);
function form(action, enctype, fields) {
  const frame = document.createElement("iframe"); frame.name = "f" + Math.random(); document.body.append(frame);
  const made = document.createElement("form");
  Object.assign(made, {method: "POST", action, enctype, target: frame.name});
  for (const [name, value] of Object.entries(fields)) {
    const input = document.createElement("input"); input.name = name; input.value = value; made.append(input);
  }
  document.body.append(made); made.submit();
}
function socket() {
  return new Promise(resolve => {
    const opened = new WebSocket(target.replace("http", "ws") + "/graphql", "graphql-ws");
    opened.onopen = () => {
      opened.send(JSON.stringify({type: "connection_init"}));
      opened.send(JSON.stringify({id: "1", type: "start", payload: {query:
        "subscription{locationStateChangeEvents{event{eventType}}}"}}));
    };
    opened.onmessage = () => resolve("answered");
    opened.onclose = opened.onerror = () => resolve("closed");
  });
}
addEventListener("load", async () => {
  form(get, "text/plain", {a: "b"});
  form(target + "/graphql", "text/plain", {'{"query": "': mutation.replaceAll('"', '\\\\"') + '"}'});
  form(target + "/graphql", "application/x-www-form-urlencoded", {query: mutation});
  form(check, "text/plain", {a: "b"});
  form(made, "multipart/form-data", {a: "b"});
  const frame = document.createElement("iframe"); frame.src = get; document.body.append(frame);
  const websocket = await socket();
  const sent = await Promise.all(tries);
  await new Promise(resolve => setTimeout(resolve, 2500));
  document.title = "done"; window.report = {websocket, sent};
});
</script><body></body>"""


@contextlib.contextmanager
def foreign_page(target: str) -> Iterator[str]:
    """A page of another origin that tries everything a page can try; gives its address."""
    page = (ATTACK % {"target": json.dumps(target), "mutation": json.dumps(INLINE)}).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *arguments: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


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


@pytest.mark.browser
def test_a_page_of_another_origin_launches_and_changes_nothing(bed: ControlPlaneBed) -> None:
    for host in ("127.0.0.1", "localhost"):
        with nothing_happens(bed), foreign_page(f"http://{host}:{bed.port}") as address:
            report = visit(address)
        assert report["websocket"] == "closed"


@pytest.mark.browser
def test_the_same_page_does_launch_runs_on_an_unprotected_webserver(bed: ControlPlaneBed) -> None:
    """The attack is real: without the front door it works. Otherwise the test above would prove nothing."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        with stock_webserver(bed, home) as port, foreign_page(f"http://127.0.0.1:{port}") as address:
            report = visit(address)
            answer = httpx.post(
                f"http://127.0.0.1:{port}/graphql", json={"query": "{ runsOrError { ... on Runs { count } } }"}
            )
            assert answer.json()["data"]["runsOrError"]["count"] >= 5
            assert report["websocket"] == "answered"


def visit(address: str) -> dict[str, Any]:
    with ui.browser() as opened, ui.page_of(opened) as page:
        page.goto(address)
        page.wait_for_function("document.title === 'done'", timeout=60_000)
        report: dict[str, Any] = page.evaluate("window.report")
        return report


@pytest.mark.browser
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_our_own_pages_work(bed: ControlPlaneBed, host: str) -> None:
    """Pages load, the WebSocket opens, and Materialize launches a run in the proxy's name."""
    refused: list[str] = []
    sockets: list[str] = []
    url = f"http://{host}:{bed.port}"
    with ui.browser() as opened, ui.page_of(opened) as page:
        page.on("response", lambda r: refused.append(f"{r.status} {r.url}") if r.status >= 400 else None)
        page.on("websocket", lambda opened: sockets.append(opened.url))
        run_id = ui.materialize(page, url, "dev", "api")
        ui.wait_for_run(page, url, run_id, "Failure")
        ui.expect_words(page, "no image of api has been built")
    assert tags_of(bed, run_id)["ops/user"] == "localhost"
    assert sockets
    assert not refused
