"""Ids of sets: ULIDs (https://github.com/ulid/spec), which sort by the time they were made.

Pure: time and randomness come in as arguments.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH = 26
RANDOM_BYTES = 10
PATTERN = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME_BITS = 48
_RANDOM_BITS = 80


def next_ulid(now: datetime, random: bytes, after: str = "") -> str:
    """Given the time, ten random bytes and the newest id given out (may be empty), return an id that sorts after it.

    When the clock went back, or two ids fall into one millisecond, the newest id's millisecond plus one is taken, so
    that ids stay in the order in which the sets were taken. Raise ValueError for other than ten random bytes.
    """
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"{RANDOM_BYTES} random bytes are needed")
    milliseconds = max((now - _EPOCH) // timedelta(milliseconds=1), 0)
    if after:
        milliseconds = max(milliseconds, (_number(after) >> _RANDOM_BITS) + 1)
    if milliseconds >= 1 << _TIME_BITS:
        raise ValueError("no id can be made for a time so far ahead")
    return _text(milliseconds << _RANDOM_BITS | int.from_bytes(random))


def ulid_time(ulid: str) -> datetime:
    """The time an id says. Raise ValueError when it is none, or beyond what a date can say."""
    if not PATTERN.fullmatch(ulid):
        raise ValueError(f"{ulid!r} is no ULID")
    try:
        return _EPOCH + timedelta(milliseconds=_number(ulid) >> _RANDOM_BITS)
    except OverflowError as error:
        raise ValueError(f"{ulid!r} names no time") from error


def _number(ulid: str) -> int:
    value = 0
    for character in ulid:
        value = value << 5 | ALPHABET.index(character)
    return value


def _text(value: int) -> str:
    return "".join(ALPHABET[value >> shift & 31] for shift in range(5 * (LENGTH - 1), -1, -5))
