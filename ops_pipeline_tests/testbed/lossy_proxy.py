"""A TCP proxy that can lose answers: what a client sees when the network breaks after the server has acted."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType


class LossyProxy:
    """Forwards a loopback port to another. While `lose` > 0, each answer to a request of `method` is lost.

    Losing an answer: the request arrives, the server answers, the client's connection is closed without a byte.
    """

    def __init__(self, upstream: int, method: bytes = b"PUT ") -> None:
        self.lose = 0
        self.lost = 0
        self._upstream = upstream
        self._method = method
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> LossyProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for opened in [self._listener, *self._sockets]:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._upstream))
                self._sockets += [client, server]
                threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        watched = False

        def requests() -> None:
            nonlocal watched
            with suppress(OSError):
                while data := client.recv(65536):
                    if data.startswith((b"PUT ", b"GET ", b"HEAD ", b"DELETE ")):
                        watched = data.startswith(self._method)
                    server.sendall(data)
                server.shutdown(socket.SHUT_WR)

        threading.Thread(target=requests, daemon=True).start()
        with suppress(OSError):
            while data := server.recv(65536):
                if watched and self.lose > 0:
                    self.lose -= 1
                    self.lost += 1
                    break
                client.sendall(data)
        for opened in (client, server):
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()
