"""Ids of sets, the order of sources, freshness, and what is due to be read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops_pipeline.core.backup.freshness import freshness_of
from ops_pipeline.core.backup.ordering import in_order
from ops_pipeline.core.backup.reading import (
    CHECK_HOURS,
    POSITIONS,
    Window,
    due,
    place_of_address,
    place_of_block,
)
from ops_pipeline.core.backup.ulid import PATTERN, RANDOM_BYTES, next_ulid, ulid_time

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
MOMENTS = st.datetimes(datetime(1969, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))
RANDOM = st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES)


@given(st.lists(st.tuples(MOMENTS, RANDOM), min_size=2, max_size=30))
def test_ids_sort_in_the_order_they_were_made_whatever_the_clock_says(readings: list[tuple[datetime, bytes]]) -> None:
    ids: list[str] = []
    for now, random in readings:
        ids.append(next_ulid(now, random, max(ids, default="")))
    assert ids == sorted(set(ids)) and all(PATTERN.fullmatch(one) for one in ids)


@given(MOMENTS.filter(lambda moment: moment.year >= 1970), RANDOM)
def test_an_id_tells_its_time(now: datetime, random: bytes) -> None:
    assert timedelta(0) <= now - ulid_time(next_ulid(now, random)) < timedelta(milliseconds=1)


def test_a_known_id() -> None:
    """Time of the specification's own example."""
    made = next_ulid(datetime(2016, 7, 30, 23, 54, 10, 259000, tzinfo=UTC), b"\x00" * 10)
    assert made == "01ARZ3NDEK" + "0" * 16


@pytest.mark.parametrize("text", ["", "01ARZ3NDEK", "81ARZ3NDEKTSV4RRFFQ69G5FAV", "01arz3ndektsv4rrffq69g5fav"])
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(ValueError, match="no ULID"):
        ulid_time(text)


@dataclass(frozen=True)
class Source:
    name: str
    kind: str


def test_what_names_is_taken_before_what_it_names() -> None:
    wanted = [
        ("photos", "directory"),
        ("main", "postgres"),
        ("queue", "redis"),
        ("old", "mysql"),
        ("uploads", "volume"),
    ]
    ordered = in_order([Source(name, kind) for name, kind in wanted])
    assert [one.name for one in ordered] == ["queue", "main", "old", "photos", "uploads"]


FRESH = {
    "young": (2.0, True, "is 2 h old, at most 7 h are allowed"),
    "just": (7.0, True, "is 7 h old"),
    "old": (7.5, False, "is 7.5 h old, older than the 7 h that are allowed"),
    "very old": (24.0 * 12, False, "is 12 days old"),
    "a little ahead": (-1.0, True, "is 0 min old"),
    "far ahead": (-100.0, False, "ahead of the clock here"),
}


@pytest.mark.parametrize("case", FRESH)
def test_freshness(case: str) -> None:
    hours, fresh, words = FRESH[case]
    found = freshness_of(NOW, NOW - timedelta(hours=hours), 7, set_id="X")
    assert found.fresh is fresh and words in found.words and found.age_hours == hours


def test_no_backup_is_never_fresh() -> None:
    found = freshness_of(NOW, None, 7, newer=("Y (kept apart: 0 rows)",))
    assert not found.fresh and found.words == "there is no good backup; newer ones do not count: Y (kept apart: 0 rows)"


@given(st.lists(st.floats(0.1, 40), min_size=1, max_size=80), st.floats(1, 14), st.integers(1, 500))
def test_everything_is_read_once_in_its_time_however_checks_are_spaced(
    gaps: list[float], days: float, blocks: int
) -> None:
    """Windows join without a gap and without reading a place twice in a round."""
    cursor, hours, read = 0, 0.0, [0] * blocks
    for gap in gaps:
        window = due(cursor, NOW, NOW + timedelta(hours=hours), days)
        assert window.end - window.begin <= POSITIONS
        if window.end > window.begin and window.begin == cursor:
            for index in range(blocks):
                read[index] += window.has(place_of_block(index, blocks))
        cursor = max(cursor, window.end)
        hours += gap
    rounds, rest = divmod(cursor, POSITIONS)
    if hours < days * 24:  # no check was missed for a whole round
        assert all(rounds <= count <= rounds + 1 for count in read)
        assert read == sorted(read, reverse=True), "in order: what was read oftener comes first"
    assert rest >= 0


def test_a_new_set_is_read_a_little_at_once_and_all_of_it_in_time() -> None:
    first = due(0, NOW, NOW, 7)
    assert first.share == pytest.approx(CHECK_HOURS / (7 * 24), abs=1e-4) and first.has(place_of_block(0, 3))
    assert due(first.end, NOW, NOW, 7).share == 0, "nothing more at the same moment"
    assert due(0, NOW, NOW + timedelta(days=30), 7).share == 1, "at most everything once"
    assert due(0, NOW, NOW - timedelta(days=30), 7).share == first.share, "a clock that went back"


@given(st.integers(0, 300_000), st.integers(0, POSITIONS), st.integers(1, 40))
def test_pieces_of_a_window_are_the_window(begin: int, length: int, count: int) -> None:
    window = Window(begin, begin + length)
    pieces = window.pieces(count)
    assert sum(piece.end - piece.begin for piece in pieces) == length
    for place in (0, 1, begin % POSITIONS, (begin + length) % POSITIONS, POSITIONS - 1):
        assert sum(piece.has(place) for piece in pieces) == window.has(place)


def test_a_file_has_its_place_by_its_address() -> None:
    assert place_of_address("0000" + "a" * 60) == 0 and place_of_address("ffff" + "a" * 60) == POSITIONS - 1
