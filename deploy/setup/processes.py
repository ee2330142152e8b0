"""Recognising processes safely: a process id alone may have been given to somebody else meanwhile."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path


def start_time(pid: int) -> int | None:
    """When the process began, in clock ticks after boot; None when there is none (or only its zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def parent(pid: int) -> int | None:
    """Process id of the parent."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[1])


def environment(pid: int) -> dict[str, str]:
    """Environment the process was started with; empty when it cannot be read."""
    try:
        data = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (entry.split("=", 1) for entry in data.decode(errors="replace").split("\0") if "=" in entry)
    return {key: value for key, value in pairs}


def command(pid: int) -> str:
    """Command line, for people."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").split()
    except OSError:
        return ""
    return " ".join(words)


def all_pids() -> list[int]:
    """Every process that can be seen."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def descendants(pid: int) -> list[int]:
    """Children, their children and so on, of a process that lives."""
    children: dict[int, list[int]] = {}
    for each in all_pids():
        above = parent(each)
        if above is not None and start_time(each) is not None:
            children.setdefault(above, []).append(each)
    found: list[int] = []
    todo = [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def end(pids: Iterable[int], *, grace: float = 5.0) -> None:
    """SIGTERM, then SIGKILL after the grace, to exactly these processes."""
    known = {pid: start_time(pid) for pid in pids if pid != os.getpid()}

    def living() -> list[int]:
        return [pid for pid, began in known.items() if began is not None and start_time(pid) == began]

    for sign, wait in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        for pid in living():
            try:
                os.kill(pid, sign)
            except (ProcessLookupError, PermissionError):
                continue
        deadline = time.monotonic() + wait
        while living() and time.monotonic() < deadline:
            time.sleep(0.05)
        if not living():
            return
