"""As many requests a second as one thread can send over keep-alive connections, every one of them accounted for.

    sent, seconds = flood(port, rate=2500, seconds=3)

Runs in a process of its own. Raises RuntimeError when any request was not answered with 200.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path


class Flood:
    """A running flood: `with Flood(port, rate=2500, seconds=3) as running: …`, then `running.requests`."""

    def __init__(self, port: int, rate: float, seconds: float, *, path: str = "/x", connections: int = 24) -> None:
        self.requests = 0
        self.seconds = 0.0
        self.latest = 0.0  # time.time() when the last answer was there
        arguments = [str(port), str(rate), str(seconds), path, str(connections)]
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), *arguments], stdout=subprocess.PIPE, text=True
        )

    def wait(self) -> Flood:
        """Return once it is over."""
        out, _ = self._process.communicate(timeout=300)
        if self._process.returncode != 0:
            raise RuntimeError(f"the flood lost a request: {out}")
        self.requests, self.seconds, self.latest = json.loads(out)
        return self

    @property
    def rate(self) -> float:
        """Requests a second, as sent."""
        return self.requests / self.seconds

    def __enter__(self) -> Flood:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def _run(port: int, rate: float, seconds: float, path: str, connections: int) -> tuple[int, float, float]:
    """Send on all connections, then read all answers, and again; wait where that is faster than `rate`."""
    request = f"GET {path} HTTP/1.1\r\nHost: flood\r\nCookie: ops_bucket=7\r\n\r\n".encode()
    sockets = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(connections)]
    for each in sockets:
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    done, began = 0, time.monotonic()
    while (now := time.monotonic() - began) < seconds:
        if (ahead := done / rate - now) > 0:
            time.sleep(ahead)
        for each in sockets:
            each.sendall(request)
        for index, each in enumerate(sockets):
            answer = each.recv(65536)
            while b"\r\n\r\n" not in answer or not answer.endswith(b"ok"):
                piece = each.recv(65536)
                if not piece:
                    raise RuntimeError(f"an answer was cut: {answer!r}")
                answer += piece
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"answered {answer[:200]!r}")
            if b"\r\nconnection: close\r\n" in answer.lower():  # a reload asks for it
                each.close()
                sockets[index] = socket.create_connection(("127.0.0.1", port), timeout=10)
        done += len(sockets)
    return done, time.monotonic() - began, time.time()


if __name__ == "__main__":
    _port, _rate, _seconds, _path, _connections = sys.argv[1:]
    print(json.dumps(_run(int(_port), float(_rate), float(_seconds), _path, int(_connections))))
