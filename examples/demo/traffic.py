"""People using an environment while the demonstration goes on, and the count of requests that got no answer."""

from __future__ import annotations

from types import TracebackType

from examples.demo.commands import console
from ops_pipeline_tests.testbed.load import Load, LoadPlan, LoadReport


class Traffic:
    """Steady load on one edge: keep-alive clients that never retry, slow requests, WebSockets. A context manager."""

    def __init__(self, port: int, rate: float, bad_releases: tuple[int, ...]) -> None:
        """`rate` is requests a second in all; what `bad_releases` (numbers) answer wrongly is counted apart."""
        self._load = Load(
            LoadPlan(
                port=port,
                get_path="/api/listings",
                post_path="/api/listings",
                post_body='{"title": "A vase", "description": "made for the demonstration", "price_cents": 1200}',
                clients=20,
                rate=rate,
                buckets=True,
                slow_path="/api/slow?seconds=5",
                websocket_path="/api/live",
                bad_releases=tuple(f"#{number}" for number in bad_releases),
            )
        )
        self._before = LoadReport()
        self.lost_total = 0

    def lap(self) -> None:
        """Begin a new count."""
        self._before = self._load.snapshot()

    def show(self, when: str) -> None:
        """Print what happened since `lap`."""
        now = self._load.snapshot()
        lost = now.total_lost - self._before.total_lost
        answered = now.total_ok - self._before.total_ok
        bad = now.total_bad - self._before.total_bad
        console.print(
            f"[bold {'red' if lost else 'green'}]{lost} lost[/] of {answered + lost + bad:,} requests {when}"
            + (f"; {bad} answered wrongly by the bad release before it was gone" if bad else "")
        )

    def show_total(self) -> None:
        """Print the final count; after the load has stopped."""
        report = self._load.report
        self.lost_total = report.total_lost
        console.print(
            f"[bold {'red' if self.lost_total else 'green'}]{self.lost_total} lost[/] of "
            f"{report.total_ok + report.total_lost:,} requests in {report.seconds:.0f} s of traffic "
            f"(longest gap between two answers {report.longest_gap * 1000:.0f} ms)"
        )
        for error in report.errors[:5]:
            console.print(f"  {error}", markup=False)

    def __enter__(self) -> Traffic:
        self._load.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._load.stop()
