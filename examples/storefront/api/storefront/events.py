"""GET /api/events: server-sent events. Hello, a tick every few seconds, new listings, and a proper end at a stop."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from .metrics import Metrics
from .settings import Settings

log = logging.getLogger("storefront.events")

MOST = 2000
WAITING = 100
SEND_TIMEOUT = 5.0
HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}


class Events:
    """The open event streams of this process."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._gauge = metrics.streams
        self._queues: set[asyncio.Queue[dict[str, Any] | None]] = set()
        self._closing = False

    @property
    def full(self) -> bool:
        """Whether no more streams are taken."""
        return self._closing or len(self._queues) >= MOST

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One client, until it goes away or this process stops: then the stream ends, and it may come back at once."""
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(WAITING)
        self._queues.add(queue)
        self._gauge.set(len(self._queues))
        try:
            await self._send(response, "hello", self._moment(), first="retry: 1000\n")
            while not self._closing:
                try:
                    event = await asyncio.wait_for(queue.get(), self._settings.tick)
                except TimeoutError:
                    await self._send(response, "tick", self._moment())
                    continue
                if event is None:
                    break
                await self._send(response, "listing", event)
            await self._send(response, "bye", self._moment())
            await response.write_eof()
        except (ConnectionError, TimeoutError):
            pass  # the client is gone, or does not read
        finally:
            self._queues.discard(queue)
            self._gauge.set(len(self._queues))
        return response

    def tell(self, listing: dict[str, Any]) -> None:
        """Send a new listing to all clients of this process; those who are far behind are left out."""
        for queue in self._queues:
            if not queue.full():
                queue.put_nowait(listing)

    async def close(self) -> None:
        """End all streams and wait for that, for a short while."""
        self._closing = True
        log.info("ending event streams", extra={"count": len(self._queues)})
        for queue in tuple(self._queues):
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)
        for _ in range(40):
            if not self._queues:
                return
            await asyncio.sleep(0.05)

    async def _send(self, response: web.StreamResponse, event: str, data: dict[str, Any], first: str = "") -> None:
        text = f"{first}event: {event}\ndata: {json.dumps(data)}\n\n"
        await asyncio.wait_for(response.write(text.encode()), SEND_TIMEOUT)

    def _moment(self) -> dict[str, Any]:
        return {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "version": self._settings.version,
            "instance": self._settings.instance,
        }
