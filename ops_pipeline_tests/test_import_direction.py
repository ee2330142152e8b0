"""Imports run one way: core <- ports <- services <- defs <- definitions; adapters beside services."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ops_pipeline"
LAYERS = ("core", "ports", "errors", "catalogue", "services", "adapters", "defs", "cli", "definitions")
ALLOWED: dict[str, set[str]] = {
    "core": {"core"},
    "errors": {"errors"},
    "ports": {"core", "ports", "errors", "catalogue"},
    "catalogue": {"core", "errors", "catalogue"},
    "services": {"core", "ports", "errors", "catalogue", "services"},
    "adapters": {"core", "ports", "errors", "catalogue", "adapters"},
    "defs": {"core", "ports", "errors", "catalogue", "services", "defs"},
    "cli": {"core", "ports", "errors", "catalogue", "services", "adapters", "defs", "cli"},
    "definitions": {"core", "ports", "errors", "catalogue", "services", "adapters", "defs", "definitions"},
}
WIRING = "defs/resources.py"
DAGSTER = ("dagster", "dagster_webserver", "dagster_graphql", "dagster_docker", "dagster_shared")
SDKS = (
    "docker",
    "azure",
    "httpx",
    "prometheus_api_client",
    "requests",
    "cryptography",
    "zstandard",
    "pyrage",
    "fastcrc",
)
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Absolute names a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_imports_only_what_its_layer_may(path: Path) -> None:
    own = layer(path)
    if own == "__init__":
        assert not [one for one in imports(path) if one.startswith("ops_pipeline.")]
        return
    assert own in LAYERS, f"{path} stands in no known layer"
    allowed = ALLOWED[own] | ({"adapters"} if name(path) == WIRING else set())
    used = {one.split(".")[1] for one in imports(path) if one.startswith("ops_pipeline.")}
    assert used <= allowed


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_only_defs_import_dagster(path: Path) -> None:
    if layer(path) not in ("defs", "definitions"):
        assert not [one for one in imports(path) if one.split(".")[0] in DAGSTER]


@pytest.mark.parametrize("path", [path for path in MODULES if layer(path) in ("core", "services", "ports")], ids=name)
def test_decisions_and_use_cases_know_no_sdk(path: Path) -> None:
    assert not [one for one in imports(path) if one.split(".")[0] in SDKS]


@pytest.mark.parametrize("path", [path for path in MODULES if layer(path) == "core"], ids=name)
def test_core_is_standard_library_only(path: Path) -> None:
    roots = {one.split(".")[0] for one in imports(path)} - {"ops_pipeline"}
    assert roots <= set(sys.stdlib_module_names)


def test_no_table_shadows_the_workspace_file() -> None:
    text = (PACKAGE.parent / "pyproject.toml").read_text()
    assert "[tool.dagster]" not in text
    assert "[tool.dg]" not in text
