"""SIGKILL of the controller after every line of the journal: every strategy, a roll-back, the sensor's tick.

Every kill point has a service of its own under a load that never retries. When the dead holder's lease has ended,
`reconcile` finishes or undoes what it left; of a killed tick the next one does, as after a restart of the daemon. What
a bad release answers is counted apart. OPS_BENCH_KINDS chooses some ("rolling,watch").
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ops_pipeline.core.lease import Lease
from ops_pipeline.errors import LeaseHeld
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.reconcile import reconcile
from ops_pipeline.services.status import status
from ops_pipeline_tests.testbed.load import Load, LoadPlan, LoadReport, total
from ops_pipeline_tests.testbed.registry import running_registry
from ops_pipeline_tests.testbed.releases import ENVIRONMENT, ReleaseBed, measured_bed

AT_ONCE = 4
TERM = Lease.term_seconds
PATIENCE = 400.0


@dataclass(frozen=True)
class Kind:
    """What is killed: the verb of the controller, how many lines to try at most, and how the service is set up."""

    name: str
    words: str
    verb: str
    most: int
    settings: Mapping[str, object] = field(default_factory=dict)
    earlier: int = 1  # releases before
    bad: bool = False
    rate: float = 10.0

    def service(self, line: int) -> str:
        return f"{self.name}-{line}"


STEPS = [{"weight": 50, "min_seconds": 1}, {"weight": 100}]
KINDS = (
    Kind("blue-green", "deploy, blue_green", "deploy", 12, {"strategy": "blue_green"}, earlier=2),
    Kind("rolling", "deploy, rolling, 2 replicas", "deploy", 14, {"strategy": "rolling", "replicas": 2}, earlier=2),
    Kind("canary", "deploy, canary promoted", "deploy", 16, {"strategy": "canary", "canary": STEPS}, rate=30.0),
    Kind(
        "bad", "deploy, canary rolled back", "deploy", 16, {"strategy": "canary", "canary": STEPS}, bad=True, rate=30.0
    ),
    Kind("back", "roll-back by hand", "back", 8, earlier=2),
    Kind("watch", "roll-back by the sensor's tick", "watch", 16, bad=True, rate=50.0),
)
CHOSEN = [
    kind for kind in KINDS if kind.name in os.environ.get("OPS_BENCH_KINDS", ",".join(k.name for k in KINDS)).split(",")
]


@dataclass
class Course:
    """What came of one kill point."""

    reached: bool = False
    report: LoadReport = field(default_factory=LoadReport)
    wrong: list[str] = field(default_factory=list)


def one(bed: ReleaseBed, kind: Kind, line: int) -> Course:
    """Kill the controller of one service after one line, and let the next one take over."""
    service, course = kind.service(line), Course()
    for version in range(kind.earlier):
        bed.image(service, f"v{version}")
        deploy(bed.platform, ENVIRONMENT, service, progress=_quiet)
    version = f"v{kind.earlier}"
    if kind.bad:
        version = f"bad-{service}"  # its digest goes into quarantine: nobody else's
        bed.image(service, version, **({} if kind.verb == "watch" else {"ERROR_RATE": "0.5"}))
    elif kind.verb == "deploy":
        bed.image(service, version)
    if kind.verb == "watch":
        deploy(bed.platform, ENVIRONMENT, service, progress=_quiet)
    last = read_journal(bed.platform, ENVIRONMENT, service).last_number
    bad = (version, f"#{last if kind.verb == 'watch' else last + 1}") if kind.bad else ()
    plan = LoadPlan(
        port=0,
        targets=tuple(place.target for place in bed.site.places),
        get_path=f"/{service}/load",
        post_path=f"/{service}/load",
        slow_path="",
        websocket_path="",
        clients=4,
        rate=kind.rate,
        buckets=True,
        bad_releases=bad,
    )
    with Load(plan) as load:
        time.sleep(1)
        if kind.verb == "watch":
            time.sleep(5)
            bed.misbehave(service, last, error_rate=0.5)
        process = bed.controller(kind.verb, service, line)
        output, _ = process.communicate(timeout=PATIENCE)
        course.reached = process.returncode == -signal.SIGKILL
        if course.reached and kind.verb == "watch":
            again = bed.controller("watch", service)
            output, _ = again.communicate(timeout=PATIENCE)
            if again.returncode:
                course.wrong.append(f"{service}: the next tick ended with {again.returncode}: {output[-300:]}")
        elif course.reached:
            settle(bed, service, course)
        time.sleep(2)
    course.report = load.report
    if course.reached:
        course.wrong += inconsistencies(bed, service)
    return course


def settle(bed: ReleaseBed, service: str, course: Course) -> None:
    """Reconcile as soon as the dead holder's lease has ended."""
    deadline = time.monotonic() + TERM + 30
    while True:
        try:
            report = reconcile(bed.platform, ENVIRONMENT, service, progress=_quiet)
        except LeaseHeld:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
            continue
        if not report.settled:
            course.wrong.append(f"{service}: not settled: {report.problems}")
        return


def inconsistencies(bed: ReleaseBed, service: str) -> list[str]:
    """What is not as the ledger says."""
    journal = read_journal(bed.platform, ENVIRONMENT, service)
    owned = {
        f"ops-{ENVIRONMENT}-{service}-{place.containers}-{index}"
        for place in journal.placements
        for index in range(place.configuration.replicas)
    }
    (seen,) = status(bed.platform, ENVIRONMENT, service)
    found = []
    if journal.work is not None or journal.leaving:
        found.append(f"{service}: work is left in the journal")
    if set(bed.containers(service)) != owned:
        found.append(f"{service}: containers {sorted(bed.containers(service))}, the journal owns {sorted(owned)}")
    if not seen.healthy or seen.working or seen.unfinished:
        found.append(f"{service}: {seen}")
    return found


def points(bed: ReleaseBed, kind: Kind) -> dict[int, Course]:
    """All kill points of a kind, some at a time; a tick judges everybody, so of it one at a time."""

    def safely(line: int) -> Course:
        try:
            return one(bed, kind, line)
        except Exception as error:
            return Course(reached=True, wrong=[f"{kind.service(line)}: {type(error).__name__}: {error}"[:400]])

    courses: dict[int, Course] = {}
    width = 1 if kind.verb == "watch" else AT_ONCE
    for first in range(1, kind.most + 1, width):
        lines = range(first, min(first + width, kind.most + 1))
        with ThreadPoolExecutor(width) as pool:
            courses.update(zip(lines, pool.map(safely, lines), strict=True))
        if not all(courses[line].reached for line in lines):
            break
    return courses


def main() -> None:
    """Print a line for every kind; fail when something was lost or is left."""
    right = True
    services: dict[str, dict[str, object]] = {
        kind.service(line): {"memory_mb": 64, "drain_seconds": 3, "request_timeout_seconds": 10, **kind.settings}
        for kind in CHOSEN
        for line in range(1, kind.most + 1)
    }
    print(f"   {'killed':<32} {'lines':>5} {'requests':>9} {'lost':>5} {'by the bad':>10} {'left over':>9}")
    for kind in CHOSEN:
        mine = {name: services[name] for name in services if name.startswith(f"{kind.name}-")}
        with (
            running_registry() as registry,
            tempfile.TemporaryDirectory(prefix="ops-test-") as folder,
            measured_bed(
                registry.address, Path(folder), mine, environment={"cooldown_minutes": 0, "blind_seconds": 60}
            ) as measured,
        ):
            measured.bed.image(next(iter(mine)), "v0")
            courses = points(measured.bed, kind)
        killed = [course for course in courses.values() if course.reached]
        report = total([course.report for course in killed])
        wrong = [line for course in killed for line in course.wrong]
        print(
            f"   {kind.words:<32} {len(killed):>5} {report.total_ok + report.total_lost + report.total_bad:>9} "
            f"{report.total_lost:>5} {report.total_bad:>10} {len(wrong):>9}",
            flush=True,
        )
        for line in [*report.errors[:5], *wrong]:
            print(f"      {line}")
        right = right and bool(killed) and not report.total_lost and not wrong
    if not right:
        raise SystemExit("something was lost or is left over")


def _quiet(line: str) -> None: ...


if __name__ == "__main__":
    main()
