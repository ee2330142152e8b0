"""Raw requests: nobody reaches the Dagster UI around the front door's rules, whatever the spelling.

Every refusal is followed by a look at the instance: as many runs, backfills and events as before.
"""

from __future__ import annotations

import json
import socket
import urllib.parse

import pytest

from ops_pipeline_tests.testbed.control_plane import ControlPlaneBed
from ops_pipeline_tests.testbed.front_door import CHECK, INLINE, nothing_happens

pytestmark = pytest.mark.real

GET_MUTATION = "/graphql?query=" + urllib.parse.quote(INLINE)
JSON_BODY = json.dumps({"query": INLINE})
JSON = {"Content-Type": "application/json"}
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
def test_refused(guarded: ControlPlaneBed, method: str, target: str, headers: dict[str, str], body: str) -> None:
    with nothing_happens(guarded):
        status = raw(guarded, method, target, headers, body)
    assert status >= 400 or (status == 200 and "graphql" not in target.lower() and method == "GET")


def test_two_origins_or_two_hosts_are_refused(guarded: ControlPlaneBed) -> None:
    own = f"127.0.0.1:{guarded.port}"
    twice = f"POST /graphql HTTP/1.1\r\nHost: {own}\r\n"
    origins = f"{twice}Origin: http://{own}\r\nOrigin: http://evil.example\r\n"
    hosts = f"{twice}Host: evil.example\r\n"
    with nothing_happens(guarded):
        for head in (origins, hosts):
            assert exchange(guarded, head, JSON, JSON_BODY) >= 400


def raw(guarded: ControlPlaneBed, method: str, target: str, headers: dict[str, str], body: str) -> int:
    """Send exactly these bytes; libraries would tidy the path."""
    own = f"127.0.0.1:{guarded.port}"
    sent = {name: value.replace("{host}", own) for name, value in headers.items()}
    host = sent.pop("Host", own)
    return exchange(guarded, f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n", sent, body)


def exchange(guarded: ControlPlaneBed, head: str, headers: dict[str, str], body: str) -> int:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    length = f"Content-Length: {len(body.encode())}\r\n"
    close = "" if "Connection" in headers else "Connection: close\r\n"
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=20) as connection:
        connection.sendall(f"{head}{lines}{length}{close}\r\n{body}".encode())
        answer = connection.recv(65536).decode("latin-1")
    return int(answer.split()[1])
