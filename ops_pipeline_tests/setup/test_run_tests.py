"""What `make test` reads from pytest's own reports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.setup.run_tests import failed_in

TESTS = """
import pytest

class TestThings:
    def test_in_a_class(self): assert False

@pytest.mark.parametrize("name", ["plain", "with space, and [brackets]", "a.b"])
def test_each(name): assert name == "plain"

@pytest.fixture
def broken():
    yield
    raise RuntimeError("at the end")

def test_fails_twice(broken): assert False
def test_good(): pass
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "some_tests" / "deeper"
    folder.mkdir(parents=True)
    for each in (folder, folder.parent):
        (each / "__init__.py").touch()
    (folder / "test_things.py").write_text(TESTS)
    return tmp_path


def run(project: Path, *arguments: str) -> int:
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-o", "junit_family=xunit2"]
    return subprocess.run(
        [*argv, "--rootdir", str(project), "--junitxml", "report.xml", *arguments],
        cwd=project,
        capture_output=True,
        check=False,
    ).returncode


def test_failed_tests_are_named_so_that_pytest_runs_exactly_these_again(project: Path) -> None:
    assert run(project, "some_tests") == 1
    failed = failed_in(project / "report.xml")
    module = "some_tests/deeper/test_things.py"
    assert set(failed) == {
        f"{module}::TestThings::test_in_a_class",
        f"{module}::test_each[with space, and [brackets]]",
        f"{module}::test_each[a.b]",
        f"{module}::test_fails_twice",
    }
    assert run(project, *failed) == 1
    assert set(failed_in(project / "report.xml")) == set(failed)


def test_a_report_that_cannot_be_read_names_nothing(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text("<testsuites><testsuite")
    assert failed_in(tmp_path / "report.xml") == failed_in(tmp_path / "none.xml") == []
