"""A restore, its swap, its undoing and its release killed before any call to the world; another one goes on.

Always: what is live of each source is all of the old or all of the new data, and once nothing is unfinished all
sources are of the same moment and nothing is left over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from ops_pipeline.errors import NotFound, Permanent, PolicyRefused
from ops_pipeline.services.backup.restore import (
    RestorePlan,
    abandon_restore,
    plan_restore,
    refuse_while_switching,
    release_restore_hold,
    restore,
    resume_restore,
    undo_restore,
    unfinished_restore,
)
from ops_pipeline.services.backup.restore_journal import SWITCHING, Stage, restores
from ops_pipeline.services.platform import Platform
from ops_pipeline_tests.fakes.backups import database, photos
from ops_pipeline_tests.fakes.file_tree import FakeFileTree
from ops_pipeline_tests.fakes.platform import Bed, Killed, Lifeline, quiet
from ops_pipeline_tests.services.test_restore import NEW, OLD, bed_with_one_set, take, yes

Verb = Callable[[Platform, RestorePlan], object]
TERM = 121.0


def restore_it(platform: Platform, plan: RestorePlan) -> object:
    return restore(platform, plan, confirm=yes, progress=quiet)


def undo_it(platform: Platform, plan: RestorePlan) -> object:
    return undo_restore(platform, "prod", plan.token, progress=quiet)


def release_it(platform: Platform, plan: RestorePlan) -> object:
    return release_restore_hold(platform, "prod", plan.token, progress=quiet)


def resume(platform: Platform) -> object:
    return resume_restore(platform, "prod", confirm=yes, progress=quiet)


def abandon(platform: Platform) -> object:
    return abandon_restore(platform, "prod", progress=quiet)


def prepared(verb: Verb) -> tuple[Bed, RestorePlan]:
    bed, _ = bed_with_one_set()
    plan = plan_restore(bed.platform(), "prod", sources=["cache", "listings", "photos"])
    if verb is not restore_it:
        restore_it(bed.platform(), plan)
    return bed, plan


def moments(bed: Bed) -> set[str]:
    """Of which moment the live data of both sources are; raises when they are of none."""
    listings, cache = database(bed).live.tables, database(bed, "cache").live.tables
    return {
        {str(OLD): "old", str(NEW): "new"}[str(listings)],
        {b"front": "old", b"back": "new"}[photos(bed).content()[b"a/house.jpg"]],
        {str({"0": ["session"]}): "old", str({"0": ["another", "session"]}): "new"}[str(cache)],
    }


def left_of(tree: FakeFileTree) -> int:
    return len(tree.holds()) + len(tree._beside)


def assert_settled(bed: Bed) -> Stage | None:
    platform = bed.platform("check:1")
    assert unfinished_restore(platform, "prod") is None
    assert len(moments(bed)) == 1, "all sources are of one moment"
    records = restores(bed.vault.vault(), bed.clock, "prod")
    stage = records[0].stage if records else None
    kept = left_of(photos(bed)) + sum(
        len(found)
        for name in ("listings", "cache")
        for found in (database(bed, name).besides, database(bed, name).held)
    )
    assert kept == (3 if stage in (Stage.HELD, Stage.UNDONE) else 0), "nothing is left over, nothing missing"
    return stage


def killed(verb: Verb, die_at: int) -> tuple[Bed, RestorePlan, bool]:
    bed, plan = prepared(verb)
    try:
        verb(bed.platform("doomed:1", lifeline=Lifeline(die_at)), plan)
    except Killed:
        moments(bed)
        record = unfinished_restore(bed.platform(), "prod")
        if len(moments(bed)) > 1:
            assert record is not None and record.stage in SWITCHING, "the journal knew before"
            with pytest.raises(PolicyRefused, match="two moments"):
                refuse_while_switching(bed.vault.vault(), bed.clock, "prod")
            bed.clock.advance(TERM)
            with pytest.raises(PolicyRefused, match="two moments"):
                take(bed)
        bed.clock.advance(TERM)
        return bed, plan, True
    return bed, plan, False


@pytest.mark.parametrize("recover", [resume, abandon])
@pytest.mark.parametrize(
    ("verb", "ends"),
    [
        (restore_it, {resume: {None, Stage.HELD}, abandon: {None, Stage.FAILED, Stage.HELD}}),
        (undo_it, {resume: {Stage.HELD, Stage.UNDONE}, abandon: {Stage.HELD, Stage.UNDONE}}),
        (release_it, {resume: {Stage.HELD, Stage.DONE}, abandon: {Stage.HELD, Stage.DONE}}),
    ],
    ids=["restore", "undo", "release"],
)
def test_killed_anywhere(
    verb: Verb, ends: dict[object, set[Stage | None]], recover: Callable[[Platform], object]
) -> None:
    die_at, found = 0, set()
    while True:
        die_at += 1
        bed, _, died = killed(verb, die_at)
        if not died:
            break
        with contextlib.suppress(NotFound):  # killed before its first line, or after its last
            recover(bed.platform("second:1"))
        stage = assert_settled(bed)
        found.add(stage)
        assert moments(bed) == ({"old"} if stage in (Stage.HELD, Stage.DONE) else {"new"})
        # The same asked for again simply works.
        if stage in (None, Stage.FAILED):
            restore_it(bed.platform("third:1"), plan_restore(bed.platform(), "prod"))
            assert moments(bed) == {"old"}
    assert die_at > (40 if verb is restore_it else 15 if verb is undo_it else 8)
    assert found == ends[recover]


def test_killed_while_it_is_taken_back() -> None:
    """A swap that fails is taken back; killed anywhere there, resuming goes on taking it back."""

    def refuse(call: str) -> None:
        if call == "swap":
            raise Permanent("sessions cannot be ended")

    die_at, back = 0, 0
    while True:
        die_at += 1
        bed, plan = prepared(restore_it)
        database(bed).before = refuse
        try:
            restore_it(bed.platform("doomed:1", lifeline=Lifeline(die_at)), plan)
        except Permanent:
            break
        except Killed:
            bed.clock.advance(TERM)
        record = unfinished_restore(bed.platform(), "prod")
        if record is None or record.stage not in (Stage.RETURNING, Stage.DROPPING):
            continue
        back += 1
        resume(bed.platform("second:1"))
        assert assert_settled(bed) is Stage.FAILED and moments(bed) == {"new"}
    assert back > 5


@pytest.mark.parametrize("first_death", [0.6, 0.8, 0.95])
def test_killed_twice(first_death: float) -> None:
    last = 0
    while killed(restore_it, last + 1)[2]:
        last += 1
    second_death = 0
    while True:
        second_death += 1
        bed, _, died = killed(restore_it, int(last * first_death))
        assert died
        if unfinished_restore(bed.platform(), "prod") is None:
            return
        try:
            resume(bed.platform("second:1", lifeline=Lifeline(second_death)))
        except Killed:
            bed.clock.advance(TERM)
            with contextlib.suppress(NotFound):
                resume(bed.platform("third:1"))
            assert assert_settled(bed) is Stage.HELD
            continue
        break
    assert second_death > 5


def test_interrupted_it_undoes_and_passes_on() -> None:
    """Ctrl-C, or Dagster's termination, after any call: what was begun is undone, or left for resuming, never mixed."""
    fatal = 0
    while True:
        fatal += 1
        bed, plan = prepared(restore_it)
        count = [0]

        def interrupt(call: str, count: list[int] = count) -> None:
            count[0] += 1
            if count[0] == fatal:  # noqa: B023 - used within this round only
                raise KeyboardInterrupt

        try:
            restore_it(bed.platform("interrupted:1", lifeline=Lifeline(after_each=interrupt)), plan)
        except KeyboardInterrupt:
            bed.clock.advance(TERM)
            with contextlib.suppress(NotFound):
                resume(bed.platform("second:1"))
            stage = assert_settled(bed)
            assert moments(bed) == ({"old"} if stage is Stage.HELD else {"new"})
            continue
        break
    assert fatal > 40
