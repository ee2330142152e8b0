"""What the load process counts."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import asdict

from ops_pipeline_tests.testbed.load import LoadPlan, LoadReport


class Lost(Exception):
    """A request that did not get its answer. `release` is whoever answered it all the same, as far as that is known."""

    def __init__(self, reason: str, releases: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.releases = releases


class Counts:
    """Counts of one load process."""

    def __init__(self, plan: LoadPlan) -> None:
        self.begin = time.monotonic()
        self.last_ok = self.begin
        self.report = LoadReport()
        self.ok: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.bad: Counter[str] = Counter()
        self.releases: Counter[str] = Counter()
        self.closes: Counter[str] = Counter()
        self.bad_releases = set(plan.bad_releases)
        self.unanswered_by = plan.unanswered_by
        self.durations: list[float] = []

    def good(self, kind: str, release: str = "", seconds: float | None = None) -> None:
        """A request that was answered as it should be."""
        self.ok[kind] += 1
        if release:
            self.releases[release] += 1
        if seconds is not None:
            now = time.monotonic()
            self.report.longest_gap = max(self.report.longest_gap, now - self.last_ok)
            self.last_ok = now
            self.durations.append(seconds)

    def failed(self, kind: str, error: BaseException) -> None:
        """A request that was not: bad when a release known to be bad answered it, else lost."""
        releases = error.releases if isinstance(error, Lost) else ()
        guilty = next((release for release in releases if release in self.bad_releases), None)
        if self.unanswered_by and not releases:
            guilty = self.unanswered_by
        if guilty is not None:
            self.bad[guilty] += 1
            self.report.last_bad = time.time()
            if self.report.first_bad is None:
                self.report.first_bad = self.report.last_bad
            return
        self.lost[kind] += 1
        if len(self.report.errors) < 20:
            words = str(error) if isinstance(error, Lost) else f"{type(error).__name__}: {error}"
            at = time.monotonic() - self.begin
            self.report.errors.append(f"{at:.2f} s: {kind}: {words}" + (f" by {releases}" if releases else ""))

    def show(self) -> str:
        """The report as one line of JSON."""
        report = self.report
        report.seconds = time.monotonic() - self.begin
        report.ok, report.lost, report.bad = dict(self.ok), dict(self.lost), dict(self.bad)
        report.releases, report.websocket_closes = dict(self.releases), dict(self.closes)
        ordered = sorted(self.durations)
        if ordered:
            report.p50_ms = ordered[len(ordered) // 2] * 1000
            report.p95_ms = ordered[int(len(ordered) * 0.95)] * 1000
            report.max_ms = ordered[-1] * 1000
        return json.dumps(asdict(report))
