"""Fixtures of all tests, imported from the test bed; real components start only when a test asks for one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from ops_pipeline_tests.testbed.front_door import guarded
from ops_pipeline_tests.testbed.registry import registry
from ops_pipeline_tests.testbed.whole import whole

if TYPE_CHECKING:
    from ops_pipeline_tests.testbed.sharing import LoadBedScheduling

__all__ = ["guarded", "registry", "whole"]

# How long one example takes says how busy the machine is.
settings.register_profile("ops", deadline=None)
settings.load_profile("ops")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files with a test that may take longer than usual begin first, then those with many tests.

    So no worker is left alone with one of them at the end.
    """
    usual = float(config.getini("timeout"))
    patience: dict[Path, float] = {}
    for item in items:
        limit = item.get_closest_marker("timeout")
        patience[item.path] = max(patience.get(item.path, usual), limit.args[0] if limit else usual)
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (-patience[item.path], -tests[item.path]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadBedScheduling | None:
    """With `--dist loadfile`, what shares a bed stays together too."""
    if config.getvalue("dist") != "loadfile":
        return None
    from ops_pipeline_tests.testbed.sharing import LoadBedScheduling

    return LoadBedScheduling(config, log)  # type: ignore[arg-type]
