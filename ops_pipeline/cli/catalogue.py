"""`ops catalogue`: check it, and give editors its schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ops_pipeline.catalogue.check import check as check_file
from ops_pipeline.catalogue.check import schema as json_schema
from ops_pipeline.cli.app import app, project
from ops_pipeline.cli.arguments import AsJson
from ops_pipeline.cli.output import err, out, plain, print_json
from ops_pipeline.errors import BadInput

catalogue = typer.Typer(help="The catalogue of services and environments.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(catalogue, name="catalogue")


@catalogue.command()
def check(
    path: Annotated[Path | None, typer.Argument(help="File; default the project's catalogue")] = None,
    as_json: AsJson = False,
) -> None:
    """Name everything wrong with the catalogue, and with the files it points to."""
    where = path or project.catalogue_path
    report = check_file(where)
    found = report.catalogue
    if as_json:
        print_json(
            {
                "path": where,
                "ok": report.ok,
                "problems": plain(report.problems),
                "warnings": plain(report.warnings),
                "services": list(found.services) if found else [],
                "environments": list(found.environments) if found else [],
            }
        )
        if not report.ok:
            raise SystemExit(BadInput.exit_code)
        return
    for warning in report.warnings:
        err.print(f"warning: {warning}", markup=False)
    if not report.ok or found is None:
        raise BadInput(report.problems, subject="catalogue")
    out.print(
        f"[green]ok[/green] {where}: {len(found.services)} services ({', '.join(found.services)}), "
        f"{len(found.environments)} environments ({', '.join(found.environments)})"
    )


@catalogue.command()
def schema() -> None:
    """Print the catalogue's JSON Schema, for editors."""
    print_json(json_schema())
