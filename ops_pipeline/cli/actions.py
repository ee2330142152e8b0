"""Commands that change something. Each is a Dagster run, visible in the UI."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ops_pipeline.cli.app import app, project
from ops_pipeline.cli.arguments import (
    AsJson,
    Environment,
    MaybeEnvironment,
    MaybeService,
    Service,
    Services,
    Url,
    Wait,
    Why,
)
from ops_pipeline.cli.names import check_services
from ops_pipeline.cli.output import out
from ops_pipeline.cli.plan import digest_problems, show_plans
from ops_pipeline.cli.runs import act, follow_run, show_release, stop_run
from ops_pipeline.defs.run_events import Launch
from ops_pipeline.errors import BadInput, Problem

RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

RELEASE_SET_OP = "deploy_set"
"""Op of the job `release_set`."""

Digest = Annotated[str, typer.Option("--digest", help="`sha256:…` of a recorded image; default the latest one built")]


@app.command()
def deploy(
    services: Services,
    environment: Environment,
    digest: Digest = "",
    why: Why = "",
    force: Annotated[bool, typer.Option("--force", help="Even when the same digest and settings are live")] = False,
    together: Annotated[
        bool, typer.Option("--together", help="Several services as one release set: all of them, or none")
    ] = False,
    wait: Wait = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen: ops plan")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Deploy the latest image of a service to an environment.

    Gates are read first, the new release starts beside the old one, and traffic moves by the service's strategy, as
    its verdict allows. Ctrl-C detaches; the run goes on. `ops deploy api web prod --together`: in the order of their
    dependencies, and back together when one of them fails or is judged bad.
    """
    _check_deploy(services, digest, force, together)
    if dry_run:
        show_plans(services, environment, digest, as_json)
    elif together:
        _release_set(services, environment, why, wait, url, as_json)
    else:
        config = {"digest": digest, "force": force, "reason": why}
        _release("deploy", services[0], environment, config, wait, url, as_json)


@app.command()
def promote(
    service: Service,
    environment: Environment,
    why: Why = "",
    wait: Wait = True,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Bring here what is live in the environment before, unchanged."""
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
    """Return to the previous release in one switch, or further back."""
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


def _release_set(
    services: Sequence[str], environment: str, why: str, wait: bool, url: str | None, as_json: bool
) -> None:
    check_services(project.catalogue, services, environment)
    config = {RELEASE_SET_OP: {"environment": environment, "services": list(services), "reason": why}}
    launch = Launch("release_set", config)
    outcome = act(project, launch, url=url, environment=environment, wait=wait, as_json=as_json)
    if outcome and not as_json:
        out.print(f"[green]{environment}: {', '.join(services)} are released together[/green]")


def _check_deploy(services: Sequence[str], digest: str, force: bool, together: bool) -> None:
    problems = digest_problems(digest)
    if len(services) > 1 and not together:
        words = f"{', '.join(services)}: one service at a time, or all of them with --together"
        problems.append(Problem("SERVICE", words))
    if together and len(services) < 2:
        problems.append(Problem("--together", "means nothing for one service"))
    if together and digest:
        problems.append(Problem("--digest", "means nothing for several services: each gets its latest image"))
    if together and force:
        problems.append(Problem("--force", "means nothing with --together: what is live already stays"))
    if problems:
        raise BadInput(problems, subject="arguments", hint="ops releases SERVICE ENV shows digests." if digest else "")


def _check_run_id(run_id: str) -> None:
    if not RUN_ID.fullmatch(run_id):
        raise BadInput([Problem("RUN", f"`{run_id}` is not the id of a run")], subject="arguments")
