"""Names of releases: directory timestamps that sort and never repeat, container names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_FORMAT = "%Y%m%dT%H%M%S"


def release_timestamp(now: datetime, after: str = "") -> str:
    """Given the time and the newest timestamp given out (may be empty), return one that sorts after it.

    `20261121T101500.123Z`. When the clock went back or two releases fall into one millisecond, the newest
    timestamp plus a millisecond is taken, so that names stay unique and in the order of the numbers.
    """
    stamp = _text(now.astimezone(UTC))
    if after and stamp <= after:
        stamp = _text(_time(after) + timedelta(milliseconds=1))
    return stamp


def container_name(environment: str, service: str, release: int, index: int) -> str:
    """Name of a replica's container: `ops-prod-api-7-0`."""
    return f"ops-{environment}-{service}-{release}-{index}"


def smoke_name(environment: str, service: str, release: int, test: int) -> str:
    """Name of the one-shot container of a smoke test: `ops-prod-api-7-smoke-0`, which no replica can have."""
    return f"ops-{environment}-{service}-{release}-smoke-{test}"


def _text(moment: datetime) -> str:
    return f"{moment.strftime(_FORMAT)}.{moment.microsecond // 1000:03d}Z"


def _time(stamp: str) -> datetime:
    seconds, _, milliseconds = stamp.removesuffix("Z").partition(".")
    return datetime.strptime(seconds, _FORMAT).replace(tzinfo=UTC) + timedelta(milliseconds=int(milliseconds))
