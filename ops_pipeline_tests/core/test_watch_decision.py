"""What a tick does about a watched release: one table, row by row, and the order of a set."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops_pipeline.core.judgement.verdict import MetricEvidence, Outcome, Verdict
from ops_pipeline.core.rollout import Rollout
from ops_pipeline.core.watch import Watch
from ops_pipeline.core.watch_decision import (
    TRIES,
    Act,
    Around,
    decide,
    dependencies_first,
    dependents_first,
    next_try,
    numbers,
)

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ROLLOUT = Rollout(cooldown_seconds=1800, blind_seconds=60)
WATCH = Watch("prod", "api", 7, "t", "sha256:" + "a" * 64, "1.7", 7, 6, 2, ROLLOUT, NOW - timedelta(minutes=5))
HAND = replace(WATCH, rollout=replace(ROLLOUT, automatic_rollback=False))


def verdict(outcome: Outcome, *, incident: bool = False) -> Verdict:
    return Verdict(outcome, "40 of 400 requests failed", NOW, NOW - timedelta(minutes=5), 7, 6, incident=incident)


FAIL = verdict(Outcome.FAIL)
ASKED = replace(WATCH, attempts=2, asked=True, not_before=NOW + 30 * SECOND)
TRIED = replace(WATCH, attempts=2, not_before=NOW + 30 * SECOND)


@pytest.mark.parametrize(
    ("watch", "judged", "around", "blind_since", "act", "words"),
    [
        (WATCH, verdict(Outcome.PASS), Around(NOW), None, Act.KEEP, "40 of 400"),
        (WATCH, verdict(Outcome.INCONCLUSIVE), Around(NOW), None, Act.KEEP, "40 of 400"),
        (WATCH, verdict(Outcome.INCONCLUSIVE, incident=True), Around(NOW), None, Act.HOLD, "not its fault alone"),
        (WATCH, verdict(Outcome.FAIL, incident=True), Around(NOW), None, Act.HOLD, "not its fault alone"),
        (WATCH, verdict(Outcome.BLIND), Around(NOW), None, Act.KEEP, "40 of 400"),
        (WATCH, verdict(Outcome.BLIND), Around(NOW), NOW - 59 * SECOND, Act.KEEP, "40 of 400"),
        (WATCH, verdict(Outcome.BLIND), Around(NOW), NOW - 60 * SECOND, Act.BLIND, "nothing to judge by for 60 s"),
        (WATCH, verdict(Outcome.PASS), Around(NOW), NOW - 900 * SECOND, Act.KEEP, "40 of 400"),
        (WATCH, FAIL, Around(NOW), None, Act.ROLL_BACK, "40 of 400"),
        (WATCH, FAIL, Around(NOW, worked_on="deploy of 1.8 by ci:7"), None, Act.WAIT, "deploy of 1.8 by ci:7"),
        (HAND, FAIL, Around(NOW), None, Act.ALERT, "automatic roll-back is off"),
        (WATCH, FAIL, Around(NOW, guards=("new-cart",)), None, Act.TURN_OFF, "new-cart guards it"),
        (HAND, FAIL, Around(NOW, guards=("new-cart",)), None, Act.ALERT, "automatic roll-back is off"),
        (WATCH, FAIL, Around(NOW, last_automatic=NOW - 1799 * SECOND), None, Act.ALERT, "not again before 10:00:01"),
        (WATCH, FAIL, Around(NOW, last_automatic=NOW - 1800 * SECOND), None, Act.ROLL_BACK, "40 of 400"),
        (
            WATCH,
            FAIL,
            Around(NOW, guards=("new-cart",), last_automatic=NOW - SECOND),
            None,
            Act.TURN_OFF,
            "turned off first",
        ),
        (WATCH, FAIL, Around(NOW, no_standby="no standby is kept"), None, Act.ASK, "no standby is kept, so a run"),
        (TRIED, FAIL, Around(NOW), None, Act.WAIT, "try 2 has until 10:00:30"),
        (TRIED, FAIL, Around(NOW + 30 * SECOND), None, Act.ROLL_BACK, "40 of 400"),
        (ASKED, FAIL, Around(NOW), None, Act.WAIT, "try 2 has until 10:00:30"),
        (ASKED, FAIL, Around(NOW, delivered=False), None, Act.ASK, "40 of 400"),
        (ASKED, FAIL, Around(NOW, delivered=False, worked_on="a run"), None, Act.WAIT, "a run"),
        (replace(WATCH, attempts=TRIES), FAIL, Around(NOW), None, Act.ALERT, "5 roll-backs were tried"),
        (replace(WATCH, attempts=TRIES - 1), FAIL, Around(NOW), None, Act.ROLL_BACK, "40 of 400"),
    ],
)
def test_the_table(
    watch: Watch, judged: Verdict, around: Around, blind_since: datetime | None, act: Act, words: str
) -> None:
    decision = decide(watch, judged, around, blind_since)
    assert decision.act is act
    assert words in decision.why


AROUNDS = [
    Around(NOW, worked, flags, last, standby, delivered)
    for worked, flags, last, standby, delivered in product(
        ("", "somebody"), ((), ("f",)), (None, NOW - SECOND), ("", "none"), (True, False)
    )
]


@pytest.mark.parametrize("outcome", [Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.BLIND])
def test_nothing_but_fail_ever_acts(outcome: Outcome) -> None:
    for around, watch, blind, incident in product(
        AROUNDS, (WATCH, ASKED, HAND), (None, NOW - 900 * SECOND), (True, False)
    ):
        act = decide(watch, verdict(outcome, incident=incident), around, blind).act
        assert act in {Act.KEEP, Act.BLIND, Act.HOLD}


def test_whoever_works_on_it_is_always_left_alone() -> None:
    for around, watch in product(AROUNDS, (WATCH, ASKED, TRIED, HAND)):
        if around.worked_on:
            assert decide(watch, FAIL, around).act is Act.WAIT


def test_further_tries_wait_longer_and_longer() -> None:
    waits = [
        (next_try(replace(WATCH, attempts=attempts), NOW, asked=False) - NOW).total_seconds()
        for attempts in (1, 2, 3, 4)
    ]
    assert waits == [15, 30, 60, 120]
    assert (next_try(replace(WATCH, attempts=4), NOW, asked=True) - NOW).total_seconds() == 60


def test_numbers_say_what_was_counted() -> None:
    def metric(name: str, bad: int, total: int) -> MetricEvidence:
        return MetricEvidence(name, 0.05, bad, total, 30, 1, 1, 1, 1, 1, 0)

    shown = replace(FAIL, metrics=(metric("errors", 2, 1900), metric("slow", 0, 1900), metric("crashes", 0, 4)))
    assert numbers(shown) == "2 of 1,900 failed"
    assert (
        numbers(replace(shown, metrics=(metric("errors", 0, 10), metric("slow", 3, 10))))
        == "0 of 10 failed, 3 of 10 slow"
    )
    assert numbers(FAIL) == FAIL.reason


@given(st.permutations(["api", "db", "web", "jobs"]))
def test_a_set_keeps_the_order_of_its_dependencies(services: list[str]) -> None:
    depends_on = {"web": ("api",), "api": ("cache",), "cache": ("db",), "jobs": ("db",)}
    ordered = dependencies_first(services, depends_on)
    assert ordered == ("db", "api", "jobs", "web"), "also through a service that is not in the set"
    assert dependents_first(services, depends_on) == tuple(reversed(ordered))


def test_a_circle_ends() -> None:
    assert set(dependencies_first(["a", "b"], {"a": ("b",), "b": ("a",)})) == {"a", "b"}
