"""Which tests stay on one worker."""

from __future__ import annotations

import pytest

from ops_pipeline_tests.testbed.sharing import scope_of


@pytest.mark.parametrize(
    ("file", "scope"),
    [
        ("ops_pipeline_tests/e2e/test_every_path.py", "whole"),
        ("ops_pipeline_tests/e2e/test_ui_rollback.py", "whole"),
        ("ops_pipeline_tests/e2e/test_front_door_browser.py", "guarded"),
        ("ops_pipeline_tests/e2e/test_engines.py", "ops_pipeline_tests/e2e/test_engines.py"),
        ("elsewhere/test_things.py", "elsewhere/test_things.py"),
    ],
)
def test_files_of_one_bed_stay_together_and_all_others_alone(file: str, scope: str) -> None:
    assert scope_of(file) == scope
