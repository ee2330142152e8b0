"""`ops restore`, `ops restores`: say what a restore would do, do it once confirmed, undo it, release its holds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops_pipeline.cli.app import app, project
from ops_pipeline.cli.arguments import AsJson, BackedUp, DryRun, SetId, Sources, Url, Wait
from ops_pipeline.cli.output import ago, err, out, plain, print_json, said, table
from ops_pipeline.cli.runs import act
from ops_pipeline.defs.run_events import Launch
from ops_pipeline.errors import BadInput, PolicyRefused, Problem
from ops_pipeline.services.backup.wanted import (
    Places,
    check_backed_up,
    environment_problems,
    restore_problems,
    token_problems,
)

if TYPE_CHECKING:
    from ops_pipeline.cli.follow import Outcome

PLACES = Places(environment="ENV", date="--date", set="--set", source="--source", into="--into")

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; for scripts")]
Token = Annotated[str, typer.Option("--token", help="Token of the restore; default the unfinished one")]


@app.command()
def restore(
    environment: BackedUp,
    date: Annotated[
        str, typer.Option("--date", help="2026-11-20 (that day's end) or 2026-11-20T14:30, UTC: the last good set then")
    ] = "",
    set_id: SetId = "",
    source: Sources = None,
    into: Annotated[str, typer.Option("--into", help="Restore beside under this name; live data stay")] = "",
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Only files that match this pattern; may be repeated")
    ] = None,
    undo: Annotated[str, typer.Option("--undo", help="Token of a restore: what it replaced becomes live again")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a restore that was killed")] = False,
    abandon: Annotated[bool, typer.Option("--abandon", help="Take back a restore that was killed")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    wait: Wait = True,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Restore data by date, or by set.

    Beside what is live, compared, then swapped after one confirmation. What was live is kept until it is released, so
    it can be undone. Without --date and --set the newest good set.
    """
    names, patterns = source or [], only or []
    _check(environment, date, set_id, names, into, patterns, undo, resume, abandon)
    action = "undo" if undo else "resume" if resume else "abandon" if abandon else "restore"
    if action == "restore":
        config = _planned(environment, date, set_id, names, into, patterns, dry_run, as_json)
    else:
        config = {"action": action, "token": undo}
        _say(environment, action, undo, as_json)
    if dry_run:
        return
    if not into:
        _confirm(environment, yes)
    launch = _launch(environment, config)
    outcome = act(project, launch, url=url, environment=environment, wait=wait, as_json=as_json)
    if outcome is not None and not as_json:
        _told(outcome)


@app.command()
def restores(
    environment: BackedUp,
    release: Annotated[str, typer.Option("--release", help="Token: remove for good what this restore keeps")] = "",
    yes: Yes = False,
    wait: Wait = True,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """What restores keep, and what is unfinished.

    That is: data that were live before, and copies beside.
    """
    check_backed_up(project.catalogue, environment, "ENV", token_problems(release, "--release"))
    if not release:
        _show_holds(environment, as_json)
        return
    _say(environment, "release", release, as_json)
    _confirm(environment, yes)
    launch = _launch(environment, {"action": "release", "token": release})
    outcome = act(project, launch, url=url, environment=environment, wait=wait, as_json=as_json)
    if outcome is not None and not as_json:
        _told(outcome)


def _check(
    environment: str,
    date: str,
    set_id: str,
    sources: Sequence[str],
    into: str,
    only: Sequence[str],
    undo: str,
    resume: bool,
    abandon: bool,
) -> None:
    """Raise BadInput naming everything that is wrong with the arguments."""
    problems: list[Problem] = []
    if not environment_problems(project.catalogue, environment, PLACES.environment):
        problems += restore_problems(
            project.catalogue, environment, date=date, set_id=set_id, sources=sources, into=into, places=PLACES
        )
    problems += token_problems(undo, "--undo") + token_problems(into, PLACES.into)
    chosen = [name for name, given in (("--undo", undo), ("--resume", resume), ("--abandon", abandon)) if given]
    if len(chosen) > 1:
        problems.append(Problem(chosen[1], f"cannot be used together with {chosen[0]}"))
    if chosen:
        given = {"--date": date, "--set": set_id, "--source": sources, "--into": into, "--only": only}
        problems += [
            Problem(name, f"means nothing for {chosen[0]}: that restore is what it is")
            for name, value in given.items()
            if value
        ]
    check_backed_up(project.catalogue, environment, PLACES.environment, problems)


def _planned(
    environment: str,
    date: str,
    set_id: str,
    sources: Sequence[str],
    into: str,
    only: Sequence[str],
    dry_run: bool,
    as_json: bool,
) -> dict[str, Any]:
    """Show the plan and return the run configuration that carries out exactly it."""
    from ops_pipeline.services.backup.restore import plan_restore

    plan = plan_restore(
        project.platform,
        environment,
        date=date or None,
        set_id=set_id,
        sources=sources,
        into=into,
        only=only,
    )
    if as_json and dry_run:
        print_json({**plain(plan), "age_seconds": plan.age_seconds, "lines": plan.lines})
    elif not as_json:
        for number, line in enumerate(plan.lines):
            said(out, line, first="  " if number else "", indent=4)
    if dry_run and not as_json:
        out.print("nothing was changed: this was a dry run")
    # The set, not the date: what was shown is what is restored.
    return {"set": plan.set_id, "sources": list(sources), "into": into, "only": list(only)}


def _say(environment: str, action: str, token: str, as_json: bool) -> None:
    """Say which restore is meant. Raise PolicyRefused when there is none."""
    from ops_pipeline.services.backup.restore import restore_holds, unfinished_restore

    words = [one.words for one in restore_holds(project.platform, environment) if token and one.token == token]
    unfinished = unfinished_restore(project.platform, environment)
    if unfinished is not None and token in ("", unfinished.token):
        words.append(unfinished.words)
    if not words:
        said_of = f"it keeps nothing of a restore {token}" if token else "no restore is unfinished"
        raise PolicyRefused(f"{action} in {environment}", [said_of], hint=f"`ops restores {environment}` shows them.")
    if not as_json:
        said(out, f"{action}: {'; '.join(words)}", indent=4)


def _confirm(environment: str, yes: bool) -> None:
    """Return when a person, or `--yes`, agrees. Raise BadInput without a terminal to ask on, PolicyRefused."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise BadInput([Problem("--yes", "is missing: there is no terminal to ask on")], subject="arguments")
    err.print(f"This changes the data of [bold]{environment}[/bold]. Its name to go on: ", end="")
    if input().strip() != environment:
        raise PolicyRefused(f"restore of {environment}", ["it was not confirmed; nothing was changed"])


def _launch(environment: str, config: dict[str, Any]) -> Launch:
    confirmed = {**config, "dry_run": False, "confirm": environment}
    return Launch("restore", {"restore_data": confirmed}, {"dagster/partition": environment})


def _told(outcome: Outcome) -> None:
    made = outcome.made
    out.print(f"[green]{made.get('stage', 'done')}[/green]: {made.get('outcome', '')}")
    if made.get("to_undo"):
        out.print(f"  undo:    {made['to_undo']}", markup=False)
        out.print(f"  release: {made['to_release']}", markup=False)


def _show_holds(environment: str, as_json: bool) -> None:
    from ops_pipeline.services.backup.restore import restore_holds, unfinished_restore

    platform = project.platform
    holds, unfinished = restore_holds(platform, environment), unfinished_restore(platform, environment)
    if as_json:
        print_json({"environment": environment, "holds": plain(holds), "unfinished": plain(unfinished)})
        return
    now = platform.clock.now()
    shown = table("token", "restored", "by", "set", "what")
    for one in holds:
        record = one.record
        shown.add_row(
            one.token,
            f"{ago(record.begun_at, now)} ago" if record else "",
            record.by if record else "",
            record.set_id if record else "",
            one.words,
        )
    out.print(shown if holds else f"no restore of {environment} keeps anything")
    if unfinished is not None:
        said(out, f"unfinished: {unfinished.words}", indent=4)
        out.print(f"  go on: ops restore {environment} --resume; or take it back: ops restore {environment} --abandon")
