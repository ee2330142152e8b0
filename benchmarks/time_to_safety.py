"""Seconds from a bad release's first bad answer to its last one: canaries, and live releases through the sensor.

Every run is real: clients at 100 requests/s, HAProxy, the exporter scraped every second, Prometheus, the verdict, the
roll-back. Live releases turn bad ten seconds after they went live and are rolled back by the sensor `metric_rollback`
of a real Dagster daemon. Three services at a time share an edge. OPS_BENCH_RUNS makes fewer runs, OPS_BENCH_CASES
chooses some ("canary-10,live-50").
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from ops_pipeline.errors import RolledBack
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.journal import read_journal
from ops_pipeline_tests.testbed import free_port
from ops_pipeline_tests.testbed.control_plane import ControlPlaneBed, end_runs, serving
from ops_pipeline_tests.testbed.load import Load, LoadPlan, LoadReport
from ops_pipeline_tests.testbed.registry import running_registry
from ops_pipeline_tests.testbed.releases import ENVIRONMENT, ReleaseBed, measured_bed

RUNS = int(os.environ.get("OPS_BENCH_RUNS", "20"))
AT_ONCE = 3
SECONDS_GOOD = 10.0
PATIENCE = 90.0
CANARY = {"strategy": "canary", "canary": [{"weight": 10}, {"weight": 100}]}


@dataclass(frozen=True)
class Case:
    """What goes wrong, and how soon it must be over: `limit` for the median, `worst` for every run, in seconds."""

    name: str
    words: str
    limit: float
    worst: float | None = None
    live: bool = False
    errors: float = 0.0


CASES = (
    Case("canary-10", "canary at 10 requests/s, 10 % errors", 35, errors=0.1),
    Case("canary-50", "canary at 10 requests/s, 50 % errors", 10, errors=0.5),
    Case("canary-dead", "canary at 10 requests/s, its container dead", 5),
    Case("live-10", "live at 100 requests/s, 10 % errors, by the sensor", 25, 30, live=True, errors=0.1),
    Case("live-50", "live at 100 requests/s, 50 % errors, by the sensor", 10, 30, live=True, errors=0.5),
)
CHOSEN = [
    case for case in CASES if case.name in os.environ.get("OPS_BENCH_CASES", ",".join(c.name for c in CASES)).split(",")
]


@dataclass
class Results:
    """Of one case."""

    seconds: list[float] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)
    lost: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, report: LoadReport) -> None:
        """One run."""
        self.seconds.append(report.time_to_safety)
        self.bad.append(report.total_bad)
        self.lost += report.total_lost
        self.wrong += report.errors[:2]


class Runs:
    """Runs one case after the other on a bed."""

    def __init__(self, bed: ReleaseBed) -> None:
        self.bed = bed

    def case(self, case: Case) -> Results:
        """All runs of a case, some services at a time."""
        results = Results()
        services = [f"{case.name}-{number}" for number in range(AT_ONCE)]
        todo = iter(range(RUNS))
        taking = threading.Lock()

        def take() -> int | None:
            with taking:
                return next(todo, None)

        def work(service: str) -> None:
            self.bed.image(service, "good")
            deploy(self.bed.platform, ENVIRONMENT, service, progress=_quiet)
            while (number := take()) is not None:
                run: Callable[[Case, str, str, Results], None] = self._live if case.live else self._canary
                try:
                    run(case, service, f"{case.name}-{number}", results)
                except Exception as error:
                    results.wrong.append(f"{service}: {type(error).__name__}: {error}"[:300])

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(work, services))
        return results

    def _load(self, service: str, version: str, unanswered_by: str = "") -> Load:
        plan = LoadPlan(
            port=0,
            targets=tuple(place.target for place in self.bed.site.places),
            get_path=f"/{service}/load",
            post_path=f"/{service}/load",
            slow_path="",
            websocket_path="",
            clients=100,
            rate=100.0,
            buckets=True,
            bad_releases=(version, f"#{self._number(service) + 1}"),
            unanswered_by=unanswered_by,
        )
        return Load(plan)

    def _canary(self, case: Case, service: str, version: str, results: Results) -> None:
        environment = {"ERROR_RATE": str(case.errors)} if case.errors else {"START_DELAY": "6"}
        self.bed.image(service, version, **environment)
        with self._load(service, version, "" if case.errors else version) as load:
            over = threading.Event()
            killer = threading.Thread(target=self._kill, args=(service, version, load, over))
            if not case.errors:
                killer.start()
            try:
                deploy(self.bed.platform, ENVIRONMENT, service, progress=_quiet)
                results.wrong.append(f"{service} {version} was not rolled back")
            except RolledBack:
                pass
            finally:
                over.set()
                if not case.errors:
                    killer.join()
            time.sleep(2)
        results.add(load.report)

    def _kill(self, service: str, version: str, load: Load, over: threading.Event) -> None:
        """End the canary's container once it answers users. It takes its time to come back."""
        while not over.wait(0.2):
            if load.snapshot().releases.get(version, 0) >= 20:
                self.bed.misbehave(service, self._number(service), exit=7)
                return

    def _live(self, case: Case, service: str, version: str, results: Results) -> None:
        self.bed.image(service, version)
        with self._load(service, version) as load:
            release = deploy(self.bed.platform, ENVIRONMENT, service, progress=_quiet)
            time.sleep(SECONDS_GOOD)
            self.bed.misbehave(service, release.number, error_rate=case.errors)
            deadline = time.monotonic() + PATIENCE
            while self._number(service) == release.number or self._working(service):
                if time.monotonic() > deadline:
                    self.bed.misbehave(service, release.number, error_rate=0)
                    results.wrong.append(f"{service} {version} was not rolled back within {PATIENCE:.0f} s")
                    break
                time.sleep(0.5)
            time.sleep(2)
        results.add(load.report)

    def _number(self, service: str) -> int:
        return read_journal(self.bed.platform, ENVIRONMENT, service).last_number

    def _working(self, service: str) -> bool:
        return read_journal(self.bed.platform, ENVIRONMENT, service).work is not None


@contextmanager
def bed_with_daemon(registry: str, root: Path, live: bool) -> Iterator[ReleaseBed]:
    """A measured bed; with `live` a control plane works on it, whose sensors judge what is live."""
    services = {
        f"{case.name}-{number}": {"memory_mb": 64, **({} if case.live else CANARY)}
        for case in CHOSEN
        for number in range(AT_ONCE)
    }
    port = free_port()
    settings = {"front_door": {"url": f"http://127.0.0.1:{port}"}}
    with measured_bed(registry, root, services, environment={"cooldown_minutes": 0}, settings=settings) as measured:
        bed = measured.bed
        if not live:
            yield bed
            return
        labels = ",".join(f"{name}={value}" for name, value in bed.site.labels.items())
        plane = ControlPlaneBed(root, port, {"OPS_EXTRA_LABELS": labels})
        plane.catalogue.parent.mkdir()
        plane.catalogue.write_text(json.dumps(bed.file.catalogue))
        with serving(plane):
            try:
                yield bed
            finally:
                end_runs(plane)


def main() -> None:
    """Print a line for every case; fail when a limit is missed."""
    met = True
    print(f"   {'case':<52} {'runs':>4} {'median':>7} {'worst':>6} {'limits':>9} {'bad answers':>11} {'lost':>4}")
    with running_registry() as registry, tempfile.TemporaryDirectory(prefix="ops-test-") as folder:
        live = any(case.live for case in CHOSEN)
        with bed_with_daemon(registry.address, Path(folder), live) as bed:
            runs = Runs(bed)
            for case in CHOSEN:
                results = runs.case(case)
                seconds = results.seconds or [float("inf")]
                limits = f"{case.limit:g}" + (f"/{case.worst:g}" if case.worst else "")
                good = median(seconds) <= case.limit and (case.worst is None or max(seconds) <= case.worst)
                good = good and not results.wrong and not results.lost
                met = met and good
                print(
                    f"   {case.words:<52} {len(results.seconds):>4} {median(seconds):>7.1f} {max(seconds):>6.1f} "
                    f"{limits:>9} {median(results.bad or [0]):>11g} {results.lost:>4} {'' if good else 'MISSED'}",
                    flush=True,
                )
                print(f"      {' '.join(f'{each:.1f}' for each in sorted(seconds))}")
                for line in results.wrong[:6]:
                    print(f"      {line}")
    if not met:
        raise SystemExit("a limit was missed")


def _quiet(line: str) -> None: ...


if __name__ == "__main__":
    main()
