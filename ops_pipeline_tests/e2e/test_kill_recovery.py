"""Controllers killed by SIGKILL after every line of the journal, on a real engine and a real edge, under load.

Every kill point has a service of its own in one environment, so that all of them share one edge and one wait for the
dead holders' leases. Clients that never retry ask every service all the time: none may lose a request, neither when
the controller dies nor while `reconcile` finishes or undoes what it left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from ops_pipeline.core.lease import Lease
from ops_pipeline.core.release import Phase
from ops_pipeline.errors import LeaseHeld, StaleGeneration
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.lease import acquire, lease_key
from ops_pipeline.services.ledger import find_quarantine, read_current, releases
from ops_pipeline.services.reconcile import reconcile
from ops_pipeline.services.records import decode
from ops_pipeline.services.rollback import roll_back
from ops_pipeline.services.status import status
from ops_pipeline_tests.testbed.load import Load, LoadPlan
from ops_pipeline_tests.testbed.registry import RunningRegistry
from ops_pipeline_tests.testbed.releases import ENVIRONMENT, ReleaseBed, release_bed

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

DEPLOY_LINES = 9  # taken over, planned, starting, healthy, shifting, live, stop the old standby, its pool, retired
ROLLBACK_LINES = 4  # taken over, planned, shifting, live
# of a canary: …, healthy, 10 % of the users, the first verdict (nothing measures here: BLIND)
CANARY_LINES = (6,)
# of a canary whose container exits: …, undo, quarantine, gone
DEAD_CANARY_LINES = (7, 8)
# of two replicas one after the other: …, half of the users, the second one starts, is healthy, the switch
ROLLING_LINES = (5, 8)
TERM = timedelta(seconds=30)


@dataclass(frozen=True)
class Doom:
    """One service whose controller dies after the `die_at`-th line."""

    verb: str
    die_at: int
    kind: str = ""  # "", canary, dead (a canary whose container exits), rolling

    @property
    def service(self) -> str:
        return f"{self.kind or self.verb}-{self.die_at}"

    @property
    def setup(self) -> tuple[str, ...]:
        """Versions deployed before; the last lines of a deploy are about the standby before the last one."""
        return ("1", "2") if self.verb == "back" or (self.die_at > 5 and not self.kind) else ("1",)

    @property
    def settings(self) -> dict[str, object]:
        """The service in the catalogue."""
        if self.kind == "rolling":
            return {"strategy": "rolling", "replicas": 2}
        return {"strategy": "canary"} if self.kind else {}

    @property
    def moved(self) -> bool:
        """Whether everybody had been sent to the new release."""
        if self.kind:
            return self.kind == "rolling" and self.die_at >= 8
        return self.die_at >= (5 if self.verb == "deploy" else 3)


DOOMS = [
    *(Doom("deploy", n + 1) for n in range(DEPLOY_LINES)),
    *(Doom("back", n + 1) for n in range(ROLLBACK_LINES)),
    *(Doom("deploy", line, "canary") for line in CANARY_LINES),
    *(Doom("deploy", line, "dead") for line in DEAD_CANARY_LINES),
    *(Doom("deploy", line, "rolling") for line in ROLLING_LINES),
]


def quiet(line: str) -> None: ...


@pytest.fixture(scope="module")
def bed(registry: RunningRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReleaseBed]:
    services: dict[str, dict[str, object]] = {doom.service: doom.settings for doom in DOOMS}
    services |= {"twice": {}, "paused": {}, "fails": {}}
    with release_bed(registry.address, tmp_path_factory.mktemp("kill"), services) as made:
        yield made


def prepared(bed: ReleaseBed, service: str, versions: tuple[str, ...]) -> None:
    for version in versions:
        bed.image(service, version)
        deploy(bed.platform, ENVIRONMENT, service, progress=quiet)


def steady(bed: ReleaseBed, service: str) -> Load:
    path = f"/{service}/load"
    return Load(
        LoadPlan(port=bed.edge.port, get_path=path, post_path=path, clients=2, rate=6, slow_path="", websocket_path="")
    )


def test_killed_after_every_line_of_a_deploy_and_of_a_roll_back(bed: ReleaseBed) -> None:
    for version in ("1", "2", "3"):
        bed.image("twice", version)  # builds and pushes; the services below only record it
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda doom: prepared(bed, doom.service, doom.setup), DOOMS))
    for doom in DOOMS:
        bed.image(doom.service, "3" if doom.kind != "dead" else doom.service)  # one that is bad must be nobody else's
    with ExitStack() as stack:
        loads = {doom: stack.enter_context(steady(bed, doom.service)) for doom in DOOMS}
        doomed: list[tuple[Doom, subprocess.Popen[str]]] = []
        for first in range(0, len(DOOMS), 3):
            batch = [(doom, bed.controller(doom.verb, doom.service, doom.die_at)) for doom in DOOMS[first : first + 3]]
            for doom, process in batch:
                if doom.kind == "dead":
                    end_the_canary(bed, doom, process)
                output, _ = process.communicate(timeout=60)
                assert process.returncode == -signal.SIGKILL, f"{doom}: {output}"
            doomed += batch
        died = time.monotonic()
        held = bed.platform.store.read(lease_key(ENVIRONMENT, DOOMS[-1].service))
        assert held is not None
        lease = decode(Lease, held.data, "lease")
        now = bed.platform.clock.now()
        assert lease.held(now) and lease.expires_at - now <= TERM
        with pytest.raises(LeaseHeld, match=f"{doomed[-1][1].pid}.*since"):
            deploy(bed.platform, ENVIRONMENT, DOOMS[-1].service, progress=quiet)
        time.sleep(max(0.0, died + TERM.total_seconds() + 0.1 - time.monotonic()))
        with ThreadPoolExecutor(3) as pool:
            reports = list(
                pool.map(lambda doom: reconcile(bed.platform, ENVIRONMENT, doom.service, progress=quiet), DOOMS)
            )
        time.sleep(0.5)
    for doom, report in zip(DOOMS, reports, strict=True):
        assert report.settled, (doom, report)
        load = loads[doom].report
        # What a crashing canary's own users lost until it was taken back is the crash's, and counted apart.
        assert (load.total_lost == 0 or doom.kind == "dead") and load.total_ok > 50, f"{doom}: {load}"
        assert_consistent(bed, doom)
    crashed = sum(load.report.total_lost for doom, load in loads.items() if doom.kind == "dead")
    lost = sum(load.report.total_lost for load in loads.values()) - crashed
    asked = sum(load.report.total_ok for load in loads.values())
    print(f"{len(DOOMS)} controllers killed, {lost} lost of {asked}, {crashed} in crashes")


def suspend(process: subprocess.Popen[str]) -> None:
    """Stop a process while it holds no file lock of the store: those last milliseconds, and nobody could take over."""
    while True:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        if f" {process.pid} " not in Path("/proc/locks").read_text():
            return
        process.send_signal(signal.SIGCONT)
        time.sleep(0.01)


def end_the_canary(bed: ReleaseBed, doom: Doom, process: subprocess.Popen[str]) -> None:
    """Let its container exit as soon as it has its first users."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("10 % of the users get"):
            break
    time.sleep(0.5)
    bed.misbehave(doom.service, len(doom.setup) + 1, exit=7)


def assert_consistent(bed: ReleaseBed, doom: Doom) -> None:
    platform, service = bed.platform, doom.service
    journal = read_journal(platform, ENVIRONMENT, service)
    assert journal.work is None and journal.leaving == () and journal.live is not None, doom
    known = {release.number: release for release in releases(platform.store, ENVIRONMENT, service)}
    live = known[journal.live.release]
    assert live.number == (len(doom.setup) + 1 if doom.moved else len(doom.setup)), doom
    newest = known[max(known)]
    kept = find_quarantine(platform.store, newest.digest)
    assert (kept is not None) is (newest.phase is Phase.ROLLED_BACK) is (doom.kind == "dead"), doom
    assert [number for number, release in known.items() if release.phase is Phase.LIVE] == [live.number]
    current = read_current(platform.store, ENVIRONMENT, service)
    assert current is not None and current.number == live.number
    owned = {
        f"ops-{ENVIRONMENT}-{service}-{place.containers}-{index}"
        for place in journal.placements
        for index in range(place.configuration.replicas)
    }
    assert set(bed.containers(service)) == owned, f"{doom}: an orphan or a missing container"
    (seen,) = status(platform, ENVIRONMENT, service)
    assert seen.healthy and not seen.working and not seen.unfinished, (doom, seen)


def test_of_two_deploys_at_once_one_is_refused_with_holder_run_and_since_when(bed: ReleaseBed) -> None:
    bed.image("twice", "1")
    both = [bed.controller("deploy", "twice") for _ in range(2)]
    outputs = {process.pid: process.communicate(timeout=90)[0] for process in both}
    codes = sorted(process.returncode for process in both)
    assert codes == [0, 1], outputs
    (refused,) = [process for process in both if process.returncode == 1]
    (winner,) = [process for process in both if process.returncode == 0]
    words = outputs[refused.pid]
    assert "LeaseHeld" in words and f":{winner.pid} (run run-" in words and "since 20" in words, words
    bed.image("twice", "2")
    waiting = [bed.controller("deploy", "twice", lease_wait_seconds=60, force=True) for _ in range(2)]
    outputs = {process.pid: process.communicate(timeout=120)[0] for process in waiting}
    assert [process.returncode for process in waiting] == [0, 0], outputs
    assert sum("waiting: test/twice is being worked on" in text for text in outputs.values()) == 1
    numbers = [release.number for release in releases(bed.platform.store, ENVIRONMENT, "twice")]
    assert numbers == [3, 2, 1]


def test_a_paused_controller_that_resumes_after_a_takeover_changes_nothing(bed: ReleaseBed) -> None:
    """SIGSTOP in the middle of a deploy, a takeover, SIGCONT: journal and edge refuse the older generation."""
    prepared(bed, "paused", ("1",))
    bed.image("paused", "2")
    platform = bed.platform
    sleeper = bed.controller("deploy", "paused")
    assert sleeper.stdout is not None
    for line in sleeper.stdout:
        if line.startswith("start "):
            break
    suspend(sleeper)
    # Instead of waiting for the term to pass, let it have passed.
    blob = platform.store.read(lease_key(ENVIRONMENT, "paused"))
    assert blob is not None
    lease = decode(Lease, blob.data, "lease")
    from ops_pipeline.services.records import encode

    late = replace(lease, expires_at=platform.clock.now())
    platform.store.write(lease_key(ENVIRONMENT, "paused"), encode(late), if_match=blob.etag)
    report = reconcile(platform, ENVIRONMENT, "paused", progress=quiet)
    assert report.settled, report
    journal = read_journal(platform, ENVIRONMENT, "paused")
    with pytest.raises(StaleGeneration):
        bed.edge.edge.apply("paused", journal.routing["local"], lease.generation)
    sleeper.send_signal(signal.SIGCONT)
    words = sleeper.communicate(timeout=60)[0]
    assert sleeper.returncode == 1 and "StaleGeneration" in words, words
    after = read_journal(platform, ENVIRONMENT, "paused")
    assert after == journal
    # A container the sleeper had just asked the engine for is at most an orphan, and goes with the next reconcile.
    assert reconcile(platform, ENVIRONMENT, "paused", progress=quiet).settled
    assert bed.containers("paused") == ["ops-test-paused-1-0"]


def test_a_release_that_never_gets_healthy_leaves_nothing_and_loses_nothing(bed: ReleaseBed) -> None:
    from ops_pipeline.errors import DeployFailed

    prepared(bed, "fails", ("1", "2"))
    secret = (bed.platform.root / "token").read_text().strip()
    with steady(bed, "fails") as load:
        bed.image("fails", "exits", EXIT_AFTER="0.3")
        with pytest.raises(DeployFailed, match="exit") as caught:
            deploy(bed.platform, ENVIRONMENT, "fails", progress=quiet)
        assert "release exits listens" in caught.value.message and secret not in caught.value.message
        before = bed.containers("fails")
        made = roll_back(bed.platform, ENVIRONMENT, "fails", progress=quiet)
        assert made.restores == 1 and bed.containers("fails") == before
    assert load.report.total_lost == 0, str(load.report)
    assert before == ["ops-test-fails-1-0", "ops-test-fails-2-0"]


def test_acquiring_is_refused_while_held_and_free_after_release(bed: ReleaseBed) -> None:
    with acquire(bed.platform, ENVIRONMENT, "fails", run_id="r", reason="test") as lease:
        lease.check()
        with pytest.raises(LeaseHeld, match="run r: test"):
            acquire(bed.platform, ENVIRONMENT, "fails", run_id="s", reason="other")
    with acquire(bed.platform, ENVIRONMENT, "fails", run_id="s", reason="other") as again:
        assert again.generation == lease.generation + 1
