"""The `ops` application: its options, and how errors end it."""

from __future__ import annotations

import sys

import typer
from typer.core import TyperGroup

from ops_pipeline.cli.output import err, escaped, print_json
from ops_pipeline.cli.project import Project
from ops_pipeline.errors import OpsError

EXIT_CODES = """
Exit codes: 0 done; 1 failed; 2 arguments, catalogue or run configuration cannot be used; 3 refused by a gate;
4 somebody else works on it; 5 something needed does not answer; 6 the release was judged bad and taken back;
7 the run was stopped; 130 detached by Ctrl-C, the run goes on.
"""

ORDER = (
    *("status", "plan", "deploy", "promote", "rollback", "verdict", "resume", "abort", "releases", "logs", "build"),
    *("backup", "backups", "restore", "restores", "drill"),
    *("flags", "quarantine", "replay", "reconcile", "follow", "stop", "catalogue", "serve"),
)
"""Commands in the order of `ops --help`, the ones people need first."""

project = Project()


class InOrder(TyperGroup):
    """Lists commands in `ORDER`."""

    def list_commands(self, ctx: object) -> list[str]:
        """Every command; one that `ORDER` forgot comes last."""
        return sorted(self.commands, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    name="ops",
    cls=InOrder,
    help="Build, scan, deploy, promote and roll back services, back up and restore their data, see what runs where.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def run() -> None:
    """Run `ops`. An error of this project ends it with its own words and exit code, in JSON too when asked for."""
    try:
        app()
    except OpsError as error:
        err.print(f"[red]error:[/red] {escaped(str(error))}")
        if "--json" in sys.argv and not getattr(error, "printed", False):
            words = {"class": type(error).__name__, "message": error.message, "hint": error.hint}
            print_json({"error": {**words, "exit_code": error.exit_code}})
        sys.exit(error.exit_code)
