"""Commands that change something. Each is a Dagster run, visible in the UI."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from ops_pipeline.cli.app import app, project
from ops_pipeline.cli.arguments import AsJson, Environment, MaybeEnvironment, MaybeService, Service, Url, Wait, Why
from ops_pipeline.cli.output import out
from ops_pipeline.cli.plan import show_plan
from ops_pipeline.cli.runs import act, follow_run, show_release, stop_run
from ops_pipeline.core.image import DIGEST
from ops_pipeline.defs.run_events import Launch
from ops_pipeline.errors import BadInput, Problem

RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Digest = Annotated[str, typer.Option("--digest", help="`sha256:…` of a recorded image; default the latest one built")]


@app.command()
def deploy(
    service: Service,
    environment: Environment,
    digest: Digest = "",
    why: Why = "",
    force: Annotated[bool, typer.Option("--force", help="Even when the same digest and settings are live")] = False,
    wait: Wait = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen: ops plan")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Deploy the latest image of a service to an environment.

    Gates are read first, the new release starts beside the old one, and traffic moves when it is healthy. Ctrl-C
    detaches; the run goes on.
    """
    if dry_run:
        show_plan(service, environment, digest, as_json)
        return
    _check_digest(digest)
    _release("deploy", service, environment, {"digest": digest, "force": force, "reason": why}, wait, url, as_json)


@app.command()
def promote(
    service: Service,
    environment: Environment,
    why: Why = "",
    wait: Wait = True,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Bring what is live in the environment before this one here, unchanged."""
    _release("promote", service, environment, {"reason": why}, wait, url, as_json)


@app.command()
def rollback(
    service: Service,
    environment: Environment,
    to: Annotated[int, typer.Option("--to", help="Number of the release to return to; default the previous one")] = 0,
    why: Why = "",
    wait: Wait = True,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Return to the previous release in one switch, or to any earlier one."""
    if to < 0:
        raise BadInput([Problem("--to", f"{to} is not the number of a release")], subject="arguments")
    _release("rollback", service, environment, {"to": to, "reason": why}, wait, url, as_json)


@app.command()
def build(
    service: Service,
    force: Annotated[bool, typer.Option("--force", help="Build even when nothing has changed")] = False,
    wait: Wait = True,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Build the image of a service, list what is in it and scan it. Nothing is built that has not changed."""
    launch = Launch("build_and_scan", {"image": {"force": force}}, {"dagster/partition": service})
    outcome = act(project, launch, url=url, service=service, wait=wait, as_json=as_json)
    if outcome and not as_json:
        made = outcome.made
        out.print(f"[green]{service} {made.get('version', '')}[/green] {made.get('digest', '')}")


@app.command()
def reconcile(
    service: MaybeService = "",
    environment: MaybeEnvironment = "",
    wait: Wait = True,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Finish or undo what a killed run left behind."""
    config = {"reconcile_targets": {"service": service, "environment": environment}}
    outcome = act(
        project, Launch("reconcile", config), url=url, service=service, environment=environment, wait=wait,
        as_json=as_json,
    )  # fmt: skip
    if outcome and not as_json:
        out.print("[green]reconciled[/green]")


@app.command()
def follow(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Id of a run")], url: Url = None, as_json: AsJson = False
) -> None:
    """Follow a run that was started earlier."""
    _check_run_id(run_id)
    follow_run(project, run_id, url, as_json)


@app.command()
def stop(run_id: Annotated[str, typer.Argument(metavar="RUN", help="Id of a run")], url: Url = None) -> None:
    """Ask a run to stop; it undoes what it began."""
    _check_run_id(run_id)
    stop_run(project, run_id, url)


def _release(
    action: str, service: str, environment: str, config: dict[str, Any], wait: bool, url: str | None, as_json: bool
) -> None:
    tags = {
        "dagster/partition": f"{environment}|{service}",
        "dagster/partition/environment": environment,
        "dagster/partition/service": service,
    }
    launch = Launch(action, {"release": {"action": action, **config}}, tags)
    outcome = act(project, launch, url=url, service=service, environment=environment, wait=wait, as_json=as_json)
    if outcome and not as_json:
        show_release(outcome, environment, service)


def _check_digest(digest: str) -> None:
    if digest and not DIGEST.fullmatch(digest):
        raise BadInput(
            [Problem("--digest", f"`{digest}` is not `sha256:` and 64 hexadecimal digits")],
            subject="arguments",
            hint="ops releases SERVICE ENV shows digests.",
        )


def _check_run_id(run_id: str) -> None:
    if not RUN_ID.fullmatch(run_id):
        raise BadInput([Problem("RUN", f"`{run_id}` is not the id of a run")], subject="arguments")
