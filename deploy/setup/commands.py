"""Running outside commands and telling the person at the terminal what goes on.

Everything a command prints goes to `.ops/log/<name>.log`; a failure shows its last lines.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".ops"
RUN = STATE / "run"
LOG = STATE / "log"

started = time.monotonic()
"""When this command began."""
_speaking = threading.Lock()


class SetupError(Exception):
    """One clear message for a person: what failed and what to do. Ends the command with exit code 1."""


def say(subject: str, text: str) -> None:
    """Print one progress line with the seconds since the start."""
    with _speaking:
        print(f"[{time.monotonic() - started:6.1f} s] {subject}: {text}", flush=True)


@contextmanager
def step(subject: str, text: str) -> Iterator[None]:
    """Say what begins, and how long it took when it is done."""
    say(subject, f"{text} …")
    began = time.monotonic()
    yield
    say(subject, f"done in {time.monotonic() - began:.1f} s")


def output(argv: Sequence[str], *, timeout: float = 60, env: Mapping[str, str] | None = None) -> str | None:
    """Standard output of a quick question, or None when the command is missing, fails or takes too long."""
    try:
        done = subprocess.run(
            argv, env=env, timeout=timeout, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def execute(
    argv: Sequence[str],
    *,
    log: str,
    timeout: float,
    env: Mapping[str, str] | None = None,
    hint: str = "",
) -> None:
    """Run a command with its output in `.ops/log/<log>.log`. Raise SetupError with its last lines."""
    LOG.mkdir(parents=True, exist_ok=True)
    path = LOG / f"{log}.log"
    with path.open("wb") as sink:
        try:
            process = subprocess.Popen(
                argv, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
            )
        except OSError as error:
            raise SetupError(f"{argv[0]} cannot be started: {error}") from error
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            end_group(process.pid)
            process.wait()
            raise SetupError(f"no end after {timeout:.0f} s: {' '.join(argv)}\n{tail(path)}") from None
        except BaseException:
            end_group(process.pid)
            process.wait()
            raise
    if code != 0:
        raise SetupError(
            f"exit code {code}: {' '.join(argv)}\n{tail(path)}\n  whole log: {path.relative_to(ROOT)}"
            + (f"\n{hint}" if hint else "")
        )


def end_group(pid: int) -> None:
    """Kill a process that leads its own group, with everything it started in that group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def tail(path: Path, lines: int = 25) -> str:
    """Last lines of a log, indented."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return "\n".join(f"  | {line}" for line in text.splitlines()[-lines:])


def fail(error: SetupError) -> int:
    """Print the message and return the exit code."""
    sys.stdout.flush()
    print(f"\nset-up failed: {error}", file=sys.stderr, flush=True)
    return 1
