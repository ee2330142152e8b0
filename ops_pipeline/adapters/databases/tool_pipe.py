"""The output of a tool in a container, taken from the tool's own pipe where the container runs on this very machine.

Through the engine every byte passes a shim and the daemon in small pieces: for a dump of 1 GB that cost 10 s of CPU on
a machine on which the dump itself cost 6 s. The kernel gives the other end of a process's pipe to whoever may trace the
process (proc(5), /proc/PID/fd), which root may. So the shell that starts the tool keeps a pipe open until we hold it
too. It is found by the exec's process id, as the engine says it, and by the mark in its environment: on another
machine, in another process namespace or without the right there is no such process, and the engine's stream serves.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from ops_pipeline.adapters.databases.tool_scripts import READ_END, WRITE_END

PIPE_BYTES = 1024 * 1024
FIND_SECONDS = 5.0
_F_SETPIPE_SZ = 1031  # fcntl.F_SETPIPE_SZ is there on Linux only


class ToolPipe:
    """The read end of a tool's pipe, which is ours to close. Reads never wait."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._pause = 0.0
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, _F_SETPIPE_SZ, PIPE_BYTES)
            self._pause = 0.001

    def gather(self) -> None:
        """Something is there: let more of it come, because tools write a few kilobytes at a time."""
        if self._pause:
            time.sleep(self._pause)

    def close(self) -> None:
        """Once; the tool is told at its next write."""
        os.close(self.descriptor)


def open_pipe(process: int, mark: str, seconds: float = FIND_SECONDS) -> ToolPipe | None:
    """Given the id of the process that runs PIPED and a `NAME=value` of its environment, its pipe.

    None when the process is not to be seen from here, or its pipe not to be opened, or not there after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            # The shell's own child has the pipe: whatever runs behind `|` does.
            children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
        except OSError:
            return None
        for child in children:
            try:
                if (found := _opened(Path("/proc", child), mark)) is not None:
                    return ToolPipe(found)
            except PermissionError:
                return None
            except OSError:
                continue  # it has ended, or has not opened everything yet
        time.sleep(0.001)
    return None


def _opened(process: Path, mark: str) -> int | None:
    if mark.encode() not in (process / "environ").read_bytes().split(b"\0"):
        return None
    ends = {str((process / "fd" / str(end)).readlink()) for end in (READ_END, WRITE_END)}
    if len(ends) != 1 or not ends.pop().startswith("pipe:"):
        return None
    return os.open(process / "fd" / str(READ_END), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


__all__ = ["ToolPipe", "open_pipe"]
