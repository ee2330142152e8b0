"""Fixtures of all tests, imported from the test bed; real components start only when a test asks for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ops_pipeline_tests.testbed.front_door import guarded
from ops_pipeline_tests.testbed.registry import registry
from ops_pipeline_tests.testbed.whole import whole

if TYPE_CHECKING:
    from ops_pipeline_tests.testbed.sharing import LoadBedScheduling

__all__ = ["guarded", "registry", "whole"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadBedScheduling | None:
    """With `--dist loadfile`, what shares a bed stays together too."""
    if config.getvalue("dist") != "loadfile":
        return None
    from ops_pipeline_tests.testbed.sharing import LoadBedScheduling

    return LoadBedScheduling(config, log)  # type: ignore[arg-type]
