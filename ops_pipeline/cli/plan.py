"""`ops plan`: what a deploy would do, how long it would take to judge it, and why it would be refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ops_pipeline.cli.app import app, project
from ops_pipeline.cli.arguments import AsJson, Environment, Service
from ops_pipeline.cli.names import check_known, check_services
from ops_pipeline.cli.output import out, plain, print_json, said, short
from ops_pipeline.core.image import DIGEST
from ops_pipeline.errors import PolicyRefused, Problem

if TYPE_CHECKING:
    from ops_pipeline.services.plan import Plan


@app.command()
def plan(
    service: Service,
    environment: Environment,
    digest: Annotated[str, typer.Option("--digest", help="`sha256:…`; default the latest image built")] = "",
    as_json: AsJson = False,
) -> None:
    """What a deploy would do, and when a verdict would be in.

    Why it would be refused is said too (then exit code 3). Changes nothing.
    """
    show_plan(service, environment, digest, as_json)


def show_plan(service: str, environment: str, digest: str, as_json: bool) -> None:
    """Print what a deploy would do. Raise PolicyRefused when it would be refused, BadInput."""
    check_known(project.catalogue, service, environment, digest_problems(digest))
    planned = _plan(service, environment, digest)
    if as_json:
        print_json({**plain(planned), "allowed": not planned.refusals})
    else:
        _show(planned)
    _refuse(f"deploy of {service} to {environment}", planned.refusals, as_json)


def show_plans(services: Sequence[str], environment: str, digest: str, as_json: bool) -> None:
    """The same for services that are to be released together: every one is shown before anything is refused."""
    if len(services) == 1:
        show_plan(services[0], environment, digest, as_json)
        return
    check_services(project.catalogue, services, environment)
    plans = [_plan(service, environment, "") for service in services]
    if as_json:
        print_json([{**plain(one), "allowed": not one.refusals} for one in plans])
    refusals = []
    for one in plans:
        if not as_json:
            _show(one)
        refusals += [f"{one.service}: {reason}" for reason in one.refusals]
    _refuse(f"release set for {environment}", refusals, as_json)


def digest_problems(digest: str) -> list[Problem]:
    """What is wrong with a digest a person gave; none was given = nothing."""
    if not digest or DIGEST.fullmatch(digest):
        return []
    return [Problem("--digest", f"`{digest}` is not `sha256:` and 64 hexadecimal digits")]


def _plan(service: str, environment: str, digest: str) -> Plan:
    from ops_pipeline.services.plan import plan as plan_of

    return plan_of(project.platform, environment, service, digest or None)


def _show(planned: Plan) -> None:
    live = f"#{planned.live_number} {planned.live_version}" if planned.live_number else "nothing"
    place = f"{planned.environment}/{planned.service}"
    out.print(f"{place}: {live} -> {planned.version} ({short(planned.digest)})", markup=False)
    if planned.nothing_to_do:
        out.print("  nothing to do: it is live already")
        said(out, planned.standby, first="  standby: ", indent=4)
        return
    for title, lines in (
        ("change", planned.changes),
        ("strategy", (planned.strategy.replace("_", "/"),)),
        ("step", planned.steps),
        ("forecast", planned.forecast),
        ("warning", planned.warnings),
        ("standby", (planned.standby,)),
        ("disk", (planned.disk,)),
        ("after", planned.notes),
    ):
        for line in lines:
            said(out, line, first=f"  {title}: ", indent=4)


def _refuse(subject: str, reasons: Sequence[str], as_json: bool) -> None:
    if not reasons:
        return
    if as_json:
        # The document says it already.
        raise SystemExit(PolicyRefused.exit_code)
    raise PolicyRefused(subject, reasons)
