"""A dump that a tool writes, or that is at hand already, as the port's `Dump`: its end is proved, not believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ops_pipeline.adapters.databases.streaming import Tool
from ops_pipeline.core.backup.records import Arrived
from ops_pipeline.errors import Permanent, StoreDamaged

TAIL_BYTES = 4096


class ToolDump:
    """A `Dump` of one tool. `check` sees all bytes and raises StoreDamaged when something is missing."""

    def __init__(
        self,
        name: str,
        source: str,
        start: Callable[[], Tool],
        arrived: Callable[[], Arrived],
        feed: Callable[[bytes], None],
        finish: Callable[[], None],
        prefix: bytes = b"",
        cause: Callable[[], None] = lambda: None,
        *,
        stands: bool = False,
    ) -> None:
        """`arrived`, `feed`, `finish`, `stands`: see the methods; `prefix` goes before the tool's output.

        `cause` is called when the tool failed, and raises what it failed of if that is known.
        """
        self._name = name
        self._source = source
        self._start = start
        self._arrived = arrived
        self._feed = feed
        self._finish = finish
        self._prefix = prefix
        self._cause = cause
        self._stands = stands
        self._tool: Tool | None = None
        self._done = False

    @property
    def name(self) -> str:
        """Name of the part."""
        return self._name

    @property
    def stands(self) -> bool:
        """Whether no row written from now on can be in it."""
        return self._stands

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; b"" only once the tool ended with code 0 and the end of the stream was proved."""
        if self._done:
            return b""
        if self._tool is None:
            self._tool = self._start()
        if self._prefix:
            data, self._prefix = self._prefix[:size], self._prefix[size:]
            return data
        data = self._tool.read(size)
        try:
            if data:
                self._feed(data)
                return data
            self._tool.require_success()
            self._finish()
        except (Permanent, StoreDamaged) as error:
            self.close()
            self._cause()
            raise Permanent(f"data source {self._source}: {error.message}", hint=error.hint) from error
        self._done = True
        return b""

    def arrived(self) -> Arrived:
        """What is known now. Raise Permanent before the end was read."""
        if not self._done:
            raise Permanent(f"data source {self._source}: {self._name} was not read to its end")
        return self._arrived()

    def close(self) -> None:
        """End the tool if it still runs; no error."""
        if self._tool is not None:
            self._tool.close()


class TextDump:
    """A `Dump` of a short text that was made in the snapshot."""

    def __init__(self, name: str, source: str, text: bytes, arrived: Arrived) -> None:
        self._name, self._source, self._arrived = name, source, arrived
        self._left: bytes | None = text

    @property
    def name(self) -> str:
        """Name of the part."""
        return self._name

    @property
    def stands(self) -> bool:
        """True: it was made already."""
        return True

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; b"" at the end."""
        data, self._left = (self._left or b"")[:size], (self._left or b"")[size:] or None
        return data

    def arrived(self) -> Arrived:
        """What is known. Raise Permanent before the end was read."""
        if self._left is not None:
            raise Permanent(f"data source {self._source}: {self._name} was not read to its end")
        return self._arrived

    def close(self) -> None:
        """Nothing to end."""


def noted(text: str | bytes, what: str) -> Any:
    """What one of our own lines in a dump says (JSON). Raise StoreDamaged naming `what`."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise StoreDamaged(f"{what}: a line of ours in it cannot be read") from error


class Tail:
    """Sees that a plain text ends with a marker."""

    def __init__(self, what: str, marker: bytes) -> None:
        self._what, self._marker, self._tail = what, marker, b""

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        self._tail = (self._tail + data)[-TAIL_BYTES:] if len(data) < TAIL_BYTES else data[-TAIL_BYTES:]

    def finish(self) -> None:
        """Raise StoreDamaged unless the marker stands near the end."""
        if self._marker not in self._tail:
            raise StoreDamaged(f"{self._what} is cut off: it does not end with «{self._marker.decode().strip()}»")
