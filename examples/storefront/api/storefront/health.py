"""Alive and ready are different questions.

Alive: the process turns its event loop. Nothing else, or a dead database would have every replica restarted.

Ready: it can do useful work for users. A replica becomes ready only after it has reached the database once, brought
the schema up to date and read the first page: a release with a wrong password or a broken migration never gets
traffic. From then on it stays ready while it can serve *something*: without Redis every read goes to the database,
without the database the last known first page and cached listings are served and writes say 503. Taking all replicas
out of service because the database they share is down would turn a partial outage into a whole one.
It stops being ready when it is told to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from .cache import Cache
from .database import Database, DatabaseUnavailable
from .faults import FaultSwitch
from .listings import Listings
from .photos import Photos, PhotosUnavailable
from .schema import migrate

log = logging.getLogger("storefront.health")

EVERY = 1.0


class Health:
    """Watches the dependencies in the background, so that a probe is answered at once from memory."""

    def __init__(
        self, database: Database, cache: Cache, photos: Photos, listings: Listings, faults: FaultSwitch
    ) -> None:
        self._database = database
        self._cache = cache
        self._photos = photos
        self._listings = listings
        self._faults = faults
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.schema: int | None = None
        self.database = False
        self.cache = False
        self.photos = False
        self.stopping = False

    def start(self) -> None:
        """Begin to watch."""
        self._task = asyncio.create_task(self._watch(), name="health")

    async def close(self) -> None:
        """Stop watching."""
        self._closed = True  # a cancellation alone may get lost in a call whose own time-out ends just then
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Whether ready, and why in words."""
        reasons = []
        if self.stopping:
            reasons.append("stopping")
        if self._faults.now.fail_health:
            reasons.append("the fault switch says so")
        if self.schema is None or not self._listings.has_copy:
            reasons.append("the database has not been reached since the start")
        checks = {
            "database": "ok" if self.database else "away",
            "cache": "ok" if self.cache else "away",
            "photos": "ok" if self.photos else "cannot be written",
        }
        degraded = [name for name, state in checks.items() if state != "ok"]
        status = "not ready" if reasons else "degraded" if degraded else "ready"
        return not reasons, {"status": status, "reasons": reasons, "checks": checks, "schema": self.schema}

    async def look(self) -> None:
        """One round of checks."""
        try:
            if self.schema is None:
                version = await self._database.run(migrate, deadline=90.0)
                log.info("schema is up to date", extra={"version": version})
                self.schema = version
            # Also renews the copy kept for bad times; what comes from that copy is no sign of life.
            self.database = (await self._listings.page()).source == "database"
        except DatabaseUnavailable:
            self.database = False
        self.cache = await self._cache.ping()
        try:
            self.photos = await self._photos.usable()
        except PhotosUnavailable:
            self.photos = False

    async def _watch(self) -> None:
        before: dict[str, Any] = {}
        while not self._closed:
            try:
                await self.look()
            except Exception:
                log.exception("a health check failed in an unforeseen way")
                self.database = False
            _, report = self.report()
            if report != before:
                log.info("health", extra={"health": report["status"], "checks": report["checks"]})
                before = report
            await asyncio.sleep(EVERY)
