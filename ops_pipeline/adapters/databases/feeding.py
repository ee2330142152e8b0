"""The input of a tool that may talk while it is fed."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Protocol

from ops_pipeline.errors import OpsError, Permanent


class Fed(Protocol):
    """A tool that takes input."""

    @property
    def what(self) -> str:
        """Its name in messages."""

    def write(self, data: bytes) -> None:
        """Give input."""

    def end_input(self) -> None:
        """No more input comes."""

    def kill(self) -> None:
        """Kill it; no error."""


class Feeder:
    """Writes a tool's input in a thread of its own."""

    def __init__(self, tool: Fed, chunks: Iterable[bytes]) -> None:
        self._tool = tool
        self._chunks = chunks
        self._cause: BaseException | None = None
        self._broken: OpsError | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._feed, name=f"input of {tool.what}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Once the tool ended: no more input is taken from the caller's iterator."""
        self._stopped.set()
        self._thread.join(timeout=60)

    def raise_cause(self) -> None:
        """Raise what the caller's iterator raised, if it did."""
        if self._cause is not None:
            raise self._cause

    def raise_broken(self) -> None:
        """Raise when the tool did not take all of its input, although it ended with success."""
        if self._broken is not None:
            raise self._broken

    def _feed(self) -> None:
        try:
            for chunk in self._chunks:
                if self._stopped.is_set():
                    self._broken = Permanent(f"{self._tool.what} ended before it had read all of its input")
                    return
                try:
                    self._tool.write(chunk)
                except OpsError as error:
                    self._broken = error
                    return
        except BaseException as error:
            # Also KeyboardInterrupt and the like: passed on in the caller's thread. The tool must not take the end of
            # a broken input for its regular end.
            self._cause = error
            self._tool.kill()
        finally:
            self._tool.end_input()
