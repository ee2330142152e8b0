"""`ops quarantine`: digests nobody may deploy or go back to until a person lifts them. Kept in the ledger directly."""

from __future__ import annotations

import getpass
import re
from typing import Annotated

import typer

from ops_pipeline.cli.app import app, project
from ops_pipeline.cli.arguments import AsJson, DryRun
from ops_pipeline.cli.names import complete_quarantined
from ops_pipeline.cli.output import ago, out, plain, print_json, short, table
from ops_pipeline.errors import BadInput, Problem

quarantine = typer.Typer(
    help="Digests nobody may deploy until a person lifts them.\n\n"
    "Nor go back to. What was judged bad comes here by itself.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(quarantine, name="quarantine")

SHORTEST = 4
"""Hexadecimal digits a person has to type at least; the ledger says whether they fit one digest only."""

PREFIX = re.compile(rf"(sha256:)?[0-9a-f]{{{SHORTEST},64}}")

Reason = Annotated[str, typer.Option("--why", help="Reason, kept in the ledger")]
Quarantined = Annotated[
    str,
    typer.Argument(
        metavar="DIGEST", help="`sha256:…`, or as much of it as is unmistakable", autocompletion=complete_quarantined
    ),
]


@quarantine.command("list")
def list_(as_json: AsJson = False) -> None:
    """What is in quarantine, since when, and why."""
    from ops_pipeline.services.quarantine import quarantined

    found = quarantined(project.platform)
    if as_json:
        print_json(plain(found))
        return
    now = project.platform.clock.now()
    shown = table("digest", "release", "for", "who", "why")
    for one in found:
        place = f"{one.environment}/{one.service}" + (f" #{one.release}" if one.release else "") if one.service else ""
        shown.add_row(short(one.digest), place, ago(one.at, now), one.who, one.reason)
    out.print(shown if found else "nothing is in quarantine")


@quarantine.command()
def lift(digest: Quarantined, why: Reason = "", dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Let a digest be deployed again."""
    from ops_pipeline.services import quarantine as service

    _check(digest, why)
    if dry_run:
        record = service.find(project.platform, digest)
    else:
        record = service.lift(project.platform, digest, getpass.getuser(), why)
    if as_json:
        print_json({**plain(record), "lifted": not dry_run})
        return
    words = "would be" if dry_run else "is"
    out.print(f"{short(record.digest)} {words} out of quarantine; it was in for: {record.reason}", markup=False)


@quarantine.command()
def add(
    digest: Annotated[
        str, typer.Argument(metavar="DIGEST", help="`sha256:…`, or as much of a recorded image's as is unmistakable")
    ],
    why: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Keep a digest from being deployed anywhere. What runs goes on running."""
    from ops_pipeline.services.quarantine import find_image_by_digest, quarantine

    _check(digest, why)
    platform, who = project.platform, getpass.getuser()
    service, full = find_image_by_digest(platform, digest)
    if not dry_run:
        quarantine(platform, full, why, who, service=service)
    if as_json:
        print_json({"digest": full, "service": service, "reason": why, "who": who, "added": not dry_run})
        return
    name = short(full) + (f" of {service}" if service else ", which is no recorded image's,")
    out.print(f"{name} {'would be' if dry_run else 'is'} in quarantine: {why}", markup=False)


def _check(digest: str, why: str) -> None:
    problems = []
    if not PREFIX.fullmatch(digest):
        words = f"`{digest}` is not `sha256:` and 64 hexadecimal digits, nor the first {SHORTEST} or more of them"
        problems.append(Problem("DIGEST", words))
    if not why.strip():
        problems.append(Problem("--why", "is missing: who finds the record later has to know the reason"))
    if problems:
        raise BadInput(problems, subject="arguments", hint="ops quarantine list and ops releases show digests.")
