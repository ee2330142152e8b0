"""An HTTP proxy that does to chosen requests what a cloud does on bad days. For one upstream on loopback."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType

END = b"\r\n\r\n"


@dataclass
class Fault:
    """What happens to the next `times` requests whose first line contains `match`.

    `kind`: "409", "429", "500", … answers so without asking the upstream; "lost" passes the request on and loses the
    answer; "cut-request" closes the connection in the middle of the body; "cut-answer" in the middle of the answer's
    body; "slow" never answers, until the proxy ends.
    """

    kind: str
    match: str = ""
    times: int = 1
    code: str = "Scripted"
    headers: tuple[str, ...] = ()
    done: int = 0


@dataclass
class FaultyProxy:
    """Forwards a loopback port to `upstream`, request by request. `requests` are the first lines seen."""

    upstream: int
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    port: int = 0

    def __enter__(self) -> FaultyProxy:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._ended = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for opened in [self._listener, *self._open]:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()

    def add(
        self, kind: str, match: str = "", times: int = 1, *, code: str = "Scripted", headers: tuple[str, ...] = ()
    ) -> Fault:
        """Script one more fault; the first that matches a request is used."""
        fault = Fault(kind, match, times, code, headers)
        with self._lock:
            self.faults.append(fault)
        return fault

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError, ValueError):
            server = socket.create_connection(("127.0.0.1", self.upstream))
            self._open.append(server)
            try:
                incoming, outgoing = _Stream(client), _Stream(server)
                while self._one(incoming, outgoing):
                    pass
            finally:
                server.close()
        client.close()

    def _one(self, client: _Stream, server: _Stream) -> bool:
        """Pass on one request and its answer; whether the connection goes on."""
        head = client.head()
        if not head:
            return False
        line = head.split(b"\r\n", 1)[0].decode("latin-1")
        fault = self._fault(line)
        size = _length(head)
        kind = fault.kind if fault else ""
        if kind == "cut-request":
            client.body(size // 2, lambda data: None)
            client.reset()
            return False
        if kind == "slow":
            client.body(size, lambda data: None)
            self._ended.wait()
            return False
        if kind.isdigit() and fault is not None:
            client.body(size, lambda data: None)
            client.send(_answer(int(kind), fault, line.startswith("HEAD ")))
            return True
        server.send(head)
        client.body(size, server.send)
        answer = server.head()
        bodiless = line.startswith("HEAD ") or answer.split(b" ", 2)[1:2] in ([b"304"], [b"204"])
        if kind == "lost":
            client.reset()
            return False
        client.send(answer)
        if bodiless:
            return True
        if b"transfer-encoding: chunked" in answer.lower():
            return server.chunks(client.send)
        size = _length(answer)
        if kind == "cut-answer":
            server.body(size // 2, client.send)
            client.reset()
            return False
        server.body(size, client.send)
        return True

    def _fault(self, line: str) -> Fault | None:
        with self._lock:
            self.requests.append(line)
            for fault in self.faults:
                if fault.done < fault.times and fault.match in line:
                    fault.done += 1
                    return fault
        return None


class _Stream:
    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self._left = b""

    def head(self) -> bytes:
        while END not in self._left:
            data = self._socket.recv(65536)
            if not data:
                return b""
            self._left += data
        head, _, self._left = self._left.partition(END)
        return head + END

    def body(self, size: int, send: Callable[[bytes], None]) -> None:
        while size > 0:
            data = self._left or self._socket.recv(1 << 20)
            if not data:
                raise OSError("cut off")
            self._left = data[size:]
            send(data[:size])
            size -= len(data[:size])

    def chunks(self, send: Callable[[bytes], None]) -> bool:
        """Pass a chunked body on."""
        while True:
            while b"\r\n" not in self._left:
                data = self._socket.recv(65536)
                if not data:
                    return False
                self._left += data
            line, _, self._left = self._left.partition(b"\r\n")
            send(line + b"\r\n")
            size = int(line.split(b";")[0], 16)
            self.body(size + 2, send)
            if size == 0:
                return True

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def reset(self) -> None:
        """Close as a broken network does: with a reset, no orderly end."""
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


def _answer(status: int, fault: Fault, bodiless: bool) -> bytes:
    body = f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>as scripted</Message></Error>".encode()
    lines = [
        f"HTTP/1.1 {status} Scripted",
        "Content-Type: application/xml",
        f"x-ms-error-code: {fault.code}",
        f"Content-Length: {len(body)}",
        *fault.headers,
    ]
    return "\r\n".join(lines).encode() + END + (b"" if bodiless else body)
