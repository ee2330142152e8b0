"""What a real edge counts for every way a request can end: the table behind deploy/images/edge/exporter/counting.py."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ops_pipeline.core.routing import EdgeService, EdgeTopology, RouteRule, Routing
from ops_pipeline_tests.testbed.edge import EdgeBed, edge_bed, total

pytestmark = pytest.mark.real

CODES = ("1xx", "2xx", "3xx", "4xx", "5xx", "aborted", "unanswered")
SIX = "Content-Length: 6\r\n"
HUGE = "Content-Length: 5000000\r\n"
UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
UPLOAD = b"u" * 5_000_000


@pytest.fixture(scope="module")
def bed() -> Iterator[EdgeBed]:
    with edge_bed() as running:
        service = EdgeService("web", RouteRule("/"), 2, "/health/ready", 1.0)
        running.edge.ensure(EdgeTopology("test", (service,)))
        pool = running.pool(1, running.misbehaving_upstream())
        running.edge.apply("web", Routing("a", pools={"a": pool}), 1)
        yield running


@dataclass(frozen=True)
class Case:
    """One request, what the client does after `wait` seconds, and what must be counted."""

    name: str
    path: str
    code: str  # "" = nothing is counted for the service
    error: bool = False
    seconds: tuple[float, float] = (0.0, 0.3)  # bounds of the duration
    method: str = "GET"
    head: str = ""
    body: bytes = b""
    raw: bytes = b""
    wait: float = 0.0
    leave: str = ""  # "" = read the answer to its end; "close" or "reset" = leave without reading it
    later: bytes = b""  # sent after the wait

    @property
    def data(self) -> bytes:
        close = "" if self.leave or "Upgrade" in self.head else "Connection: close\r\n"
        length = f"Content-Length: {len(self.body)}\r\n" if self.body and "Content-Length" not in self.head else ""
        return (
            self.raw
            or f"{self.method} {self.path} HTTP/1.1\r\nHost: a\r\n{self.head}{close}{length}\r\n".encode() + self.body
        )


CASES = (
    Case("an ordinary answer", "/x", "2xx"),
    Case("HEAD", "/x", "2xx", method="HEAD"),
    Case("no content", "/204", "2xx"),
    Case("not modified", "/304", "3xx"),
    Case("not found", "/404", "4xx"),
    Case("an error of the service", "/500", "5xx", True),
    Case("a 503 of the service itself", "/503", "5xx", True),
    Case("a slow answer", "/takes-a-second", "5xx", True, (1.0, 1.1)),  # past the service's time-out of 1 s
    Case("nothing at all", "/never-answers", "5xx", True, (1.0, 1.1)),
    Case("the server dies before it answers", "/dies-before-answering", "5xx", True),
    Case("the server resets the connection", "/resets", "5xx", True),
    Case("the server dies in the headers", "/dies-in-the-headers", "5xx", True),
    Case("the server answers nonsense", "/answers-nonsense", "5xx", True),
    Case("the server dies in the body", "/dies-in-the-body", "2xx", True),
    Case("the server dies in a stream", "/dies-in-a-chunk", "2xx", True),
    Case("the server stops in the body", "/stops-in-the-body", "2xx", True),
    Case("the server dies in an upload", "/dies-in-an-upload", "unanswered", True, method="POST", body=UPLOAD),
    Case("a body that ends with the connection", "/ends-by-closing", "2xx"),
    Case("a 404 broken off", "/breaks-off-a-404", "4xx"),
    Case("a 500 broken off", "/breaks-off-a-500", "5xx", True),
    Case("a 500 the client does not wait for", "/breaks-off-a-500", "5xx", True, leave="reset", wait=0.05),
    Case("the client leaves during the body", "/large", "aborted", leave="close", wait=0.2),
    Case("the client resets during the body", "/large", "aborted", leave="reset", wait=0.2),
    # The edge lets the service finish: what it answered counts.
    Case("the client leaves before the answer", "/500", "5xx", True, leave="close"),
    Case("server-sent events to their end", "/events", "2xx"),
    Case("an upload of 5 MB", "/x", "2xx", seconds=(0, 0.9), method="POST", body=UPLOAD),
    Case("an upload that takes its time", "/x", "2xx", False, (0.3, 0.9), "POST", SIX, b"abc", wait=0.4, later=b"def"),
    Case("an upload the client stops", "/x", "aborted", False, (0.1, 0.9), "POST", SIX, b"a", wait=0.2, leave="close"),
    Case("an upload the server refuses early", "/refuses-an-upload", "4xx", method="POST", head=HUGE, body=UPLOAD[:99]),
    Case("a WebSocket closed by the client", "/websocket", "1xx", head=UPGRADE, wait=0.2, leave="close"),
    Case("a WebSocket reset by the client", "/websocket", "1xx", head=UPGRADE, wait=0.2, leave="reset"),
    Case("a WebSocket closed by the server", "/websocket-closed-by-server", "1xx", head=UPGRADE),
    Case("a connection without a request", "", "", raw=b"\r\n", leave="close"),
    Case("half a request", "", "", raw=b"GET /x HTT", leave="close", wait=0.1),
    Case("no request at all", "", "", raw=b"nonsense\r\n\r\n"),
    Case("headers that are none", "", "", raw=b"GET /x HTTP/1.1\r\nHost : a\r\n\r\n"),
    Case("a path that hides another", "/x/../y", ""),
    Case("a method that is refused", "/x", "", method="TRACE"),
    Case("more than the edge takes", "/x", "", method="POST", head="Content-Length: 2000000000\r\n"),
    Case("the service's own measurements", "/metrics", ""),
)  # fmt: skip


def play(bed: EdgeBed, case: Case) -> None:
    with socket.create_connection(("127.0.0.1", bed.port), timeout=5) as connection:
        try:
            connection.sendall(case.data)
            time.sleep(case.wait)
            connection.sendall(case.later)
            if not case.leave:
                connection.settimeout(3)
                while connection.recv(1 << 20):
                    pass
        except (TimeoutError, ConnectionError):
            pass
        if case.leave == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def seen(bed: EdgeBed) -> tuple[dict[str, int], int, int, float]:
    """Requests by code, all requests, errors, and their time in seconds."""
    now = bed.scrape()
    codes = {code: int(total(now, "ops_edge_requests_total", service="web", code=code)) for code in CODES}
    count = int(total(now, "ops_edge_request_duration_seconds_count", service="web"))
    errors = int(total(now, "ops_edge_request_errors_total", service="web"))
    assert count == sum(codes.values()) == total(now, "ops_edge_request_duration_seconds_bucket", le="+Inf")
    return codes, count, errors, total(now, "ops_edge_request_duration_seconds_sum", service="web")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_counted(bed: EdgeBed, case: Case) -> None:
    before = seen(bed)
    play(bed, case)
    deadline = time.monotonic() + 3
    while (after := seen(bed))[1] == before[1] and case.code and time.monotonic() < deadline:
        time.sleep(0.02)
    changed = {code: after[0][code] - before[0][code] for code in CODES if after[0][code] != before[0][code]}
    assert changed == ({case.code: 1} if case.code else {})
    assert after[1] - before[1] == bool(case.code)
    assert after[2] - before[2] == case.error
    if case.code:
        assert case.seconds[0] <= round(after[3] - before[3], 3) <= case.seconds[1]
    assert bed.counted("ops_edge_log_unreadable_lines_total") == 0


def test_idle_connections_and_several_requests_on_one(bed: EdgeBed) -> None:
    before = seen(bed)
    with socket.create_connection(("127.0.0.1", bed.port), timeout=5) as connection:
        for _ in range(3):
            connection.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b" 200 " in connection.recv(65536)
        time.sleep(0.3)
    time.sleep(0.2)
    after = seen(bed)
    assert (after[1] - before[1], after[0]["2xx"] - before[0]["2xx"]) == (3, 3)


def test_a_dead_service_counts_its_503s(bed: EdgeBed) -> None:
    upstream = bed.misbehaving_upstream()
    bed.edge.apply("web", Routing("b", pools={"b": bed.pool(2, upstream)}), 1)
    assert bed.counted("ops_edge_request_duration_seconds_count", release="2") == 0
    upstream.container.kill()
    for _ in range(3):
        assert bed.request("/x").status == 503
    labels = {"environment": "test", "service": "web", "release": "2", "track": "stable"}
    time.sleep(0.1)
    assert bed.counted("ops_edge_request_errors_total", **labels) == 3
    assert bed.counted("ops_edge_requests_total", code="5xx", **labels) == 3
