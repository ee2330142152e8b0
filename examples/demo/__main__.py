"""`make demo`: deploy the sample, upgrade it under traffic, see bad versions go, lose all data and restore them."""

from __future__ import annotations

import sys
import time

from examples.demo import backups, data_services, project
from examples.demo.commands import (
    BIN,
    PORTS,
    DemoFailed,
    console,
    newest_release,
    ops,
    ops_json,
    ops_together,
    start_control_plane,
    title,
)
from examples.demo.traffic import Traffic

ROLLED_BACK, REFUSED = 6, 3
"""Exit codes of `ops`."""
GONE_SECONDS = 60.0
"""So long the sensor may take; the rule needs some ten seconds for a release that fails half of all requests."""


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
    title("A team's project: .ops/demo/project, a git repository with five versions of the storefront")
    project.create()

    title("The keys of backups: one signs, one opens; the machine that takes them needs only the first")
    ops("backup", "keys")

    title("PostgreSQL and Redis beside each environment")
    data_services.start()

    title("The control plane: Dagster UI, daemon and code server, behind the front door")
    start_control_plane()
    forget_earlier_quarantines()

    title("Version 1: test, build, scan")
    project.checkout("v1.0.0")
    ops_together(("build", "api"), ("build", "frontend"))

    title("Version 1 goes live in dev, and the very same digests in prod")
    ops_together(("deploy", "api", "dev"), ("deploy", "frontend", "dev"))
    ops_together(("promote", "api", "prod"), ("promote", "frontend", "prod"))

    # Versions 2, 3 and 4 come to prod in this order; 4 is the bad one.
    with Traffic(int(PORTS["prod"]), rate=100, bad_releases=(newest_release("api", "prod") + 3,)) as traffic:
        upgrade(traffic)
        refuse(traffic)
        take_back_a_canary(traffic)
        title("Back to version 1, by hand")
        traffic.lap()
        ops("rollback", "api", "prod", "--why", "demonstration")
        traffic.show("during the roll-back")
    expect_nothing_lost(traffic)
    take_back_a_live_release()

    backups.lose_everything_and_have_it_back()

    title("Both bad digests are in quarantine: nothing deploys them until somebody lifts it")
    ops("quarantine", "list")
    ops("deploy", "api", "dev", expect=REFUSED)
    forget_earlier_quarantines()

    title("What runs where")
    ops("status")


def upgrade(traffic: Traffic) -> None:
    """A good canary: 10 %, 50 %, everybody, each step upward by verdict."""
    title("Version 2 of the API, while people use prod: a canary, promoted by what users get")
    project.checkout("v2.0.0")
    ops("build", "api")
    ops("deploy", "api", "dev")
    traffic.lap()
    ops("promote", "api", "prod")
    traffic.show("during the upgrade")


def refuse(traffic: Traffic) -> None:
    """A version that never becomes ready."""
    title("Version 3 never becomes ready: refused, traffic does not move")
    project.checkout("v3.0.0")
    ops("build", "api")
    traffic.lap()
    ops("deploy", "api", "prod", "--why", "hurry", expect=1)
    traffic.show("during the failed deploy")


def take_back_a_canary(traffic: Traffic) -> None:
    """A canary that fails one request in ten."""
    title("Version 4 fails one request in ten: the canary is taken back by itself")
    project.checkout("v4.0.0")
    ops("build", "api")
    traffic.lap()
    ops("deploy", "api", "prod", "--why", "it worked here", expect=ROLLED_BACK)
    traffic.show("during the canary")


def take_back_a_live_release() -> None:
    """A release that passes everything and goes wrong ten seconds later."""
    title("Version 5 goes wrong ten seconds after it is fully live: the sensor takes it back")
    project.checkout("v5.0.0")
    ops("build", "api")
    bad = newest_release("api", "dev") + 1
    with Traffic(int(PORTS["dev"]), rate=60, bad_releases=(bad,)) as traffic:
        ops("deploy", "api", "dev")
        console.print("live; now nobody does anything …")
        began = time.monotonic()
        while newest_release("api", "dev") == bad or ops_json("status", "api", "dev")[0]["working"]:
            if time.monotonic() - began > GONE_SECONDS:
                raise DemoFailed(f"#{bad} was not rolled back within {GONE_SECONDS:.0f} s")
            time.sleep(1)
        console.print(f"rolled back {time.monotonic() - began:.0f} s after it went live")
        traffic.show("around the roll-back")
        ops("verdict", "api", "dev", "--release", str(bad))
        ops("releases", "api", "dev", "--limit", "3")
    expect_nothing_lost(traffic)


def expect_nothing_lost(traffic: Traffic) -> None:
    """Print the final count. Raise DemoFailed when a request was lost."""
    traffic.show_total()
    if traffic.lost_total:
        raise DemoFailed(f"{traffic.lost_total} requests were lost; there must be none")


def forget_earlier_quarantines() -> None:
    """Lift what this or an earlier demonstration put into quarantine, so that it can be repeated."""
    for record in ops_json("quarantine", "list"):
        ops("quarantine", "lift", record["digest"], "--why", "the demonstration goes on")


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
        "ops plan api prod              # what a deploy would do now, and how long its canary needs",
        "ops replay api prod --since 1h --thresholds error_rate=0.2   # what other thresholds would have done",
        "ops rollback api prod --to 2   # forward again, to the release before",
        "edit .ops/demo/project/examples/storefront, then: ops build frontend && ops deploy frontend dev",
        "ops backups prod               # every set: age, size, checks, drills, holds",
        "ops restore prod --date yesterday's date --dry-run   # what it would bring back, and how old that is",
        "in the UI: Assets → release → Materialize, choose environment and service, launch",
    ):
        console.print(f"  {line}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
