"""Many runs of one program of a container over one exec, which costs ten times as much to start as what is asked."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from typing import Any

from ops_pipeline.adapters.docker_exec import ContainerExec, ExecResult, Frames

IDLE_SECONDS = 30
"""A program that is asked nothing for so long ends by itself."""

REUSED_SECONDS = 15.0
"""So young has a connection to be that is asked again."""

SEPARATOR = "\x1f"


class Gone(Exception):
    """The connection ended before an answer was complete."""


class ContainerSessions:
    """Runs `PROGRAM VERB BYTES ARGUMENT…` in a container; safe to share by threads, each of which gets its own session.

    What is run must bear being run twice: where a session ends without an answer, an exec of its own asks again.
    """

    def __init__(self, execs: ContainerExec, program: str) -> None:
        """`program session 0 SECONDS` has to speak as deploy/images/edge/edge does; one that cannot is run plainly."""
        self._execs = execs
        self._program = program
        self._lock = threading.Lock()
        self._idle: list[_Session] = []
        self._supported = True

    def run(self, arguments: Sequence[str], payload: bytes, timeout_seconds: float) -> ExecResult:
        """As `ContainerExec.run`, without the program's name."""
        line = "".join(f"{argument}{SEPARATOR}" for argument in arguments)
        session = self._take() if "\n" not in line and line.count(SEPARATOR) == len(arguments) else None
        if session is not None:
            try:
                code, out, err = session.ask(f"{line}\n".encode() + payload, timeout_seconds)
            except TimeoutError as error:
                session.close()
                raise self._execs.silent(timeout_seconds) from error
            except (Gone, OSError):
                session.close()
                self._supported = self._supported and session.answered
            else:
                with self._lock:
                    self._idle.append(session)
                return self._execs.result(code, out, err)
        return self._execs.run([self._program, *arguments], payload, timeout_seconds)

    def _take(self) -> _Session | None:
        now = time.monotonic()
        with self._lock:
            old = [session for session in self._idle if now - session.asked > REUSED_SECONDS]
            self._idle = [session for session in self._idle if session not in old]
            found = self._idle.pop() if self._idle else None
        for session in old:
            session.close()
        if found is None and self._supported:
            stream, _ = self._execs.open([self._program, "session", "0", str(IDLE_SECONDS)])
            return _Session(stream)
        return found


class _Session:
    """One connection to a program that answers one question after the other."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._frames = Frames(stream)
        self.asked = time.monotonic()
        self.answered = False

    def ask(self, question: bytes, timeout_seconds: float) -> tuple[int, str, str]:
        """Exit code and both outputs. Raise Gone, TimeoutError, OSError."""
        deadline = time.monotonic() + timeout_seconds
        self._frames.send(question, timeout_seconds)
        while (answer := _answer(self._frames.out)) is None:
            if not self._frames.receive(deadline):
                raise Gone
        self._frames.out.clear()
        self.asked, self.answered = time.monotonic(), True
        return answer

    def close(self) -> None:
        """End it; a program that is at work is not stopped."""
        with contextlib.suppress(OSError):
            self._frames.end()  # at once; closing alone leaves it to whoever else holds the socket
        with contextlib.suppress(OSError):
            self._stream.close()


def _answer(came: bytearray) -> tuple[int, str, str] | None:
    """The answer when all of it is there. Raise Gone when it cannot be one."""
    head, newline, rest = bytes(came).partition(b"\n")
    if not newline:
        return None
    try:
        code, out, err = (int(number) for number in head.split())
    except ValueError as error:
        raise Gone from error
    if len(rest) < out + err:
        return None
    return code, rest[:out].decode(errors="replace"), rest[out : out + err].decode(errors="replace")
