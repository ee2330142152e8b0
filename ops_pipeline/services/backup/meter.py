"""How far a long piece of work is: "listings: 310 MB of ~420 MB, 92 MB/s, 2 s left", at most once a second."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ops_pipeline.ports import Clock, Progress

TELL_SECONDS = 1.0


class Meter:
    """Counts bytes and tells about them; safe for threads.

    `expected` is what to expect in all, 0 = not known. `every` is called with the words each time something is told,
    and may raise: what counts the bytes then ends.
    """

    def __init__(
        self,
        progress: Progress,
        clock: Clock,
        label: str,
        expected: int = 0,
        every: Callable[[str], None] | None = None,
    ) -> None:
        self._progress = progress
        self._clock = clock
        self._label = label
        self._expected = expected
        self._every = every
        self._lock = threading.Lock()
        self._begun = self._told = clock.monotonic()
        self._bytes = 0

    def __call__(self, count: int) -> None:
        """`count` more bytes are done."""
        with self._lock:
            self._bytes += count
            now = self._clock.monotonic()
            if now - self._told < TELL_SECONDS:
                return
            self._told = now
            words = self._words(now)
        self._progress(words)
        if self._every is not None:
            self._every(words)

    @property
    def bytes(self) -> int:
        """Bytes counted so far."""
        return self._bytes

    def done(self) -> None:
        """Tell how much it was in all."""
        seconds = self._clock.monotonic() - self._begun
        rate = f", {megabytes(self._bytes / seconds)}/s" if seconds >= TELL_SECONDS else ""
        self._progress(f"{self._label}: {megabytes(self._bytes)} in {seconds:.1f} s{rate}")

    def _words(self, now: float) -> str:
        rate = self._bytes / max(now - self._begun, 0.001)
        of = f" of ~{megabytes(self._expected)}" if self._expected else ""
        left = self._expected - self._bytes
        soon = f", {duration(left / rate)} left" if left > 0 and rate > 0 else ""
        return f"{self._label}: {megabytes(self._bytes)}{of}, {megabytes(rate)}/s{soon}"


def megabytes(size: float) -> str:
    """Bytes for people: "310 MB", "4.2 GB"."""
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.0f} MB" if size >= 1e7 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def duration(seconds: float) -> str:
    """Seconds for people: "2 s", "4 min", "2.5 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
