"""Work that goes on in one thread of its own beside the caller's, and never outlives it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
Check = Callable[[], None]


class Stopped(Exception):
    """Raised in the work by its `check`, when nobody wants what it would give."""


class Aside(Generic[T]):
    """`work(check)` is to call `check` often, which raises when the work is to end. For one calling thread.

    As a context manager it ends the work, and waits for that end, when the caller fails or is interrupted.
    """

    def __init__(self, work: Callable[[Check], T], name: str) -> None:
        """Begins nothing yet; `name` is the thread's."""
        self._work = work
        self._name = name
        self._run: _Run[T] | None = None

    def begin(self) -> None:
        """Begin the work in its thread; what was begun before counts for nothing."""
        self.cancel()
        self._run = _Run(self._work, self._name)

    def cancel(self) -> None:
        """End what was begun, wait for that and forget it, whatever became of it; no error."""
        run, self._run = self._run, None
        if run is not None:
            run.stop()

    def check(self) -> None:
        """Raise what the work failed of, if it has: then nobody needs to go on beside it."""
        if self._run is not None:
            self._run.check()

    def result(self) -> T:
        """What the work gives: waits for it, or does it here and now if it was not begun. Raise what it raises."""
        if self._run is None:
            return self._work(lambda: None)
        return self._run.result()

    def __enter__(self) -> Aside[T]:
        """Nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End what still goes on."""
        self.cancel()


class _Run(Generic[T]):
    """The work, once."""

    def __init__(self, work: Callable[[Check], T], name: str) -> None:
        self._work = work
        self._stopped = threading.Event()
        self._given: list[T] = []
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._go, name=name)
        self._thread.start()

    def check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def result(self) -> T:
        self._thread.join()
        self.check()
        return self._given[0]

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _go(self) -> None:
        try:
            self._given.append(self._work(self._raise_when_stopped))
        except BaseException as error:
            # Also what no ordinary error is: the calling thread must hear of it and stop.
            self._failure = error

    def _raise_when_stopped(self) -> None:
        if self._stopped.is_set():
            raise Stopped
