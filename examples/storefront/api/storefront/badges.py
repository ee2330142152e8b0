"""The feature `listing-badges`: a word beside a listing."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

BARGAIN_CENTS = 1000
NEW = timedelta(days=1)


def badge_of(listing: dict[str, Any], now: datetime) -> str | None:
    """`bargain` below ten euros, `new` within a day, else None."""
    if listing["price_cents"] < BARGAIN_CENTS:
        return "bargain"
    return "new" if now - datetime.fromisoformat(listing["created_at"]) < NEW else None


def with_badges(listings: list[dict[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """The listings, each with its `badge`."""
    return [{**listing, "badge": badge_of(listing, now)} for listing in listings]
