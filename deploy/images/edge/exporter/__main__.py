"""Tails the log and answers Prometheus: `python3 -m exporter`. Ends when HAProxy's supervisor ends it.

Environment: OPS_EDGE_STATE (the edge's files), OPS_EDGE_LOG (file HAProxy appends to, on a memory file system; the
state lies beside it), OPS_EDGE_EXPORTER_PORT (8406).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from .counting import BOUNDARIES, Key
from .files import RequestLog, RoutingFiles, load_state, store_state

READ_EVERY = 0.2
"""Seconds. A scrape reads the log first, so this bounds the work a scrape finds, not how late it is."""

STORE_EVERY = 1.0
LABELS = list(Key._fields)


class Measurements:
    """Log, counters and their exposition; every public call belongs to one moment."""

    def __init__(self, state: Path, log: Path) -> None:
        self._stored = log.with_name(log.name + ".counted")
        self._book, offset = load_state(self._stored)
        self._log = RequestLog(log, offset)
        self._routing = RoutingFiles(state)
        self._lock = threading.Lock()
        self._stored_offset = offset
        self._stored_version = -1
        self._shown: tuple[int, bytes] = (-1, b"")
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)  # type: ignore[arg-type]  # it asks for no more than `collect`

    def catch_up(self) -> None:
        """Count everything that HAProxy has written by now."""
        with self._lock:
            self._catch_up()

    def _catch_up(self) -> None:
        now = time.time()
        self._book.expect(self._routing.keys(), now)
        while lines := self._log.read():
            self._book.add(lines, now)

    def store(self) -> None:
        """Make what was counted survive this process, and give back the log's memory."""
        with self._lock:
            if self._log.offset == self._stored_offset and self._book.version == self._stored_version:
                return
            try:
                store_state(self._stored, self._book, self._log.offset)
            except OSError:  # full, perhaps of the very log that was read by now
                self._log.forget()
                store_state(self._stored, self._book, self._log.offset)
            self._stored_offset, self._stored_version = self._log.offset, self._book.version
            self._log.forget()

    def exposition(self) -> bytes:
        """All counters as text, up to this moment."""
        with self._lock:
            self._catch_up()
            if self._shown[0] != self._book.version:
                self._shown = (self._book.version, generate_latest(self._registry))
            return self._shown[1]

    def collect(self) -> Iterator[Metric]:
        """Called by the registry, under the lock of `exposition`."""
        duration = HistogramMetricFamily(
            "ops_edge_request_duration_seconds",
            "Finished requests by the time until the answer began (whole active time when none did)",
            labels=LABELS,
        )
        errors = CounterMetricFamily(
            "ops_edge_request_errors",
            "Requests answered 5xx by anybody, broken off by the server, or not answered though the client waited",
            labels=LABELS,
        )
        requests = CounterMetricFamily(
            "ops_edge_requests", "Finished requests by status class, aborted or unanswered", labels=[*LABELS, "code"]
        )
        bounds = [*map(str, BOUNDARIES), "+Inf"]
        for key, counters in self._book.series.items():
            duration.add_metric(
                key, list(zip(bounds, counters.cumulated(), strict=True)), sum_value=round(counters.seconds, 3)
            )
            errors.add_metric(key, counters.errors)
            for code, count in counters.codes.items():
                requests.add_metric([*key, code], count)
        yield duration
        yield errors
        yield requests
        other = CounterMetricFamily(
            "ops_edge_other_requests", "Finished requests that reached no release", labels=["code"]
        )
        for code, count in self._book.other.items():
            other.add_metric([code], count)
        yield other
        yield CounterMetricFamily("ops_edge_log_unreadable_lines", "Lines not understood", self._book.unreadable)
        yield GaugeMetricFamily("ops_edge_log_backlog_bytes", "Log not counted yet", self._log.backlog())


def server(measurements: Measurements, port: int) -> ThreadingHTTPServer:
    """An HTTP server of `/metrics` and `/health`, listening but not yet answering."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60  # Prometheus keeps its connection open between scrapes

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, measurements.exposition())
            elif path == "/health":
                self._answer(200, "text/plain", b"ok\n")
            else:
                self._answer(404, "text/plain", b"not found\n")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nobody wants a line a second."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

    return Server(("", port), Handler)


def main() -> None:
    """Serve until SIGTERM."""
    state, log = Path(os.environ["OPS_EDGE_STATE"]), Path(os.environ["OPS_EDGE_LOG"])
    measurements = Measurements(state, log)
    listener = server(measurements, int(os.environ.get("OPS_EDGE_EXPORTER_PORT", "8406")))
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    stored = 0.0
    while not ended.wait(READ_EVERY):
        measurements.catch_up()
        if time.monotonic() - stored >= STORE_EVERY:
            try:
                measurements.store()
            except OSError as error:  # counting goes on
                print(f"exporter: cannot store the counters: {error}", file=sys.stderr, flush=True)
            stored = time.monotonic()
    measurements.catch_up()
    with suppress(OSError):
        measurements.store()


if __name__ == "__main__":
    sys.exit(main())
