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
_FIELD_NAMES: dict[type[Any], tuple[str, ...]] = {}
_Place = tuple[Any, ...]  # () or (the place around, ".name" or number): put into words only for an error


def canonical(value: object) -> bytes:
    """Given dataclasses, mappings, sequences, texts, whole numbers, booleans, times and None, return the JSON.

    Raise ValueError naming the place of anything else: a float, a time without zone, half a surrogate pair.
    """
    return written(plain(value))


def plain(value: object) -> Any:
    """The same as dicts, lists, texts, whole numbers, booleans and None. Raise ValueError."""
    return _plain(value, (), 0)


def written(value: object) -> bytes:
    """What `plain` or `strict_json` returned, as canonical JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def strict_json(data: bytes) -> Any:
    """Parse JSON that must be canonical. Raise ValueError saying what is not: a key twice, spaces, order, no JSON."""
    try:
        value = json.loads(data.decode(), parse_constant=_refuse_number, parse_float=_refuse_number)
        same = written(value) == data
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


def _plain(value: Any, place: _Place, depth: int) -> Any:
    # The commonest first: lists of blocks make manifests of large sets long.
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _text(value, place)
    if kind is int or kind is bool or value is None:
        return value
    if depth > MOST_DEPTH:
        raise ValueError(f"{_named(place)}: nested too deeply")
    if names := _field_names(kind):
        return {name: _plain(getattr(value, name), (place, "." + name), depth + 1) for name in names}
    if isinstance(value, str):
        return _text(str(value), place)  # of a StrEnum the text
    if isinstance(value, datetime):
        return _time(value, place)
    if isinstance(value, Mapping):
        for key in value:
            if type(key) is not str:
                raise ValueError(f"{_named(place)}: the key {key!r} is not text")
            _text(key, place)
        return {key: _plain(item, (place, "." + key), depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, (place, number), depth + 1) for number, item in enumerate(value)]
    raise ValueError(f"{_named(place)}: {kind.__name__} has no canonical form")


def _field_names(kind: type[Any]) -> tuple[str, ...]:
    """Names of a dataclass's fields; empty for anything else."""
    if kind not in _FIELD_NAMES:
        _FIELD_NAMES[kind] = tuple(one.name for one in fields(kind)) if is_dataclass(kind) else ()
    return _FIELD_NAMES[kind]


def _named(place: _Place) -> str:
    steps = []
    while place:
        place, step = place
        steps.append(step if isinstance(step, str) else f"[{step}]")
    return "".join(reversed(steps)).lstrip(".") or "content"


def _text(value: str, place: _Place) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{_named(place)}: text with half a surrogate pair") from None
    return value


def _time(value: datetime, place: _Place) -> str:
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
