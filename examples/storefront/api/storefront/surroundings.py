"""What stands around every request: id, log line, metrics, limits, faults, and errors as JSON."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from .database import DatabaseUnavailable
from .faults import FaultSwitch
from .features import BADGES, VISITOR, Features, visitor_of
from .health import Health
from .logs import request_id
from .metrics import Metrics
from .photos import PhotosUnavailable
from .settings import Settings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
log = logging.getLogger("storefront.request")

MOST_IN_FLIGHT = 500
LASTING = {"/api/live", "/api/events"}
UNTIMED = {*LASTING, "/api/slow"}  # those live long, this one has its own bound
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def problem(status: int, text: str, *, retry_after: float | None = None, **more: Any) -> web.Response:
    """An error a program and a person can read."""
    headers = {"Retry-After": str(max(1, math.ceil(retry_after)))} if retry_after is not None else {}
    return web.json_response({"error": text, "request_id": request_id.get(), **more}, status=status, headers=headers)


class Surroundings:
    """The middleware, and the signal that completes each answer's headers."""

    def __init__(
        self, settings: Settings, metrics: Metrics, health: Health, faults: FaultSwitch, features: Features
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._health = health
        self._faults = faults
        self._features = features
        self._in_flight = 0
        self.idle = asyncio.Event()  # set while no request is being handled
        self.idle.set()

    def install(self, app: web.Application) -> None:
        """Put it around an application."""
        app.middlewares.append(self._around)
        app.on_response_prepare.append(self._complete)

    async def _complete(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers["X-Request-Id"] = request_id.get()
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        response.headers["X-Storefront-Version"] = self._settings.version
        if self._health.stopping and response.status != 101:
            response.headers["Connection"] = "close"
            response.force_close()

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("X-Request-Id", "")
        request_id.set(given if _ID.fullmatch(given) else secrets.token_hex(8))
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "unmatched"
        began = time.perf_counter()
        self._in_flight += 1
        self.idle.clear()
        self._metrics.in_flight.set(self._in_flight)
        status = 499  # stays when the client went away before there was an answer
        try:
            response = await self._answer(request, handler, route)
            status = response.status
            return response
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self.idle.set()
            self._metrics.in_flight.set(self._in_flight)
            seconds = time.perf_counter() - began
            method = request.method if resource is not None else "any"  # a client must not invent label values
            self._metrics.requests.labels(method, route, str(status)).inc()
            if status != 101:
                self._metrics.duration.labels(method, route).observe(seconds)
            quiet = not request.path.startswith("/api/") and status < 400
            log.log(
                logging.DEBUG if quiet else logging.INFO,
                "request",
                extra={
                    "method": request.method,
                    "path": request.path[:200],  # never the query: it may hold what is nobody's business
                    "status": status,
                    "milliseconds": round(seconds * 1000, 1),
                    "client": request.remote,
                },
            )

    async def _answer(self, request: web.Request, handler: Handler, route: str) -> web.StreamResponse:
        try:
            visitor, _ = request[VISITOR] = visitor_of(request)
            if route.startswith("/api/") and not route.startswith(("/api/faults", "/api/health")):
                if self._in_flight > MOST_IN_FLIGHT and route not in LASTING:
                    return problem(503, "too much to do at the moment", retry_after=1)
                if self._faults.enabled and await self._faults.strike(lambda: self._features.on(BADGES, visitor)):
                    return problem(500, "the fault switch says so")
            if route in UNTIMED:
                return await handler(request)
            async with asyncio.timeout(self._settings.request_timeout):
                return await handler(request)
        except web.HTTPException as error:
            answer = problem(error.status, error.reason)
            if isinstance(error, web.HTTPMethodNotAllowed):
                answer.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
            return answer
        except DatabaseUnavailable as error:
            return problem(503, "the database is away, please try again", retry_after=error.retry_after)
        except PhotosUnavailable as error:
            log.error("photo volume failed", extra={"error": str(error)})
            return problem(507, "photos cannot be stored or read at the moment", retry_after=30)
        except TimeoutError:
            return problem(504, "this took too long", retry_after=1)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("unforeseen error")
            return problem(500, "an error on our side")
