"""Breaker and retry, with a clock that the test turns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from storefront.resilience import Busy, CircuitBreaker, CircuitOpen, State, retry


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Dependency:
    def __init__(self) -> None:
        self.calls = 0
        self.error: Exception | None = None

    async def __call__(self) -> str:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return "fine"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def changes() -> list[State]:
    return []


@pytest.fixture
def breaker(clock: Clock, changes: list[State]) -> CircuitBreaker:
    return CircuitBreaker(
        "thing",
        failures=(OSError,),
        window=10,
        rest=1.0,
        longest_rest=4.0,
        clock=clock,
        chance=lambda: 0.5,
        on_change=changes.append,
    )


async def fail(breaker: CircuitBreaker, times: int, error: type[Exception] = OSError) -> None:
    async def broken() -> None:
        raise error

    for _ in range(times):
        with pytest.raises(error):
            await breaker.call(broken)


async def test_passes_results_and_counts_only_the_named_failures(breaker: CircuitBreaker) -> None:
    assert await breaker.call(Dependency()) == "fine"
    await fail(breaker, 10, KeyError)
    assert breaker.state is State.CLOSED


async def test_opens_after_failures_in_a_row_and_refuses_without_calling(breaker: CircuitBreaker) -> None:
    dependency = Dependency()
    await fail(breaker, 3)
    with pytest.raises(CircuitOpen) as refused:
        await breaker.call(dependency)
    assert dependency.calls == 0
    assert refused.value.retry_after == pytest.approx(1.0)


async def test_opens_when_half_of_the_recent_calls_fail(breaker: CircuitBreaker) -> None:
    for _ in range(5):
        await breaker.call(Dependency())
        await fail(breaker, 1)
    assert breaker.state is State.OPEN


async def test_one_probe_after_the_rest_then_closed(
    breaker: CircuitBreaker, clock: Clock, changes: list[State]
) -> None:
    await fail(breaker, 3)
    clock.now += 1.01
    gate = asyncio.Event()

    async def slow() -> str:
        await gate.wait()
        return "back"

    probe = asyncio.create_task(breaker.call(slow))
    await asyncio.sleep(0)
    with pytest.raises(CircuitOpen):
        await breaker.call(Dependency())
    gate.set()
    assert await probe == "back"
    assert await breaker.call(Dependency()) == "fine"
    assert changes == [State.CLOSED, State.OPEN, State.HALF_OPEN, State.CLOSED]


async def test_rests_longer_each_time_up_to_the_longest(breaker: CircuitBreaker, clock: Clock) -> None:
    await fail(breaker, 3)
    rests = []
    for _ in range(4):
        rests.append(breaker.retry_after)
        clock.now += breaker.retry_after + 0.001
        await fail(breaker, 1)
    assert rests == pytest.approx([1.0, 2.0, 4.0, 4.0])


async def test_a_cancelled_probe_frees_the_place(breaker: CircuitBreaker, clock: Clock) -> None:
    await fail(breaker, 3)
    clock.now += 1.01
    probe = asyncio.create_task(breaker.call(asyncio.Event().wait))
    await asyncio.sleep(0)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    clock.now += 1.01
    assert await breaker.call(Dependency()) == "fine"


async def test_being_busy_says_nothing_about_the_dependency(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(2):
        await fail(breaker, 1)
        await fail(breaker, 5, Busy)
    assert breaker.state is State.CLOSED
    await fail(breaker, 1)
    assert breaker.state is State.OPEN
    clock.now += 1.01
    await fail(breaker, 1, Busy)
    clock.now += 1.01
    assert await breaker.call(Dependency()) == "fine"


async def test_stragglers_from_before_say_nothing(breaker: CircuitBreaker, clock: Clock) -> None:
    gate = asyncio.Event()

    async def late() -> None:
        await gate.wait()
        raise OSError

    stragglers = [asyncio.create_task(breaker.call(late)) for _ in range(5)]
    await asyncio.sleep(0)
    await fail(breaker, 3)
    clock.now += 1.01
    await breaker.call(Dependency())
    gate.set()
    await asyncio.gather(*stragglers, return_exceptions=True)
    assert breaker.state is State.CLOSED


@pytest.mark.parametrize(("attempts", "calls"), [(1, 1), (3, 3)])
async def test_retry_is_bounded(attempts: int, calls: int) -> None:
    dependency = Dependency()
    dependency.error = OSError("no")
    with pytest.raises(OSError, match="no"):
        await retry(dependency, attempts=attempts, worth_it=lambda error: True, pause=0.001)
    assert dependency.calls == calls


async def test_retry_only_what_is_worth_it() -> None:
    dependency = Dependency()
    dependency.error = KeyError("wrong")
    with pytest.raises(KeyError):
        await retry(dependency, attempts=5, worth_it=lambda error: isinstance(error, OSError))
    assert dependency.calls == 1


async def test_retry_succeeds_later() -> None:
    answers: list[Callable[[], Awaitable[str]]] = []
    broken, fine = Dependency(), Dependency()
    broken.error = OSError()
    answers += [fine, broken]
    assert await retry(lambda: answers.pop()(), attempts=2, worth_it=lambda error: True, pause=0.001) == "fine"
