"""The demonstration stops once per process; tests do more often."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from examples.demo import commands


@pytest.fixture
def fresh_stop() -> Iterator[None]:
    """What a failed act stopped goes on after the test."""
    yield
    commands.resume()
