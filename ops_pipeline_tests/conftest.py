"""Fixtures of all tests live in the modules named here; real components start only when a test asks for one."""

pytest_plugins = [
    "ops_pipeline_tests.testbed.registry",
]
