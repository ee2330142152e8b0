"""Changes by every strategy, one after the other and many services side by side, under a mixed load that counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum

from ops_pipeline.errors import RolledBack
from ops_pipeline.services.deploy import deploy
from ops_pipeline_tests.testbed.load import Load, LoadPlan, LoadReport, total
from ops_pipeline_tests.testbed.releases import ENVIRONMENT, ReleaseBed

UPLOAD_BYTES = 5_000_000


class Kind(StrEnum):
    """What is done again and again."""

    ROLLING = "rolling"
    BLUE_GREEN = "blue_green"
    PROMOTED = "canary promoted"
    TAKEN_BACK = "canary rolled back"


def settings(kind: Kind, replicas: int = 2) -> dict[str, object]:
    """A service of the catalogue for this kind. Slow requests (5 s) must fit into the drain time."""
    strategy = {Kind.ROLLING: "rolling", Kind.BLUE_GREEN: "blue_green"}.get(kind, "canary")
    return {
        "strategy": strategy,
        "replicas": replicas,
        "drain_seconds": 7,
        "stop_grace_seconds": 8,
        "memory_mb": 64,
        # PASS waits for this long: an answer that never came must have had the time to be missed.
        "request_timeout_seconds": 15,
    }


def mixed(bed: ReleaseBed, service: str, **changes: object) -> LoadPlan:
    """Clients that never retry, slow requests, uploads, WebSockets and event streams on all edges of a bed."""
    plan: dict[str, object] = {
        "port": 0,
        "targets": tuple(place.target for place in bed.site.places),
        "get_path": f"/{service}/load",
        "post_path": f"/{service}/load",
        "slow_path": f"/{service}/slow?seconds=5",
        "websocket_path": f"/{service}/ws",
        "events_path": f"/{service}/events",
        "upload_path": f"/{service}/upload",
        "upload_bytes": UPLOAD_BYTES,
        "upload_seconds": 2.0,
        "buckets": True,
    }
    return LoadPlan(**{**plan, **changes})  # type: ignore[arg-type]


@dataclass
class Course:
    """One service that is changed `runs` times in the same way. `seconds` are those of each change."""

    service: str
    kind: Kind
    runs: int
    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    report: LoadReport = field(default_factory=LoadReport)
    stopped: bool = False  # after the change under way nothing more is begun

    def prepare(self, bed: ReleaseBed, deploying: threading.Semaphore) -> None:
        """The first release, which no load sees."""
        bed.image(self.service, "v0")
        with deploying:
            deploy(bed.platform, ENVIRONMENT, self.service, progress=_quiet)

    def run(self, bed: ReleaseBed, plan: LoadPlan) -> None:
        """All changes, under load."""
        with Load(plan) as load:
            time.sleep(0.5)
            for number in range(1, self.runs + 1):
                if self.stopped:
                    break
                began = time.monotonic()
                self._change(bed, load, number)
                self.seconds.append(time.monotonic() - began)
                time.sleep(0.5)
        self.report = load.report

    def _change(self, bed: ReleaseBed, load: Load, number: int) -> None:
        bad = self.kind is Kind.TAKEN_BACK
        version = f"bad-{self.service}-{number}" if bad else f"v{number}"
        if bad:
            bed.image(self.service, version, ERROR_RATE="0.5")
            load.bad_from_now(version)
        else:
            bed.image(self.service, version)
        lines: list[str] = []
        try:
            release = deploy(bed.platform, ENVIRONMENT, self.service, progress=lines.append)
            if bad:
                self.wrong.append(f"{self.service} #{release.number} is bad and was not rolled back")
        except RolledBack as error:
            if not bad:
                self.wrong.append(f"{error}\n" + "\n".join(lines[-8:]))
        except Exception as error:
            self.wrong.append(f"{type(error).__name__}: {error}\n" + "\n".join(lines[-8:]))


def run_side_by_side(
    bed: ReleaseBed, courses: Sequence[Course], load: Mapping[Kind, Mapping[str, object]], at_once: int = 3
) -> None:
    """Prepare all services, a few at once, then run every course in a thread of its own."""
    deploying = threading.Semaphore(at_once)
    bed.image(courses[0].service, "v0")
    with ThreadPoolExecutor(len(courses)) as pool:
        list(pool.map(lambda course: course.prepare(bed, deploying), courses))
        list(pool.map(lambda course: course.run(bed, mixed(bed, course.service, **load.get(course.kind, {}))), courses))


def summed(courses: Sequence[Course], kind: Kind) -> LoadReport:
    """What the load met in all courses of a kind."""
    return total([course.report for course in courses if course.kind is kind])


def _quiet(line: str) -> None: ...
