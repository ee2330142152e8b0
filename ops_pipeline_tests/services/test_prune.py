"""Pruning on fakes: what goes and what stays, beside backups, killed between any two calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from ops_pipeline.adapters.backup_keys import make_identity, write_secret_file
from ops_pipeline.adapters.secrets import read_secret
from ops_pipeline.adapters.vaults import open_prune_vault, open_vault
from ops_pipeline.core.backup.records import Check, Hold, Manifest, SetKey, SetState, Trigger
from ops_pipeline.core.backup.retention import WRONG_CLOCK
from ops_pipeline.errors import BadInput, LeaseHeld, NotFound, Permanent, PolicyRefused
from ops_pipeline.services.backup.inflight import TAKING, Flight, InFlight
from ops_pipeline.services.backup.integrity import check_set
from ops_pipeline.services.backup.locks import lock
from ops_pipeline.services.backup.prune import forget_set, plan_prune, prune
from ops_pipeline.services.backup.restore import plan_restore, restore
from ops_pipeline.services.backup.restore_journal import Stage
from ops_pipeline.services.backup.set_holds import hold_set, lift_quarantine, release_set_hold
from ops_pipeline.services.backup.sets import list_sets, write_state
from ops_pipeline.services.backup.take import take_backup
from ops_pipeline_tests.fakes.backups import backup_bed, backup_catalogue, photos
from ops_pipeline_tests.fakes.platform import Bed, Killed, Lifeline, quiet

DAY = 86400.0
RETENTION = {"keep_days": 2, "keep_last": 1}


def history(days: int = 6) -> tuple[Bed, list[Manifest]]:
    """One checked set a day, two days are kept; now is a moment after the last."""
    bed = backup_bed(backup_catalogue(retention=RETENTION))
    made = []
    for day in range(days):
        if day:
            bed.clock.advance(DAY)
        made.append(take_backup(bed.platform(), "prod", trigger=Trigger.SCHEDULE, progress=quiet))
        checked(bed, made[-1])
    bed.clock.advance(1)
    return bed, made


def checked(bed: Bed, manifest: Manifest, *problems: str) -> None:
    state(bed, manifest, lambda old: replace(old, checks=(Check(bed.clock.now(), 0.0, problems),)))


def state(bed: Bed, manifest: Manifest, change: Callable[[SetState], SetState]) -> None:
    write_state(bed.vault.vault(), bed.clock, "prod", manifest.id, change)


def listed(bed: Bed) -> list[str]:
    listing = list_sets(bed.platform(), "prod")
    assert not listing.chain, "the chain knows what was pruned"
    return [one.id for one in reversed(listing.sets)]


def objects(bed: Bed) -> set[str]:
    """Ids that have any object at all in the store of sets."""
    return {info.key.split("/")[5] for info in bed.vault.sets.list("sets/prod/")}


def test_what_is_over_its_time_goes_and_is_remembered() -> None:
    bed, made = history()
    ids = [one.id for one in made]
    planned = plan_prune(bed.platform(), "prod")
    assert [decision.id for decision in planned.deleted] == ids[:2]
    assert listed(bed) == ids, "planning changes nothing"
    outcome = prune(bed.platform(), "prod", progress=quiet)
    assert [decision.id for decision in outcome.deleted] == ids[:2] and outcome.deleted_bytes > 0
    assert listed(bed) == ids[2:], "two days, and the one that makes two days back restorable"
    assert objects(bed) == set(ids[2:]) and not outcome.problems
    state_keys = bed.vault.state.objects
    assert {f"tombstones/prod/{one}.json" for one in ids[:2]} <= set(state_keys)
    assert not [key for key in state_keys if key.startswith("pruning/") or key == f"sets/prod/{ids[0]}.json"]
    again = prune(bed.platform(), "prod", progress=quiet)
    assert not again.deleted and "0 sets cleared away" in again.words
    assert plan_restore(bed.platform(), "prod", date=bed.clock.now() - timedelta(days=2, seconds=2)).set_id == ids[2]


def test_holds_keep_and_releasing_lets_go() -> None:
    bed, made = history()
    platform = bed.platform()
    hold_set(platform, "prod", made[0].id, name="before the migration", reason="2.0 changes the schema", by="ann")
    assert [decision.id for decision in prune(platform, "prod", progress=quiet).deleted] == [made[1].id]
    with pytest.raises(NotFound, match="before the migration"):
        release_set_hold(platform, "prod", made[0].id, name="another")
    release_set_hold(platform, "prod", made[0].id, name="before the migration")
    assert [decision.id for decision in prune(platform, "prod", progress=quiet).deleted] == [made[0].id]
    for bad in ({"name": ""}, {"name": "a\nb"}, {"reason": " "}, {"name": "x" * 99}):
        with pytest.raises(BadInput):
            hold_set(platform, "prod", made[5].id, **{"name": "a", "reason": "b", "by": "c", **bad})


def test_quarantine_freezes_until_lifted() -> None:
    bed, made = history()
    state(bed, made[4], lambda old: replace(old, quarantined="rows fell by 90 %"))
    outcome = prune(bed.platform(), "prod", progress=quiet)
    assert not outcome.deleted and "rows fell by 90 %" in outcome.words
    assert not outcome.problems, "the quarantine has told people itself"
    lifted = lift_quarantine(bed.platform(), "prod", made[4].id, reason="the table was archived", by="ann")
    assert lifted.good and "rows fell" in lifted.state.holds[0].reason
    assert len(prune(bed.platform(), "prod", progress=quiet).deleted) == 2
    with pytest.raises(NotFound, match="not in quarantine"):
        lift_quarantine(bed.platform(), "prod", made[4].id, reason="again", by="ann")


def test_unchecked_and_damaged_sets_do_not_count() -> None:
    bed, made = history()
    for manifest in made[1:]:
        checked(bed, manifest, "listings: block 3 has another hash")
    assert not prune(bed.platform(), "prod", progress=quiet).deleted, "the oldest is the only good one"
    key = SetKey("prod", made[0].id, made[0].started_at).manifest
    bed.vault.sets.delete(key)
    bed.vault.sets.put(key, b"{}")
    bed.vault.sets.flush()
    outcome = prune(bed.platform(), "prod", progress=quiet)
    assert not outcome.deleted and "no set is good" in outcome.words
    assert outcome.problems[0] == "old sets pile up while nothing is deleted"
    assert "what sets need is not known" in outcome.problems[1], "no file is cleared away either"


def test_a_set_of_a_wrong_clock_freezes_until_a_person_has_looked() -> None:
    bed, made = history()
    bed.clock.advance(-100 * DAY)
    assert "clocks is wrong" in prune(bed.platform(), "prod", progress=quiet).words
    bed.clock.advance(100 * DAY)
    assert prune(bed.platform(), "prod", progress=quiet).deleted
    assert WRONG_CLOCK in plan_words(bed, made)


def plan_words(bed: Bed, made: list[Manifest]) -> str:
    bed.clock.advance(-100 * DAY)
    return plan_prune(bed.platform(), "prod").frozen


def test_refused_while_a_set_is_being_taken_and_while_locked() -> None:
    bed, _ = history()
    vault, now = bed.vault.vault(), bed.clock.now()
    record = InFlight("prod", "01M7YRRT80528A8T4WM9RX8AJ8", now, Trigger.MANUAL, "run-1", "box:7", 1, TAKING, now)
    Flight(vault, bed.clock, record).begin()
    with pytest.raises(PolicyRefused, match="is being taken by box:7"):
        prune(bed.platform(), "prod", progress=quiet)
    bed.clock.advance(1000)
    assert prune(bed.platform(), "prod", progress=quiet).deleted, "its heart stopped"
    with (
        lock(bed.platform("other:1"), vault, "prod", run_id="run-2", reason="manual backup"),
        pytest.raises(LeaseHeld, match="other:1"),
    ):
        prune(bed.platform(), "prod", progress=quiet)


def test_what_changes_while_it_runs_is_seen_before_the_next_deletion() -> None:
    """A hold put on a set of the plan, after the plan was made."""
    bed, made = history()
    held: list[str] = []

    def hold(call: str) -> None:
        if call.startswith("sets.delete") and made[0].id in call and not held:
            held.append(call)
            hold_set(bed.platform(), "prod", made[1].id, name="wait", reason="I still need it", by="ann")

    outcome = prune(bed.platform("p:1", lifeline=Lifeline(after_each=hold)), "prod", progress=quiet)
    assert held and [decision.id for decision in outcome.deleted] == [made[0].id]
    assert made[1].id in listed(bed)


def test_what_the_store_refuses_to_delete_is_said_and_stays() -> None:
    bed, made = history()

    def immutable(operation: str, key: str) -> None:
        if operation == "delete" and made[0].id in key:
            raise Permanent(f"{key} is immutable until 2026-12-24")

    bed.vault.sets.before = immutable
    outcome = prune(bed.platform(), "prod", progress=quiet)
    assert [decision.id for decision in outcome.deleted] == [made[1].id]
    assert "immutable until 2026-12-24" in outcome.problems[0]
    assert made[0].id in listed(bed) and f"tombstones/prod/{made[0].id}.json" not in bed.vault.state.objects
    bed.vault.sets.before = lambda operation, key: None
    assert [decision.id for decision in prune(bed.platform(), "prod", progress=quiet).deleted] == [made[0].id]


def test_parts_of_a_set_that_never_came_to_be_go_after_two_days() -> None:
    bed, made = history()
    die_at = 0
    while objects(bed) == {one.id for one in made}:
        die_at += 10
        doomed = bed.platform("doomed:1", lifeline=Lifeline(die_at))
        with pytest.raises(Killed):
            take_backup(doomed, "prod", trigger=Trigger.MANUAL, progress=quiet)
        bed.clock.advance(121)
    (left,) = objects(bed) - {one.id for one in made}
    bed.clock.advance(1000)
    assert not prune(bed.platform(), "prod", progress=quiet).orphans and left in objects(bed)
    bed.clock.advance(2 * DAY)
    outcome = prune(bed.platform(), "prod", progress=quiet)
    assert outcome.orphans == (left,) and outcome.orphan_bytes > 0
    assert left not in objects(bed) and not [key for key in bed.vault.state.objects if key.startswith("inflight/")]


def test_deleting_credentials_are_used_only_here() -> None:
    bed, _ = history()

    def forbidden(operation: str, key: str) -> None:
        if operation == "delete":
            raise Permanent("this credential may not delete")

    platform = bed.platform()
    bed.vault.sets.before = forbidden
    assert prune(platform, "prod", progress=quiet).problems

    def with_deleting() -> object:
        bed.vault.sets.before = lambda operation, key: None
        return bed.vault.vault()

    outcome = prune(replace(platform, prune_vault=with_deleting), "prod", progress=quiet)  # type: ignore[arg-type]
    assert len(outcome.deleted) == 2


def test_a_person_may_clear_away_one_set() -> None:
    bed, made = history()
    platform = bed.platform()
    for set_id, why, words in (
        (made[5].id, "x", "the newest good set"),
        (made[3].id, "", "reason: is empty"),
        (made[3].id[:10], "x", "give all of it"),
    ):
        with pytest.raises((PolicyRefused, BadInput), match=words):
            forget_set(platform, "prod", set_id, reason=why, progress=quiet)
    hold_set(platform, "prod", made[3].id, name="audit", reason="asked for", by="ann")
    with pytest.raises(PolicyRefused, match="it is held: audit"):
        forget_set(platform, "prod", made[3].id, reason="holds personal data", progress=quiet)
    release_set_hold(platform, "prod", made[3].id, name="audit")
    forget_set(platform, "prod", made[3].id, reason="holds personal data", progress=quiet, by="ann")
    assert made[3].id not in objects(bed)
    assert listed(bed)
    key = SetKey("prod", made[2].id, made[2].started_at).manifest
    bed.vault.sets.delete(key)
    bed.vault.sets.put(key, b"rubbish")
    bed.vault.sets.flush()
    assert "cannot be read" in {d.id: d.reason for d in plan_prune(platform, "prod").decisions}[made[2].id]
    forget_set(platform, "prod", made[2].id, reason="its manifest is damaged", progress=quiet)
    assert made[2].id not in objects(bed)


def test_killed_between_any_two_calls() -> None:
    """What is listed is whole and restorable; what goes is remembered; the next one finishes.

    Every third time all that is left is held before that: then what was begun and not done is taken back.
    """
    die_at, ends = 0, set()
    while True:
        die_at += 1
        held = die_at % 3 == 0
        bed, made = history()
        ids = [one.id for one in made]
        try:
            prune(bed.platform("doomed:1", lifeline=Lifeline(die_at)), "prod", progress=quiet)
        except Killed:
            pass
        else:
            break
        bed.clock.advance(121)
        left = listed(bed)
        assert left in (ids, ids[1:], ids[2:]), "oldest first, none else"
        whole = {info.key for info in bed.vault.sets.list("sets/")}
        for manifest in made:
            if manifest.id in left:
                assert {part.stream.key for part in manifest.parts} <= whole, "nothing listed that is not whole"
        if held:
            hold = Hold("wait", "x", "ann", bed.clock.now())
            for manifest in made:
                if manifest.id in left:
                    state(bed, manifest, lambda old, hold=hold: replace(old, holds=(hold,)))  # type: ignore[misc]
        prune(bed.platform("second:1"), "prod", progress=quiet)
        kept = left if held else ids[2:]
        assert listed(bed) == kept and objects(bed) == set(kept)
        stones = {key for key in bed.vault.state.objects if key.startswith(("tombstones/", "pruning/"))}
        assert stones == {f"tombstones/prod/{one}.json" for one in ids if one not in kept}
        ends.add(len(left))
        if die_at % 5 == 0:
            plan = plan_restore(bed.platform(), "prod", set_id=kept[0])
            assert restore(bed.platform(), plan, confirm=lambda words: True, progress=quiet).stage is Stage.HELD
    assert die_at > 40 and ends == {4, 5, 6}


def test_on_a_vault_in_a_directory_with_real_keys(tmp_path: Path) -> None:
    """What is left can be restored, files that only pruned sets had are gone after two marks, the rest is whole."""
    identity = make_identity(datetime.now(UTC))
    write_secret_file(tmp_path / "identity", identity.text)
    book = backup_catalogue(
        photos=True,
        retention=RETENTION,
        store={"directory": "backups"},
        recipients=[identity.recipient],
        identity="file:identity",
        signing_key="file:signing_key",
    )
    bed = backup_bed(book)
    secret = partial(read_secret, root=tmp_path)
    vault = open_vault(book.backups, tmp_path, secret)
    with_deleting = partial(open_prune_vault, book.backups, tmp_path, secret)
    platform = replace(bed.platform(), vault=lambda: vault, prune_vault=with_deleting)
    made = []
    for day in range(6):
        photos(bed).put("of-the-day.jpg", f"day {day}".encode() * 40)
        made.append(take_backup(platform, "prod", trigger=Trigger.SCHEDULE, progress=quiet))
        assert not check_set(platform, "prod", made[-1].id, progress=quiet).problems
        bed.clock.advance(DAY)
    stored = len(list(vault.media.list("media/")))
    outcome = prune(platform, "prod", progress=quiet)
    assert [decision.id for decision in outcome.deleted] == [one.id for one in made[:2]] and not outcome.problems
    bed.clock.advance(2 * DAY)
    prune(platform, "prod", progress=quiet)
    assert len(list(vault.media.list("media/"))) == stored - 2, "the photos of two days"
    assert {info.key.split("/")[5] for info in vault.sets.list("sets/")} == {one.id for one in made[2:]}
    for manifest in made[2:]:
        assert not check_set(platform, "prod", manifest.id, share=1, progress=quiet).problems
    plan = plan_restore(platform, "prod", set_id=made[2].id)
    assert restore(platform, plan, confirm=lambda words: True, progress=quiet).stage is Stage.HELD
    assert photos(bed).content()[b"of-the-day.jpg"] == b"day 2" * 40
