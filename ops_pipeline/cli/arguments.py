"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from ops_pipeline.cli.names import (
    complete_backed_up,
    complete_environment,
    complete_service,
    complete_service_or_environment,
    complete_set,
    complete_source,
)

Service = Annotated[
    str, typer.Argument(metavar="SERVICE", help="Service, as the catalogue names it", autocompletion=complete_service)
]
Services = Annotated[
    list[str],
    typer.Argument(
        metavar="SERVICE",
        help="Service, as the catalogue names it; several with --together",
        autocompletion=complete_service_or_environment,
    ),
]
Environment = Annotated[
    str, typer.Argument(metavar="ENV", help="Environment, e.g. prod", autocompletion=complete_environment)
]
MaybeService = Annotated[
    str, typer.Argument(metavar="[SERVICE]", help="Service; all when left out", autocompletion=complete_service)
]
MaybeEnvironment = Annotated[
    str, typer.Argument(metavar="[ENV]", help="Environment; all when left out", autocompletion=complete_environment)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output")]
Url = Annotated[
    str | None,
    typer.Option(
        help="Address of the Dagster UI to act through; default OPS_URL, then the catalogue's front door, then "
        "this machine",
    ),
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the run to its end, or leave at once")]
Why = Annotated[str, typer.Option("--why", help="Reason, kept in the release's record")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done")]
BackedUp = Annotated[
    str,
    typer.Argument(metavar="ENV", help="Environment whose data are backed up", autocompletion=complete_backed_up),
]
MaybeBackedUp = Annotated[
    str,
    typer.Argument(metavar="[ENV]", help="Environment; all when left out", autocompletion=complete_backed_up),
]
SetId = Annotated[
    str,
    typer.Option("--set", help="Id of a set, or the first characters of it", autocompletion=complete_set),
]
TheSet = Annotated[
    str,
    typer.Argument(metavar="ID", help="Id of a set, or the first characters of it", autocompletion=complete_set),
]
Sources = Annotated[
    list[str] | None,
    typer.Option("--source", help="Only this data source; may be repeated", autocompletion=complete_source),
]
