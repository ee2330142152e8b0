"""The sensor's tick: seconds, queries and memory of one look over 1,000 services × 3 environments on a real Prometheus.

Synthetic exporters (one process for each environment) serve what the edges' exporters would: two releases of every
service, both tracks, all with traffic. Prometheus scrapes them every 4 s and the looks are 4 s apart, so that each sees
as many scrapes as one every 2 s where Prometheus scrapes so often; two cores could not do that beside the exporters.
"""

from __future__ import annotations

import contextlib
import gc
import os
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ops_pipeline.adapters.clock import SystemClock
from ops_pipeline.adapters.prometheus import Prometheus
from ops_pipeline.cli.control_plane import resident_bytes
from ops_pipeline.core.judgement.verdict import Outcome
from ops_pipeline.core.rollout import Rollout
from ops_pipeline.services.judging import Case, Judging
from ops_pipeline_tests.fakes.platform import Bed
from ops_pipeline_tests.testbed.prometheus import prometheus

SERVICES = 1000
ENVIRONMENTS = ("dev", "stage", "prod")
SCRAPE_SECONDS = 4.0
LOOKS = 8
LIMIT_SECONDS, LIMIT_QUERIES = 1.0, 4


class Counting(Prometheus):
    """Counts the queries."""

    queries = 0

    def _ask(self, query: str, until: datetime | None) -> list[Any]:
        self.queries += 1
        return super()._ask(query, until)


def main() -> int:
    """Print the figures. Return 1 when a limit is passed."""
    good = True
    for services in (SERVICES // 10, SERVICES // 3, SERVICES):
        good &= measure(services)
    scrape_cost(30)
    return 0 if good else 1


def measure(services: int) -> bool:
    """Look at `services` services in all environments again and again; print one line."""
    with contextlib.ExitStack() as stack:
        targets = [stack.enter_context(exporting(services, name)) for name in ENVIRONMENTS]
        server = stack.enter_context(prometheus(targets, scrape_seconds=SCRAPE_SECONDS))
        since = datetime.now(UTC)
        source = Counting(server.url, 10.0)
        platform = replace(Bed().platform(), metrics=source, clock=SystemClock(), runtimes=lambda environment: ())
        cases = [
            Case(environment, f"service-{number}", 2, 1, Rollout(), 1, since)
            for environment in ENVIRONMENTS
            for number in range(services)
        ]
        gc.collect()
        before = resident_bytes(os.getpid())
        judging = Judging(platform)
        time.sleep(3 * SCRAPE_SECONDS)
        judging.look(cases)
        source._ask("vector(0)", None)
        times, queries, own = [], [], []
        for _ in range(LOOKS):
            time.sleep(SCRAPE_SECONDS)
            source.queries, began, spent = 0, time.perf_counter(), time.process_time()
            verdicts = judging.look([replace(case) for case in cases])
            own.append(time.process_time() - spent)
            times.append(time.perf_counter() - began)
            queries.append(source.queries)
        blind = sum(verdict.outcome is Outcome.BLIND for verdict in verdicts.values())
        counted = sum(verdict.metrics[0].total for verdict in verdicts.values())
        gc.collect()
        grown = resident_bytes(os.getpid()) - before
        tracemalloc.start()
        fresh = Judging(platform)
        fresh.look(cases)
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        del fresh
        nothing = Judging(platform)
        began = time.perf_counter()
        nothing.look([])
        idle = time.perf_counter() - began
    seconds = statistics.median(times)
    print(
        f"{len(cases):5} cases: a steady look {seconds:.2f} s (worst {max(times):.2f}, limit {LIMIT_SECONDS:g}), "
        f"{statistics.median(own):.2f} s of processor, "
        f"idle {1e6 * idle:.0f} µs; {max(queries)} queries (limit {LIMIT_QUERIES}); "
        f"{size / len(cases) / 1024:.1f} KiB per case kept, {grown / 1e6:.0f} MB more resident; "
        f"{blind} blind, {counted} requests judged",
        flush=True,
    )
    return seconds <= LIMIT_SECONDS and max(queries) <= LIMIT_QUERIES and not blind


def scrape_cost(services: int) -> None:
    """What Prometheus takes to scrape so many services every second: share of one core."""
    with exporting(services, ENVIRONMENTS[0]) as target:
        for seconds in (5.0, 1.0):
            with prometheus([target], scrape_seconds=seconds) as server:
                server.container.reload()
                pid = int(server.container.attrs["State"]["Pid"])
                time.sleep(5)
                begin, began = cpu_seconds(pid), time.monotonic()
                time.sleep(15)
                share = (cpu_seconds(pid) - begin) / (time.monotonic() - began)
                print(
                    f"Prometheus, {services} services every {seconds:g} s: {100 * share:.1f} % of one core", flush=True
                )


def cpu_seconds(pid: int) -> float:
    """Processor time a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def exporting(services: int, environment: str) -> Iterator[str]:
    """Serve the synthetic exporter of an environment from a process of its own; give its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.tick_exporter", str(services), environment],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
