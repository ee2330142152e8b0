"""Running a program inside a container of one Docker engine, with bytes on its standard input and bounded time."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ops_pipeline.errors import Transient, Unavailable

if TYPE_CHECKING:
    from docker import APIClient

_STDOUT = 1


@dataclass(frozen=True)
class ExecResult:
    """What the program left behind."""

    code: int  # 126 or 127: the container has no such program
    out: str
    err: str


class Frames:
    """The connection to a program: what is sent is its input; both its outputs come interleaved in frames."""

    def __init__(self, stream: Any) -> None:
        # docker-py wraps the socket of a local engine, and gives it bare for TLS and ssh.
        self._raw = getattr(stream, "_sock", stream)
        self._buffer = bytearray()
        self.out = bytearray()
        self.err = bytearray()

    def send(self, data: bytes, timeout_seconds: float) -> None:
        """Raise TimeoutError, OSError."""
        self._raw.settimeout(timeout_seconds)
        self._raw.sendall(data)

    def end(self) -> None:
        """Nothing more is sent or wanted. Raise OSError when the other side was quicker."""
        self._raw.shutdown(socket.SHUT_RDWR)

    def receive(self, deadline: float) -> bool:
        """Wait for more until a monotonic time; False at the end. Raise TimeoutError, OSError."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._raw.settimeout(left)
        piece = self._raw.recv(65536)
        self._buffer += piece
        # A frame: kind, three empty bytes, length, content.
        while len(self._buffer) >= 8 and len(self._buffer) >= 8 + (length := struct.unpack(">I", self._buffer[4:8])[0]):
            (self.out if self._buffer[0] == _STDOUT else self.err).extend(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
        return bool(piece)


class ContainerExec:
    """One container on one engine; the engine is contacted at the first call."""

    def __init__(self, docker_url: str, host: str, container: str, missing: str) -> None:
        """`missing` is the hint for a person when the container does not run."""
        self._url = docker_url
        self._host = host
        self._container = container
        self._missing = missing
        self._lock = threading.Lock()
        self._client: APIClient | None = None

    def run(self, argv: Sequence[str], payload: bytes, timeout_seconds: float) -> ExecResult:
        """Run `argv` with `payload` (at least one byte) on its standard input until it ends.

        The program must read the payload's length before it writes: what it wrote earlier could be lost, because
        the connection changes its protocol just then.
        Raise Unavailable (engine or container missing), Transient (no end in time, container restarting).
        """
        deadline = time.monotonic() + timeout_seconds
        stream, exec_id = self.open(argv)
        try:
            out, err = self._talk(Frames(stream), payload, deadline, timeout_seconds)
        finally:
            with contextlib.suppress(OSError):
                stream.close()
        with self._translated():
            code = self._engine().exec_inspect(exec_id)["ExitCode"]
        return self.result(code, out, err)

    def open(self, argv: Sequence[str]) -> tuple[Any, str]:
        """Start `argv`; return the connection to it, to be closed by the caller, and its id. Raise as `run` does."""
        with self._translated():
            client = self._engine()
            created = client.exec_create(self._container, list(argv), stdin=True, stdout=True, stderr=True)
            return client.exec_start(created["Id"], socket=True), str(created["Id"])

    def result(self, code: int | None, out: str, err: str) -> ExecResult:
        """What a program left behind. Raise Transient when it was broken off."""
        missing_program = code in {126, 127} and ("not found" in out or "no such file" in out)
        if code is None or code in {137, 143} or (code == 126 and not missing_program):
            words = " ".join((err or out).split())
            raise Transient(f"a command in container {self._container} on {self._host} was broken off: {words}")
        return ExecResult(code=code, out=out, err=err)

    def silent(self, timeout_seconds: float) -> Transient:
        """The error of a program that did not end in time."""
        return Transient(f"container {self._container} on {self._host} did not answer within {timeout_seconds:.0f} s")

    def _talk(self, frames: Frames, payload: bytes, deadline: float, timeout_seconds: float) -> tuple[str, str]:
        try:
            frames.send(payload, timeout_seconds)
            while frames.receive(deadline):
                pass
        except TimeoutError as error:
            raise self.silent(timeout_seconds) from error
        except OSError as error:
            raise Transient(f"connection to container {self._container} on {self._host} broke: {error}") from error
        return frames.out.decode(errors="replace"), frames.err.decode(errors="replace")

    def _engine(self) -> APIClient:
        with self._lock:
            if self._client is None:
                import docker  # here, because it costs 0.2 s that a process which never deploys need not spend

                self._client = docker.APIClient(base_url=self._url, version="auto", timeout=15)
            return self._client

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        import docker.errors
        import requests.exceptions

        try:
            yield
        except docker.errors.NotFound as error:
            raise Unavailable(
                f"container {self._container} does not exist on {self._host}", hint=self._missing
            ) from error
        except docker.errors.APIError as error:
            words = str(error.explanation or error)
            if "restarting" in words or "OCI runtime exec failed" in words or "unable to upgrade" in words:
                raise Transient(f"container {self._container} on {self._host} is just restarting: {words}") from error
            if "is not running" in words or "is paused" in words:
                raise Unavailable(
                    f"container {self._container} on {self._host} does not run", hint=self._missing
                ) from error
            raise Transient(f"the Docker engine of {self._host} refused: {words}") from error
        except requests.exceptions.Timeout as error:
            raise Transient(f"the Docker engine of {self._host} did not answer in time") from error
        except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
            with self._lock:
                self._client = None
            raise Unavailable(
                f"the Docker engine of {self._host} ({self._url}) does not answer",
                hint="Start it, or correct the host's `docker` address in the catalogue.",
            ) from error
