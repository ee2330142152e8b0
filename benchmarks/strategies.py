"""Requests lost by 20 changes of every strategy, on one host and on three Docker engines.

The load on every service: 60 keep-alive clients that GET and POST and never retry, requests that take five seconds,
uploads of 5 MB, WebSockets and streams of events that live until their release retires; all services together ask the
edge for 240 requests and one 5-second request a second. What a bad canary answers before it is rolled back is counted
apart. OPS_BENCH_RUNS makes fewer changes, OPS_BENCH_HOSTS chooses where (0 = on this machine's engine, 3 = on three
engines of their own; "0,3" = both).
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from statistics import median

from ops_pipeline_tests.testbed.registry import running_registry
from ops_pipeline_tests.testbed.releases import measured_bed
from ops_pipeline_tests.testbed.strategies import Course, Kind, run_side_by_side, settings, summed

RUNS = int(os.environ.get("OPS_BENCH_RUNS", "20"))
HOSTS = tuple(int(each) for each in os.environ.get("OPS_BENCH_HOSTS", "0,3").split(","))
SERVICES = {Kind.ROLLING: 1, Kind.BLUE_GREEN: 1, Kind.PROMOTED: 5, Kind.TAKEN_BACK: 1}
"""So many services share the changes of a kind, side by side: a verdict takes a minute whatever else is done."""

# Slow requests in proportion: at 30 requests/s as many as would be one a second at 200, far below the 5 % that count
# as a slow release.
LOAD: dict[Kind, dict[str, object]] = {
    kind: {"rate": 30.0, "slow_rate": 0.15, "upload_rate": 0.15, "upload_seconds": 1.0} for kind in Kind
}


def courses(runs: int) -> list[Course]:
    """Services with their share of the changes."""
    made = []
    for kind, count in SERVICES.items():
        for number in range(count):
            share = runs // count + (1 if number < runs % count else 0)
            if share:
                made.append(Course(f"{kind.split()[-1].replace('_', '-')}-{number}", kind, share))
    return made


def measure(hosts: int) -> bool:
    """All strategies at once on so many hosts; print a table. Return whether nothing was lost or went wrong."""
    began = time.monotonic()
    todo = courses(RUNS)
    replicas = {course.service: 1 if hosts and course.kind is not Kind.ROLLING else 2 for course in todo}
    services = {course.service: settings(course.kind, replicas[course.service]) for course in todo}
    with running_registry() as registry, tempfile.TemporaryDirectory(prefix="ops-test-") as folder:
        options = {"cooldown_minutes": 0, "blind_seconds": 60}
        with measured_bed(registry.address, Path(folder), services, hosts=hosts, environment=options) as measured:
            print(
                f"   bed of {max(hosts, 1)} host(s), {len(todo)} services: {time.monotonic() - began:.0f} s", flush=True
            )
            run_side_by_side(measured.bed, todo, LOAD)
    where = f"{hosts} engines" if hosts else "one host"
    print(f"   {where:<10} {'strategy':<20} {'runs':>4} {'requests':>9} {'lost':>5} {'by the bad':>10} {'median s':>9}")
    clean = True
    for kind in Kind:
        mine = [course for course in todo if course.kind is kind]
        if not mine:
            continue
        report = summed(mine, kind)
        seconds = [each for course in mine for each in course.seconds]
        requests = report.total_ok + report.total_lost + report.total_bad
        print(
            f"   {'':<10} {kind:<20} {len(seconds):>4} {requests:>9} {report.total_lost:>5} {report.total_bad:>10} "
            f"{median(seconds):>9.1f}",
            flush=True,
        )
        for line in [*report.errors[:5], *(wrong for course in mine for wrong in course.wrong)]:
            print(f"      {line}")
            clean = False
        clean = clean and report.total_lost == 0
        slow = report.ok
        print(f"   {'':<10}   of them {', '.join(f'{count} {name}' for name, count in sorted(slow.items()))}")
    return clean


def main() -> None:
    """Print the tables; fail when something was lost."""
    if not all([measure(hosts) for hosts in HOSTS]):
        raise SystemExit("requests were lost, or a change did not end as it should")


if __name__ == "__main__":
    main()
