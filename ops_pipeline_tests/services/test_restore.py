"""Restores on fakes: by date and by set, all or none, undone, released, refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ops_pipeline.core.backup.records import Manifest, Trigger
from ops_pipeline.errors import BadInput, NotFound, OpsError, Permanent, PolicyRefused, StoreDamaged, Transient
from ops_pipeline.services.backup.restore import (
    plan_restore,
    release_restore_hold,
    restore,
    restore_holds,
    undo_restore,
    unfinished_restore,
)
from ops_pipeline.services.backup.restore_journal import Stage
from ops_pipeline.services.backup.sets import write_state
from ops_pipeline.services.backup.take import take_backup
from ops_pipeline_tests.fakes.backups import backup_bed, backup_catalogue, database, photos
from ops_pipeline_tests.fakes.data_source import Tables
from ops_pipeline_tests.fakes.platform import Bed, quiet

DAY = 86400.0
OLD = {"listing": ["house 1", "house 2"]}
NEW = {"listing": ["house 9"], "visit": ["ann"]}


def take(bed: Bed, environment: str = "prod", **more: object) -> Manifest:
    return take_backup(bed.platform(), environment, trigger=Trigger.MANUAL, progress=quiet, **more)  # type: ignore[arg-type]


def live(bed: Bed) -> tuple[Tables, Tables, dict[bytes, bytes]]:
    return database(bed).live, database(bed, "cache").live, photos(bed).content()


def bed_with_one_set() -> tuple[Bed, Manifest]:
    """A set of the old data; then a day goes by and all data change."""
    bed = backup_bed(backup_catalogue(photos=True))
    for number in range(4):
        photos(bed).remove(f"{number}.jpg")
    database(bed).live = Tables(dict(OLD))
    database(bed, "cache").live = Tables({"0": ["session"]})
    photos(bed).put("a/house.jpg", b"front")
    manifest = take(bed)
    bed.clock.advance(DAY)
    database(bed).live = Tables(dict(NEW))
    database(bed, "cache").live = Tables({"0": ["another", "session"]})
    photos(bed).put("a/house.jpg", b"back")
    return bed, manifest


def yes(words: str) -> bool:
    return True


def test_restored_by_date_held_undone_and_released() -> None:
    bed, manifest = bed_with_one_set()
    platform = bed.platform()
    before = live(bed)
    plan = plan_restore(platform, "prod", date="2026-11-21")
    assert plan.set_id == manifest.id and [one.source for one in plan.sources] == ["cache", "listings", "photos"]
    asked: list[str] = []

    def agree(words: str) -> bool:
        asked.append(words)
        return True

    outcome = restore(platform, plan, confirm=agree, progress=quiet)
    assert outcome.stage is Stage.HELD and outcome.compared > 4
    assert len(asked) == 1 and "1 day" in asked[0], "one confirmation, which says what is lost"
    assert live(bed)[0].tables == OLD and live(bed)[1].tables == {"0": ["session"]}
    assert live(bed)[2] == {b"a/house.jpg": b"front"}
    (hold,) = restore_holds(platform, "prod")
    assert hold.token == plan.token and "kept as the hold" in hold.words
    assert undo_restore(platform, "prod", plan.token, progress=quiet).stage is Stage.UNDONE
    assert live(bed) == before
    assert release_restore_hold(platform, "prod", plan.token, progress=quiet).stage is Stage.DONE
    assert not restore_holds(platform, "prod") and not database(bed).besides and not database(bed).held


def test_released_after_a_restore_the_earlier_data_are_gone() -> None:
    bed, _ = bed_with_one_set()
    platform = bed.platform()
    plan = plan_restore(platform, "prod")
    restore(platform, plan, confirm=yes, progress=quiet)
    release_restore_hold(platform, "prod", plan.token, progress=quiet)
    assert live(bed)[0].tables == OLD and not database(bed).held and not database(bed, "cache").held
    with pytest.raises(PolicyRefused, match="is done"):
        undo_restore(platform, "prod", plan.token, progress=quiet)


def test_one_source_only_and_a_copy_beside() -> None:
    bed, _ = bed_with_one_set()
    platform = bed.platform()
    before = live(bed)
    plan = plan_restore(platform, "prod", sources=["cache"])
    assert plan.left_out == ("listings", "photos")
    restore(platform, plan, confirm=yes, progress=quiet)
    assert live(bed)[0] is before[0] and live(bed)[1].tables == {"0": ["session"]}
    plan = plan_restore(platform, "prod", sources=["listings"], into="before1120")
    outcome = restore(platform, plan, confirm=pytest.fail, progress=quiet)
    assert outcome.stage is Stage.KEPT and live(bed)[0] is before[0]
    assert database(bed).besides["before1120"].tables.tables == OLD
    with pytest.raises(BadInput, match="already"):
        plan_restore(platform, "prod", sources=["listings"], into="before1120")
    release_restore_hold(platform, "prod", "before1120", progress=quiet)
    assert not database(bed).besides
    assert plan_restore(platform, "prod", sources=["listings"], into="before1120").into == "before1120"


def test_one_file_comes_back_beside() -> None:
    bed, _ = bed_with_one_set()
    photos(bed).put("b/other.jpg", b"other")
    plan = plan_restore(bed.platform(), "prod", only=["a/*.jpg"])
    assert [one.source for one in plan.sources] == ["photos"] and plan.into == plan.token
    assert restore(bed.platform(), plan, confirm=pytest.fail, progress=quiet).stage is Stage.KEPT
    tree = photos(bed)
    assert [one.path for one in tree.walk_beside(plan.token)] == [b"", b"a", b"a/house.jpg"]
    assert tree.content() == {b"a/house.jpg": b"back", b"b/other.jpg": b"other"}, "live files are as they were"
    release_restore_hold(bed.platform(), "prod", plan.token, progress=quiet)
    with pytest.raises(NotFound):
        list(tree.walk_beside(plan.token))


def test_not_confirmed_changes_nothing() -> None:
    bed, _ = bed_with_one_set()
    before = live(bed)
    outcome = restore(bed.platform(), plan_restore(bed.platform(), "prod"), confirm=lambda words: False, progress=quiet)
    assert outcome.stage is Stage.FAILED and live(bed) == before and not database(bed).besides


def test_what_date_means_which_set() -> None:
    bed = backup_bed()
    sets = []
    for _ in range(3):
        sets.append(take(bed))
        bed.clock.advance(DAY)
    platform = bed.platform()
    assert plan_restore(platform, "prod").set_id == sets[2].id
    assert plan_restore(platform, "prod", date="2026-11-22").set_id == sets[1].id
    assert plan_restore(platform, "prod", date="2026-11-22T09:00").set_id == sets[0].id
    assert plan_restore(platform, "prod", set_id=sets[1].id[:23]).set_id == sets[1].id
    write_state(bed.vault.vault(), bed.clock, "prod", sets[1].id, lambda s: replace(s, quarantined="rows fell"))
    plan = plan_restore(platform, "prod", date="2026-11-22")
    assert plan.set_id == sets[0].id and f"passed over: {sets[1].id} (in quarantine)" in plan.why
    assert any(
        "in quarantine: rows fell" in text for text in plan_restore(platform, "prod", set_id=sets[1].id).warnings
    )
    with pytest.raises(NotFound, match="oldest good one was whole at 2026-11-21 10:00"):
        plan_restore(platform, "prod", date="2026-11-20")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"date": "yesterday"}, "is no date"),
        ({"date": "2026-11-21", "set_id": "01ABC"}, "together"),
        ({"into": "Über"}, "small letters"),
        ({"into": "../../x"}, "small letters"),
        ({"sources": ["photoz"]}, "no data source `photoz`"),
        ({"sources": ["listings"], "only": ["*.jpg"]}, "databases"),
        ({"sources": ["cache"], "only": ["*.jpg"]}, "databases"),
    ],
)
def test_refused_with_every_problem_and_nothing_done(asked: dict[str, object], words: str) -> None:
    bed, _ = bed_with_one_set()
    stored = bed.vault.state.objects
    with pytest.raises(BadInput, match=words):
        plan_restore(bed.platform(), "prod", **asked)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="no environment"):
        plan_restore(bed.platform(), "prdo")
    changed = {key for key, data in bed.vault.state.objects.items() if stored.get(key) != data}
    assert not [key for key in changed if not key.startswith("heads/")]


def test_a_set_of_another_kind_of_database_is_refused() -> None:
    bed, _ = bed_with_one_set()
    database(bed)._kind = "mysql"
    with pytest.raises(BadInput, match="is postgres in the set and mysql in the catalogue"):
        plan_restore(bed.platform(), "prod")


FAILURES: dict[str, tuple[type[OpsError], str]] = {
    "load": (Permanent, "listings is broken"),
    "swap": (Permanent, "all data are as they were"),
    "contents": (Permanent, "not what was backed up"),
    "part": (StoreDamaged, "parts/cache"),
    "identity": (PolicyRefused, "no identity"),
}


@pytest.mark.parametrize("what", FAILURES)
def test_a_failed_restore_leaves_live_data_alone_and_drops_what_it_made(what: str) -> None:
    bed, manifest = bed_with_one_set()
    before = (live(bed)[0].copy(), live(bed)[1].copy(), live(bed)[2])
    plan = plan_restore(bed.platform(), "prod")
    cache = database(bed, "cache")
    if what == "load":
        database(bed).load_error = Permanent("listings is broken")
    elif what == "swap":

        def refuse(call: str) -> None:
            if call == "swap":
                raise Permanent("sessions cannot be ended")

        database(bed).before = refuse  # the second of the two
    elif what == "contents":
        original = cache.beside

        def other(token: str) -> object:
            made = original(token)
            finish = made.finish

            def finish_badly() -> None:
                finish()
                made.tables.tables["0"].append("stray")  # type: ignore[attr-defined]

            made.finish = finish_badly  # type: ignore[method-assign]
            return made

        cache.beside = other  # type: ignore[assignment, method-assign]
    elif what == "part":
        key = next(part.stream.key for part in manifest.parts if part.source == "cache" and part.name == "dump")
        damage(bed, key)
    else:
        bed.vault.sealing.identity = False  # type: ignore[attr-defined]
    error, words = FAILURES[what]
    with pytest.raises(error, match=words):
        restore(bed.platform(), plan, confirm=yes, progress=quiet)
    assert live(bed) == before
    assert not database(bed).besides and not cache.besides and not database(bed).held and not cache.held
    assert unfinished_restore(bed.platform(), "prod") is None
    if what == "part":
        plan = plan_restore(bed.platform(), "prod", sources=["listings"])
        assert restore(bed.platform(), plan, confirm=yes, progress=quiet).stage is Stage.HELD, "the others restore"


def damage(bed: Bed, key: str) -> None:
    """Flip a byte in the middle of a stored object."""
    data = bytearray(bed.vault.sets.get(key))
    data[len(data) // 2] ^= 1
    bed.vault.sets.delete(key)
    bed.vault.sets.put(key, bytes(data))
    bed.vault.sets.flush()


def test_a_source_that_answers_late_is_asked_again() -> None:
    bed, _ = bed_with_one_set()
    failures = [Transient("connection reset")] * 2

    def flaky(call: str) -> None:
        if call == "swap" and failures:
            raise failures.pop()

    database(bed).before = flaky
    outcome = restore(bed.platform(), plan_restore(bed.platform(), "prod"), confirm=yes, progress=quiet)
    assert outcome.stage is Stage.HELD and not failures


def test_an_undo_that_fails_leaves_the_restored_data_live() -> None:
    bed, _ = bed_with_one_set()
    plan = plan_restore(bed.platform(), "prod")
    restore(bed.platform(), plan, confirm=yes, progress=quiet)
    now = live(bed)

    def refuse(call: str) -> None:
        if call == "unswap":
            raise Permanent("sessions cannot be ended")

    database(bed, "cache").before = refuse  # the second one to go back
    with pytest.raises(Permanent, match="still live"):
        undo_restore(bed.platform(), "prod", plan.token, progress=quiet)
    assert live(bed) == now
    database(bed, "cache").before = lambda call: None
    undo_restore(bed.platform(), "prod", plan.token, progress=quiet)
    assert live(bed)[0].tables == NEW


def test_only_the_last_restore_is_undone() -> None:
    bed, _ = bed_with_one_set()
    platform = bed.platform()
    first, second = plan_restore(platform, "prod"), plan_restore(platform, "prod", sources=["cache"])
    restore(platform, first, confirm=yes, progress=quiet)
    bed.clock.advance(1)
    restore(platform, second, confirm=yes, progress=quiet)
    with pytest.raises(PolicyRefused, match=f"restore {second.token} came later"):
        undo_restore(platform, "prod", first.token, progress=quiet)
    undo_restore(platform, "prod", second.token, progress=quiet)
    undo_restore(platform, "prod", first.token, progress=quiet)
    assert live(bed)[0].tables == NEW


def test_the_plan_offers_code_that_fits() -> None:
    from ops_pipeline.services.deploy import deploy

    bed = backup_bed()
    for version in ("1.0.0", "2.0.0"):
        bed.image(version)
        deploy(bed.platform(), "prod", "api", progress=quiet, who="ann")
        if version == "1.0.0":
            take(bed)
            bed.clock.advance(3600)
    text = "\n".join(plan_restore(bed.platform(), "prod").lines)
    assert "api: #1 (1.0.0) was live then, #2 (2.0.0) is live now: ops rollback api prod --to 1" in text
    assert "code only:" in text and "code and data:" in text and "1 hour" in text
