"""`make demo`: deploy the sample application, upgrade it under traffic, refuse a broken version, roll back by hand."""

from __future__ import annotations

import sys
import time

from examples.demo import data_services, project
from examples.demo.commands import (
    BIN,
    PORTS,
    DemoFailed,
    console,
    ops,
    ops_together,
    start_control_plane,
    title,
)
from examples.demo.traffic import Traffic


def main() -> int:
    """Run the demonstration. Return the exit code: 0 only when everything went as announced."""
    began = time.monotonic()
    try:
        play()
    except DemoFailed as failure:
        console.print(f"\n[bold red]The demonstration stopped:[/] {failure}")
        console.print("What runs is left as it is; `make down` removes it.")
        return 1
    farewell(time.monotonic() - began)
    return 0


def play() -> None:
    """All acts, in order."""
    title("A team's project: .ops/demo/project, a git repository with three versions of the storefront")
    project.create()

    title("PostgreSQL and Redis beside each environment")
    data_services.start()

    title("The control plane: Dagster UI, daemon and code server, behind the front door")
    start_control_plane()

    title("Version 1: test, build, scan")
    project.checkout("v1.0.0")
    ops_together(("build", "api"), ("build", "frontend"))

    title("Version 1 goes live in dev, and the very same digests in prod")
    ops_together(("deploy", "api", "dev"), ("deploy", "frontend", "dev"))
    ops_together(("promote", "api", "prod"), ("promote", "frontend", "prod"))

    with Traffic(int(PORTS["prod"])) as traffic:
        title("Version 2 of the API, while people use prod")
        project.checkout("v2.0.0")
        ops("build", "api")
        ops("deploy", "api", "dev")
        traffic.lap()
        ops("promote", "api", "prod")
        traffic.show("during the upgrade")

        title("Version 3 never becomes ready: refused, traffic does not move")
        project.checkout("v3.0.0")
        ops("build", "api")
        traffic.lap()
        ops("deploy", "api", "prod", "--why", "hurry", expect=1)
        traffic.show("during the failed deploy")

        title("Back to version 1, by hand")
        traffic.lap()
        ops("rollback", "api", "prod", "--why", "demonstration")
        traffic.show("during the roll-back")
    traffic.show_total()
    if traffic.lost_total:
        raise DemoFailed(f"{traffic.lost_total} requests were lost; there must be none")

    title("What runs where")
    ops("status")


def farewell(seconds: float) -> None:
    """Say where everything is and what to try next."""
    title(f"Done in {seconds:.0f} s. It stays up until `make down`")
    addresses = [
        ("Dagster UI", PORTS["front_door"], ""),
        ("storefront, prod", PORTS["prod"], ""),
        ("storefront, dev", PORTS["dev"], ""),
        ("Prometheus", PORTS["prometheus"], ""),
        ("Alertmanager", PORTS["alertmanager"], ""),
        ("image registry", PORTS["registry"], "/v2/_catalog"),
    ]
    for name, port, path in addresses:
        console.print(f"  {name:18} http://127.0.0.1:{port}{path}")
    console.print("\nTry next, in this folder:")
    relative = project.CATALOGUE.relative_to(project.REPOSITORY)
    for line in (
        f"export OPS_CATALOGUE={relative} PATH={BIN.relative_to(project.REPOSITORY)}:$PATH",
        "ops releases api prod          # who deployed what, and why",
        "ops plan api prod              # what a deploy would do now",
        "ops rollback api prod --to 2   # forward again, to the release before",
        "edit .ops/demo/project/examples/storefront, then: ops build frontend && ops deploy frontend dev",
        "in the UI: Assets → release → Materialize, choose environment and service, launch",
    ):
        console.print(f"  {line}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
