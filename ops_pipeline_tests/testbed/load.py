"""Steady mixed load that counts every lost request. Runs as its own process and never retries anything.

    with Load(LoadPlan(port=8080)) as load:
        ...
    report = load.report
    assert report.total_lost == 0, report

A request counts as lost when it could not be connected, was written and not answered, or was answered with anything
but 2xx. A connection closed while it was idle, noticed before the next request is written, is no loss. A WebSocket
closed by a close frame is fine, and so is a stream of events whose body ends as it should; one that just ends is lost.
Releases named in `bad_releases` are known to be bad: what they answer 5xx is counted apart. Raw sockets on purpose:
HTTP libraries retry silently.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class LoadPlan:
    """What to send. Rates are totals per second; an empty path or a zero switches a kind off.

    `targets` are more addresses ("host:port") than the one of `host` and `port`: connections go to them in turn. With
    `buckets` clients say which class they are in, spread evenly over all 100, so that a canary gets its exact share.
    `bad_releases` names releases by their `release_header`, or by number ("#7") where the edge answered for them. With
    `unanswered_by`, requests nobody answered count as bad too, under that name: a container that dies says nothing.
    """

    port: int
    host: str = "127.0.0.1"
    targets: tuple[str, ...] = ()
    host_header: str = "localhost"
    get_path: str = "/load"
    post_path: str = "/load"
    post_body: str = '{"text":"a request that must not be sent twice"}'
    clients: int = 60
    rate: float = 200.0
    buckets: bool = False
    slow_path: str = "/slow?seconds=5"
    slow_rate: float = 1.0
    slow_timeout: float = 20.0
    websocket_path: str = "/ws"
    websockets: int = 5
    events_path: str = ""
    event_streams: int = 2
    upload_path: str = ""
    upload_rate: float = 0.5
    upload_bytes: int = 1_000_000
    upload_seconds: float = 0.0  # sent in pieces over so long
    timeout: float = 10.0
    release_header: str = "x-release"
    headers: dict[str, str] = field(default_factory=dict)
    bad_releases: tuple[str, ...] = ()
    unanswered_by: str = ""

    def __post_init__(self) -> None:
        # A plan travels as JSON, which knows lists only.
        object.__setattr__(self, "targets", tuple(self.targets) or (f"{self.host}:{self.port}",))
        object.__setattr__(self, "bad_releases", tuple(self.bad_releases))


@dataclass
class LoadReport:
    """What happened. `ok` and `lost` count by kind: get, post, slow, websocket, events, upload.

    `bad` counts failures answered by a release known to be bad, by release; `first_bad` and `last_bad` say when (in
    seconds since 1970). The gap and the durations are about ordinary requests.
    """

    seconds: float = 0.0
    ok: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    bad: dict[str, int] = field(default_factory=dict)
    first_bad: float | None = None
    last_bad: float | None = None
    errors: list[str] = field(default_factory=list)
    releases: dict[str, int] = field(default_factory=dict)
    websocket_closes: dict[str, int] = field(default_factory=dict)
    events: int = 0
    longest_gap: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    max_ms: float = 0.0

    @property
    def total_ok(self) -> int:
        return sum(self.ok.values())

    @property
    def total_lost(self) -> int:
        return sum(self.lost.values())

    @property
    def total_bad(self) -> int:
        return sum(self.bad.values())

    @property
    def time_to_safety(self) -> float:
        """Seconds from the first bad answer to the last one; 0 when there was none."""
        return 0.0 if self.first_bad is None or self.last_bad is None else self.last_bad - self.first_bad

    def __str__(self) -> str:
        first = "".join(f"\n  {error}" for error in self.errors[:5])
        bad = f"; bad answers {self.bad} within {self.time_to_safety:.1f} s" if self.bad else ""
        return (
            f"{self.total_lost} lost of {self.total_ok + self.total_lost} in {self.seconds:.1f} s "
            f"(ok {self.ok}, lost {self.lost}; by release {self.releases}; WebSocket closes {self.websocket_closes}; "
            f"longest gap {self.longest_gap * 1000:.0f} ms, p50 {self.p50_ms:.1f} ms, p95 {self.p95_ms:.1f} ms, "
            f"max {self.max_ms:.0f} ms{bad}){first}"
        )


def total(reports: list[LoadReport]) -> LoadReport:
    """Several reports as one; gaps and durations are the worst ones."""
    summed = LoadReport()
    for report in reports:
        for name in ("ok", "lost", "bad", "releases", "websocket_closes"):
            into = getattr(summed, name)
            for key, count in getattr(report, name).items():
                into[key] = into.get(key, 0) + count
        for name in ("seconds", "longest_gap", "p50_ms", "p95_ms", "max_ms"):
            setattr(summed, name, max(getattr(summed, name), getattr(report, name)))
        summed.errors += report.errors
        summed.events += report.events
    return summed


class Load:
    """The load process, seen from the test: start, look, stop. A context manager."""

    def __init__(self, plan: LoadPlan) -> None:
        self.plan = plan
        self.report = LoadReport()
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Load:
        """Start and return once the first requests are under way."""
        path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ops_pipeline_tests.testbed.load_process", json.dumps(asdict(self.plan))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._read()
        return self

    def snapshot(self) -> LoadReport:
        """Counts up to now; the load goes on."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write("report\n")
        self._process.stdin.flush()
        return self._read()

    def bad_from_now(self, *releases: str) -> None:
        """These releases are known to be bad from now on."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(" ".join(["bad", *releases]) + "\n")
        self._process.stdin.flush()
        self._read()

    def stop(self) -> LoadReport:
        """Send nothing new, wait for what is under way, return the final counts. May be called twice."""
        if self._process is not None:
            process, self._process = self._process, None
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.close()
                self.report = LoadReport(**json.loads(process.stdout.readline()))
                process.wait(timeout=10)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
                process.stdout.close()
        return self.report

    def _read(self) -> LoadReport:
        assert self._process is not None and self._process.stdout is not None
        return LoadReport(**json.loads(self._process.stdout.readline()))

    def __enter__(self) -> Load:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
