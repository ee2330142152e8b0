"""Running other programs: the only place of the package that does.

Every run has a time-out, gets its own process group (killed whole when the time is over or the caller is
interrupted), and never shows the values it was told to redact.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from ops_pipeline.errors import Permanent

TAIL_LINES = 40
MAX_OUTPUT_BYTES = 256 * 1024 * 1024
REDACTED = "***"
_KILL_GRACE_SECONDS = 3.0
_SHORTEST_SECRET = 4  # shorter values would turn half of an ordinary line into stars


class CommandError(Permanent):
    """A program failed. Adapters turn it into their own words; it names the program, return code and last output.

    `returncode` is None when the program never ended by itself.
    """

    def __init__(
        self, argv: Sequence[str], message: str, *, returncode: int | None = None, stdout: str = "", stderr: str = ""
    ) -> None:
        self.argv = tuple(argv)
        self.returncode = returncode
        self.stdout_tail = stdout
        self.stderr_tail = stderr
        tail = (stderr or stdout).strip()
        super().__init__(f"{message}\n{tail}" if tail else message)


class CommandMissing(CommandError):
    """The program cannot be found or started."""


class CommandTimedOut(CommandError):
    """The program was killed after its time-out."""


@dataclass(frozen=True)
class Completed:
    """A program that ended. `stdout` is raw; the tails hold its last lines, redacted."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stdout_tail: str
    stderr_tail: str


class Redaction:
    """Replaces secret values, also the single lines of those that have several."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        values = {part for secret in secrets for part in (secret, secret.strip(), *secret.splitlines())}
        self._values = sorted((v for v in values if len(v) >= _SHORTEST_SECRET), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return the text with every secret value replaced."""
        for value in self._values:
            text = text.replace(value, REDACTED)
        return text


@dataclass
class _Streams:
    """Lines of both outputs as they come, and what is kept of them."""

    lines: queue.SimpleQueue[tuple[str, bytes] | None] = field(default_factory=queue.SimpleQueue)
    kept: list[bytes] = field(default_factory=list)
    size: int = 0
    tails: dict[str, deque[str]] = field(
        default_factory=lambda: {name: deque(maxlen=TAIL_LINES) for name in ("stdout", "stderr")}
    )

    def tail(self, name: str) -> str:
        return "\n".join(self.tails[name])


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    cwd: str | None = None,
    on_line: Callable[[str], None] | None = None,
    redact: Sequence[str] = (),
    check: bool = True,
) -> Completed:
    """Run a program to its end, at most `timeout` seconds, and return what it said.

    `env` is added to this process's own environment. `on_line` gets each line of both outputs, redacted, on the
    calling thread. Raise CommandMissing, CommandTimedOut and, with `check`, CommandError for a return code ≠ 0.
    """
    redaction = Redaction(redact)
    deadline = time.monotonic() + timeout
    shown = redaction(" ".join(argv[:3]))
    try:
        process = subprocess.Popen(  # noqa: S603 - argv is a list, there is no shell
            list(argv),
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **env} if env else None,
            cwd=cwd,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise CommandMissing(argv, f"could not start {argv[0]}: {error}") from error
    streams = _Streams()
    try:
        threads = _start_threads(process, streams, stdin)
        _consume(process, streams, len(threads), deadline, redaction, on_line)
        returncode = process.wait(max(0.0, deadline - time.monotonic()))
    except (queue.Empty, subprocess.TimeoutExpired):
        _kill_group(process)
        raise CommandTimedOut(
            argv,
            f"`{shown}` did not end within {timeout:g} s and was stopped",
            stdout=streams.tail("stdout"),
            stderr=streams.tail("stderr"),
        ) from None
    except OverflowError:
        _kill_group(process)
        raise CommandError(argv, f"`{shown}` said more than {MAX_OUTPUT_BYTES} bytes and was stopped") from None
    except BaseException:  # interruption of any kind: leave nothing running
        _kill_group(process)
        raise
    finally:
        for stream in (process.stdout, process.stderr):
            if stream is not None and process.poll() is not None:
                with contextlib.suppress(OSError):
                    stream.close()
    completed = Completed(
        tuple(argv), returncode, b"".join(streams.kept), streams.tail("stdout"), streams.tail("stderr")
    )
    if check and returncode != 0:
        raise CommandError(
            argv,
            f"`{shown}` ended with code {returncode}",
            returncode=returncode,
            stdout=completed.stdout_tail,
            stderr=completed.stderr_tail,
        )
    return completed


def _start_threads(process: subprocess.Popen[bytes], streams: _Streams, stdin: bytes | None) -> list[threading.Thread]:
    def read(name: str, stream: IO[bytes]) -> None:
        try:
            for line in iter(lambda: stream.readline(1 << 20), b""):
                streams.lines.put((name, line))
        except ValueError:  # closed after a kill
            pass
        finally:
            streams.lines.put(None)

    def write(stream: IO[bytes], data: bytes) -> None:
        with contextlib.suppress(OSError), stream:
            stream.write(data)

    assert process.stdout is not None and process.stderr is not None
    readers = [
        threading.Thread(target=read, args=("stdout", process.stdout), daemon=True),
        threading.Thread(target=read, args=("stderr", process.stderr), daemon=True),
    ]
    for thread in readers:
        thread.start()
    if stdin is not None and process.stdin is not None:
        threading.Thread(target=write, args=(process.stdin, stdin), daemon=True).start()
    return readers


def _consume(
    process: subprocess.Popen[bytes],
    streams: _Streams,
    open_streams: int,
    deadline: float,
    redaction: Redaction,
    on_line: Callable[[str], None] | None,
) -> None:
    """Take lines until both streams end. Raise queue.Empty when the time is over, OverflowError for too much."""
    ended_at: float | None = None
    while open_streams:
        left = deadline - time.monotonic()
        if left <= 0:
            raise queue.Empty
        try:
            item = streams.lines.get(timeout=min(left, 0.5))
        except queue.Empty:
            # A grandchild may hold the pipes open after the program itself has ended: do not wait for it.
            if process.poll() is not None:
                ended_at = ended_at or time.monotonic()
                if time.monotonic() - ended_at > _KILL_GRACE_SECONDS:
                    _kill_group(process)
                    return
            continue
        if item is None:
            open_streams -= 1
            continue
        name, line = item
        if name == "stdout":
            streams.size += len(line)
            if streams.size > MAX_OUTPUT_BYTES:
                raise OverflowError
            streams.kept.append(line)
        text = redaction(line.decode("utf-8", "replace").rstrip("\r\n"))
        streams.tails[name].append(text[:2000])
        if on_line is not None:
            on_line(text)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL, to the program and everything it started."""
    for sign, grace in ((signal.SIGTERM, _KILL_GRACE_SECONDS), (signal.SIGKILL, _KILL_GRACE_SECONDS)):
        try:
            os.killpg(process.pid, sign)
        except (ProcessLookupError, PermissionError):
            break
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)  # then the second signal, for children that ignored the first
