"""A proxy in front of a real Prometheus that answers as a broken one would."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import httpx


class Fault(StrEnum):
    """What is wrong with Prometheus."""

    NONE = "none"
    DOWN = "stopped"  # the connection ends without an answer
    SLOW = "slow"  # answers after everybody's patience is over
    EMPTY = "returning nothing"
    NAN = "returning NaN"
    STALE = "stale"  # nothing newer than the moment the fault began


class FaultyPrometheus:
    """`url` answers what the Prometheus at `upstream` does, spoiled by `fault`; `upstream` may be set late."""

    def __init__(self) -> None:
        self.upstream = ""
        self._fault = Fault.NONE
        self._since = 0.0
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                proxy.answer(self, httpx.get(f"{proxy.upstream}{self.path}", timeout=10))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                kind = {"Content-Type": self.headers.get("Content-Type", "")}
                proxy.answer(self, httpx.post(f"{proxy.upstream}{self.path}", content=body, headers=kind, timeout=10))

            def log_message(self, format: str, *arguments: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @property
    def fault(self) -> Fault:
        """What is wrong now."""
        return self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        self._fault, self._since = fault, time.time()

    def answer(self, handler: http.server.BaseHTTPRequestHandler, real: httpx.Response) -> None:
        """Send the real answer, or what the fault makes of it."""
        fault = self._fault
        if fault is Fault.DOWN:
            handler.close_connection = True
            return
        if fault is Fault.SLOW:
            time.sleep(20)
        data = real.content
        if fault in (Fault.EMPTY, Fault.NAN, Fault.STALE) and real.status_code == 200:
            data = json.dumps(self._spoiled(real.json(), fault)).encode()
        with contextlib.suppress(OSError):
            handler.send_response(real.status_code)
            handler.send_header("Content-Type", real.headers.get("content-type", "application/json"))
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)

    def _spoiled(self, document: dict[str, Any], fault: Fault) -> dict[str, Any]:
        result = document.get("data", {}).get("result", [])
        if fault is Fault.EMPTY:
            result = []
        for series in result:
            values = series.get("values", [])
            if fault is Fault.STALE:
                series["values"] = [pair for pair in values if float(pair[0]) < self._since]
            else:
                series["values"] = [[at, "NaN" if float(at) >= self._since else value] for at, value in values]
        document["data"]["result"] = result
        return document


@contextlib.contextmanager
def faulty_prometheus() -> Iterator[FaultyPrometheus]:
    """A running proxy; set its `upstream` before it is asked."""
    proxy = FaultyPrometheus()
    threading.Thread(target=proxy.server.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        proxy.server.server_close()
