"""Dataclasses to JSON and back, strictly: a stored object of another shape is damage, named by its key."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ops_pipeline.errors import StoreDamaged

T = TypeVar("T")


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    # Building an adapter compiles a validator (milliseconds); a process meets the same few kinds all the time.
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def encode(record: Any) -> bytes:
    """Given a dataclass of `core`, return its JSON, indented for people."""
    return bytes(_adapter(type(record)).dump_json(record, indent=2)) + b"\n"


def decode(kind: type[T], data: bytes, key: str) -> T:
    """Given stored JSON, return the dataclass. Raise StoreDamaged naming `key` and what is wrong with it."""
    try:
        record: T = _adapter(kind).validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "content"
        raise StoreDamaged(
            f"stored object {key} is damaged: {place}: {first['msg']}",
            hint="Restore it from a copy of the store; nothing was changed.",
        ) from error
    return record
