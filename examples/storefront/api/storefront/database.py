"""PostgreSQL behind a pool, time-outs, one bounded retry and a circuit breaker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from .metrics import Metrics
from .resilience import Busy, CircuitBreaker, CircuitOpen, State, retry
from .settings import Settings

T = TypeVar("T")
Work = Callable[[Any], Awaitable[T]]
log = logging.getLogger("storefront.database")

# Generous against a crowded machine: what makes bad days bearable is the breaker, not a tight time-out.
CONNECT_TIMEOUT = 2.0
ACQUIRE_TIMEOUT = 2.0
STATEMENT_TIMEOUT = 3.0
DEADLINE = 6.0  # everything together, retries included

# Answers that mean «the database cannot work now», not «this statement is wrong».
_SICK: tuple[type[BaseException], ...] = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shut down, starting up, statement time-out
    asyncpg.InsufficientResourcesError,  # disk full, too many connections
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    asyncpg.InternalServerError,
    asyncpg.InterfaceError,  # connection or pool closed under the call
    asyncpg.InternalClientError,
)
# Of these only a broken connection is worth a second try at once: a slow database is not helped by more work.
_BROKEN: tuple[type[BaseException], ...] = (
    ConnectionError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.InterfaceError,
)


class DatabaseUnavailable(Exception):
    """The database did not do its part; `retry_after` says in how many seconds another try makes sense."""

    def __init__(self, reason: str, retry_after: float = 1.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Database:
    """Runs work on pooled connections. Needs no database to start: connections are made when first wanted."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._calls = metrics.calls
        self._pool: asyncpg.Pool | None = None
        gauge = metrics.breaker.labels("database")

        def changed(state: State) -> None:
            gauge.set(state.value)
            log.log(logging.WARNING if state is State.OPEN else logging.INFO, "breaker", extra={"state": state.name})

        self.breaker = CircuitBreaker("database", failures=_SICK, on_change=changed)

    async def open(self) -> None:
        """Make the (empty) pool."""
        settings = self._settings
        self._pool = await asyncpg.create_pool(
            host=settings.database_host,
            port=settings.database_port,
            database=settings.database_name,
            user=settings.database_user,
            password=lambda: settings.database_password.read() or "",
            min_size=0,
            max_size=settings.database_pool,
            max_inactive_connection_lifetime=60.0,
            timeout=CONNECT_TIMEOUT,
            command_timeout=STATEMENT_TIMEOUT,
            server_settings={
                "application_name": f"storefront {settings.version} {settings.instance}"[:63],
                "statement_timeout": str(int(STATEMENT_TIMEOUT * 1000)),
                "idle_in_transaction_session_timeout": "10000",
            },
        )

    async def close(self) -> None:
        """Give the connections back, or drop them when that takes longer than a second."""
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), 1.0)
            except (TimeoutError, asyncpg.InterfaceError):
                self._pool.terminate()

    async def run(self, work: Work[T], *, deadline: float = DEADLINE) -> T:
        """Result of `work(connection)`, which must be safe to repeat. Raises DatabaseUnavailable."""

        async def within_deadline() -> T:
            async with asyncio.timeout(deadline):
                return await retry(
                    lambda: self._once(work), attempts=2, worth_it=lambda error: isinstance(error, _BROKEN)
                )

        try:
            result = await self.breaker.call(within_deadline)
        except CircuitOpen as error:
            self._calls.labels("database", "refused").inc()
            raise DatabaseUnavailable(str(error), error.retry_after) from None
        except Busy as error:
            self._calls.labels("database", "busy").inc()
            raise DatabaseUnavailable(str(error)) from None
        except _SICK as error:
            self._calls.labels("database", "failed").inc()
            log.warning("database call failed", extra={"error": _describe(error)})
            raise DatabaseUnavailable(
                f"database: {type(error).__name__}", max(1.0, self.breaker.retry_after)
            ) from error
        self._calls.labels("database", "ok").inc()
        return result

    async def _once(self, work: Work[T]) -> T:
        if self._pool is None:
            raise asyncpg.InterfaceError("the pool is not open")
        pool = self._pool
        try:
            connection = await pool.acquire(timeout=ACQUIRE_TIMEOUT)
        except TimeoutError:
            if pool.get_size() >= pool.get_max_size() and pool.get_idle_size() == 0:
                raise Busy("all connections to the database are in use") from None
            raise
        try:
            return await work(connection)
        finally:
            await pool.release(connection, timeout=ACQUIRE_TIMEOUT)


def _describe(error: BaseException) -> str:
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
