"""A clock that moves only when somebody sleeps, or a test says so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from ops_pipeline.ports import Clock

START = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)


class FakeClock(Clock):
    """`skew` makes a second clock over the same flow of time, as on another machine."""

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self._passed = 0.0
        self._lock = threading.Lock()
        self.on_sleep: Callable[[float], None] = lambda seconds: None
        self.before_move: list[Callable[[], None]] = []  # called while it is still the old time

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._passed)

    def monotonic(self) -> float:
        return self._passed

    def sleep(self, seconds: float) -> None:
        self.on_sleep(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        for listener in self.before_move:
            listener()
        with self._lock:
            self._passed += seconds


class SkewedClock(Clock):
    """The same flow of time, seen by a machine whose wall clock is wrong."""

    def __init__(self, true: FakeClock, ahead_seconds: float) -> None:
        self._true = true
        self._ahead = timedelta(seconds=ahead_seconds)

    def now(self) -> datetime:
        return self._true.now() + self._ahead

    def monotonic(self) -> float:
        return self._true.monotonic()

    def sleep(self, seconds: float) -> None:
        self._true.sleep(seconds)
