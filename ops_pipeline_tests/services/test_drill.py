"""Restore drills on fakes: what they prove, what they notice, and that nothing of them stays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ops_pipeline.core.backup.records import Check, Manifest, Trigger
from ops_pipeline.errors import LeaseHeld, NotFound, OpsError, Permanent, PolicyRefused, Transient, Unavailable
from ops_pipeline.services.backup.drill import LOCK, drill
from ops_pipeline.services.backup.locks import FOLDER
from ops_pipeline.services.backup.prune import plan_prune
from ops_pipeline.services.backup.sets import find_set, write_state
from ops_pipeline.services.backup.take import take_backup
from ops_pipeline.services.lease import acquire
from ops_pipeline_tests.fakes.backups import backup_bed, backup_catalogue, database, photos
from ops_pipeline_tests.fakes.platform import Bed, Killed, Lifeline, quiet
from ops_pipeline_tests.services.test_restore import damage


def bed_with_a_set(questions: dict[str, str] | None = None) -> tuple[Bed, Manifest]:
    book = backup_catalogue(photos=True)
    if questions:
        document = book.model_dump(exclude_none=True, warnings=False)
        document["environments"]["prod"]["backup"]["sources"]["listings"]["questions"] = questions
        book = type(book).model_validate(document)
    bed = backup_bed(book)
    manifest = take_backup(bed.platform(), "prod", trigger=Trigger.SCHEDULE, progress=quiet)
    bed.clock.advance(3600)
    seen = Check(bed.clock.now(), 0.1)
    write_state(bed.vault.vault(), bed.clock, "prod", manifest.id, lambda state: replace(state, checks=(seen,)))
    return bed, manifest


def details(manifest: Manifest) -> dict[str, str]:
    return {
        name: text
        for part in manifest.parts
        if part.source == "listings"
        for name, text in part.arrived.details.items()
    }


def assert_nothing_left(bed: Bed) -> None:
    for name in ("listings", "cache"):
        assert not database(bed, name).scratches and not database(bed, name).besides
    assert not photos(bed)._beside
    assert not [key for key in bed.vault.state.objects if key.startswith("drills/")]


def test_a_drill_restores_compares_asks_times_and_leaves_nothing() -> None:
    bed, manifest = bed_with_a_set({"houses": "count listing", "who": "users"})
    assert plan_prune(bed.platform(), "prod").newest_good == manifest.id
    live = (database(bed).live.copy(), photos(bed).content())
    said: list[str] = []
    result = drill(bed.platform(), "prod", run_id="run-7", progress=said.append)
    assert not result.problems and result.run_id == "run-7"
    assert set(result.sources) == {"listings", "cache", "photos"} and result.compared > 9
    state = find_set(bed.platform(), "prod", manifest.id).state
    assert state.drills == (result,) and state.drilled_at == result.at
    assert (database(bed).live, photos(bed).content()) == live
    assert database(bed).scratch_images == ["fake/database:1.0"]
    assert any("the drill passed" in line for line in said)
    assert_nothing_left(bed)
    assert not bed.alerts.firing


def test_a_set_knows_its_server_and_its_answers_and_keeps_no_text_in_the_open() -> None:
    _, manifest = bed_with_a_set({"houses": "count listing", "who": "users", "visits": "count visit"})
    known = details(manifest)
    assert known["image"] == "fake/database:1.0" and known["question houses"] == "200"
    assert known["question who"].startswith("sha256:") and "question visits" not in known


def test_an_answer_that_changes_while_it_is_dumped_is_no_measure() -> None:
    bed, _ = bed_with_a_set({"houses": "count listing", "who": "users"})
    asked = 0

    def meanwhile(call: str) -> None:
        nonlocal asked
        if call == "ask":
            asked += 1
            database(bed)._moments[-1].users.append(f"user {asked}")

    database(bed).before = meanwhile
    said: list[str] = []
    manifest = take_backup(bed.platform(), "prod", trigger=Trigger.MANUAL, progress=said.append)
    assert details(manifest)["question houses"] == "200" and "question who" not in details(manifest)
    assert "listings: the answer to who changes meanwhile; a drill will not compare it" in said


def test_drilled_in_the_image_it_was_dumped_from_or_in_the_live_ones() -> None:
    bed, _ = bed_with_a_set({"houses": "count listing"})
    source = database(bed)
    source.server_image = "fake/database:2.0"
    source.images.add("fake/database:2.0")
    assert not drill(bed.platform(), "prod", progress=quiet).problems
    source.images.remove("fake/database:1.0")
    said: list[str] = []
    assert not drill(bed.platform(), "prod", progress=said.append).problems
    assert source.scratch_images == ["fake/database:1.0", "fake/database:2.0"]
    assert "listings: the image it was dumped from is not here: listings: No such image: fake/database:1.0" in said
    assert any("fake/database:2.0, which the live server runs" in line for line in said)
    source.images.clear()
    assert "No such image" in drill(bed.platform(), "prod", progress=quiet).problems[0]


@pytest.mark.parametrize("query", ["count listing", "users"])
def test_an_answer_that_differs_fails_the_drill(query: str) -> None:
    bed, manifest = bed_with_a_set({"asked": query})
    document = bed.catalogue.model_dump(exclude_none=True, warnings=False)
    # The same question, which the restored copy answers otherwise than live data did.
    other = {"count listing": "users", "users": "count listing"}[query]
    document["environments"]["prod"]["backup"]["sources"]["listings"]["questions"] = {"asked": other}
    bed.catalogue = type(bed.catalogue).model_validate(document)
    (problem,) = drill(bed.platform(), "prod", progress=quiet).problems
    assert problem.startswith("listings: question asked is answered ")
    assert find_set(bed.platform(), "prod", manifest.id).state.drilled_at is None


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("part", "cache: stored object sets/prod"),
        ("media", "photos: "),
        ("load", "listings: could not be restored: out of memory"),
        ("question", "listings: question visits is not answered"),
    ],
)
def test_what_differs_is_recorded_told_and_no_longer_relied_on(what: str, words: str) -> None:
    bed, manifest = bed_with_a_set({"visits": "count visit"} if what == "question" else None)
    if what == "part":
        damage(bed, next(p.stream.key for p in manifest.parts if p.source == "cache" and p.name == "dump"))
    elif what == "media":
        store = bed.vault.media
        key = next(info.key for info in store.list("media/"))
        data = bytearray(store.get(key))
        data[len(data) // 2] ^= 1
        store.delete(key)
        store.put(key, bytes(data))
        store.flush()
    elif what == "load":
        database(bed).load_error = Permanent("out of memory")
    result = drill(bed.platform(), "prod", progress=quiet)
    assert len(result.problems) == 1 and result.problems[0].startswith(words), result.problems
    assert len(result.sources) == (3 if what == "question" else 2), "the others were drilled all the same"
    assert find_set(bed.platform(), "prod", manifest.id).state.drilled_at is None
    assert bed.alerts.names() == ["RestoreDrillFailed"]
    assert "no set is good" in plan_prune(bed.platform(), "prod").frozen
    assert_nothing_left(bed)


@pytest.mark.parametrize(
    ("error", "raised"), [(Transient("connection refused"), Unavailable), (Unavailable("engine away"), Unavailable)]
)
def test_an_engine_that_is_away_says_nothing_about_the_set(error: OpsError, raised: type[OpsError]) -> None:
    bed, manifest = bed_with_a_set()
    database(bed).load_error = error
    with pytest.raises(raised):
        drill(bed.platform(), "prod", progress=quiet)
    assert not find_set(bed.platform(), "prod", manifest.id).state.drills
    database(bed).load_error = None
    assert not drill(bed.platform(), "prod", progress=quiet).problems
    assert_nothing_left(bed)


def test_refused() -> None:
    bed, _ = bed_with_a_set()
    with pytest.raises(NotFound):
        drill(bed.platform(), "dev", progress=quiet)
    other = bed.platform("other:1")
    object.__setattr__(other, "store", bed.vault.vault().state)
    with (
        acquire(other, "prod", LOCK, run_id="run-1", reason="restore drill", folder=FOLDER),
        pytest.raises(LeaseHeld, match="other:1"),
    ):
        drill(bed.platform(), "prod", progress=quiet)
    bed.vault.sealing.identity = False  # type: ignore[attr-defined]
    with pytest.raises(PolicyRefused, match="no identity"):
        drill(bed.platform(), "prod", progress=quiet)


def test_killed_anywhere_nothing_stays_after_the_next_one() -> None:
    die_at, left_a_tree = 0, 0
    while True:
        die_at += 1
        bed, manifest = bed_with_a_set()
        live = (database(bed).live.copy(), photos(bed).content())
        try:
            drill(bed.platform("doomed:1", lifeline=Lifeline(die_at)), "prod", progress=quiet)
        except Killed:
            bed.clock.advance(121)
        else:
            break
        left_a_tree += bool(photos(bed)._beside)
        recorded = find_set(bed.platform(), "prod", manifest.id).state.drills
        assert all(not one.problems for one in recorded), "a killed drill is no failed one"
        # Scratch servers go with their labels, which the fake's own context stands for.
        assert not drill(bed.platform("second:1"), "prod", progress=quiet).problems
        assert_nothing_left(bed)
        assert (database(bed).live, photos(bed).content()) == live
    assert die_at > 30 and left_a_tree > 3
