"""Tools run inside a container through the Docker API, their input and output streamed, their end always known.

The engine puts both output streams on one connection in frames: kind, three zero bytes, length (big-endian), content
(Engine API, «Attach to a container», stream format). They are read into one large buffer and cut there.

Two things a plain exec lacks. The connection changes its protocol after the engine's answer, and what the tool wrote
before that could be lost: so a small shell waits for one line of ours before the tool begins. And an exec goes on when
its connection breaks: so the shell of a tool that needs no input ends it as soon as its own input ends, which also
covers a controller that is killed; a tool that reads its input notices that end itself. What still runs at `close` is
found by a mark in its environment and killed.

Where much output is to come, it is taken past the engine if that is possible: see `tool_pipe`.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ops_pipeline.adapters.databases.container import Engine
from ops_pipeline.adapters.databases.exec_frames import BUFFER_BYTES, Pieces
from ops_pipeline.adapters.databases.feeding import Feeder
from ops_pipeline.adapters.databases.tool_pipe import FIND_SECONDS, ToolPipe, open_pipe
from ops_pipeline.adapters.databases.tool_scripts import FED, KILL, PIPED, WATCHED
from ops_pipeline.errors import NotFound, OpsError, Permanent

WRITE_BYTES = 256 * 1024
END_SECONDS = 20.0  # between the end of the stream and the engine knowing the exit code
KILLED_SECONDS = 10.0
MARK = "OPS_TOOL"


@dataclass(frozen=True)
class Result:
    """What a tool left behind; `out` and `err` are cut to their last bytes if they were long."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.out.decode(errors="replace")


class Tool:
    """One tool running in a container. One thread may read while another writes; else not thread-safe."""

    def __init__(
        self,
        engine: Engine,
        container: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        user: str = "",
        fed: bool = False,
        bulk: bool = False,
        hang_seconds: float = 3600.0,
        what: str = "",
    ) -> None:
        """Start it. `container` is an id or a name; `environment` may carry secrets, `argv` must not.

        `fed`: it gets input by `write` and `end_input`. `bulk`: much output is to come, and no input is needed.
        `hang_seconds`: longest silence of a read, longest standstill of a write. `what` names it in messages. Raise
        NotFound, Unavailable, Permanent, Transient.
        """
        self.what = what or argv[0]
        self.hang_seconds = hang_seconds  # may be changed between calls
        self._engine, self._container, self._user, self._fed = engine, container, user, fed
        self._mark = f"{MARK}={uuid.uuid4().hex}"
        self._pieces = Pieces()
        self._error_tail = bytearray()
        self._code: int | None = None
        self._ended = False  # the engine's stream
        self._closed = False
        self._wrote_at = float("-inf")
        self._pipe: ToolPipe | None = None
        variables = [f"{name}={value}" for name, value in (environment or {}).items()]
        if bulk and not fed and engine.url.startswith("unix://"):
            self._start(PIPED, argv, variables)
            self._pipe = self._own_pipe()
            if self._pipe is None:
                self._hang_up()  # and the shell ends, before it began with the tool
        if self._pipe is None:
            self._start(FED if fed else WATCHED, argv, variables)
        try:
            self._socket.settimeout(hang_seconds)
            self._socket.sendall(b"\n")
        except OSError as error:
            self.close()
            raise self._broken(error) from error

    def _start(self, script: str, argv: Sequence[str], variables: Sequence[str]) -> None:
        with self._engine.doing(f"run {self.what}") as client:
            created = client.exec_create(
                self._container,
                ["sh", "-c", script, "sh", *argv],
                stdin=True,
                stdout=True,
                stderr=True,
                user=self._user,
                environment=[*variables, self._mark],
            )
            self._id = str(created["Id"])
            self._stream = client.exec_start(self._id, socket=True)
        # docker-py wraps the socket of a local engine, and gives it bare for TLS and ssh.
        self._socket: Any = getattr(self._stream, "_sock", self._stream)

    def _own_pipe(self) -> ToolPipe | None:
        # The engine answers before the process is there; one that cannot run the script has ended by then.
        deadline = time.monotonic() + FIND_SECONDS
        while time.monotonic() < deadline:
            with self._engine.doing(f"ask where {self.what} runs") as client:
                state = client.exec_inspect(self._id)
            if process := int(state.get("Pid") or 0):
                return open_pipe(process, self._mark)
            if state.get("ExitCode") is not None:
                break
            time.sleep(0.002)
        return None

    @property
    def error_tail(self) -> str:
        """The last words on standard error so far."""
        return bytes(self._error_tail).decode(errors="replace").strip()

    @property
    def code(self) -> int | None:
        """Exit code once the tool ended."""
        return self._code

    def read(self, size: int) -> bytes:
        """Up to `size` bytes of standard output; b"" once the stream ended and the exit code is known (see `code`).

        Raise Permanent when it hangs or the connection breaks; the tool is killed then.
        """
        while not self._pieces.size and not (self._ended and self._pipe is None):
            self._receive()
        if self._pieces.size:
            return self._pieces.take(size)
        self._await_code()
        return b""

    def readline(self) -> bytes:
        """One line of standard output with its end; what there is when the stream ended. Raise as `read`."""
        while (line := self._pieces.line(self._ended and self._pipe is None)) is None:
            self._receive()
        if not line:
            self._await_code()
        return line

    def write(self, data: bytes) -> None:
        """Give input. Raise Permanent when it is not taken for too long or the tool ended."""
        view = memoryview(data)
        try:
            for at in range(0, len(view), WRITE_BYTES):
                self._socket.settimeout(self.hang_seconds)
                self._socket.sendall(view[at : at + WRITE_BYTES])
                self._wrote_at = time.monotonic()
        except TimeoutError as error:
            self.kill()
            raise Permanent(f"{self.what} took no input for {self.hang_seconds:.0f} s and was ended") from error
        except OSError as error:
            raise self._broken(error) from error

    def end_input(self) -> None:
        """No more input comes."""
        import socket

        with contextlib.suppress(OSError):
            if isinstance(self._socket, socket.socket) and not hasattr(self._socket, "proc"):
                # Also under TLS the TCP direction is closed: the engine takes that for the end of the input.
                socket.socket.shutdown(self._socket, socket.SHUT_WR)
            elif hasattr(self._socket, "shutdown_write"):
                self._socket.shutdown_write()
            else:
                self._socket.shutdown(socket.SHUT_WR)

    def require_success(self) -> None:
        """Raise Permanent with the tool's last words unless it ended with code 0."""
        if self._code != 0:
            raise Permanent(failure_words(self.what, self._code, self.error_tail))

    def kill(self) -> None:
        """Kill the tool inside the container; no error."""
        with contextlib.suppress(OpsError):
            run(
                self._engine,
                self._container,
                ["sh", "-c", KILL, self._mark],
                user=self._user,
                hang_seconds=KILLED_SECONDS,
                what="kill",
            )

    def end(self, seconds: float = 10.0) -> None:
        """Give no more input and let the tool end by itself; kill it if it does not in time. No error."""
        if self._code is None and not self._closed:
            self.hang_seconds = seconds
            self.end_input()
            with contextlib.suppress(OpsError):
                while self.read(BUFFER_BYTES):
                    pass
        self.close()

    def close(self) -> None:
        """End the tool if it still runs, and see that it ended; no error."""
        if self._closed:
            return
        self._closed = True
        if self._code is None:
            # First: it might take the end of its input for a regular one. By mark, because it may have children.
            self.kill()
        self._hang_up()
        if self._code is None:
            self._gone_within(KILLED_SECONDS)

    def __enter__(self) -> Tool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hang_up(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        with contextlib.suppress(OSError):
            self._socket.close()
        with contextlib.suppress(OSError):
            self._stream.close()

    def _receive(self) -> None:
        """Take what there is, or wait for it."""
        if self._pipe is None:
            self._receive_frames()
            return
        try:
            count = os.readv(self._pipe.descriptor, [self._pieces.free()])
        except BlockingIOError:
            self._await_either(self._pipe)
            return
        if count:
            self._pieces.arrived_bare(count)
        else:
            self._pipe.close()
            self._pipe = None

    def _await_either(self, pipe: ToolPipe) -> None:
        """Wait for output; what the engine has to say meanwhile is taken, so that the tool can go on."""
        poll = select.poll()
        poll.register(pipe.descriptor, select.POLLIN)
        if not self._ended:
            poll.register(self._socket, select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll(self.hang_seconds * 1000)]
        if not ready:
            raise self._silent()
        if pipe.descriptor in ready:
            pipe.gather()
        else:
            self._receive_frames()

    def _silent(self) -> Permanent:
        self.close()
        return Permanent(
            f"{self.what} gave nothing for {self.hang_seconds:g} s and was ended", hint=self.error_tail[-500:]
        )

    def _receive_frames(self) -> None:
        try:
            self._socket.settimeout(self.hang_seconds)
            free = self._pieces.free()
            if hasattr(self._socket, "recv_into"):
                count = self._socket.recv_into(free)
            else:
                data = self._socket.recv(len(free))
                count = len(data)
                free[:count] = data
        except TimeoutError as error:
            if time.monotonic() - self._wrote_at < self.hang_seconds:
                return  # it is being fed, and has nothing to say
            raise self._silent() from error
        except (OSError, ValueError) as error:
            self.close()
            raise self._broken(error) from error
        if not count:
            self._ended = True
            return
        self._pieces.arrived(count, self._error_tail)

    def _await_code(self) -> None:
        if self._code is not None:
            return
        if self._pieces.cut:
            self.close()
            raise Permanent(f"the engine's stream of {self.what} ended inside a frame")
        deadline = time.monotonic() + END_SECONDS
        wait = 0.002
        while True:
            try:
                with self._engine.doing(f"ask how {self.what} ended") as client:
                    state = client.exec_inspect(self._id)
            except NotFound as error:
                raise Permanent(
                    f"{self.what} was broken off: its container is gone", hint=self.error_tail[-500:]
                ) from error
            if not state["Running"] and state["ExitCode"] is not None:
                self._code = int(state["ExitCode"])
                return
            if time.monotonic() > deadline:
                self.close()
                raise Permanent(f"{self.what} closed its output but did not end within {END_SECONDS:.0f} s")
            time.sleep(wait)
            wait = min(wait * 2, 0.2)

    def _gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        wait = 0.005
        while True:
            try:
                with self._engine.doing(f"see that {self.what} ended") as client:
                    if not client.exec_inspect(self._id)["Running"]:
                        return True
            except NotFound:
                return True
            except OpsError:
                return False
            if time.monotonic() > deadline:
                return False
            time.sleep(wait)
            wait = min(wait * 2, 0.1)

    def _broken(self, error: Exception) -> Permanent:
        return Permanent(f"the connection to {self.what} broke: {error}", hint=self.error_tail[-500:])


def failure_words(what: str, code: int | None, errors: str) -> str:
    """«pg_dump failed (exit code 1): last words», with the meaning of the codes a shell and the kernel give."""
    meaning = {126: ", cannot be run", 127: ", there is no such program", 137: ", killed", 143: ", told to end"}
    words = f": {errors[-2000:]}" if errors else ""
    return f"{what} failed (exit code {code}{meaning.get(code or 0, '')}){words}"


def run(
    engine: Engine,
    container: str,
    argv: Sequence[str],
    *,
    chunks: Iterable[bytes] | None = None,
    environment: Mapping[str, str] | None = None,
    user: str = "",
    hang_seconds: float = 60.0,
    what: str = "",
    max_bytes: int = 64 * 1024 * 1024,
    check: bool = False,
) -> Result:
    """Run a tool to its end, feeding it `chunks` (None = no input), and return what it left.

    At most `max_bytes` of output are kept (more is Permanent when `check`, else the end of it is kept). With `check`
    any exit code but 0 is Permanent with the tool's last words. Whatever `chunks` raises kills the tool and passes on.
    Raise NotFound, Unavailable, Permanent, Transient.
    """
    name = what or argv[0]
    with Tool(
        engine,
        container,
        argv,
        environment=environment,
        user=user,
        fed=chunks is not None,
        hang_seconds=hang_seconds,
        what=name,
    ) as tool:
        feeder = None if chunks is None else Feeder(tool, chunks)
        out = bytearray()
        try:
            while piece := tool.read(BUFFER_BYTES):
                out += piece
                if len(out) > max_bytes:
                    if check:
                        raise Permanent(f"{name} answered more than {max_bytes // 1024 // 1024} MiB")
                    del out[: len(out) - max_bytes]
        except OpsError:
            if feeder is not None:
                feeder.stop()
                feeder.raise_cause()
            raise
        if feeder is not None:
            feeder.stop()
            feeder.raise_cause()
        if check:
            tool.require_success()
            if feeder is not None:
                feeder.raise_broken()
        return Result(code=tool.code if tool.code is not None else -1, out=bytes(out), err=tool.error_tail)


__all__ = ["Result", "Tool", "failure_words", "run"]
