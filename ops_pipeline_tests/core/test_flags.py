"""Flags as applications read them: the form of the file, shares that are right, stable and only grow."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops_pipeline.core.flags import (
    CHANGES_KEPT,
    FlagBook,
    FlagOverride,
    FlagRule,
    flag_file,
    flag_state,
    flagd_document,
    with_override,
    without_override,
)

NOW = datetime(2026, 11, 21, tzinfo=UTC)
KEYS = ("state", "variants", "defaultVariant", "targeting")
"""What flagd's definition of a flag may hold; a provider refuses a file with others."""

rules = st.builds(FlagRule, on=st.booleans(), percent=st.floats(0, 100), guards=st.sampled_from(["", "api"]))
overrides = st.builds(
    FlagOverride, on=st.booleans(), percent=st.floats(0, 100), who=st.text(), why=st.text(), at=st.just(NOW)
)
names = st.from_regex(r"[a-z][a-z0-9-]{0,30}", fullmatch=True)


def override(on: bool, percent: float = 100, **changes: object) -> FlagOverride:
    return replace(FlagOverride(on, percent, "ada", "why not", NOW), **changes)  # type: ignore[arg-type]


def definition(rule: FlagRule, over: FlagOverride | None = None) -> dict[str, object]:
    found = flagd_document({"badges": rule}, {} if over is None else {"badges": over})["flags"]["badges"]
    assert found["state"] == "ENABLED" and found["variants"] == {"on": True, "off": False}
    assert isinstance(found, dict)
    return {key: value for key, value in found.items() if key in {"defaultVariant", "targeting"}}


def share(percent: float) -> list[list[object]]:
    return [["on", round(percent * 100)], ["off", 10_000 - round(percent * 100)]]


def test_the_whole_document() -> None:
    document = flagd_document({"b": FlagRule(on=True), "a": FlagRule(on=True, percent=25)}, {})
    assert document == {
        "$schema": "https://flagd.dev/schema/v0/flags.json",
        "flags": {
            "a": {
                "state": "ENABLED",
                "variants": {"on": True, "off": False},
                "defaultVariant": "off",
                "targeting": {"fractional": [["on", 2500], ["off", 7500]]},
            },
            "b": {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"},
        },
    }
    assert flagd_document({}, {}) == {"$schema": "https://flagd.dev/schema/v0/flags.json", "flags": {}}


def test_what_the_catalogue_says() -> None:
    assert definition(FlagRule()) == {"defaultVariant": "off"}
    assert definition(FlagRule(on=True)) == {"defaultVariant": "on"}
    assert definition(FlagRule(on=True, percent=0)) == {"defaultVariant": "off"}
    assert definition(FlagRule(on=False, percent=50)) == {"defaultVariant": "off"}
    for percent in (0.01, 0.5, 10, 12.34, 50, 99.99):
        expected = {"defaultVariant": "off", "targeting": {"fractional": share(percent)}}
        assert definition(FlagRule(on=True, percent=percent)) == expected


def test_an_override_counts_instead() -> None:
    assert definition(FlagRule(on=True), override(False)) == {"defaultVariant": "off"}
    assert definition(FlagRule(on=False), override(True)) == {"defaultVariant": "on"}
    assert definition(FlagRule(on=True), override(True, 10)) == {
        "defaultVariant": "off",
        "targeting": {"fractional": share(10)},
    }


def test_a_tiny_share_is_never_nobody_and_a_huge_one_never_everybody() -> None:
    assert definition(FlagRule(on=True, percent=0.000001))["targeting"] == {"fractional": [["on", 1], ["off", 9999]]}
    assert definition(FlagRule(on=True, percent=99.999))["targeting"] == {"fractional": [["on", 9999], ["off", 1]]}


def test_states_are_shown_in_words() -> None:
    for rule, over, shown in (
        (FlagRule(on=True), None, "on"),
        (FlagRule(on=True, percent=12.5), None, "on for 12.5 %"),
        (FlagRule(on=True, percent=0), None, "off"),
        (FlagRule(on=True), override(False), "off"),
        (FlagRule(), override(True, 30), "on for 30 %"),
    ):
        assert flag_state("badges", rule, over).shown == shown


@pytest.mark.parametrize("percent", [0, 1, 10, 50, 100])
def test_the_files_that_the_storefront_tries_with_the_sdk_are_ours(percent: int) -> None:
    """Its image is built only if OpenFeature's SDK finds in them the right share of users, the same ones each time."""
    stored = Path(__file__).parents[2] / f"examples/storefront/api/tests/flags/{percent}.json"
    assert stored.read_bytes() == flag_file(flagd_document({"listing-badges": FlagRule(True, percent)}, {}))


@given(st.dictionaries(names, rules, max_size=5), st.dictionaries(names, overrides, max_size=5))
def test_every_document_is_of_flagds_form(flags: dict[str, FlagRule], over: dict[str, FlagOverride]) -> None:
    document = flagd_document(flags, over)
    assert set(document["flags"]) == set(flags)
    for name, found in document["flags"].items():
        assert set(found) <= set(KEYS) and found["defaultVariant"] in found["variants"]
        state = flag_state(name, flags[name], over.get(name))
        if "targeting" in found:
            (on, parts), (off, rest) = found["targeting"]["fractional"]
            assert (on, off) == ("on", "off") and parts + rest == 10_000 and min(parts, rest) >= 1
            assert abs(parts / 100 - state.percent) <= 0.01
            assert state.on and found["defaultVariant"] == "off"
        else:
            assert found["defaultVariant"] == ("on" if state.on else "off")
    assert json.loads(flag_file(document)) == document


@given(st.dictionaries(names, rules, max_size=5))
def test_the_same_flags_are_the_same_bytes(flags: dict[str, FlagRule]) -> None:
    turned = dict(reversed(flags.items()))
    assert flag_file(flagd_document(flags, {})) == flag_file(flagd_document(turned, {}))


@given(st.floats(0, 100), st.floats(0, 100))
def test_a_larger_share_only_adds_users(one: float, other: float) -> None:
    """The rule's first part are the hashes below the share: compared as fractions of the same whole."""
    low, high = sorted((one, other))

    def parts(percent: float) -> int:
        found = definition(FlagRule(on=True, percent=percent))
        if "targeting" not in found:
            return 10_000 if found["defaultVariant"] == "on" else 0
        return int(found["targeting"]["fractional"][0][1])  # type: ignore[index]

    assert parts(low) <= parts(high)


def test_the_book_keeps_what_counts_and_the_newest_changes() -> None:
    book = with_override(FlagBook("prod"), "badges", override(False, why="it fails"))
    assert book.overrides["badges"].why == "it fails"
    cleared = without_override(book, "badges", "bob", "mended", NOW)
    assert cleared.overrides == {}
    assert [(change.who, change.why, change.override is None) for change in cleared.changes] == [
        ("ada", "it fails", False),
        ("bob", "mended", True),
    ]
    for number in range(2 * CHANGES_KEPT):
        book = with_override(book, f"flag-{number}", override(True))
    assert len(book.overrides) == 2 * CHANGES_KEPT + 1 and len(book.changes) == CHANGES_KEPT
    assert book.changes[-1].flag == f"flag-{2 * CHANGES_KEPT - 1}"
