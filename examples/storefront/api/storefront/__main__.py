"""Runs the API until SIGTERM: then no new connections, requests in flight finish, WebSockets and streams end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from aiohttp import web

from .app import Api
from .faults import BadFaults
from .logs import configure
from .settings import BadSettings, Settings, load

log = logging.getLogger("storefront")


async def serve(settings: Settings, api: Api) -> None:
    """Listen until told to stop, then stop gracefully within `settings.stop_grace` seconds."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(
        api.application(),
        access_log=None,
        keepalive_timeout=75.0,  # longer than any proxy before us keeps an idle connection
        shutdown_timeout=settings.stop_grace,
    )
    await runner.setup()
    site = web.TCPSite(runner, settings.host, settings.port, backlog=1024)
    try:
        await site.start()
        log.info("listening", extra={"port": settings.port, "version": settings.version, "commit": settings.commit})
        await stop.wait()
        await leave(api, runner, site, settings.stop_grace)
    except TimeoutError:
        log.warning("the grace is over, unfinished requests are cut")
    else:
        log.info("stopped")


async def leave(api: Api, runner: web.AppRunner, site: web.TCPSite, grace: float) -> None:
    """Stop gracefully. Raises TimeoutError when the grace is over before everything is finished.

    aiohttp's own shutdown begins by reading nothing more from any connection, which cuts uploads that are under way;
    so it comes last, when all requests have been handled and only the ends of answers may still have to be sent.
    """
    log.info("stopping", extra={"grace_seconds": grace})
    async with asyncio.timeout(grace):
        api.health.stopping = True
        await site.stop()
        await asyncio.gather(api.live.close(), api.events.close())
        await api.surroundings.idle.wait()
        await runner.cleanup()


def main() -> int:
    """Exit code 0 after a graceful stop, 2 for settings that cannot be used, 1 for anything else."""
    configure("INFO")
    try:
        settings = load(os.environ)
        hidden = [value for secret in (settings.database_password, settings.redis_password) if (value := secret.read())]
        configure(settings.log_level, hidden)
        api = Api(settings)
        asyncio.run(serve(settings, api))
    except (BadSettings, BadFaults) as error:
        log.critical("settings cannot be used", extra={"problems": str(error)})
        return 2
    except OSError as error:
        log.critical("cannot listen", extra={"error": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
