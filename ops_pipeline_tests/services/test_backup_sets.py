"""Listing, finding and choosing sets: what is damaged or gone is said and never hides what is good."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from ops_pipeline.core.backup.records import Check, Hold, Manifest, SetKey, SetState
from ops_pipeline.errors import BadInput, NotFound, OpsError, StoreDamaged
from ops_pipeline.services.backup.freshness import alert_freshness, freshness
from ops_pipeline.services.backup.prune import forget_set
from ops_pipeline.services.backup.set_cache import cache_key
from ops_pipeline.services.backup.sets import backup_sets, find_set, read_state, set_at, state_key, write_state
from ops_pipeline_tests.fakes.backups import backup_bed, database
from ops_pipeline_tests.fakes.platform import Bed, quiet
from ops_pipeline_tests.services.backing_up import assert_whole, history, listing, take


@pytest.fixture
def bed() -> Bed:
    return backup_bed()


def key_of(made: Manifest) -> SetKey:
    return SetKey(made.environment, made.id, made.started_at)


def test_nothing_yet(bed: Bed) -> None:
    assert listing(bed).sets == () and backup_sets(bed.platform(), "prod") == ()
    with pytest.raises(NotFound, match="no good backup set"):
        find_set(bed.platform(), "prod", "latest")
    with pytest.raises(NotFound, match="no good backup set"):
        set_at(bed.platform(), "prod", "2026-11-20")


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a byte flipped": (lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:], "is damaged"),
    "cut": (lambda data: data[:-40], "no JSON"),
    "empty": (lambda data: b"", "no JSON"),
    "no JSON": (lambda data: b"\x00\xff" * 50, "not UTF-8"),
    "unsigned": (lambda data: data.replace(b'"signature":"', b'"signature":"00'), "not signed"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("cached", [True, False])
def test_a_damaged_manifest_is_named_and_hides_nothing(bed: Bed, damage: str, cached: bool) -> None:
    made = history(bed, 3)
    if not cached:
        bed.vault.state.delete(cache_key("prod"))
    else:
        listing(bed)
    change, words = DAMAGE[damage]
    key = key_of(made[1]).manifest
    bed.vault.sets.damage(key, change(bed.vault.sets.objects[key]))
    if cached and len(change(b"x" * 1000)) == 1000:
        bed.vault.state.delete(cache_key("prod"))  # the same size and etag: only reading it shows
    found = listing(bed)
    assert [one.id for one in found.sets] == [made[2].id, made[0].id]
    assert [one.id for one in found.damaged] == [made[1].id]
    assert key in found.damaged[0].problem and words in found.damaged[0].problem
    assert found.chain == (), "it is there, if damaged"
    with pytest.raises(StoreDamaged, match=r"is damaged|not signed"):
        find_set(bed.platform(), "prod", made[1].id)
    assert find_set(bed.platform(), "prod", "latest").id == made[2].id
    bed.clock.advance(3600)
    take(bed.platform())  # and the next one is taken all the same


def test_a_manifest_replayed_in_another_place_is_refused(bed: Bed) -> None:
    old, new = history(bed, 2)
    data = bed.vault.sets.objects[key_of(old).manifest]
    elsewhere = f"sets/prod/2026/12/24/{old.id}/manifest.json"
    bed.vault.sets.put(elsewhere, data)
    bed.vault.sets.put(key_of(new).manifest.replace("prod", "dev"), bed.vault.sets.objects[key_of(new).manifest])
    bed.vault.sets.flush()
    assert [one.id for one in listing(bed).sets] == [new.id, old.id]
    assert elsewhere in listing(bed).damaged[0].problem
    assert listing(bed, "dev").sets == () and len(listing(bed, "dev").damaged) == 1


def test_a_set_taken_out_of_the_chain_is_missed(bed: Bed) -> None:
    made = history(bed, 4)
    bed.vault.sets.delete(key_of(made[1]).manifest)
    assert listing(bed).chain == (f"set {made[2].id} names {made[1].id} as its predecessor, which is gone",)
    bed.vault.sets.delete(key_of(made[3]).manifest)
    assert listing(bed).chain[0] == f"set {made[3].id}, the newest one remembered, is gone"


def test_a_set_cleared_away_on_purpose_is_not_missed(bed: Bed) -> None:
    made = history(bed, 4)
    forget_set(bed.platform(), "prod", made[1].id, reason="it holds what it must not", progress=quiet)
    found = assert_whole(bed)
    assert [one.id for one in found.sets] == [made[3].id, made[2].id, made[0].id]


def test_a_replaced_manifest_breaks_the_chain(bed: Bed) -> None:
    made = history(bed, 2)
    key = key_of(made[0]).manifest
    document = json.loads(bed.vault.sets.objects[key])
    document["manifest"]["reason"] = "forged"
    from ops_pipeline.core.backup.canonical import canonical

    document["signature"] = dict(bed.vault.sealing.sign(canonical(document["manifest"])))
    bed.vault.sets.damage(key, canonical(document))
    bed.vault.state.delete(cache_key("prod"))
    assert any("whose manifest is another one now" in problem for problem in listing(bed).chain)


def test_found_by_id_by_its_beginning_and_by_name(bed: Bed) -> None:
    made = history(bed, 3, hours=0.1)
    platform = bed.platform()
    for one in made:
        whole = find_set(platform, "prod", one.id.lower())
        assert whole.manifest == one and all(part.stream.blocks for part in whole.manifest.parts)
    assert find_set(platform, "prod", made[0].id[:20]).id == made[0].id
    assert find_set(platform, "prod", "Latest").id == made[2].id
    with pytest.raises(BadInput, match="beginning of several"):
        find_set(platform, "prod", made[0].id[:4])
    with pytest.raises(BadInput, match="too short"):
        find_set(platform, "prod", "0")
    with pytest.raises(NotFound):
        find_set(platform, "prod", "7ZZZZZZZZZ")


def test_chosen_by_date_and_time(bed: Bed) -> None:
    """The clock begins on 2026-11-21 10:00: sets at 16:00, 22:00, 04:00 and 10:00 of the day after."""
    made = history(bed, 4)
    platform = bed.platform()
    wanted = {
        "2026-11-21": 1,
        "2026-11-22": 3,
        "2030-01-01": 3,
        "2026-11-21T16:00": 0,
        "2026-11-22T03:59:59Z": 1,
        "2026-11-22T05:00+01:00": 2,
    }
    for when, index in wanted.items():
        assert set_at(platform, "prod", when).id == made[index].id, when
    assert set_at(platform, "prod", made[2].started_at - timedelta(seconds=1)).id == made[1].id
    with pytest.raises(NotFound, match="the oldest is of 2026-11-21 16:00"):
        set_at(platform, "prod", "2026-11-20")
    with pytest.raises(BadInput, match="is no date"):
        set_at(platform, "prod", "yesterday")


def test_only_sets_one_can_trust_are_chosen_by_date(bed: Bed) -> None:
    made = history(bed, 3)
    bed.clock.advance(3600)
    part = take(bed.platform(), sources=["listings"])
    vault, clock, platform = bed.vault.vault(), bed.clock, bed.platform()
    assert set_at(platform, "prod", "2030-01-01").id == made[2].id
    assert set_at(platform, "prod", "2030-01-01", sources=["listings"]).id == part.id
    assert set_at(platform, "prod", "2030-01-01", sources=["cache"]).id == made[2].id
    write_state(vault, clock, "prod", made[2].id, lambda state: replace(state, quarantined="odd"))
    bad = Check(clock.now(), 1.0, ("listings: cut",))
    write_state(vault, clock, "prod", made[1].id, lambda state: replace(state, checks=(bad,)))
    assert set_at(platform, "prod", "2030-01-01").id == made[0].id
    assert [one.id for one in backup_sets(platform, "prod", good=True)] == [made[0].id]


def test_states_change_without_losing_what_others_wrote(bed: Bed) -> None:
    made = history(bed, 1)[0]
    vault, clock = bed.vault.vault(), bed.clock
    other = Hold("theirs", "r", "bob", clock.now())
    fired: list[str] = []

    def meanwhile(operation: str, key: str) -> None:
        if operation == "write" and key == state_key("prod", made.id) and not fired:
            fired.append(key)
            write_state(vault, clock, "prod", made.id, lambda state: replace(state, holds=(other,)))

    bed.vault.state.before = meanwhile
    mine = Hold("mine", "r", "ann", clock.now())
    state = write_state(vault, clock, "prod", made.id, lambda state: replace(state, holds=(*state.holds, mine)))
    assert state.holds == (other, mine) == read_state(vault, clock, "prod", made.id).holds


def test_a_set_whose_state_is_damaged_is_neither_good_nor_forgotten(bed: Bed) -> None:
    made = history(bed, 2)
    bed.vault.state.write(state_key("prod", made[1].id), b"{")
    found = listing(bed).sets[0]
    assert found.id == made[1].id and not found.good and "is damaged" in found.state.quarantined
    swapped = SetState("prod", made[0].id, quarantined="")
    from ops_pipeline.services.records import encode

    bed.vault.state.write(state_key("prod", made[1].id), encode(swapped))
    assert not listing(bed).sets[0].good


CACHE: dict[str, Callable[[bytes], bytes]] = {
    "forged": lambda data: data.replace(b"prod", b"dorp"),
    "cut": lambda data: data[:100],
    "of another shape": lambda data: b"{}",
}


@pytest.mark.parametrize("damage", CACHE)
def test_the_cache_is_never_trusted_beyond_its_seal(bed: Bed, damage: str) -> None:
    history(bed, 3)
    before = listing(bed)
    key = cache_key("prod")
    bed.vault.state.write(key, CACHE[damage](bed.vault.state.objects[key]))
    assert listing(bed) == before


def test_a_listing_reads_each_manifest_once(bed: Bed) -> None:
    history(bed, 5)
    listing(bed)
    read: list[str] = []
    bed.vault.sets.before = lambda operation, key: read.append(key) if operation == "get" else None
    assert len(listing(bed).sets) == 5
    assert read == []
    bed.clock.advance(60)
    take(bed.platform())
    read.clear()
    listing(bed)
    assert len(read) == 1


def test_a_state_that_cannot_be_written_costs_only_time(bed: Bed) -> None:
    history(bed, 2)

    def refuse(operation: str, key: str) -> None:
        if operation == "write":
            raise OpsError("read only")

    bed.vault.state.delete(cache_key("prod"))
    bed.vault.state.before = refuse
    assert len(listing(bed).sets) == 2


def test_freshness_from_the_sign_of_life_and_from_the_sets(bed: Bed) -> None:
    platform = bed.platform()
    assert not freshness(platform, "prod").fresh and "no good backup" in freshness(platform, "prod").words
    made = history(bed, 2)
    bed.clock.advance(3600)
    found = freshness(platform, "prod")
    assert found.fresh and found.age_hours == pytest.approx(1) and made[1].id in found.words
    vault = bed.vault.vault()
    write_state(vault, bed.clock, "prod", made[1].id, lambda state: replace(state, quarantined="0 rows"))
    found = freshness(platform, "prod")
    assert found.fresh and found.age_hours == pytest.approx(7) and "kept apart: 0 rows" in found.words
    bed.clock.advance(3600)
    assert not alert_freshness(platform, "prod", progress=quiet).fresh
    assert bed.alerts.names() == ["BackupStale"]
    take(platform)
    assert alert_freshness(platform, "prod", progress=quiet).fresh and bed.alerts.names() == []


def test_a_vanished_set_is_not_fresh(bed: Bed) -> None:
    made = history(bed, 1)[0]
    bed.vault.sets.delete(key_of(made).manifest)
    assert not freshness(bed.platform(), "prod").fresh


def test_another_environment_is_another_list(bed: Bed) -> None:
    database(bed, environment="dev").live.tables = {"only": ["one"]}
    mine, theirs = take(bed.platform()), take(bed.platform(), "dev")
    assert [one.id for one in listing(bed).sets] == [mine.id]
    assert [one.id for one in listing(bed, "dev").sets] == [theirs.id]
