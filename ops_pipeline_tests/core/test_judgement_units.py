"""From raw counters to units: the data rules, one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops_pipeline.core.judgement.records import ROWS, Recorded, Records
from ops_pipeline.core.judgement.units import NOTHING, Counts, Readings, Unit, Units
from ops_pipeline.core.measurement import Counted, Sample, SeriesKey

SINCE = 1000.0
Values = tuple[float, float, float]  # requests, errors, within
History = Mapping[SeriesKey, Iterable[tuple[float, Values]]]


def key(release: int = 2, host: str = "one", track: str = "canary") -> SeriesKey:
    return SeriesKey("prod", "api", release, track, f"{host}:8406")


def readings(history: History) -> Readings:
    kinds = (Counted.REQUESTS, Counted.ERRORS, Counted.WITHIN)
    return {
        kind: {k: tuple(Sample(at, values[i]) for at, values in rows) for k, rows in history.items()}
        for i, kind in enumerate(kinds)
    }


def units_of(history: History, *, now: float | None = None, stable: int | None = 1) -> list[Unit]:
    newest = max(at for rows in history.values() for at, _ in rows)
    return list(Units(2, stable, SINCE, 6.0).feed(readings(history), newest + 0.1 if now is None else now))


def steady(start: float, seconds: int, each: Values, base: Values = (0.0, 0.0, 0.0)) -> list[tuple[float, Values]]:
    """A scrape a second."""
    return [
        (start + i, (base[0] + i * each[0], base[1] + i * each[1], base[2] + i * each[2])) for i in range(seconds + 1)
    ]


def sums(units: Iterable[Unit]) -> tuple[Counts, Counts]:
    rows = list(units)
    return tuple(
        Counts(sum(c.total for c in side), sum(c.errors for c in side), sum(c.slow for c in side))
        for side in ([u.release for u in rows], [u.stable for u in rows])
    )  # type: ignore[return-value]


def test_two_scrapes_make_a_unit_of_two_seconds_as_soon_as_the_second_is_there() -> None:
    units = units_of({key(): steady(999.8, 6, (10, 1, 9))}, now=1005.9)
    assert [u.at for u in units] == pytest.approx([1001.8, 1003.8, 1005.8])
    assert {u.release for u in units} == {Counts(20, 2, 2)}
    assert {u.seconds for u in units} == {2.0}


def test_what_was_counted_before_the_start_does_not_count() -> None:
    early = steady(980.5, 20, (50, 50, 0))
    later = [(at + 20, (v[0] + 950, v[1] + 950, v[2])) for at, v in steady(980.5, 4, (1, 0, 1))]
    units = units_of({key(): early[:-1] + later})
    assert sums(units)[0] == Counts(3, 0, 0), "the last scrape belongs to an open unit"


@pytest.mark.parametrize(
    ("first", "others", "counted"),
    [
        # first sample, whether the instance was scraped before without the series → requests of the first scrape
        (0.0, True, 0),
        (7.0, True, 7),  # born after the start
        (7.0, False, 0),  # nothing tells that it is new: where to count from
    ],
)
def test_a_new_series_counts_from_zero_when_it_was_born_after_the_start(
    first: float, others: bool, counted: int
) -> None:
    history: dict[SeriesKey, list[tuple[float, Values]]] = {
        key(): [(1002.5, (first, 0, first)), (1003.5, (first, 0, first)), (1004.5, (first, 0, first))]
    }
    if others:
        history[key(1, track="stable")] = steady(1000.5, 4, (0, 0, 0), (900, 0, 900))
    assert sums(units_of(history)) == (Counts(counted, 0, 0), NOTHING)


def test_a_releases_series_that_appears_late_is_its_own_from_the_first_request() -> None:
    assert sums(units_of({key(): [(1007.0, (30, 3, 30)), (1009.0, (30, 3, 30))]}))[0] == Counts(30, 3, 0)


def test_stables_history_is_never_taken_for_a_unit() -> None:
    history = {key(): steady(1000.5, 6, (1, 0, 1)), key(1, track="stable"): steady(1000.5, 6, (5, 1, 5), (9e6, 9, 9e6))}
    assert sums(units_of(history))[1] == Counts(30, 6, 0)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((100, 10, 90), (130, 12, 120), Counts(30, 2, 0)),
        ((100, 10, 90), (8, 1, 8), Counts(8, 1, 0)),  # the exporter began anew
        ((100, 10, 90), (120, 4, 118), Counts(120, 4, 2)),  # it was faster than the scrape: one is below, all are new
        ((100, 10, 90), (0, 0, 0), NOTHING),
    ],
)
def test_a_counter_that_falls_began_anew(before: Values, after: Values, expected: Counts) -> None:
    assert sums(units_of({key(): [(999.5, before), (1000.5, before), (1001.5, after)]}))[0] == expected


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -1.0])
def test_an_unusable_value_is_a_missed_scrape(broken: float) -> None:
    rows = steady(1000.0, 6, (10, 1, 10))
    rows[3] = (rows[3][0], (broken, 3, 30))
    assert sums(units_of({key(): rows}))[0] == Counts(60, 6, 0)


def test_only_times_at_which_all_three_counters_are_there_are_taken() -> None:
    rows = steady(1000.0, 6, (10, 1, 10))
    partial = dict(readings({key(): rows}))
    partial[Counted.ERRORS] = {key(): partial[Counted.ERRORS][key()][:5]}
    units = Units(2, 1, SINCE, 6.0)
    assert sums(units.feed(partial, 1006.1))[0] == Counts(40, 4, 0)
    assert units.newest == 1004.0
    assert sums(units.feed(readings({key(): rows}), 1006.2))[0] == Counts(20, 2, 0), "the rest came with the next look"


def test_a_missed_scrape_makes_the_next_unit_longer() -> None:
    rows = [row for row in steady(1000.0, 12, (10, 1, 10)) if not 1002 < row[0] < 1009]
    units = units_of({key(): rows})
    assert [u.release.total for u in units] == [20, 80, 20]
    assert [u.seconds for u in units] == [2.0, 2.0, 2.0], "the money paid in is decided before"


def test_more_errors_than_requests_wait_for_the_next_unit() -> None:
    rows = [(1000.0, (0, 0, 0)), (1002.0, (1, 3, 0)), (1004.0, (6, 4, 5))]
    units = units_of({key(): rows})
    assert [u.release for u in units] == [Counts(1, 1, 1), Counts(5, 3, 0)]


def test_more_fast_ones_than_requests_wait_too() -> None:
    rows = [(1000.0, (0, 0, 0)), (1002.0, (2, 0, 3)), (1004.0, (4, 0, 3))]
    assert [u.release.slow for u in units_of({key(): rows})] == [0, 1]


def test_hosts_and_tracks_are_summed_on_one_grid() -> None:
    history = {
        key(host="one"): steady(1000.0, 10, (10, 1, 10)),
        key(host="two"): steady(1000.7, 10, (10, 0, 10)),
        key(host="two", track="stable"): steady(1000.7, 10, (1, 0, 0)),
        key(1, "one", "stable"): steady(1000.0, 10, (3, 0, 3)),
    }
    units = units_of(history)
    assert len(units) == 5
    assert {u.release for u in units[1:]} == {Counts(42, 2, 2)}, "after the first unit every host gives both scrapes"
    assert {u.stable for u in units} == {Counts(6, 0, 0)}


def test_a_unit_waits_for_a_host_that_is_late_but_not_for_one_that_is_gone() -> None:
    units = Units(2, 1, SINCE, 6.0)
    one, two = key(host="one"), key(host="two")
    both = {one: steady(1000.0, 4, (10, 0, 10)), two: steady(1000.5, 2, (10, 10, 10))}
    assert len(list(units.feed(readings(both), 1004.1))) == 1, "host two has not been past 1004"
    one_on = {one: steady(1000.0, 10, (10, 0, 10)), two: both[two]}
    got = list(units.feed(readings(one_on), 1010.1))
    assert [u.release.total for u in got] == [30, 20, 20, 20]
    again = {one: steady(1000.0, 13, (10, 0, 10)), two: steady(1000.5, 12, (10, 10, 10))}
    got = list(units.feed(readings(again), 1013.1))
    assert sums(got)[0].errors == 90, "what the lost host counted is added when it comes"


def test_units_become_short_when_the_traffic_was_high_and_long_again_when_it_was_low() -> None:
    fast = steady(1000.0, 20, (60, 0, 60))
    slow = [(at + 20, (v[0] + 1200, 0.0, v[2] + 1200)) for at, v in steady(1000.0, 20, (5, 0, 5))][1:]
    lengths = [u.seconds for u in units_of({key(): fast + slow})]
    assert lengths[0] == 2.0, "nothing is known of the traffic yet"
    assert lengths[1:19] == [1.0] * 18
    assert lengths[-1] == 2.0


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=40),
    st.data(),
)
def test_every_request_counts_once_however_the_windows_overlap(
    steps: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    """Windows of any length that reach back far enough, fed again and again, or all at once."""
    rows, total = [(1000.0, (0.0, 0.0, 0.0))], [0.0, 0.0, 0.0]
    for i, (good, bad, slow) in enumerate(steps, start=1):
        total = [total[0] + good + bad + slow, total[1] + bad, total[2] + good + bad]
        rows.append((1000.0 + i, (total[0], total[1], total[2])))
    units, got, at = Units(2, 1, SINCE, 6.0), [], 1
    while at < len(rows):
        ahead = min(len(rows), at + data.draw(st.integers(1, 7)))
        back = max(0, at - data.draw(st.integers(1, 9)))
        got += units.feed(readings({key(): rows[back:ahead]}), rows[ahead - 1][0] + 0.2)
        at = ahead
    assert got == units_of({key(): rows})
    counted = sums(got)[0]
    whole = len(steps) // 2 * 2 if all(u.seconds == 2.0 for u in got) else len(steps)
    expected = rows[whole][1]
    if all(u.seconds == 2.0 for u in got):
        assert (counted.total, counted.errors) == (expected[0], expected[1])
        assert counted.slow == expected[0] - expected[2]


def test_records_are_bounded_and_lose_no_request() -> None:
    records = Records(SINCE)
    for i in range(20_000):
        records.add(Unit(SINCE + 2 * i, 2.0, Counts(20, i % 2, 1), Counts(30, 1, 2)))
    rows = list(records)
    assert len(rows) == len(records) <= ROWS
    assert sum(row.total for row in rows) == 400_000
    assert sum(row.errors for row in rows) == 10_000
    assert sum(row.stable_slow for row in rows) == 40_000
    assert sum(row.seconds for row in rows) == 40_000
    assert rows[-1] == Recorded(SINCE + 2 * 19_999, 2.0, 20, 1, 1, 30, 1, 2)
    assert [row.at for row in rows] == sorted(row.at for row in rows)
