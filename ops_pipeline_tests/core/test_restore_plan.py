"""Which set a moment means, and what a plan says in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops_pipeline.core.backup.records import Contents, counted_once
from ops_pipeline.core.backup.restore_plan import (
    CodeThen,
    Offer,
    RestorePlan,
    SourcePlan,
    choose,
    size,
    span,
)

START = datetime(2026, 11, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)


def offer(hour: float, *, sources: tuple[str, ...] = ("db", "photos"), partial: bool = False, unfit: str = "") -> Offer:
    """A set begun at that hour and whole six minutes later."""
    begun = START + hour * HOUR
    return Offer(f"s{hour:g}", begun, begun + HOUR / 10, sources, partial, unfit)


SETS = [offer(0), offer(6), offer(12, unfit="damaged"), offer(18, sources=("db",), partial=True), offer(24)]


@pytest.mark.parametrize(
    ("hour", "sources", "chosen", "words"),
    [
        (None, (), "s24", "the newest good set"),
        (24.0, (), "s6", "passed over: s18 (of some data sources only), s12 (damaged); the next one is of 2026-11-21"),
        (24.1, (), "s24", "whole by"),
        (6.05, (), "s0", "the next one is of 2026-11-20 06:00"),
        (23.0, ("db",), "s18", "whole by"),
        (23.0, ("photos",), "s6", "s18 (without photos)"),
        (0.05, (), None, ""),
    ],
    ids=[
        "newest",
        "a set still being taken does not count",
        "its end counts",
        "between",
        "enough",
        "too little",
        "none",
    ],
)
def test_which_set_a_moment_means(hour: float | None, sources: tuple[str, ...], chosen: str | None, words: str) -> None:
    found = choose(SETS, None if hour is None else START + hour * HOUR, sources)
    assert (found.id if found else None) == chosen
    assert found is None or words in found.words


@given(
    st.lists(st.builds(lambda h, bad: offer(h, unfit="damaged" if bad else ""), st.integers(0, 99), st.booleans())),
    st.integers(0, 120),
)
def test_never_later_than_asked_never_unfit_and_the_best_there_is(sets: list[Offer], hour: int) -> None:
    until = START + hour * HOUR
    fit = [one for one in sets if not one.unfit and one.ended_at <= until]
    found = choose(sets, until)
    assert (found is None) == (not fit)
    if found is not None:
        assert found.id == max(fit, key=lambda one: one.started_at).id


def plan(**more: object) -> RestorePlan:
    one = SourcePlan(
        "db", "postgres", ("dump",), 3_000_000, 1_000_000, START, START, "snapshot", "1,200 rows in 4 tables"
    )
    fields = {
        "environment": "prod",
        "set_id": "01SET",
        "manifest_sha256": "",
        "token": "abcd1234",
        "why": "the newest good set",
        "made_at": START + 19 * HOUR,
        "sources": (one,),
    }
    return RestorePlan(**{**fields, **more})  # type: ignore[arg-type]


def test_the_words_say_age_loss_and_what_is_kept() -> None:
    text = "\n".join(plan().lines)
    assert "set 01SET, the newest good set" in text and "19 hours old" in text
    assert "1,200 rows in 4 tables, 3 MB from 1 MB stored" in text
    assert "what was written after 2026-11-20 00:00 UTC (19 hours) is not in it" in text and "hold abcd1234" in text
    beside = "\n".join(plan(into="look1").lines)
    assert "beside the live data as `look1`" in beside and "live data do not change" in beside and "swap" not in beside


def test_code_is_offered_never_done() -> None:
    same = CodeThen("web", "#1 (1.0)", "#1 (1.0)")
    other = CodeThen("api", "#3 (1.2)", "#5 (1.4)", 3)
    assert "code and data fit together" in "\n".join(plan(code=(same,)).lines)
    text = "\n".join(plan(code=(same, other)).lines)
    assert "api: #3 (1.2) was live then, #5 (1.4) is live now: ops rollback api prod --to 3" in text
    assert "code and data: restore and roll back; 19 hours of data are set aside" in text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 seconds"),
        (0, "0 seconds"),
        (1, "1 second"),
        (90, "1.5 minutes"),
        (5400, "1.5 hours"),
        (86400 * 30, "30 days"),
    ],
)
def test_spans(seconds: float, words: str) -> None:
    assert span(seconds) == words


@pytest.mark.parametrize(("count", "words"), [(0, "0 bytes"), (1500, "1.5 kB"), (2_000_000_000, "2 GB")])
def test_sizes(count: int, words: str) -> None:
    assert size(count) == words


def test_what_is_counted_in_several_ways_is_told_once() -> None:
    keys = Contents({"db0": 2, "db0 string": 1, "db0 hash": 1, "db0 with expiry": 1, "db3": 5})
    assert counted_once("redis", keys) == {"db0": 2, "db3": 5}
    rows = Contents({"order lines": 3, "house": 4})
    assert counted_once("mysql", rows) == rows.counts
