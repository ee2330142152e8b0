"""The application: routes, and the parts they need, put together."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from aiohttp import BodyPartReader, web

from . import faults as fault_words
from .badges import with_badges
from .cache import Cache
from .database import Database
from .events import Events
from .faults import BadFaults, FaultSwitch
from .features import ALL, BADGES, VISITOR, Features, remember
from .health import Health
from .listings import PAGE, PHOTO_NAME, Answer, BadListing, Draft, KeyReused, Listings
from .live import Live
from .metrics import CONTENT_TYPE, Metrics
from .photos import TYPES, BadPhoto, Photos, PhotoTooLarge
from .settings import Settings
from .surroundings import Surroundings, problem

JSON_BYTES = 64 * 1024
CHUNK = 64 * 1024
SLOWEST = 30.0


class Api:
    """One storefront API. `application()` is what a server runs."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics(version=settings.version, commit=settings.commit)
        self.faults = FaultSwitch(settings.faults)
        self.database = Database(settings, self.metrics)
        self.cache = Cache(settings, self.metrics)
        self.photos = Photos(settings.photos, settings.photo_max_bytes)
        self.listings = Listings(self.database, self.cache, self.metrics)
        self.live = Live(settings, self.metrics)
        self.events = Events(settings, self.metrics)
        self.features = Features(settings.flags)
        self.health = Health(self.database, self.cache, self.photos, self.listings, self.faults)
        self.surroundings = Surroundings(settings, self.metrics, self.health, self.faults, self.features)
        self.started = datetime.now(UTC).isoformat(timespec="seconds")

    def application(self) -> web.Application:
        """The aiohttp application with its life cycle."""
        app = web.Application(client_max_size=JSON_BYTES)
        self.surroundings.install(app)
        app.add_routes(
            [
                web.get("/health/live", self.alive),
                web.get("/health/ready", self.ready),
                web.get("/metrics", self.show_metrics),
                web.get("/api/health/live", self.alive),
                web.get("/api/health/ready", self.ready),
                web.get("/api/version", self.version),
                web.get("/api/listings", self.page),
                web.post("/api/listings", self.add),
                web.get("/api/listings/{id}", self.one),
                web.post("/api/photos", self.upload),
                web.get("/api/photos/{name}", self.photo),
                web.get("/api/slow", self.slow),
                web.get("/api/features", self.show_features),
                web.get("/api/live", self.live.serve),
                web.get("/api/events", self.stream),
            ]
        )
        if self.faults.enabled:
            app.add_routes(
                [
                    web.get("/api/faults", self.show_faults),
                    web.put("/api/faults", self.switch_faults),
                    web.delete("/api/faults", self.switch_faults),
                ]
            )
        app.cleanup_ctx.append(self._run)
        app.on_shutdown.append(self._leave)
        return app

    async def _run(self, app: web.Application) -> AsyncIterator[None]:
        await self.database.open()
        self.features.start()
        self.faults.start()
        self.health.start()
        await self.photos_tidy()
        yield
        self.features.close()
        await self.health.close()
        await self.database.close()
        await self.cache.close()
        self.photos.close()

    async def photos_tidy(self) -> None:
        """Remove what killed uploads left; a volume that cannot be read shows in the health report instead."""
        if await self.photos.usable():
            await self.photos.sweep()

    async def _leave(self, app: web.Application) -> None:
        self.health.stopping = True
        await asyncio.gather(self.live.close(), self.events.close())

    async def alive(self, request: web.Request) -> web.Response:
        """200 while the event loop turns."""
        return web.json_response({"status": "alive"})

    async def ready(self, request: web.Request) -> web.Response:
        """200 when this replica can serve, be it degraded; 503 otherwise."""
        ready, report = self.health.report()
        return web.json_response(report, status=200 if ready else 503)

    async def show_metrics(self, request: web.Request) -> web.Response:
        """For Prometheus."""
        return web.Response(body=self.metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def version(self, request: web.Request) -> web.Response:
        """What runs here."""
        settings = self.settings
        return web.json_response(
            {
                "service": "api",
                "version": settings.version,
                "commit": settings.commit,
                "release": settings.release or None,
                "environment": settings.environment,
                "instance": settings.instance,
                "started_at": self.started,
            }
        )

    async def page(self, request: web.Request) -> web.Response:
        """The newest listings; `limit` (1 to 100) and `before` (a listing's id) page through them."""
        try:
            limit = int(request.query.get("limit", PAGE))
            before = uuid.UUID(request.query["before"]) if "before" in request.query else None
        except ValueError:
            return problem(400, "limit must be a number, before a listing's id")
        if not 1 <= limit <= 100:
            return problem(400, "limit must be from 1 to 100")
        found = await self.listings.page(limit, before)
        shown = self._decorated(request, found.body)
        return self._answered(request, {"listings": shown, "degraded": found.source == "copy"}, found)

    async def one(self, request: web.Request) -> web.Response:
        """One listing."""
        try:
            listing = uuid.UUID(request.match_info["id"])
        except ValueError:
            return problem(404, "there is no such listing")
        found = await self.listings.one(listing)
        if found is None:
            return problem(404, "there is no such listing")
        return self._answered(request, self._decorated(request, [found.body])[0], found)

    async def add(self, request: web.Request) -> web.Response:
        """A new listing from JSON. With the same Idempotency-Key, the same listing again."""
        key = request.headers.get("Idempotency-Key")
        if key is not None and not 1 <= len(key) <= 200:
            return problem(400, "Idempotency-Key must have 1 to 200 characters")
        try:
            draft = Draft.parse(json.loads(await request.text()))
        except (ValueError, RecursionError):
            return problem(400, "the body must be JSON")
        except BadListing as error:
            return problem(422, str(error), fields=error.problems)
        if draft.photo is not None and await self.photos.find(draft.photo) is None:
            return problem(422, "photo: has not been uploaded", fields={"photo": "has not been uploaded"})
        try:
            listing, new = await self.listings.add(draft, key)
        except KeyReused:
            return problem(409, "this Idempotency-Key was used for another listing")
        if new:
            self.events.tell(listing)
            await self.live.tell({"type": "listing", "listing": listing})
        return web.json_response(
            listing, status=201 if new else 200, headers={"Location": f"/api/listings/{listing['id']}"}
        )

    async def upload(self, request: web.Request) -> web.Response:
        """A photo: the body itself, or the field `photo` of a form."""
        limit = self.settings.photo_max_bytes
        if (request.content_length or 0) > limit + 4096:
            return problem(413, f"a photo may have at most {limit} bytes")
        try:
            if request.content_type == "multipart/form-data":
                part = await _photo_part(request)
                if part is None:
                    return problem(400, "the form has no file field «photo»")
                stored = await self.photos.store(_part_chunks(part))
            else:
                stored = await self.photos.store(request.content.iter_chunked(CHUNK))
        except PhotoTooLarge:
            return problem(413, f"a photo may have at most {limit} bytes")
        except BadPhoto as error:
            return problem(415, str(error))
        except (ValueError, AssertionError):
            return problem(400, "the form cannot be read")
        url = f"/api/photos/{stored.name}"
        body = {"photo": stored.name, "url": url, "bytes": stored.size}
        return web.json_response(body, status=201 if stored.new else 200, headers={"Location": url})

    async def photo(self, request: web.Request) -> web.StreamResponse:
        """A photo's bytes. They never change under their name, so they may be kept for good."""
        name = request.match_info["name"]
        path = await self.photos.find(name) if PHOTO_NAME.fullmatch(name) else None
        if path is None:
            return problem(404, "there is no such photo")
        headers = {
            "Content-Type": TYPES[path.suffix[1:]],
            "Cache-Control": "public, max-age=31536000, immutable",
            "Content-Disposition": "inline",
        }
        return web.FileResponse(path, headers=headers)

    async def slow(self, request: web.Request) -> web.Response:
        """Answers after `seconds` (default 5), to show what a deploy does to long requests."""
        try:
            seconds = float(request.query.get("seconds", "5"))
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= SLOWEST:
            return problem(400, f"seconds must be from 0 to {SLOWEST:g}")
        await asyncio.sleep(seconds)
        return web.json_response({"slept": seconds, "version": self.settings.version})

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events."""
        if self.events.full:
            return problem(503, "no more event streams at the moment", retry_after=1)
        return await self.events.serve(request)

    async def show_features(self, request: web.Request) -> web.Response:
        """Which features are on for whoever asks."""
        visitor, new = request[VISITOR]
        answer = web.json_response({feature: self.features.on(feature, visitor) for feature in ALL})
        if new:
            remember(answer, visitor)
        return answer

    def _decorated(self, request: web.Request, listings: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not self.features.on(BADGES, request[VISITOR][0]):
            return listings
        return with_badges(listings, datetime.now(UTC))

    def _answered(self, request: web.Request, body: object, found: Answer) -> web.Response:
        headers = {"X-Source": found.source}
        if found.source != "database":
            headers["Age"] = str(int(found.age_seconds))
        if found.source == "copy":
            headers["Warning"] = '110 - "response is stale"'
        visitor, new = request[VISITOR]
        if features := self.features.of(visitor):
            headers["X-Features"] = ", ".join(features)
        answer = web.json_response(body, headers=headers)
        if new:
            remember(answer, visitor)
        return answer

    async def show_faults(self, request: web.Request) -> web.Response:
        """The faults in force in this replica."""
        return web.json_response(asdict(self.faults.now))

    async def switch_faults(self, request: web.Request) -> web.Response:
        """Put other faults in force in this replica (PUT with a JSON object), or none (DELETE)."""
        try:
            values = json.loads(await request.text()) if request.method == "PUT" else {}
            if not isinstance(values, dict):
                return problem(400, "the body must be a JSON object")
            self.faults.switch(fault_words.from_mapping(values))
        except (ValueError, RecursionError):
            return problem(400, "the body must be JSON")
        except BadFaults as error:
            return problem(422, str(error))
        return web.json_response(asdict(self.faults.now))


async def _photo_part(request: web.Request) -> BodyPartReader | None:
    async for part in await request.multipart():
        if isinstance(part, BodyPartReader) and part.name == "photo":
            return part
    return None


async def _part_chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await part.read_chunk(CHUNK):
        yield bytes(chunk)
