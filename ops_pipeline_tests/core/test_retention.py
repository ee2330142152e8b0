"""Retention as a table of rules and as properties that hold for any history of sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops_pipeline.core.backup.retention import WRONG_CLOCK, Candidate, Keep, RetentionPlan, plan

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def at(days: float, **more: object) -> Candidate:
    """A good set of so many days ago."""
    moment = NOW - days * DAY
    return replace(Candidate(f"set-{days:g}", moment), **more)  # type: ignore[arg-type]


def every_six_hours(days: int) -> list[Candidate]:
    return [at(number / 4) for number in range(days * 4)]


def kept(sets: Sequence[Candidate], keep: Keep = Keep(), now: datetime = NOW) -> dict[str, str]:  # noqa: B008
    return {decision.id: decision.reason for decision in plan(sets, keep, now).kept}


def test_a_schedule_of_six_hours_keeps_thirty_days_and_the_one_before() -> None:
    made = plan(every_six_hours(60), Keep(), NOW)
    assert len(made.kept) == 30 * 4 + 1 + 1  # the edge itself is not older than 30 days
    assert made.newest_good == "set-0" and made.bridge == "set-30.25"
    assert [decision.id for decision in made.deleted][:2] == ["set-59.75", "set-59.5"], "oldest first"
    assert all(decision.reason for decision in made.decisions)
    assert made.words == "122 of 240 sets stay, 118 go"


def test_a_stalled_schedule_deletes_nothing_more() -> None:
    stalled = [at(day) for day in range(40, 70)]
    assert len(kept(stalled)) == 30


def test_what_cannot_be_read_stays_until_somebody_has_looked() -> None:
    lost = at(90, bad="damaged", unreadable="manifest.json is damaged")
    assert kept([at(0), at(1), at(2), at(31), at(40), lost])[lost.id].startswith("it cannot be read (manifest.json")


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ([at(0), at(40), at(41, quarantined="rows fell by 90 %"), at(50)], "in quarantine (rows fell by 90 %)"),
        ([at(0, bad="never checked"), at(40, bad="damaged")], "no set is good"),
        ([at(-2), at(0), at(50), at(60), at(61), at(62)], "one of the two clocks is wrong"),
        ([at(0), *[at(400 + n) for n in range(9)]], "a clock may have jumped"),
        ([at(0), at(1), *[at(400 + n) for n in range(9)]], "a clock may have jumped"),
    ],
    ids=["quarantine", "nothing good", "from the future", "leap", "leap, one day later"],
)
def test_frozen(sets: list[Candidate], words: str) -> None:
    made = plan(sets, Keep(), NOW)
    assert not made.deleted and words in made.frozen
    assert all(words in decision.reason for decision in made.decisions)


def test_now_in_the_past_deletes_nothing() -> None:
    assert "clocks is wrong" in plan(every_six_hours(60), Keep(), NOW - 300 * DAY).frozen


def test_a_gap_is_believed_once_sets_have_come_for_three_days() -> None:
    gap = [at(400 + number) for number in range(9)]
    assert plan([at(number / 4) for number in range(13)] + gap, Keep(), NOW).deleted
    assert plan([at(0), at(40), at(80), at(120), at(160)], Keep(), NOW).deleted, "it is the schedule"


def test_a_set_of_a_wrong_clock_can_be_set_aside() -> None:
    lying = at(-300, holds=(WRONG_CLOCK,))
    made = plan([lying, *every_six_hours(60)], Keep(), NOW)
    assert not made.frozen and made.newest_good == "set-0"
    assert lying.id in {decision.id for decision in made.kept}


@pytest.mark.parametrize(
    ("sets", "stays", "why"),
    [
        ([at(0), at(1), at(2), at(31, bad="damaged"), at(33), at(50)], "set-33", "the youngest good set older than"),
        ([at(0), at(1), at(50, holds=("before the migration",)), at(40)], "set-50", "held: before the migration"),
        ([at(0), at(35), at(60), at(61)], "set-60", "number 3 of the 3 newest"),
        ([at(0, bad="never checked"), at(5)], "set-0", "newer than the newest good set, itself not good yet"),
        ([at(0), at(5, bad="damaged: x")], "set-5", "5 days older than the newest good set; 30 days are kept"),
        ([at(0)], "set-0", "the newest good set"),
    ],
)
def test_what_stays_and_why(sets: list[Candidate], stays: str, why: str) -> None:
    assert why in kept(sets)[stays]


def test_what_is_not_good_goes_with_its_age_and_never_stands_for_a_good_one() -> None:
    sets = [at(0), at(1), at(2), at(31), at(40, bad="damaged"), at(41)]
    made = plan(sets, Keep(), NOW)
    assert [(one.id, "not good: damaged" in one.reason) for one in made.deleted] == [
        ("set-41", False),
        ("set-40", True),
    ]


def test_days_weeks_and_months() -> None:
    sets = every_six_hours(500)
    keep = Keep(keep_days=7, daily=7, weekly=4, monthly=6)
    reasons = kept(sets, keep)
    by_period = {
        word: [NOW - float(ident[4:]) * DAY for ident, reason in reasons.items() if f"of its {word}" in reason]
        for word in ("day", "week", "month")
    }
    assert [f"{moment:%m-%d %H}" for moment in by_period["day"]] == [f"11-{day:02d} 18" for day in range(13, 6, -1)]
    assert {f"{moment:%a %H}" for moment in by_period["week"]} == {"Sun 18"} and len(by_period["week"]) == 4
    lasts = ["10-31", "09-30", "08-31", "07-31", "06-30", "05-31", "04-30"]
    assert [f"{moment:%m-%d}" for moment in by_period["month"]] == lasts


# ------------------------------------------------------------------------------------------------ properties

CANDIDATES = st.builds(
    lambda hours, bad, hold: (hours, bad, hold),
    st.integers(0, 24 * 500),
    st.sampled_from(["", "", "", "", "damaged"]),
    st.sampled_from([(), (), (), (), (), ("kept",)]),
)
HISTORIES = st.lists(CANDIDATES, max_size=60, unique_by=lambda one: one[0]).map(
    lambda rows: [Candidate(f"s{hours:05d}", NOW - hours * HOUR, bad, holds=hold) for hours, bad, hold in rows]
)
KEEPS = st.builds(Keep, st.integers(1, 60), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(1, 5))


def without_deleted(sets: Sequence[Candidate], made: RetentionPlan) -> list[Candidate]:
    gone = {decision.id for decision in made.deleted}
    return [one for one in sets if one.id not in gone]


@settings(max_examples=300)
@given(HISTORIES, KEEPS)
def test_what_always_holds(sets: list[Candidate], keep: Keep) -> None:
    made = plan(sets, keep, NOW)
    stays = {decision.id for decision in made.kept}
    good = sorted((one for one in sets if one.good), key=lambda one: one.taken_at, reverse=True)
    assert {decision.id for decision in made.decisions} == {one.id for one in sets}
    assert {one.id for one in good[: keep.keep_last]} <= stays, "the newest good sets"
    assert {one.id for one in sets if one.holds} <= stays, "holds"
    if good:
        edge = good[0].taken_at - keep.keep_days * DAY
        assert {one.id for one in sets if one.taken_at >= edge} <= stays, "younger than keep_days"
        # As far back as keep_days, every moment restores to the very set it restored to before.
        for hours in range(0, int(keep.keep_days * 24) + 1, 12):
            moment = good[0].taken_at - hours * HOUR
            before = next((one.id for one in good if one.taken_at <= moment), None)
            after = next((one.id for one in good if one.taken_at <= moment and one.id in stays), None)
            if moment > edge or before is None or before == made.bridge:
                assert before == after
    for decision in made.deleted:
        assert any(one.taken_at > decision.taken_at for one in good), "a newer verified one exists"
    assert plan(list(reversed(sets)), keep, NOW) == made, "order of what it is told does not matter"


@settings(max_examples=300)
@given(HISTORIES, KEEPS)
def test_executed_and_planned_again_it_deletes_nothing_more(sets: list[Candidate], keep: Keep) -> None:
    made = plan(sets, keep, NOW)
    left = without_deleted(sets, made)
    assert not plan(left, keep, NOW).deleted
    # Executed in part, the rest of the plan is the same.
    some = {decision.id for decision in made.deleted[: len(made.deleted) // 2]}
    rest = plan([one for one in sets if one.id not in some], keep, NOW)
    assert {d.id for d in rest.deleted} | some == {d.id for d in made.deleted} or rest.frozen


@settings(max_examples=300)
@given(HISTORIES, KEEPS, st.sampled_from(["keep_days", "keep_last", "daily", "weekly", "monthly"]), st.integers(1, 20))
def test_whoever_wants_more_of_one_kind_loses_nothing_it_covers(
    sets: list[Candidate], keep: Keep, field: str, more: int
) -> None:
    if field in ("daily", "weekly", "keep_days"):
        # These push the later periods further back: what they cover is judged without those.
        keep = replace(
            keep,
            monthly=0,
            weekly=0 if field != "weekly" else keep.weekly,
            daily=0 if field == "keep_days" else keep.daily,
        )
    greater = replace(keep, **{field: getattr(keep, field) + more})
    made, wider = plan(sets, keep, NOW), plan(sets, greater, NOW)
    assert made.frozen or {d.id for d in made.kept} <= {d.id for d in wider.kept}


@settings(max_examples=200)
@given(HISTORIES, KEEPS, st.data())
def test_a_hold_keeps_its_set_and_changes_no_other(sets: list[Candidate], keep: Keep, data: st.DataObject) -> None:
    if not sets:
        return
    chosen = data.draw(st.sampled_from(sets))
    held = [replace(one, holds=("x",)) if one.id == chosen.id else one for one in sets]
    before, after = plan(sets, keep, NOW), plan(held, keep, NOW)
    assert {d.id for d in after.kept} == {d.id for d in before.kept} | {chosen.id}


def test_months_are_still_there_when_their_time_comes() -> None:
    """Pruned every day for two years: what `monthly` promises was never deleted before."""
    keep = Keep(keep_days=7, daily=7, weekly=4, monthly=6)
    sets: list[Candidate] = []
    for day in range(800):
        now = NOW + day * DAY
        sets += [Candidate(f"d{day:04d}", now)]
        sets = without_deleted(sets, plan(sets, keep, now))
    months = {(one.taken_at.year, one.taken_at.month) for one in sets}
    assert len(months) >= 7 and len(sets) <= 7 + 7 + 6 + 8 + 4
    lasts = [one for one in sets if (one.taken_at + DAY).day == 1]
    assert len(lasts) >= 7, "the last of a month each"
