"""Recorded units in bounded memory: the newest one by one, older ones merged two and two, again and again."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from ops_pipeline.core.judgement.units import Unit

ROWS = 512
_COLUMNS = 8
_LARGEST = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Recorded:
    """One unit as kept: seconds since 1970 of its last scrape, nominal length, counts of both sides."""

    at: float
    seconds: float
    total: int
    errors: int
    slow: int
    stable_total: int
    stable_errors: int
    stable_slow: int


class Records:
    """At most ROWS rows of 32 bytes. When they are full, the older half is merged pair by pair."""

    def __init__(self, since: float) -> None:
        self._since = since
        self._rows = array("I")

    def __len__(self) -> int:
        return len(self._rows) // _COLUMNS

    def __iter__(self) -> Iterator[Recorded]:
        rows = self._rows
        for i in range(0, len(rows), _COLUMNS):
            row = rows[i : i + _COLUMNS]
            yield Recorded(self._since + row[0] / 1000, row[1] / 1000, *row[2:])

    def add(self, unit: Unit) -> None:
        """Keep one more."""
        if len(self) >= ROWS:
            self._merge()
        mine, stable = unit.release, unit.stable
        offset = round((unit.at - self._since) * 1000)
        counts = (mine.total, mine.errors, mine.slow, stable.total, stable.errors, stable.slow)
        row = (max(0, offset), round(unit.seconds * 1000), *counts)
        self._rows.extend(min(value, _LARGEST) for value in row)

    def _merge(self) -> None:
        rows, half = self._rows, ROWS // 2 * _COLUMNS
        merged = array("I")
        for i in range(0, half, 2 * _COLUMNS):
            first, second = rows[i : i + _COLUMNS], rows[i + _COLUMNS : i + 2 * _COLUMNS]
            sums = (min(a + b, _LARGEST) for a, b in zip(first[1:], second[1:], strict=True))
            merged.extend((second[0], *sums))
        self._rows = merged + rows[half:]
