"""Redis as a cache: a bonus when it is there, nothing but a counter when it is not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from .metrics import Metrics
from .resilience import CircuitBreaker, CircuitOpen, State
from .settings import Settings

T = TypeVar("T")
log = logging.getLogger("storefront.cache")

TIMEOUT = 0.25  # the database answers faster than a slow cache


class Cache:
    """Bytes by key. Neither method ever raises because of Redis."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._calls = metrics.calls
        gauge = metrics.breaker.labels("cache")

        def changed(state: State) -> None:
            gauge.set(state.value)
            log.log(logging.WARNING if state is State.OPEN else logging.INFO, "breaker", extra={"state": state.name})

        self.breaker = CircuitBreaker("cache", failures=(RedisError, OSError, TimeoutError), on_change=changed)
        self._redis = Redis(
            connection_pool=ConnectionPool(
                host=settings.redis_host,
                port=settings.redis_port,
                password=settings.redis_password.read() or None,
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
                max_connections=256,
                retry=Retry(NoBackoff(), 0),
            )
        )

    async def get(self, key: str) -> bytes | None:
        """What is stored under the key, or None: absent, or no cache at the moment."""
        value = await self._run(lambda: self._redis.get(key), None)
        return value if isinstance(value, bytes) else None

    async def put(self, key: str, value: bytes, *, seconds: int) -> None:
        """Store for so many seconds, if possible."""
        await self._run(lambda: self._redis.set(key, value, ex=seconds), None)

    async def ping(self) -> bool:
        """Whether Redis answers; asking also lets the breaker notice that it is back."""
        return await self._run(lambda: self._redis.ping(), False)

    async def close(self) -> None:
        """Drop the connections."""
        await self._redis.aclose()

    async def _run(self, work: Callable[[], Awaitable[T]], otherwise: T) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(TIMEOUT * 2):
                return await work()

        try:
            result = await self.breaker.call(bounded)
        except CircuitOpen:
            self._calls.labels("cache", "refused").inc()
        except (RedisError, OSError, TimeoutError) as error:
            self._calls.labels("cache", "failed").inc()
            log.warning("cache call failed", extra={"error": type(error).__name__})
        else:
            self._calls.labels("cache", "ok").inc()
            return result
        return otherwise
