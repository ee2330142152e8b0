"""`ops plan`: what a deploy would do, how long it would take to judge it, and why it would be refused."""

from __future__ import annotations

from typing import Annotated

import typer

from ops_pipeline.cli.app import app, project
from ops_pipeline.cli.arguments import AsJson, Environment, Service
from ops_pipeline.cli.names import check_known
from ops_pipeline.cli.output import out, plain, print_json, short
from ops_pipeline.core.image import DIGEST
from ops_pipeline.errors import PolicyRefused, Problem


@app.command()
def plan(
    service: Service,
    environment: Environment,
    digest: Annotated[str, typer.Option("--digest", help="`sha256:…`; default the latest image built")] = "",
    as_json: AsJson = False,
) -> None:
    """What a deploy would do, and why it would be refused (then exit code 3). Changes nothing."""
    show_plan(service, environment, digest, as_json)


def show_plan(service: str, environment: str, digest: str, as_json: bool) -> None:
    """Print what a deploy would do. Raise PolicyRefused when it would be refused, BadInput."""
    from ops_pipeline.services.plan import plan as plan_of

    problems = []
    if digest and not DIGEST.fullmatch(digest):
        problems.append(Problem("--digest", f"`{digest}` is not `sha256:` and 64 hexadecimal digits"))
    check_known(project.catalogue, service, environment, problems)
    planned = plan_of(project.platform, environment, service, digest or None)
    if as_json:
        print_json({**plain(planned), "allowed": not planned.refusals})
    else:
        live = f"#{planned.live_number} {planned.live_version}" if planned.live_number else "nothing"
        out.print(f"{environment}/{service}: {live} -> {planned.version} ({short(planned.digest)})", markup=False)
        if planned.nothing_to_do:
            out.print("  nothing to do: it is live already")
        for title, lines in (
            ("change", planned.changes),
            ("strategy", () if planned.nothing_to_do else (planned.strategy.replace("_", "/"),)),
            ("step", planned.steps),
            ("forecast", planned.forecast),
            ("warning", planned.warnings),
            ("standby", (planned.standby,)),
            ("disk", () if planned.nothing_to_do else (planned.disk,)),
            ("after", () if planned.nothing_to_do else planned.notes),
        ):
            for line in lines:
                out.print(f"  {title}: {line}", markup=False)
    if planned.refusals:
        if as_json:
            # The document says it already.
            raise SystemExit(PolicyRefused.exit_code)
        raise PolicyRefused(f"deploy of {service} to {environment}", planned.refusals)
