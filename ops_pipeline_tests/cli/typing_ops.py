"""Typing `ops` in a test: on a platform in memory, in a terminal of a known width or piped."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from typer.testing import CliRunner, Result

from ops_pipeline.cli.app import project
from ops_pipeline.cli.commands import app
from ops_pipeline.cli.project import Places
from ops_pipeline.errors import OpsError
from ops_pipeline_tests.fakes.platform import Bed


def use(bed: Bed, folder: Path) -> Bed:
    """From here on `ops` works on this world."""
    project.use(catalogue=bed.catalogue, platform=bed.platform(), places=Places(folder))
    return bed


def ops(*arguments: str) -> Result:
    """Run a command, its output piped."""
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def said(*arguments: str) -> str:
    """What a command that succeeds prints."""
    result = ops(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def data(*arguments: str) -> Any:
    """The document a command prints with --json."""
    result = ops(*arguments, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def refusal(*arguments: str) -> OpsError:
    """The error a command ends with."""
    error = ops(*arguments).exception
    assert isinstance(error, OpsError), error
    return error


def terminal(width: int) -> Console:
    """A terminal of this width; what it shows is in `.file`."""
    return Console(
        file=io.StringIO(), width=width, force_terminal=True, highlight=False, soft_wrap=True, color_system=None
    )


def shown(console: Console) -> str:
    """What a terminal shows."""
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()
