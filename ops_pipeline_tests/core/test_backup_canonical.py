"""Canonical JSON: one spelling for every value, and no value that two readers could understand differently."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops_pipeline.core.backup.canonical import canonical, difference, plain, strict_json

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=12,
)


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Thing:
    at: datetime
    colour: Colour
    sizes: tuple[int, ...]
    more: dict[str, str | None]


def test_the_spelling() -> None:
    at = datetime(2026, 11, 20, 7, 0, tzinfo=timezone(timedelta(hours=1)))
    thing = Thing(at, Colour.RED, (2, 1), {"ü": "a\n\0", "b": None})
    assert canonical(thing).decode() == (
        '{"at":"2026-11-20T06:00:00.000000Z","colour":"red","more":{"b":null,"ü":"a\\n\\u0000"},"sizes":[2,1]}'
    )


@given(VALUES)
def test_every_value_has_one_spelling_and_comes_back(value: Any) -> None:
    data = canonical(value)
    assert strict_json(data) == value
    assert canonical(strict_json(data)) == data


@given(VALUES, VALUES)
def test_a_difference_is_named_when_and_only_when_there_is_one(one: Any, other: Any) -> None:
    assert (difference(plain(one), plain(other)) == "") == (canonical(one) == canonical(other))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": {"b": 1.5}}, "a.b: float"),
        ([float("nan")], "[0]: float"),
        ({"at": datetime(2026, 1, 1)}, "at: a time without zone"),
        ({"name": "\udc80"}, "name: text with half"),
        ({1: "a"}, "the key 1 is not text"),
        ({"data": b"raw"}, "data: bytes"),
        ({"set": {1}}, "set: set"),
    ],
)
def test_what_has_no_canonical_form_is_named(value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("[", r"\[")):
        canonical(value)


def test_nesting_is_bounded() -> None:
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        canonical(deep)
    with pytest.raises(ValueError):
        strict_json(b"[" * 100_000)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"a":1,"a":1}', "'a' stands twice"),
        (b'{"o":{"b":2,"b":3}}', "'b' stands twice"),
        (b'{"b":1,"a":2}', "not written canonically"),
        (b'{"a": 1}', "not written canonically"),
        (b'{"a":1}\n', "not written canonically"),
        (b'{"a":"\\u0041"}', "not written canonically"),
        (b'{"a":1.0}', "1.0 is no whole number"),
        (b'{"a":1e3}', "1e3 is no whole number"),
        (b'{"a":NaN}', "NaN is no whole number"),
        (b'{"a":-0}', "not written canonically"),
        (b'{"a":"\\ud800"}', "not UTF-8"),
        (b"\xff", "not UTF-8"),
        (b'{"a":', "no JSON"),
        (b"", "no JSON"),
        (b"[" + b"9" * 5000 + b"]", "digits"),
    ],
)
def test_what_is_not_canonical_is_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        strict_json(data)


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ({"a": 1}, {}, "a is missing"),
        ({}, {"a": 1}, "a is not known"),
        ({"a": [{"b": 1}]}, {"a": [{"b": "1"}]}, "a[0].b is written differently"),
        ([1], [1, 2], "content is written differently"),
        ({"a": 1}, {"a": True}, "a is written differently"),
    ],
)
def test_the_first_difference_is_named(one: Any, other: Any, words: str) -> None:
    # «missing»: the second ought to have it and has not.
    assert difference(one, other) == words


def test_it_is_what_python_writes_with_four_options() -> None:
    value = {"z": [1, None, True], "a": {"ß": "\u2028"}}
    assert canonical(value).decode() == json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
