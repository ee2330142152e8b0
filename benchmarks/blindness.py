"""A canary while Prometheus is stopped, slow, returns nothing or NaN, or is stale: frozen, rested, resumed, not blamed.

A real Prometheus stands behind a proxy that answers as a broken one would. After each fault the canary goes on, and is
taken away by a person, so that nothing of it is left for the next.
"""

from __future__ import annotations

import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from ops_pipeline.core.journal import weight
from ops_pipeline.core.judgement.verdict import Outcome
from ops_pipeline.errors import OpsError
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.quarantine import quarantined
from ops_pipeline.services.verdicts import Decision, decide
from ops_pipeline_tests.testbed.control_plane import until
from ops_pipeline_tests.testbed.load import Load
from ops_pipeline_tests.testbed.prometheus_faults import Fault, FaultyPrometheus, faulty_prometheus
from ops_pipeline_tests.testbed.registry import running_registry
from ops_pipeline_tests.testbed.releases import ENVIRONMENT, MeasuredBed, measured_bed
from ops_pipeline_tests.testbed.strategies import mixed

BLIND_SECONDS = 10.0
SERVICE = "web"
STEPS = [{"weight": 50}, {"weight": 100}]


@dataclass
class Course:
    """What a fault led to. Seconds are counted from the fault's beginning and from its end."""

    frozen: bool = False
    rested: float = 0.0
    alerted: bool = False
    resumed: float = 0.0
    blamed: bool = False
    lost: int = 0

    @property
    def right(self) -> bool:
        """Whether all was as it should be."""
        return self.frozen and self.alerted and not self.blamed and not self.lost and self.rested >= BLIND_SECONDS


def one(measured: MeasuredBed, proxy: FaultyPrometheus, fault: Fault) -> Course:
    """Run one canary through one fault."""
    bed, platform, course = measured.bed, measured.bed.platform, Course()
    image = bed.image(SERVICE, f"v-{fault.name.lower()}")

    def share() -> int:
        return weight(read_journal(platform, ENVIRONMENT, SERVICE))

    def alerted() -> bool:
        return any(alert["alertname"] == "JudgementBlind" for alert in measured.monitoring.alerts())

    def run() -> None:
        try:
            deploy(platform, ENVIRONMENT, SERVICE, progress=_quiet)
        except OpsError as error:
            course.blamed = course.blamed or "rolled back" in error.message

    thread = threading.Thread(target=run)
    plan = mixed(bed, SERVICE, clients=30, rate=40.0, slow_path="", upload_path="")
    with Load(plan) as load:
        thread.start()
        until(lambda: share() == 50, 60, "the canary's share")
        time.sleep(4)
        proxy.fault, began = fault, time.monotonic()
        time.sleep(BLIND_SECONDS / 2)
        course.frozen = share() == 50
        until(lambda: share() == 0, 90, f"{fault}: everybody's return to stable")
        course.rested = time.monotonic() - began
        until(alerted, 20, f"{fault}: the alert")
        course.alerted = True
        time.sleep(2)
        proxy.fault, ended = Fault.NONE, time.monotonic()
        until(lambda: share() == 50, 60, f"{fault}: the canary's going on")
        course.resumed = time.monotonic() - ended
        until(lambda: not alerted(), 20, f"{fault}: the end of the alert")
        work = read_journal(platform, ENVIRONMENT, SERVICE).work
        assert work is not None and work.outcome != Outcome.FAIL
        decision = Decision(work.release.number, work.step, False, "bench", "seen enough", platform.clock.now())
        decide(platform, ENVIRONMENT, SERVICE, decision)
        thread.join(60)
    course.lost = load.report.total_lost
    course.blamed = course.blamed or image.ref.digest in {each.digest for each in quarantined(platform)}
    return course


def main() -> None:
    """Print a line for every fault; fail when one led to something else."""
    right = True
    print(
        f"   {'Prometheus':<18} {'frozen':>6} {'rested after s':>14} {'alert':>5} {'resumed after s':>15} blamed lost"
    )
    with (
        faulty_prometheus() as proxy,
        running_registry() as registry,
        tempfile.TemporaryDirectory(prefix="ops-test-") as folder,
        measured_bed(
            registry.address,
            Path(folder),
            {SERVICE: {"strategy": "canary", "canary": STEPS, "drain_seconds": 3, "memory_mb": 64}},
            environment={"blind_seconds": BLIND_SECONDS, "hold_minutes": 5},
            settings={"prometheus": {"url": proxy.url, "timeout_seconds": 2}},
        ) as measured,
    ):
        proxy.upstream = measured.monitoring.prometheus_url
        measured.bed.image(SERVICE, "v0")
        deploy(measured.bed.platform, ENVIRONMENT, SERVICE, progress=_quiet)
        for fault in (Fault.DOWN, Fault.SLOW, Fault.EMPTY, Fault.NAN, Fault.STALE):
            course = one(measured, proxy, fault)
            right = right and course.right
            print(
                f"   {fault:<18} {course.frozen!s:>6} {course.rested:>14.1f} {course.alerted!s:>5} "
                f"{course.resumed:>15.1f} {course.blamed!s:>6} {course.lost:>4}",
                flush=True,
            )
    if not right:
        raise SystemExit("a fault led to something else")


def _quiet(line: str) -> None: ...


if __name__ == "__main__":
    main()
