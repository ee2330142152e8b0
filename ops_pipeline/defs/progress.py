"""Progress of a use case, as events of the run."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from ops_pipeline.ports import Progress

Context = dg.AssetExecutionContext | dg.OpExecutionContext | dg.AssetCheckExecutionContext


def event_per_line(context: Context) -> Progress:
    """One log event per line: for deploys, which say little and matter much."""
    return context.log.info


class GroupedLines:
    """Progress for builds, scans and backups, which say much.

    Every line goes to the run's standard output at once; to the event log they go in groups, at most one a second,
    because each event is a row of the database.
    """

    def __init__(self, context: Context, every_seconds: float = 1.0) -> None:
        self._log = context.log
        self._every = every_seconds
        self._lines: list[str] = []
        self._written = time.monotonic() - every_seconds

    def __call__(self, line: str) -> None:
        """Take one line."""
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
        self._lines.append(line)
        if time.monotonic() - self._written >= self._every:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered."""
        if self._lines:
            self._log.info("\n".join(self._lines))
            self._lines.clear()
            self._written = time.monotonic()

    def __enter__(self) -> GroupedLines:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write the rest, also after a failure."""
        self.flush()
