"""Checks of stored bytes: everything wrong is found and named, everything is read once in its time, nothing twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from ops_pipeline.errors import StoreDamaged
from ops_pipeline.services.backup.integrity import check_set
from ops_pipeline.services.backup.prune import forget_set
from ops_pipeline.services.backup.sets import read_state
from ops_pipeline_tests.fakes.backups import backup_bed, backup_catalogue, database, photos
from ops_pipeline_tests.fakes.object_store import InMemoryObjectStore
from ops_pipeline_tests.fakes.platform import Bed, Lifeline, quiet
from ops_pipeline_tests.fakes.sealing import FakeSealing
from ops_pipeline_tests.services.backing_up import history, listing, take

BOOK = backup_catalogue(photos=True)


@pytest.fixture
def bed() -> Bed:
    return backup_bed(BOOK)


def check(bed: Bed, set_id: str = "latest", share: float | None = None) -> tuple[str, ...]:
    return check_set(bed.platform(), "prod", set_id, share=share, progress=quiet).problems


def test_a_whole_set_has_no_problems_and_needs_no_identity(bed: Bed) -> None:
    made = history(bed, 2)
    assert isinstance(bed.vault.sealing, FakeSealing)
    bed.vault.sealing.identity = False
    found = check_set(bed.platform(), "prod", share=1, progress=quiet)
    assert found.problems == () and found.share == 1.0
    state = read_state(bed.vault.vault(), bed.clock, "prod", made[1].id)
    assert state.read_share == 1.0 and state.checks == (found,) and not state.damaged


CHANGES: dict[str, Callable[[bytes, int], bytes]] = {
    "a bit flipped": lambda data, at: data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :],
    "cut": lambda data, at: data[:at],
    "longer": lambda data, at: data + b"\x00",
    "zeroes": lambda data, at: bytes(len(data)),
}


def regions(size: int) -> Iterator[int]:
    """Beginning, header, middle and end."""
    return iter(sorted({0, min(9, size - 1), size // 2, size - 1}))


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_changed_is_found_and_named(change: str) -> None:
    """Every kind of object, every region of it: named by source and object, and the other sources stay without."""
    bed = backup_bed(BOOK)
    take(bed.platform())
    places: list[tuple[InMemoryObjectStore, str]] = [
        (bed.vault.sets, key) for key in bed.vault.sets.objects if not key.endswith("manifest.json")
    ] + [(bed.vault.media, key) for key in bed.vault.media.objects]
    tried = 0
    for store, key in places:
        whole = store.objects[key]
        for at in regions(len(whole)):
            store.damage(key, CHANGES[change](whole, at))
            problems = check(bed, share=1)
            source = key.rpartition("/")[2].partition(".")[0] if store is bed.vault.sets else "photos"
            assert problems and all(text.startswith(f"{source}: ") and key in text for text in problems), (key, at)
            tried += 1
            store.damage(key, whole)
            assert check(bed, share=1) == ()
    assert tried > 20


def test_what_is_missing_or_swapped_is_found(bed: Bed) -> None:
    take(bed.platform())
    sets = bed.vault.sets
    first, second = (next(key for key in sets.objects if name in key) for name in ("listings.dump", "cache.dump"))
    data = sets.objects[first], sets.objects[second]
    sets.damage(first, data[1])
    sets.damage(second, data[0])
    assert {text.partition(":")[0] for text in check(bed, share=1)} == {"listings", "cache"}
    sets.damage(first, data[0])
    sets.damage(second, data[1])
    sets.delete(first)
    (problem,) = check(bed, share=1)
    assert problem == f"listings: stored object {first} is missing"
    assert bed.alerts.names() == ["BackupDamaged"]
    assert not listing(bed).sets[0].good


def test_an_older_sets_part_replayed_is_found(bed: Bed) -> None:
    old, new = history(bed, 2)
    by_name = {part.source + part.name: part.stream.key for part in old.parts}
    for part in new.parts:
        bed.vault.sets.damage(part.stream.key, bed.vault.sets.objects[by_name[part.source + part.name]])
    assert {text.partition(":")[0] for text in check(bed, share=1)} == {"cache", "listings", "photos"}
    assert check(bed, old.id, share=1) == ()


def test_a_damaged_manifest_is_told_and_raised(bed: Bed) -> None:
    made = history(bed, 2)
    key = next(key for key in bed.vault.sets.objects if made[1].id in key and key.endswith("manifest.json"))
    bed.vault.sets.damage(key, b"{}")
    with pytest.raises(StoreDamaged, match="is damaged"):
        check(bed, made[1].id)
    assert bed.alerts.names() == ["BackupDamaged"]
    assert check(bed, made[0].id) == () and bed.alerts.names() == ["BackupDamaged"], "it still is"


def test_a_problem_stays_until_everything_was_read_again(bed: Bed) -> None:
    made = take(bed.platform())
    key = next(part.stream.key for part in made.parts if part.source == "cache" and part.name == "dump")
    whole = bed.vault.sets.objects[key]
    bed.vault.sets.damage(key, whole[:-1])
    assert check(bed, made.id) != ()
    bed.vault.sets.damage(key, whole)
    bed.clock.advance(3600)
    assert check(bed, made.id) != (), "a look at a share of it proves nothing about the rest"
    assert check(bed, made.id, share=1) == ()
    assert bed.alerts.names() == [] and listing(bed).sets[0].good


def test_in_a_week_everything_is_read_and_no_file_twice(bed: Bed) -> None:
    """Checks every six hours while sets go on being taken: each object of the first days is read within a week."""
    database(bed).live.filler = 40_000
    reads: Counter[str] = Counter()
    bed.vault.media.before = lambda operation, key: reads.update([key]) if operation == "get" else None
    first = history(bed, 1)[0]
    media = set(bed.vault.media.objects)
    for number in range(28):
        before = Counter(reads)
        check(bed, "latest")
        assert sum((reads - before).values()) <= len(media), number
        bed.clock.advance(6 * 3600)
        if number % 7 == 0:
            photos(bed).put(f"later {number}.jpg", b"x" * number)
            take(bed.platform())
    assert all(reads[key] == 1 for key in media), "once, though every set names them"
    state = read_state(bed.vault.vault(), bed.clock, "prod", first.id)
    assert state.read_share == 1.0 and not state.damaged


def test_the_share_that_is_due_finds_damage_in_any_set_within_its_time(bed: Bed) -> None:
    made = history(bed, 3)
    check(bed)
    victim = made[0].parts[1].stream
    whole = bed.vault.sets.objects[victim.key]
    bed.vault.sets.damage(victim.key, whole[:-1] + bytes([whole[-1] ^ 1]))
    media = sorted(bed.vault.media.objects)[0]
    content = bed.vault.media.objects[media]
    bed.vault.media.damage(media, content[:-1] + bytes([content[-1] ^ 1]))
    bed.clock.advance(timedelta(days=7).total_seconds())
    check(bed, "latest")
    found = {one.id: one.state.checks[-1].problems if one.state.checks else () for one in listing(bed).sets}
    assert any(victim.key in text for text in found[made[0].id])
    for one in made:
        assert any(media in text and text.startswith("photos: ") for text in found[one.id]), "all that name it"
    assert not any(victim.key in text for one in made[1:] for text in found[one.id])


def test_a_set_pruned_while_it_is_looked_at_is_no_damage(bed: Bed) -> None:
    made = history(bed, 3)
    gone: list[str] = []

    def prune_it(call: str) -> None:
        if call.startswith("sets.get") and not gone:
            gone.append(made[0].id)
            forget_set(bed.platform("pruner:1"), "prod", made[0].id, reason="unwanted", progress=quiet)

    bed.clock.advance(86400)
    check_set(bed.platform(lifeline=Lifeline(after_each=prune_it)), "prod", progress=quiet)
    assert gone and bed.alerts.names() == []
    assert [one.id for one in listing(bed).sets] == [made[2].id, made[1].id]
