"""WebSocket /api/live: says hello, echoes, ticks, tells of new listings, and is closed, not cut, at the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import UTC, datetime
from typing import Any

from aiohttp import WSMsgType, web

from .metrics import Metrics
from .settings import Settings

log = logging.getLogger("storefront.live")

RESTART = 1012  # RFC 6455 registry: «service restart», the client may come back at once
TRY_LATER = 1013
MOST = 2000
MESSAGE_BYTES = 64 * 1024
SEND_TIMEOUT = 5.0


class Live:
    """The open WebSockets of this process."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._gauge = metrics.sockets
        self._sockets: set[web.WebSocketResponse] = set()
        self._closing = False

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """One client, until either side closes."""
        socket = web.WebSocketResponse(heartbeat=20.0, max_msg_size=MESSAGE_BYTES, compress=False)
        await socket.prepare(request)
        if self._closing or len(self._sockets) >= MOST:
            await socket.close(code=RESTART if self._closing else TRY_LATER)
            return socket
        self._sockets.add(socket)
        self._gauge.set(len(self._sockets))
        ticking = asyncio.create_task(self._tick(socket))
        try:
            await self._send(socket, self._message("hello"))
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._send(socket, {"type": "echo", "text": message.data})
        except (ConnectionError, TimeoutError, RuntimeError):
            pass  # the client is gone, or does not read
        finally:
            ticking.cancel()
            self._sockets.discard(socket)
            self._gauge.set(len(self._sockets))
        return socket

    async def tell(self, message: dict[str, Any]) -> None:
        """Send to all clients of this process; those who cannot take it within the time-out are left out."""
        await asyncio.gather(*(self._send(socket, message) for socket in self._sockets), return_exceptions=True)

    async def close(self) -> None:
        """Close all with a close frame and wait for the other side's, for a short while."""
        self._closing = True
        sockets = tuple(self._sockets)
        log.info("closing live connections", extra={"count": len(sockets)})

        async def close(socket: web.WebSocketResponse) -> None:
            with contextlib.suppress(ConnectionError, TimeoutError, RuntimeError):
                await asyncio.wait_for(socket.close(code=RESTART, message=b"restarting, please reconnect"), 2.0)

        await asyncio.gather(*(close(socket) for socket in sockets))

    async def _tick(self, socket: web.WebSocketResponse) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError, RuntimeError):
            while True:
                await asyncio.sleep(self._settings.tick)
                await self._send(socket, self._message("tick"))

    async def _send(self, socket: web.WebSocketResponse, message: dict[str, Any]) -> None:
        if not socket.closed:
            await asyncio.wait_for(socket.send_json(message), SEND_TIMEOUT)

    def _message(self, kind: str) -> dict[str, Any]:
        return {
            "type": kind,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "version": self._settings.version,
            "instance": self._settings.instance,
        }
