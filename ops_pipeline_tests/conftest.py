"""Fixtures of all tests, imported from the test bed; real components start only when a test asks for one."""

from ops_pipeline_tests.testbed.front_door import guarded
from ops_pipeline_tests.testbed.registry import registry
from ops_pipeline_tests.testbed.whole import whole

__all__ = ["guarded", "registry", "whole"]
