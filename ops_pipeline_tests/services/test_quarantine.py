"""Quarantine: the first record stays, lifting needs one exact digest, and nothing is ever lost."""

from __future__ import annotations

import pytest

from ops_pipeline.core.judgement.verdict import Outcome
from ops_pipeline.core.quarantine import Quarantine
from ops_pipeline.errors import BadInput, NotFound, PolicyRefused, StoreDamaged
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.ledger import find_quarantine
from ops_pipeline.services.quarantine import (
    find,
    find_image_by_digest,
    lift,
    lifted,
    quarantine,
    quarantine_key,
    quarantined,
)
from ops_pipeline.services.watch import tick
from ops_pipeline_tests.fakes.judging import ScriptedJudging
from ops_pipeline_tests.fakes.platform import Bed, Killed, Lifeline, quiet

ONE = "sha256:" + "ab12" + "0" * 60
TWO = "sha256:" + "ab13" + "0" * 60


@pytest.fixture
def bed() -> Bed:
    return Bed()


def test_what_is_kept(bed: Bed) -> None:
    now = bed.clock.now()
    quarantine(bed.platform(), ONE, "18 of 190 failed", "metric_rollback", environment="prod", service="api", release=7)
    record = Quarantine(ONE, "18 of 190 failed", "metric_rollback", now, "prod", "api", 7, None)
    assert quarantined(bed.platform()) == (record,)
    assert find_quarantine(bed.store, ONE) == record


def test_the_first_record_stays(bed: Bed) -> None:
    quarantine(bed.platform(), ONE, "first", "ann")
    bed.clock.advance(60)
    quarantine(bed.platform(), ONE, "second", "bob")
    (record,) = quarantined(bed.platform())
    assert (record.reason, record.who) == ("first", "ann")


def test_the_newest_is_listed_first(bed: Bed) -> None:
    for digest in (TWO, ONE):
        quarantine(bed.platform(), digest, "bad", "ann")
        bed.clock.advance(1)
    assert [record.digest for record in quarantined(bed.platform())] == [ONE, TWO]


@pytest.mark.parametrize("name", [ONE, "ab12", "sha256:ab120", ONE[7:], " AB12 "])
def test_lifting_takes_a_digest_or_the_beginning_of_one(bed: Bed, name: str) -> None:
    quarantine(bed.platform(), ONE, "bad", "ann")
    quarantine(bed.platform(), TWO, "bad", "ann")
    bed.clock.advance(5)
    record = lift(bed.platform(), name, "bob", "it was the database")
    assert record.digest == ONE
    assert [left.digest for left in quarantined(bed.platform())] == [TWO]
    (old,) = lifted(bed.platform(), ONE)
    assert (old.record, old.who, old.why, old.at) == (record, "bob", "it was the database", bed.clock.now())


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("", BadInput, "is not a digest"),
        ("abc", BadInput, "is not a digest"),
        ("api", BadInput, "is not a digest"),
        ("../ab12", BadInput, "is not a digest"),
        ("sha512:" + "a" * 64, BadInput, "is not a digest"),
        ("ab1" + "2" * 62, BadInput, "is not a digest"),
        ("ffff", NotFound, "begins with ffff"),
        (TWO[:-1] + "1", NotFound, "is in quarantine"),
    ],
)
def test_what_does_not_name_one_digest_changes_nothing(bed: Bed, name: str, error: type[Exception], words: str) -> None:
    quarantine(bed.platform(), ONE, "bad", "ann")
    stored = bed.store.objects
    with pytest.raises(error, match=words):
        lift(bed.platform(), name, "bob", "")
    assert bed.store.objects == stored


def test_an_ambiguous_beginning_names_what_it_could_mean(bed: Bed) -> None:
    long = "ab12" + "0" * 59
    for digit in "12":
        quarantine(bed.platform(), f"sha256:{long}{digit}", "bad", "ann")
    with pytest.raises(BadInput, match="stands for 2 digests in quarantine: sha256:ab12") as caught:
        lift(bed.platform(), "ab12", "bob", "")
    assert caught.value.hint == "Give more digits."


def test_lifted_and_bad_again_keeps_both(bed: Bed) -> None:
    for reason in ("first", "second"):
        quarantine(bed.platform(), ONE, reason, "ann")
        bed.clock.advance(1)
        lift(bed.platform(), ONE, "bob", f"after the {reason}")
    assert [(old.record.reason, old.why) for old in lifted(bed.platform(), ONE)] == [
        ("first", "after the first"),
        ("second", "after the second"),
    ]
    assert quarantined(bed.platform()) == ()


def test_finding_changes_nothing(bed: Bed) -> None:
    quarantine(bed.platform(), ONE, "bad", "ann")
    stored = bed.store.objects
    assert find(bed.platform(), "ab12").digest == ONE
    assert bed.store.objects == stored


def test_an_image_is_found_by_the_beginning_of_its_digest(bed: Bed) -> None:
    image, other = bed.image("1.0.0"), bed.image("1.0.0", service="web")
    for known in (image, other):
        assert find_image_by_digest(bed.platform(), known.ref.digest[:15]) == (known.service, known.ref.digest)
    assert find_image_by_digest(bed.platform(), ONE) == ("", ONE)
    with pytest.raises(NotFound, match="no image whose digest begins with ab12"):
        find_image_by_digest(bed.platform(), "ab12")


@pytest.mark.parametrize("die_at", [1, 2, 3, 4])
def test_killed_while_lifting_it_is_either_in_quarantine_or_in_the_history(bed: Bed, die_at: int) -> None:
    quarantine(bed.platform(), ONE, "bad", "ann")
    with pytest.raises(Killed):
        lift(bed.platform(lifeline=Lifeline(die_at)), ONE, "bob", "why")
    (record,) = quarantined(bed.platform())
    assert record.reason == "bad"
    assert lift(bed.platform(), ONE, "bob", "why") == record
    assert lifted(bed.platform(), ONE)[-1].record == record


def test_a_record_that_cannot_be_read_lets_nothing_pass(bed: Bed) -> None:
    image = bed.image("1.0.0")
    bed.store.write(quarantine_key(image.ref.digest), b"{}")
    with pytest.raises(StoreDamaged, match="quarantine/"):
        quarantined(bed.platform())
    with pytest.raises(StoreDamaged, match="quarantine/"):
        deploy(bed.platform(), "prod", "api", progress=quiet)


def test_nothing_deploys_a_digest_in_quarantine_until_it_is_lifted(bed: Bed) -> None:
    image = bed.image("1.0.0")
    quarantine(bed.platform(), image.ref.digest, "18 of 190 failed", "metric_rollback")
    with pytest.raises(PolicyRefused, match="in quarantine since 2026-11-21 10:00 UTC: 18 of 190 failed"):
        deploy(bed.platform(), "prod", "api", progress=quiet)
    lift(bed.platform(), image.ref.digest[7:15], "bob", "fixed elsewhere")
    assert deploy(bed.platform(), "prod", "api", progress=quiet).digest == image.ref.digest


def test_what_was_lifted_stays_lifted_although_the_journal_tells_of_it_again(bed: Bed) -> None:
    verdict = ScriptedJudging(bed.clock.now, {("prod", "api"): Outcome.FAIL})
    for version in ("1.0.0", "2.0.0"):
        image = bed.image(version)
        deploy(bed.platform(), "prod", "api", progress=quiet)
    tick(bed.platform(), verdict, progress=quiet)
    lift(bed.platform(), image.ref.digest, "bob", "the database was down")
    made = deploy(bed.platform(), "prod", "api", progress=quiet)
    assert made.digest == image.ref.digest and quarantined(bed.platform()) == ()
    bed.clock.advance(3600)
    tick(bed.platform(), verdict, progress=quiet)
    (record,) = quarantined(bed.platform())
    assert record.release == made.number, "bad again is another matter"
