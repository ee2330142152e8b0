"""`ops flags`: the feature flags of an environment, and overriding them. Kept in the ledger directly."""

from __future__ import annotations

import getpass
from dataclasses import replace
from typing import Annotated

import typer

from ops_pipeline.catalogue.wording import did_you_mean
from ops_pipeline.cli.app import app, project
from ops_pipeline.cli.arguments import AsJson, DryRun, Environment
from ops_pipeline.cli.names import check_known, complete_flag
from ops_pipeline.cli.output import ago, err, out, plain, print_json, table
from ops_pipeline.core.flags import FlagState
from ops_pipeline.errors import BadInput, Problem
from ops_pipeline.ports import Progress

flags = typer.Typer(
    help="Feature flags of an environment, and overriding them.\n\n"
    "An override holds until it is cleared, whatever is deployed.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(flags, name="flags")

FlagName = Annotated[
    str, typer.Argument(metavar="FLAG", help="Flag, as the catalogue names it", autocompletion=complete_flag)
]
Reason = Annotated[str, typer.Option("--why", help="Reason, kept in the ledger")]


@flags.command("list")
def list_(environment: Environment, as_json: AsJson = False) -> None:
    """Every flag as it is now, who overrode it, and why."""
    from ops_pipeline.services.flags import flag_states

    check_known(project.catalogue, environment=environment)
    found = flag_states(project.platform, environment)
    if as_json:
        print_json(plain(found))
        return
    shown, now = table("flag", "is", "catalogue", "guards", "overridden", "why"), project.platform.clock.now()
    for one in found:
        override = one.override
        shown.add_row(
            one.name,
            f"[green]{one.shown}[/green]" if one.on else one.shown,
            _said(environment, one),
            one.guards,
            f"{ago(override.at, now)} ago by {override.who}" if override else "",
            override.why if override else "",
        )
    out.print(shown if found else f"{environment} has no flags (environments.{environment}.flags in the catalogue)")


@flags.command("set")
def set_(
    environment: Environment,
    flag: FlagName,
    value: Annotated[str, typer.Argument(metavar="on|off|PERCENT", help="`on`, `off`, or a share of users: `25%`")],
    why: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Override a flag on every host of an environment; applications see it within a second or so."""
    from ops_pipeline.services.flags import set_flag

    on, percent = _value(value)
    state = _state(environment, flag)
    if not dry_run:
        state = set_flag(
            project.platform, environment, flag, on=on, percent=percent, who=getpass.getuser(), why=why,
            progress=_told(as_json),
        )  # fmt: skip
    _show(environment, state, f"would be set to {value}" if dry_run else "", as_json)


@flags.command()
def clear(
    environment: Environment, flag: FlagName, why: Reason = "", dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """End an override: the catalogue's word counts again."""
    from ops_pipeline.services.flags import clear_override

    state = _state(environment, flag)
    if not dry_run:
        state = clear_override(
            project.platform, environment, flag, who=getpass.getuser(), why=why, progress=_told(as_json)
        )
    _show(environment, state, f"would be {_said(environment, state)} again" if dry_run else "", as_json)


def _state(environment: str, flag: str) -> FlagState:
    from ops_pipeline.services.flags import flag_states

    check_known(project.catalogue, environment=environment)
    states = {one.name: one for one in flag_states(project.platform, environment)}
    if flag not in states:
        near = did_you_mean(flag, states) or "; it has none"
        words = f"{environment} has no flag `{flag}`{near}"
        raise BadInput([Problem("FLAG", words)], subject="arguments")
    return states[flag]


def _value(text: str) -> tuple[bool | None, float | None]:
    """What a person wants: (on, None), or (None, percent)."""
    if text in ("on", "off"):
        return text == "on", None
    try:
        percent = float(text.removesuffix("%").strip())
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        words = f"`{text}` is not `on`, `off` or a share of users from 0% to 100%"
        raise BadInput([Problem("VALUE", words)], subject="arguments")
    return None, percent


def _said(environment: str, state: FlagState) -> str:
    """What the catalogue says of a flag, whatever overrides it."""
    flag = project.catalogue.environments[environment].flags[state.name]
    return replace(state, on=flag.on and flag.percent > 0, percent=float(flag.percent)).shown


def _told(as_json: bool) -> Progress:
    return (lambda line: None) if as_json else (lambda line: err.print(f"  {line}", markup=False))


def _show(environment: str, state: FlagState, instead: str, as_json: bool) -> None:
    if as_json:
        print_json({"environment": environment, **plain(state), "changed": not instead})
        return
    words = f"is {state.shown}; it {instead}" if instead else f"is {state.shown}"
    out.print(f"{environment}: flag {state.name} {words}", markup=False)
