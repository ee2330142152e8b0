"""What was judged, and what a person decides about a canary that waits."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from ops_pipeline.cli.app import app, project
from ops_pipeline.cli.arguments import AsJson, DryRun, Environment, Service, Why
from ops_pipeline.cli.evidence import show_verdict
from ops_pipeline.cli.names import check_known
from ops_pipeline.cli.output import out, plain, print_json


@app.command()
def verdict(
    service: Service,
    environment: Environment,
    release: Annotated[int, typer.Option("--release", help="Number; default the one judged last", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """The newest verdict on a release, with the numbers behind it."""
    from ops_pipeline.services.judged import newest_verdict

    check_known(project.catalogue, service, environment)
    platform = project.platform
    found = newest_verdict(platform, environment, service, release or None)
    seconds = max(60.0, (platform.clock.now() - found.since).total_seconds())
    link = found.link or platform.metrics.link(environment, service, found.release, seconds)
    if as_json:
        print_json({**plain(found), "environment": environment, "service": service, "link": link})
        return
    show_verdict(out, f"{environment}/{service} #{found.release}", found, platform.clock.now(), link=link)


@app.command()
def resume(
    service: Service, environment: Environment, why: Why = "", dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Let a canary that waits for a person go on to its next step."""
    _decide(service, environment, True, why, dry_run, as_json)


@app.command()
def abort(
    service: Service, environment: Environment, why: Why = "", dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Take a canary away: its users return to the release before. The image is not put into quarantine."""
    _decide(service, environment, False, why, dry_run, as_json)


def _decide(service: str, environment: str, go: bool, why: str, dry_run: bool, as_json: bool) -> None:
    from ops_pipeline.services.judged import waiting
    from ops_pipeline.services.verdicts import Decision, decide

    check_known(project.catalogue, service, environment)
    platform = project.platform
    found = waiting(platform, environment, service, paused_only=go)
    who = getpass.getuser()
    if not dry_run:
        decided = Decision(found.release, found.step, go, who, why, platform.clock.now())
        decide(platform, environment, service, decided)
    if as_json:
        print_json({"environment": environment, "service": service, **plain(found), "go": go, "who": who, "why": why,
                    "dry_run": dry_run})  # fmt: skip
        return
    label = f"{environment}/{service} #{found.release} ({found.version}), step {found.step + 1} at {found.weight} %"
    act = "goes on" if go else "is taken away"
    out.print(f"{label}: {'would be told that it' if dry_run else 'it'} {act}", markup=False)
    if not dry_run:
        out.print("  its run reads this within a second or two; ops status shows what it does", markup=False)
