"""Which stored bytes to read now so that everything is read once in a given time. Pure.

A round is divided into POSITIONS. What is read has a place in the round: a block by its index, a file by its address.
A cursor counts positions since the first round began; it moves with time, so that a check that was missed is made up
for, and nothing is read twice in a round however often somebody checks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

POSITIONS = 65536
CHECK_HOURS = 6.0
"""How often checks are expected to run: each reads ahead by so much, so that every set is read a little at once."""


@dataclass(frozen=True)
class Window:
    """Positions from `begin` to before `end`, counted from the first round; at most one whole round."""

    begin: int
    end: int

    def has(self, place: int) -> bool:
        """Whether a place of the round (0 … POSITIONS-1) lies in it."""
        return (place - self.begin) % POSITIONS < self.end - self.begin

    @property
    def share(self) -> float:
        """Fraction of a round."""
        return (self.end - self.begin) / POSITIONS

    def pieces(self, count: int) -> tuple[Window, ...]:
        """The same in at most so many windows, one after the other."""
        edges = sorted({self.begin + (self.end - self.begin) * number // count for number in range(count + 1)})
        return tuple(Window(begin, end) for begin, end in pairwise(edges))


WHOLE, NOTHING = Window(0, POSITIONS), Window(0, 0)


def due(cursor: int, since: datetime, now: datetime, all_days: float) -> Window:
    """Given how far one got and when the first round began, return what to read now; empty when one is ahead."""
    hours = max((now - since).total_seconds() / 3600, 0.0) + CHECK_HOURS
    target = int(POSITIONS * hours / (all_days * 24))
    if target <= cursor:
        return Window(cursor, cursor)
    return Window(max(cursor, target - POSITIONS), target)


def place_of_block(index: int, count: int) -> int:
    """Place in the round of one of `count` blocks."""
    return index * POSITIONS // count


def place_of_address(address: str) -> int:
    """Place in the round of a media object, by its (evenly distributed) address."""
    return int(address[:4], 16)
