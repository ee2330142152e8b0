"""Which media objects nobody needs any more: marked twice, a day apart, before anything is deleted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

GRACE = timedelta(hours=24)
MOST_MARKS = 50_000
"""Marks kept at once; what is over is marked when these are gone. Keeps the record small."""


@dataclass(frozen=True)
class Mark:
    """An object no set named at `at`. `etag` tells it from one that comes later under the same name."""

    at: datetime
    etag: str
    size: int


@dataclass(frozen=True)
class Marks:
    """All marks, by address: `media-gc/marks.json` in `vault.state`."""

    marks: Mapping[str, Mark] = field(default_factory=dict)


@dataclass(frozen=True)
class Condemned:
    """Objects about to be deleted, by address: `media-gc/condemned.json` in `vault.state`.

    From the moment a name stands here no set reuses it, whatever becomes of the deletion.
    """

    marks: Mapping[str, Mark] = field(default_factory=dict)


def marked(
    before: Mapping[str, Mark], unneeded: Iterable[tuple[str, str, int]], now: datetime, most: int = MOST_MARKS
) -> dict[str, Mark]:
    """Given earlier marks and what nobody needs now (address, etag, size), return the marks that count from now on.

    A mark keeps its time only while the object is the same one and stays unneeded. One from the future (a clock that
    jumped) counts from now.
    """
    marks: dict[str, Mark] = {}
    for address, etag, size in unneeded:
        if len(marks) >= most:
            break
        earlier = before.get(address)
        same = earlier is not None and earlier.etag == etag and earlier.at <= now
        marks[address] = earlier if same and earlier is not None else Mark(now, etag, size)
    return marks


def due(marks: Mapping[str, Mark], now: datetime, grace: timedelta = GRACE) -> dict[str, Mark]:
    """Marks that are old enough."""
    return {address: mark for address, mark in marks.items() if now - mark.at >= grace}
