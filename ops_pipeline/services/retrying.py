"""The one place that tries again. Only `Transient` is retried, a bounded number of times."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ops_pipeline.errors import Transient, Unavailable
from ops_pipeline.ports import Clock, Progress

T = TypeVar("T")

ATTEMPTS = 4
FIRST_WAIT_SECONDS = 0.5
GROWTH = 3.0


def retried(
    clock: Clock,
    what: str,
    action: Callable[[], T],
    *,
    progress: Progress | None = None,
    attempts: int = ATTEMPTS,
    first_wait_seconds: float = FIRST_WAIT_SECONDS,
) -> T:
    """Return what `action` returns, trying at most `attempts` times with growing waits (0.5 s, 1.5 s, 4.5 s).

    `what` completes «could not …» («push 127.0.0.1:5000/app»). Raise Unavailable with the last words and hint of
    what failed when every attempt did; any other error passes at once.
    """
    wait = first_wait_seconds
    for attempt in range(1, attempts + 1):
        try:
            return action()
        except Transient as error:
            if attempt == attempts:
                raise Unavailable(
                    f"could not {what} in {attempts} attempts: {error.message}", hint=error.hint
                ) from error
            if progress:
                progress(f"{error.message}; trying again in {wait:g} s ({attempt} of {attempts} attempts used)")
            clock.sleep(wait)
            wait *= GROWTH
    raise AssertionError("attempts must be at least 1")
