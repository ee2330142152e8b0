"""People using an environment while the demonstration goes on, and the count of requests that got no answer."""

from __future__ import annotations

import threading
from types import TracebackType

from examples.demo.commands import PORTS, DemoFailed, console
from ops_pipeline_tests.testbed.load import Load, LoadPlan, LoadReport


class Counter:
    """Requests of all acts together."""

    def __init__(self) -> None:
        self._adding = threading.Lock()
        self.answered = self.lost = 0

    def add(self, report: LoadReport) -> None:
        """Add the final count of one act."""
        with self._adding:
            self.answered += report.total_ok + report.total_bad
            self.lost += report.total_lost


all_acts = Counter()


class Traffic:
    """Steady load on one environment: keep-alive clients that never retry, slow requests, WebSockets.

    A context manager. It raises DemoFailed at its end when a request was lost.
    """

    def __init__(self, environment: str, rate: float, when: str, bad_release: int = 0) -> None:
        """`rate` is requests a second in all; what release `bad_release` answers wrongly is counted apart."""
        self._when = when
        self._load = Load(
            LoadPlan(
                port=int(PORTS[environment]),
                get_path="/api/listings",
                post_path="/api/listings",
                post_body='{"title": "A vase", "description": "made for the demonstration", "price_cents": 1200}',
                # Written once, then found: data that grow a hundredfold would make a backup that looks suspicious.
                headers={"Idempotency-Key": "traffic of the demonstration"},
                clients=20,
                rate=rate,
                buckets=True,
                slow_path="/api/slow?seconds=5",
                # A small share: a release of which one request in twenty takes longer than two seconds is a bad one.
                slow_rate=rate / 200,
                websocket_path="/api/live",
                bad_releases=(f"#{bad_release}",) if bad_release else (),
            )
        )

    def __enter__(self) -> Traffic:
        self._load.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        report = self._load.stop()
        all_acts.add(report)
        lost, bad = report.total_lost, report.total_bad
        console.print(
            f"[bold {'red' if lost else 'green'}]{lost} lost[/] of {report.total_ok + lost + bad:,} requests "
            f"{self._when}, in {report.seconds:.0f} s (longest gap between two answers "
            f"{report.longest_gap * 1000:.0f} ms)"
            + (f"; {bad} answered wrongly by the bad release before it was gone" if bad else ""),
            soft_wrap=True,
        )
        for words in report.errors[:5]:
            console.print(f"  {words}", markup=False)
        if lost and error is None:
            raise DemoFailed(f"{lost} requests were lost {self._when}; there must be none")
