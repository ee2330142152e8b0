"""Feature flags: what the catalogue says, what somebody or a verdict changed since, and the file applications read.

The file has the form of a flagd flag definition (https://flagd.dev/schema/v0/flags.json), so that any OpenFeature SDK
with a flagd provider can read it without knowing anything of us.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

SCHEMA = "https://flagd.dev/schema/v0/flags.json"
PARTS = 10_000
"""Users are split into so many parts: a share is exact to 0.01 percent."""
CHANGES_KEPT = 50
FILE_NAME = "flags.json"


@dataclass(frozen=True)
class FlagRule:
    """A flag as the catalogue has it. `guards` names a service, "" = none."""

    on: bool = False
    percent: float = 100.0
    guards: str = ""
    description: str = ""


@dataclass(frozen=True)
class FlagOverride:
    """What counts instead of the catalogue's `on` and `percent`, until somebody clears it."""

    on: bool
    percent: float
    who: str
    why: str
    at: datetime
    automatic: bool = False  # a verdict turned it off


@dataclass(frozen=True)
class FlagChange:
    """One line of the history. `override` None = back to what the catalogue says."""

    flag: str
    at: datetime
    who: str
    why: str
    override: FlagOverride | None


@dataclass(frozen=True)
class FlagBook:
    """Stored as `flags/<environment>.json`: overrides in force, and the newest changes, oldest first."""

    environment: str
    overrides: Mapping[str, FlagOverride] = field(default_factory=dict)
    changes: tuple[FlagChange, ...] = ()


@dataclass(frozen=True)
class FlagState:
    """A flag as it is now. `percent` is the share of users it is on for while `on`."""

    name: str
    on: bool
    percent: float
    guards: str
    description: str
    override: FlagOverride | None

    @property
    def shown(self) -> str:
        """`on`, `on for 10 %` or `off`."""
        if not self.on:
            return "off"
        return "on" if self.percent >= 100 else f"on for {self.percent:g} %"


def flag_state(name: str, rule: FlagRule, override: FlagOverride | None) -> FlagState:
    """The flag with its override over it. On for nobody is off."""
    said: FlagRule | FlagOverride = rule if override is None else override
    on = said.on and said.percent > 0
    return FlagState(name, on, said.percent, rule.guards, rule.description, override)


def with_override(book: FlagBook, flag: str, override: FlagOverride) -> FlagBook:
    """The book with a flag overridden, and the line about it."""
    change = FlagChange(flag, override.at, override.who, override.why, override)
    return _noted(replace(book, overrides={**book.overrides, flag: override}), change)


def without_override(book: FlagBook, flag: str, who: str, why: str, at: datetime) -> FlagBook:
    """The book with a flag back to the catalogue's word, and the line about it."""
    rest = {name: override for name, override in book.overrides.items() if name != flag}
    return _noted(replace(book, overrides=rest), FlagChange(flag, at, who, why, None))


def flagd_document(flags: Mapping[str, FlagRule], overrides: Mapping[str, FlagOverride]) -> dict[str, Any]:
    """Given the catalogue's flags and what overrides them, return the flagd definition of an environment.

    A share is flagd's `fractional` rule over flag and `targetingKey`, with `on` as its first part: it covers the users
    whose hash lies below the share, so that a larger share only adds users. Without a targeting key the rule says
    nothing and the default variant counts: off, unless the flag is on for everybody. Overrides of flags that the
    catalogue does not have any more mean nothing.
    """
    return {
        "$schema": SCHEMA,
        "flags": {name: _definition(flag_state(name, flags[name], overrides.get(name))) for name in sorted(flags)},
    }


def flag_file(document: Mapping[str, Any]) -> bytes:
    """The document as the bytes of a file: the same document is always the same bytes."""
    return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _definition(state: FlagState) -> dict[str, Any]:
    everybody = state.on and _parts(state.percent) == PARTS
    definition: dict[str, Any] = {
        "state": "ENABLED",
        "variants": {"on": True, "off": False},
        "defaultVariant": "on" if everybody else "off",
    }
    if state.on and not everybody:
        parts = _parts(state.percent)
        definition["targeting"] = {"fractional": [["on", parts], ["off", PARTS - parts]]}
    return definition


def _parts(percent: float) -> int:
    """Parts of PARTS; a share that is not 0 or 100 percent never becomes nobody or everybody by rounding."""
    exact = percent * PARTS / 100
    if 0 < exact < PARTS:
        return min(max(round(exact), 1), PARTS - 1)
    return PARTS if exact >= PARTS else 0


def _noted(book: FlagBook, change: FlagChange) -> FlagBook:
    return replace(book, changes=(*book.changes, change)[-CHANGES_KEPT:])
