"""An engine remembers few events: whether it still had all of those that were asked for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ops_pipeline.adapters.docker_events import REMEMBERED, forgotten


@pytest.mark.parametrize(
    ("count", "first", "expected"),
    [
        (REMEMBERED, 100, True),
        (REMEMBERED - 50, 100, True),
        (REMEMBERED, 80, False),
        (10, 100, False),
        (0, 0, False),
    ],
    ids=["as many as it remembers", "some came after the question", "they reach back", "few", "none"],
)
def test_events_may_be_forgotten_when_there_are_many_and_none_is_old_enough(
    count: int, first: int, expected: bool
) -> None:
    events = [{"timeNano": (first + number) * 10**9} for number in range(count)]
    assert forgotten(events, datetime.fromtimestamp(90, UTC)) is expected
