"""One way, and only one, to write a record as JSON, so that its hash and its signature mean something.

Keys sorted by code point, no spaces, UTF-8 without escapes but those JSON demands, times as
`2026-11-20T06:00:00.000000Z`, no floating point numbers (no two languages print all of them alike).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any

MOST_DEPTH = 64


def canonical(value: object) -> bytes:
    """Given dataclasses, mappings, sequences, texts, whole numbers, booleans, times and None, return the JSON.

    Raise ValueError naming the place of anything else: a float, a time without zone, half a surrogate pair.
    """
    return _written(plain(value))


def plain(value: object) -> Any:
    """The same as dicts, lists, texts, whole numbers, booleans and None. Raise ValueError."""
    return _plain(value, "", 0)


def strict_json(data: bytes) -> Any:
    """Parse JSON that must be canonical. Raise ValueError saying what is not: a key twice, spaces, order, no JSON."""
    try:
        value = json.loads(data.decode(), parse_constant=_refuse_number, parse_float=_refuse_number)
        same = _written(value) == data
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeError:
        raise ValueError("not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error.msg} at character {error.pos}") from None
    if not same:
        # Only now, on the way to a refusal, pay for looking at every pair.
        json.loads(data.decode(), object_pairs_hook=_refuse_doubles)
        raise ValueError("not written canonically (order of keys, spaces, escapes or numbers)")
    return value


def difference(one: object, other: object, place: str = "") -> str:
    """Given what ought to be and what is, both as of `plain`, name the first place that differs, "" when none does."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            here = f"{place}.{key}".lstrip(".")
            if key not in other:
                return f"{here} is missing"
            if key not in one:
                return f"{here} is not known"
            if found := difference(one[key], other[key], here):
                return found
        return ""
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return next((found for i in range(len(one)) if (found := difference(one[i], other[i], f"{place}[{i}]"))), "")
    return "" if type(one) is type(other) and one == other else f"{place or 'content'} is written differently"


def _written(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _plain(value: object, place: str, depth: int) -> Any:
    if depth > MOST_DEPTH:
        raise ValueError(f"{_named(place)}: nested too deeply")
    if value is None or type(value) in (bool, int):
        return value
    if isinstance(value, str):
        return _text(str(value), place)  # of a StrEnum the text
    if isinstance(value, datetime):
        return _time(value, place)
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name), f"{place}.{one.name}", depth + 1) for one in fields(value)}
    if isinstance(value, Mapping):
        for key in value:
            if type(key) is not str:
                raise ValueError(f"{_named(place)}: the key {key!r} is not text")
            _text(key, place)
        return {key: _plain(item, f"{place}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{place}[{number}]", depth + 1) for number, item in enumerate(value)]
    raise ValueError(f"{_named(place)}: {type(value).__name__} has no canonical form")


def _named(place: str) -> str:
    return place.lstrip(".") or "content"


def _text(value: str, place: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{_named(place)}: text with half a surrogate pair") from None
    return value


def _time(value: datetime, place: str) -> str:
    if value.tzinfo is None:
        raise ValueError(f"{_named(place)}: a time without zone")
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _refuse_number(text: str) -> None:
    raise ValueError(f"{text[:40]} is no whole number")


def _refuse_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands twice")
        found[key] = value
    return found
