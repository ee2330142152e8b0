"""The simulation behind `make bench-verdict` gives exactly the verdict times of the judge itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from benchmarks.verdict_simulation import Cell, Fleet, draw
from ops_pipeline.core.judgement.account import THRESHOLD_FIRST, THRESHOLD_LEVEL
from ops_pipeline.core.judgement.evidence import Evidence, Good
from ops_pipeline.core.judgement.judge import Judge, fresh_money
from ops_pipeline.core.judgement.verdict import Outcome
from ops_pipeline.core.measurement import Counted, Sample, SeriesKey
from ops_pipeline.core.rollout import Rollout

SINCE = datetime(2026, 11, 21, 12, tzinfo=UTC)
RELEASES = 5
CELLS = [
    Cell(0.10, 10.0),
    Cell(0.10, 1.0, "moderate"),
    Cell(0.10, 100.0, "hard"),
    Cell(0.50, 0.1),
    Cell(0.20, 0.1, stable="bad"),
    Cell(0.10, 10.0, "hard", "apart"),
    Cell(0.20, 100.0, late=True),
    Cell(0.06, 10.0, "moderate", "bad", late=True),
    Cell(0.02, 10.0),
]


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_every_release_gets_its_verdict_at_the_same_unit(cell: Cell) -> None:
    generator = np.random.default_rng(11)
    lengths = [length for length, _ in zip(cell.lengths(), range(300), strict=False)]
    fleet = Fleet(RELEASES, lengths[-1], cell.watch)
    history, time = [], 0.0
    for length in lengths:
        time += length
        units = draw(cell, generator, time, length, RELEASES)
        fleet.add(length, units)
        history.append((time, length, [[int(value) for value in column] for column in units]))
    for index in range(RELEASES):
        assert judged(history, index) == fleet.at["verdict"][index]
        assert passed(history, index) == fleet.at["pass"][index]


def judged(history: list[tuple[float, float, list[list[int]]]], index: int) -> float:
    """When the judge says FAIL, from raw counters; infinite when it does not."""
    rollout = Rollout(watch_seconds=1800.0)
    judge = Judge(rollout, release=2, stable=1, since=SINCE, replicas=1, hosts=1)
    keys = [SeriesKey("prod", "api", release, "canary", "one:8406") for release in (2, 1)]
    totals = [[0, 0], [0, 0]]
    start = SINCE.timestamp()
    previous: list[tuple[float, list[list[int]]]] = [(0.0, [[0, 0], [0, 0]])]
    for time, _, units in history:
        for side in (0, 1):
            totals[side][0] += units[2 * side + 1][index]
            totals[side][1] += units[2 * side][index]
        previous = [previous[-1], (time, [list(side) for side in totals])]
        rows = {
            kind: {
                key: tuple(Sample(start + at, row[side][column]) for at, row in previous)
                for side, key in enumerate(keys)
            }
            for kind, column in ((Counted.REQUESTS, 0), (Counted.ERRORS, 1), (Counted.WITHIN, 0))
        }
        now = SINCE + timedelta(seconds=time)
        judge.feed(rows, now)
        if judge.verdict(now).outcome is Outcome.FAIL:
            return time
    return float("inf")


def passed(history: list[tuple[float, float, list[list[int]]]], index: int) -> float:
    """When the errors alone would pass."""
    account, half, whole, before = Good(0.05), Evidence(0.025), Evidence(0.05, THRESHOLD_FIRST), 0.0
    for time, length, units in history:
        bad, total = units[0][index], units[1][index]
        pay = fresh_money(before, length, 1800.0)
        before = time
        account.add(bad, total)
        half.add(bad, total, pay)
        whole.add(bad, total, pay)
        calm = half.value < 1250 and whole.value < THRESHOLD_LEVEL
        if time >= 60 and account.units >= 30 and account.value >= 20 and calm:
            return time
    return float("inf")
