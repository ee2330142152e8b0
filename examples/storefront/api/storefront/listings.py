"""Listings: what one is, how it is stored, and what is shown when the store is away."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .cache import Cache
from .database import Database, DatabaseUnavailable
from .metrics import Metrics

PAGE = 50
FRESH_SECONDS = 30  # younger copies are served without asking the database
KEEP_SECONDS = 24 * 3600  # older ones only while the database is away
PHOTO_NAME = re.compile(r"[0-9a-f]{64}\.(?:jpg|png|webp)")

_COLUMNS = "id, title, description, price_cents, photo, created_at"
_NEWEST = f"SELECT {_COLUMNS} FROM listings ORDER BY created_at DESC, id DESC LIMIT $1"
_OLDER = (
    f"SELECT {_COLUMNS} FROM listings WHERE (created_at, id) < (SELECT created_at, id FROM listings WHERE id = $2) "
    "ORDER BY created_at DESC, id DESC LIMIT $1"
)
_ONE = f"SELECT {_COLUMNS} FROM listings WHERE id = $1"
_ADD = (
    "INSERT INTO listings (id, title, description, price_cents, photo) VALUES ($1, $2, $3, $4, $5) "
    f"ON CONFLICT (id) DO NOTHING RETURNING {_COLUMNS}"
)


class BadListing(Exception):
    """Names every field that cannot be used."""

    def __init__(self, problems: dict[str, str]) -> None:
        super().__init__("; ".join(f"{field}: {text}" for field, text in problems.items()))
        self.problems = problems


class KeyReused(Exception):
    """The idempotency key already belongs to another listing."""


@dataclass(frozen=True)
class Draft:
    """A listing somebody wants to add."""

    title: str
    description: str
    price_cents: int
    photo: str | None

    @staticmethod
    def parse(body: object) -> Draft:
        """A checked draft. Raises BadListing with all problems."""
        if not isinstance(body, dict):
            raise BadListing({"body": "must be a JSON object"})
        problems: dict[str, str] = {}
        for field in body.keys() - {"title", "description", "price_cents", "photo"}:
            problems[str(field)] = "is not a field of a listing"

        def text(field: str, low: int, high: int) -> str:
            value = body.get(field, "")
            if not isinstance(value, str):
                problems[field] = "must be text"
                return ""
            value = value.strip()
            if not low <= len(value) <= high:
                problems[field] = f"must have {low} to {high} characters"
            elif "\x00" in value or any(0xD800 <= ord(letter) <= 0xDFFF for letter in value):
                problems[field] = "contains characters that cannot be stored"
            return value

        title = text("title", 1, 120)
        description = text("description", 0, 2000)
        price = body.get("price_cents")
        if isinstance(price, bool) or not isinstance(price, int) or not 0 <= price <= 100_000_000:
            problems["price_cents"] = "must be a whole number from 0 to 100000000"
        photo = body.get("photo")
        if photo is not None and not (isinstance(photo, str) and PHOTO_NAME.fullmatch(photo)):
            problems["photo"] = "must be the name of an uploaded photo"
        if problems:
            raise BadListing(problems)
        return Draft(title, description, price, photo)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Answer:
    """What to send: `source` is database, cache or copy (an old state, because the database is away)."""

    body: Any
    source: str
    age_seconds: float = 0.0


class Listings:
    """Reads and writes listings. Reads outlive the database as far as there is a copy; writes say no quickly."""

    def __init__(
        self, database: Database, cache: Cache, metrics: Metrics, *, now: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._cache = cache
        self._metrics = metrics
        self._now = now
        self._first_page: tuple[float, list[dict[str, Any]]] | None = None

    @property
    def has_copy(self) -> bool:
        """Whether the first page could be shown without the database."""
        return self._first_page is not None

    async def page(self, limit: int = PAGE, before: uuid.UUID | None = None) -> Answer:
        """The newest listings, or those older than `before`. Raises DatabaseUnavailable when there is no copy."""

        async def read(connection: Any) -> list[Any]:
            asked = (_NEWEST, limit) if before is None else (_OLDER, limit, before)
            return list(await connection.fetch(*asked))

        try:
            found = [_shown(row) for row in await self._database.run(read)]
        except DatabaseUnavailable:
            if before is not None or self._first_page is None:
                raise
            taken, copy = self._first_page
            self._metrics.degraded.labels("/api/listings").inc()
            return Answer(copy[:limit], "copy", self._now() - taken)
        if before is None and limit >= PAGE:
            self._first_page = (self._now(), found[:PAGE])
        return Answer(found, "database")

    async def one(self, listing: uuid.UUID) -> Answer | None:
        """A listing, None when there is none. Raises DatabaseUnavailable when there is no copy either."""
        key = f"storefront:1:listing:{listing}"
        cached = _unpack(await self._cache.get(key))
        if cached is not None and self._now() - cached[0] < FRESH_SECONDS:
            self._metrics.cache.labels("hit").inc()
            return Answer(cached[1], "cache", max(0.0, self._now() - cached[0]))

        async def read(connection: Any) -> Any:
            return await connection.fetchrow(_ONE, listing)

        try:
            row = await self._database.run(read)
        except DatabaseUnavailable:
            cached = cached or self._from_first_page(listing)
            if cached is None:
                raise
            self._metrics.cache.labels("stale").inc()
            self._metrics.degraded.labels("/api/listings/{id}").inc()
            return Answer(cached[1], "copy", max(0.0, self._now() - cached[0]))
        self._metrics.cache.labels("miss").inc()
        if row is None:
            return None
        shown = _shown(row)
        await self._remember(key, shown)
        return Answer(shown, "database")

    async def add(self, draft: Draft, key: str | None = None) -> tuple[dict[str, Any], bool]:
        """The stored listing and whether it is new. Raises DatabaseUnavailable, KeyReused.

        The id is chosen before the database is asked (from the caller's idempotency key, if any), so repeating the
        insert after a broken connection cannot make two listings.
        """
        listing = uuid.uuid5(uuid.NAMESPACE_OID, f"storefront:{key}") if key else uuid.uuid4()

        async def write(connection: Any) -> tuple[Any, bool]:
            row = await connection.fetchrow(
                _ADD,
                listing,
                draft.title,
                draft.description,
                draft.price_cents,
                draft.photo,
            )
            if row is not None:
                return row, True
            # There already: the caller's key was used before, or our own first try did get through.
            return await connection.fetchrow(_ONE, listing), key is None

        row, new = await self._database.run(write)
        if Draft(row["title"], row["description"], row["price_cents"], row["photo"]) != draft:
            raise KeyReused
        shown = _shown(row)
        if new and self._first_page is not None:
            taken, copy = self._first_page
            self._first_page = (taken, [shown, *copy][:PAGE])
        await self._remember(f"storefront:1:listing:{listing}", shown)
        return shown, new

    def _from_first_page(self, listing: uuid.UUID) -> tuple[float, dict[str, Any]] | None:
        if self._first_page is None:
            return None
        taken, copy = self._first_page
        return next(((taken, shown) for shown in copy if shown["id"] == str(listing)), None)

    async def _remember(self, key: str, shown: dict[str, Any]) -> None:
        packed = json.dumps({"at": self._now(), "listing": shown}).encode()
        await self._cache.put(key, packed, seconds=KEEP_SECONDS)


def _shown(row: Any) -> dict[str, Any]:
    created: datetime = row["created_at"]
    return {
        "id": str(row["id"]),
        "title": row["title"],
        "description": row["description"],
        "price_cents": row["price_cents"],
        "photo": row["photo"],
        "photo_url": f"/api/photos/{row['photo']}" if row["photo"] else None,
        "created_at": created.isoformat(),
    }


def _unpack(packed: bytes | None) -> tuple[float, dict[str, Any]] | None:
    """What `_remember` stored; None for anything else, for a cache may hold what another version wrote."""
    if packed is None:
        return None
    try:
        value = json.loads(packed)
        at, listing = float(value["at"]), value["listing"]
    except (ValueError, KeyError, TypeError):
        return None
    return (at, listing) if isinstance(listing, dict) else None
