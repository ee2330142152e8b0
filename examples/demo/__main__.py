"""`make demo`: deploy the sample, upgrade it under traffic, see bad versions go, lose all data and restore them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from deploy.setup import everything
from examples.demo import data_services, later, project
from examples.demo.backups import Story
from examples.demo.commands import (
    BIN,
    PORTS,
    DemoFailed,
    console,
    ops,
    start_control_plane,
    stop_what_was_left,
)
from examples.demo.delivery import (
    FAILING,
    GOOD,
    NEVER_READY,
    TURNING,
    Delivery,
    bring_back_what_is_gone,
    forget_quarantines,
)
from examples.demo.output import title
from examples.demo.programme import Act, left_out, perform
from examples.demo.record import FILE, Record, state_of_everything
from examples.demo.traffic import all_acts

AGAIN = "make demo ARGS=--all"
INTERRUPTED = 130


def main(arguments: Sequence[str]) -> int:
    """Run the demonstration. Return the exit code: 0 only when everything went as announced."""
    began = time.monotonic()
    asked = float(os.environ.get("OPS_DEMO_BEGAN") or began)
    try:
        prepare()
        record = Record(FILE, state_of_everything())
        passed = () if "--all" in arguments else tuple(record.passed)
        with_later = bool(everything.left_for_later())
        missing = left_out(programme((), with_later=with_later), passed)
        announce(missing, record)
        perform(
            programme(tuple(act.name for act in missing), with_later=with_later),
            lambda act, seconds: record.note(act.name, datetime.now(UTC), seconds),
        )
        project.checkout("main")
    except DemoFailed as failure:
        console.print(f"\n[bold red]The demonstration stopped:[/] {failure}")
        console.print("What runs is left as it is; `make demo` begins again, `make down` removes it.")
        return 1
    except KeyboardInterrupt:
        console.print("\ninterrupted; `make demo` goes on with what is left, `make down` removes what runs")
        return INTERRUPTED
    farewell(time.monotonic() - asked, time.monotonic() - began, missing)
    return 0


def prepare() -> None:
    """Everything the first act needs."""
    title("A team's project, .ops/demo/project: five versions of the storefront in git")
    project.create()
    console.print("\n".join(f"{tag}: {message}" for tag, message in project.messages()), markup=False)

    title("The keys of backups: one signs, which takes them needs; one opens them")
    ops("backup", "keys")

    title("The control plane behind its front door, and databases per environment")
    with ThreadPoolExecutor(max_workers=1) as pool:
        databases = pool.submit(data_services.start)
        start_control_plane()
        databases.result()
    stop_what_was_left()
    bring_back_what_is_gone()
    forget_quarantines()


def programme(without: Collection[str], *, with_later: bool) -> list[Act]:
    """All acts in an order in which they could be played; those named in `without` are left out."""
    delivery, story = Delivery(), Story()
    whole = "canary" not in without
    by_hand = "prod" if whole else "dev"
    acts = [
        Act("first-built", "Version 1: test, build, scan", delivery.build_first),
        Act(
            "first-in-dev",
            "Version 1 goes live in dev" if whole else "Version 1 once more in dev: started beside, verified, switched",
            delivery.first_in_dev if whole else delivery.first_again_in_dev,
            ("first-built",),
        ),
        Act(
            "first-in-prod",
            "The very same digests in prod" if whole else "Version 1 serves prod",
            delivery.promote_first if whole else delivery.first_in_prod,
            ("first-in-dev",) if whole else ("first-built",),
        ),
    ]
    newest = "first-built"
    wanted = {
        GOOD: ("canary", "Version 2 takes larger photos: test, build, scan"),
        NEVER_READY: ("never-ready", "Version 3, never ready, and nobody noticed: test, build, scan"),
        FAILING: ("", "Version 4, one error in ten, and nobody noticed: test, build, scan"),
        TURNING: ("turns-bad", "Version 5, bad after a while, and nobody noticed: test, build, scan"),
    }
    for version, (act, words) in wanted.items():
        if act not in without:
            name = f"{version}-built"
            acts.append(Act(name, words, lambda version=version: delivery.build(version), (newest,)))
            newest = name
    acts += [
        Act(
            "written",
            "Listings and photos, written through the API of prod",
            story.write,
            ("first-in-prod",),
        ),
        Act(
            "backup",
            "A backup by the schedule's own job: databases, then photos, one set",
            story.back_up,
            ("written",),
        ),
        Act(
            "disaster",
            "Disaster: all listings, photos and the cache are gone, and come back by date",
            story.lose_everything_and_have_it_back,
            ("backup",),
            once=True,
        ),
        Act(
            "drill",
            "A drill: the same set, restored into throw-away servers and compared",
            story.drill,
            ("disaster",) if "disaster" not in without else ("backup",),
        ),
    ]
    if whole:
        acts += [
            Act(
                "second-in-dev",
                "Version 2 of the API in dev",
                delivery.next_in_dev,
                ("first-in-prod", f"{GOOD}-built"),
            ),
            Act(
                "canary",
                "Version 2 in prod, under traffic: a canary, promoted by what users get",
                delivery.canary,
                ("second-in-dev", "disaster" if "disaster" not in without else "written"),
                once=True,
            ),
        ]
    acts += [
        Act(
            "failing",
            "Version 4 fails one request in ten: the canary is taken back by itself",
            delivery.take_back_a_canary,
            (
                f"{FAILING}-built",
                *(("canary",) if whole else ("disaster",) if "disaster" not in without else ("written",)),
            ),
        ),
        Act(
            "by-hand",
            f"Back to the version before, by hand, in {by_hand}",
            lambda: delivery.back_by_hand(by_hand),
            ("failing",) if whole else ("first-in-dev",),
        ),
        Act(
            "never-ready",
            "Version 3 never becomes ready: refused, traffic does not move",
            delivery.refuse,
            (f"{NEVER_READY}-built", "second-in-dev" if whole else "by-hand"),
            once=True,
        ),
    ]
    before = "never-ready" if "never-ready" not in without else "second-in-dev" if whole else "by-hand"
    acts += [
        Act(
            "turns-bad",
            "Version 5 turns bad ten seconds after it is live: the sensor takes it back",
            lambda: delivery.take_back_a_live_release(after_promotion=whole),
            (f"{TURNING}-built", before),
            once=True,
        ),
    ]
    if with_later:
        acts.append(Act("later", "The rest of the local stack, which nothing here waits for", later.start, ("drill",)))
    acts = [act for act in acts if act.name not in without]
    played = [act.name for act in acts]
    acts += [
        Act(
            "quarantined",
            "What was judged bad is in quarantine: nothing deploys it",
            delivery.quarantined,
            tuple(name for name in ("failing", "by-hand", "turns-bad", "never-ready") if name in played),
        ),
    ]
    return [*acts, Act("status", "What runs where", show_status, tuple(act.name for act in acts))]


def show_status() -> None:
    """The table of all environments."""
    ops("status")


def announce(missing: Sequence[Act], record: Record) -> None:
    """Say what is left out, why, and how to see it again."""
    if not missing:
        return
    title("Shown before, and nothing has changed since: versions, code, images")
    for act in missing:
        passed = record.passed[act.name]
        console.print(
            f"  left out: {act.title} [dim](passed {passed.at:%Y-%m-%d %H:%M} UTC, took {passed.seconds:.0f} s)[/]",
            soft_wrap=True,
        )
    console.print(f"All acts again: [bold]{AGAIN}[/]")


def farewell(seconds: float, acts_seconds: float, missing: Sequence[Act]) -> None:
    """Say how it went, where everything is and what to try next."""
    title(f"Done in {seconds:.0f} s, {seconds - acts_seconds:.0f} s of them set-up. It stays up until `make down`")
    console.print(f"[bold green]{all_acts.lost} lost[/] of {all_acts.answered + all_acts.lost:,} requests in all acts")
    if missing:
        console.print(f"{len(missing)} acts were left out, because they passed before and nothing changed: {AGAIN}")
    console.print()
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
        "ops rollback api dev           # to the release before, in one switch",
        "edit .ops/demo/project/examples/storefront, then: ops build frontend && ops deploy frontend dev",
        "ops backups prod               # every set: age, size, checks, drills, holds",
        "ops restore prod --date yesterday's date --dry-run   # what it would bring back, and how old that is",
        "in the UI: Assets → release → Materialize, choose environment and service, launch",
    ):
        console.print(f"  {line}", markup=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
