"""Whether the newest good set of an environment is young enough, in words. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Freshness:
    """`age_hours` of the newest good set, None = there is none. `words` is for people, whatever the answer."""

    fresh: bool
    age_hours: float | None
    words: str


def freshness_of(
    now: datetime, newest_good: datetime | None, fresh_hours: float, *, set_id: str = "", newer: tuple[str, ...] = ()
) -> Freshness:
    """Given when the newest good set was begun, return whether it is younger than `fresh_hours`.

    `newer` says what is wrong with sets that are newer than it. A set of the future (a clock went back) is fresh for
    as long as its date is less than `fresh_hours` ahead: beyond that its date proves nothing.
    """
    wrong = f"; newer ones do not count: {'; '.join(newer)}" if newer else ""
    if newest_good is None:
        return Freshness(False, None, f"there is no good backup{wrong}")
    hours = (now - newest_good).total_seconds() / 3600
    if hours < -fresh_hours:
        return Freshness(
            False,
            hours,
            f"the newest good backup {set_id} is dated {words_of(-hours)} ahead of the clock here: one of the two is "
            f"wrong{wrong}",
        )
    fresh = hours <= fresh_hours
    limit = f"at most {words_of(fresh_hours)} are allowed"
    named = f" {set_id}" if set_id else ""
    state = limit if fresh else f"older than the {words_of(fresh_hours)} that are allowed"
    return Freshness(fresh, hours, f"the newest good backup{named} is {words_of(max(hours, 0.0))} old, {state}{wrong}")


def words_of(hours: float) -> str:
    """A length of time for people: "45 min", "6.5 h", "12 days"."""
    if hours < 2:
        return f"{hours * 60:.0f} min"
    return f"{hours:.3g} h" if hours < 72 else f"{hours / 24:.0f} days"
