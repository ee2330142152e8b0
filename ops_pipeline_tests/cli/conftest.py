"""What the tests of `ops` have in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ops_pipeline.cli.app import project


@pytest.fixture(autouse=True)
def no_project_is_left() -> Iterator[None]:
    """The next test works on its own project."""
    yield
    project.forget()
