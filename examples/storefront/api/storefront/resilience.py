"""Circuit breaker and bounded retry: what keeps one sick dependency from taking the whole process along."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TypeVar

T = TypeVar("T")


class State(Enum):
    """The value is what the metric shows."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class CircuitOpen(Exception):
    """The call was not tried; `retry_after` seconds from now it may be."""

    def __init__(self, name: str, retry_after: float) -> None:
        super().__init__(f"{name} is resting after repeated failures")
        self.retry_after = retry_after


class Busy(Exception):
    """No call was made because our own limit of calls is in use: says nothing about the dependency."""


class CircuitBreaker:
    """Lets calls through until a dependency is evidently sick, then refuses at once for a growing while.

    It opens after `consecutive` failures in a row, or when at least half of the last `window` calls failed. After the
    rest, one call at a time is let through (half open): success closes, failure rests longer (doubling up to
    `longest_rest` seconds, with jitter so that replicas do not knock together). Only exceptions of `failures` count:
    a refused constraint is the caller's error, not the database's illness.
    """

    def __init__(
        self,
        name: str,
        *,
        failures: tuple[type[BaseException], ...],
        consecutive: int = 3,
        window: int = 20,
        rest: float = 1.0,
        longest_rest: float = 8.0,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        on_change: Callable[[State], None] = lambda state: None,
    ) -> None:
        self.name = name
        self.state = State.CLOSED
        self._failures = failures
        self._consecutive = consecutive
        self._outcomes: deque[bool] = deque(maxlen=window)
        self._run = 0
        self._rest = rest
        self._longest_rest = longest_rest
        self._next_rest = rest
        self._until = 0.0
        self._era = 0
        self._clock = clock
        self._chance = chance
        self._on_change = on_change
        on_change(self.state)

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Result of `work()`. Raises CircuitOpen without calling it while the dependency rests."""
        self._admit()
        era = self._era
        try:
            result = await work()
        except self._failures:
            self._failed(era)
            raise
        except (asyncio.CancelledError, Busy):
            # Nothing learnt about the dependency, but the probe's place must be freed.
            if era == self._era and self.state is State.HALF_OPEN:
                self._open(self._rest)
            raise
        except BaseException:
            self._succeeded(era)  # it answered, if only to say no
            raise
        self._succeeded(era)
        return result

    @property
    def retry_after(self) -> float:
        """Seconds until the next call may be let through; 0 when it may now."""
        return max(0.0, self._until - self._clock()) if self.state is State.OPEN else 0.0

    def _admit(self) -> None:
        if self.state is State.CLOSED:
            return
        if self.state is State.HALF_OPEN:
            raise CircuitOpen(self.name, self._rest)
        if (left := self.retry_after) > 0:
            raise CircuitOpen(self.name, left)
        self._change(State.HALF_OPEN)

    def _succeeded(self, era: int) -> None:
        if era != self._era:
            return
        self._run = 0
        self._outcomes.append(True)
        if self.state is State.HALF_OPEN:
            self._outcomes.clear()
            self._next_rest = self._rest
            self._change(State.CLOSED)

    def _failed(self, era: int) -> None:
        if era != self._era:
            return  # a straggler from before the last change
        if self.state is State.HALF_OPEN:
            self._open(self._next_rest)
            return
        self._run += 1
        self._outcomes.append(False)
        full = len(self._outcomes) == self._outcomes.maxlen
        if self._run >= self._consecutive or (full and self._outcomes.count(False) * 2 >= len(self._outcomes)):
            self._open(self._next_rest)

    def _open(self, rest: float) -> None:
        self._until = self._clock() + rest * (0.75 + 0.5 * self._chance())
        self._next_rest = min(self._longest_rest, rest * 2)
        self._run = 0
        self._outcomes.clear()
        self._change(State.OPEN)

    def _change(self, state: State) -> None:
        self.state = state
        self._era += 1
        self._on_change(state)


async def retry(
    work: Callable[[], Awaitable[T]],
    *,
    attempts: int,
    worth_it: Callable[[BaseException], bool],
    pause: float = 0.05,
    chance: Callable[[], float] = random.random,
) -> T:
    """Result of the first of at most `attempts` tries that succeeds.

    Waits between tries with full jitter, up to `pause` seconds, doubling. An exception `worth_it` denies, and the last
    one, is raised as it is. The caller sets the overall deadline.
    """
    for attempt in range(1, attempts + 1):
        try:
            return await work()
        except Exception as error:
            if attempt == attempts or not worth_it(error):
                raise
        await asyncio.sleep(pause * 2 ** (attempt - 1) * chance())
    raise ValueError("attempts must be at least 1")
