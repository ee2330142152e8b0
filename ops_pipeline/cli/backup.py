"""`ops backup`: take a set now (a Dagster run), and make the keys; `ops drill`: prove that a set can be restored."""

from __future__ import annotations

from typing import Annotated

import typer

from ops_pipeline.cli.app import app, project
from ops_pipeline.cli.arguments import AsJson, BackedUp, SetId, Sources, Url, Wait
from ops_pipeline.cli.default_command import defaulting
from ops_pipeline.cli.output import out, print_json
from ops_pipeline.cli.runs import act
from ops_pipeline.defs.run_events import Launch
from ops_pipeline.services.backup.wanted import check_backed_up, environment_problems, set_problems, source_problems

backup = typer.Typer(
    cls=defaulting("take"),
    help="Back up all data of an environment: ops backup ENV.\n\n`ops backups` lists what there is.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(backup, name="backup")


@backup.command()
def take(
    environment: BackedUp,
    source: Sources = None,
    why: Annotated[str, typer.Option("--why", help="Reason, kept in the set's manifest")] = "",
    wait: Wait = True,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Take a set of all data of an environment now: ops backup ENV.

    Databases are dumped by their own tools, files by content. A set is whole or does not exist. One of some sources
    only (`--source`) never counts as the fresh one.
    """
    known = not environment_problems(project.catalogue, environment, "ENV")
    wrong = source_problems(project.catalogue, environment, source or [], "--source") if known else []
    check_backed_up(project.catalogue, environment, "ENV", wrong)
    launch = Launch(
        "backup", {"take_set": {"reason": why, "sources": source or []}}, {"dagster/partition": environment}
    )
    outcome = act(project, launch, url=url, environment=environment, wait=wait, as_json=as_json)
    if outcome is None or as_json:
        return
    made = outcome.made
    out.print(
        f"[green]{environment}: set {made.get('set', '?')}[/green] of {made.get('data_mb', 0):,g} MB, "
        f"{made.get('new_mb', 0):,g} MB of it new, in {made.get('seconds', 0):g} s"
    )
    if made.get("QUARANTINED"):
        out.print(f"  [red]kept apart[/red]: {made['QUARANTINED']}")


@backup.command()
def keys(as_json: AsJson = False) -> None:
    """Make the keys of backups.

    An identity with its recipient, and the key that signs manifests. Nothing that exists is overwritten. Prints what
    belongs where.
    """
    from ops_pipeline.adapters.clock import SystemClock
    from ops_pipeline.cli.backup_keys import ensure_keys, where_they_belong

    made = ensure_keys(project.catalogue.backups, project.places.root, SystemClock().now())
    if as_json:
        print_json(made)
        return
    for line in where_they_belong(made):
        out.print(line, markup=False)


@app.command()
def drill(
    environment: BackedUp,
    set_id: SetId = "",
    wait: Wait = True,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Restore a set into a scratch place and compare it.

    Nothing live is touched. Measures how long a recovery takes; the result stays with the set.
    """
    check_backed_up(project.catalogue, environment, "ENV", set_problems(set_id, "--set"))
    launch = Launch("restore_drill", {"drill_set": {"set": set_id}}, {"dagster/partition": environment})
    outcome = act(project, launch, url=url, environment=environment, wait=wait, as_json=as_json)
    if outcome is None or as_json:
        return
    made = outcome.made
    seconds, compared = made.get("recovery_seconds", 0), made.get("compared", 0)
    out.print(
        f"[green]{environment}: the drill passed[/green], set {made.get('set', '?')} was restored and compared in "
        f"{seconds:g} s: {compared:,} things are as they were backed up"
    )
