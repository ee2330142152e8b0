"""Judging releases on live measurements: one look covers any number of them."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ops_pipeline.core.judgement.judge import Judge
from ops_pipeline.core.judgement.verdict import Outcome, Verdict
from ops_pipeline.core.measurement import Counted, Metric
from ops_pipeline.core.rollout import Rollout
from ops_pipeline.errors import OpsError, Permanent
from ops_pipeline.services.crash_reports import CrashReports, Reports
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.readings import Batch, read_batch, requests_per_second

__all__ = ["Case", "Judging", "requests_per_second"]

LEAD_SECONDS = 6.0
"""Read so much before a release's start, to know where its counters stood."""
TOGETHER_SECONDS = 15.0
"""Cases that are further behind are caught up on their own, so that they do not make everybody's window long."""
SLACK_SECONDS = 0.5
CHUNK_SAMPLES = 200_000
"""At most so many samples of a counter are asked for at once."""
SERIES_OF_A_CASE = 4
SHORTEST_CHUNK_SECONDS = 10.0
CATCH_UP_SECONDS = 3.0
"""Time a look may spend on the past; the next one goes on."""
WORKERS = 8
LINK_SECONDS = 600.0


@dataclass(frozen=True)
class Case:
    """One release to judge. `release` and `stable` are the numbers their containers carry."""

    environment: str
    service: str
    release: int
    stable: int | None
    rollout: Rollout
    replicas: int  # per host
    since: datetime  # when it began to get requests


_COLLECTION = threading.Lock()
_paused = 0


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without Python's search for cycles, which takes longer than all the rest of a large look and finds none.

    A look makes and drops hundreds of thousands of small values; each of those searches goes through all judges.
    """
    global _paused
    with _COLLECTION:
        mine = gc.isenabled() or _paused > 0
        if mine:
            _paused += 1
            gc.disable()
    try:
        yield
    finally:
        if mine:
            with _COLLECTION:
                _paused -= 1
                if not _paused:
                    gc.enable()


class _Followed:
    """A case with its judge. `reached`: everything measured until then has been fed, seconds since 1970."""

    __slots__ = ("bound", "judge", "link", "linked", "reached", "target")

    def __init__(self, case: Case, judge: Judge) -> None:
        self.judge = judge
        self.target = (case.environment, case.service)
        self.bound = case.rollout.thresholds.p95_seconds
        self.reached = case.since.timestamp() - LEAD_SECONDS
        self.link = ""
        self.linked = 0.0


class Judging:
    """Keeps what was counted so far, so that a look costs only what is new. Made anew, it replays to the same end."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._followed: dict[Case, _Followed] = {}
        self._crashes = CrashReports(platform)
        self._newest: tuple[float, float] | None = None  # newest scrape, and our monotonic time when it was read
        self._wrong_bounds: dict[float, str] = {}

    def look(self, cases: Sequence[Case]) -> Mapping[Case, Verdict]:
        """Return a verdict for every case, from all scrapes since the last look: at most three queries in all.

        A case that began more than 15 s ago and was not looked at since costs three more for each 200,000 samples it
        is behind, for at most 3 s; the next look goes on. Besides, one call to every engine of the cases' hosts.
        Never raises for lack of data: a source that does not answer makes BLIND, with the reason, and an engine that
        does not answer is named in the reason. A FAIL that was reached stays one.
        Cases that are not asked about any more are forgotten.
        """
        self._followed = {case: self._followed.get(case) or self._follow(case) for case in cases}
        if not cases:
            return {}
        with _no_collection(), ThreadPoolExecutor(WORKERS) as executor:
            now = self._platform.clock.now()
            begins: dict[str, datetime] = {}
            for case in cases:
                begins[case.environment] = min(case.since, begins.get(case.environment, case.since))
            reports = self._crashes.ask(executor, begins, now)
            blind = self._measure(executor, now)
            found = reports()
            now = self._platform.clock.now()
            return {case: self._judged(case, followed, found, blind, now) for case, followed in self._followed.items()}

    def _follow(self, case: Case) -> _Followed:
        bound = case.rollout.thresholds.p95_seconds
        metrics = {"errors": Metric(Counted.ERRORS), "slow": Metric(Counted.WITHIN, bound)}
        queries = {
            name: self._platform.metrics.expression(metric, case.environment, case.service, case.release)
            for name, metric in metrics.items()
        }
        judge = Judge(
            case.rollout,
            release=case.release,
            stable=case.stable,
            since=case.since,
            replicas=case.replicas,
            hosts=len(self._platform.runtimes(case.environment)),
            queries=queries,
        )
        return _Followed(case, judge)

    # ------------------------------------------------------------------------------------------- measurements

    def _measure(self, executor: ThreadPoolExecutor, now: datetime) -> str:
        """Feed all judges; return why they could not be, "" = they were."""
        try:
            self._catch_up(executor, now.timestamp())
            together = [each for each in self._followed.values() if now.timestamp() - each.reached <= TOGETHER_SECONDS]
            if together:
                begin = min(each.reached for each in together)
                batch = self._read(executor, together, self._source_time(now) - begin + SLACK_SECONDS, None)
                complete = begin if batch.complete is None else batch.complete
                for each in together:
                    each.judge.feed(batch.of(each.target, each.bound), now)
                    each.reached = max(each.reached, complete)
        except OpsError as error:
            return error.message
        return ""

    def _catch_up(self, executor: ThreadPoolExecutor, now: float) -> None:
        """Replay what those far behind have missed, oldest first, in chunks."""
        deadline = self._platform.clock.monotonic() + CATCH_UP_SECONDS
        while self._platform.clock.monotonic() <= deadline:
            behind = [each for each in self._followed.values() if now - each.reached > TOGETHER_SECONDS]
            if not behind:
                return
            begin = min(each.reached for each in behind)
            span = max(CHUNK_SAMPLES / (SERIES_OF_A_CASE * len(behind)), SHORTEST_CHUNK_SECONDS)
            end = min(begin + span, now)
            members = [each for each in behind if each.reached < end]
            until = datetime.fromtimestamp(end, UTC)
            batch = self._read(executor, members, end - begin + SLACK_SECONDS, until)
            for each in members:
                each.judge.feed(batch.of(each.target, each.bound), until)
                each.reached = end

    def _read(
        self, executor: ThreadPoolExecutor, cases: Sequence[_Followed], seconds: float, until: datetime | None
    ) -> Batch:
        targets = list(dict.fromkeys(each.target for each in cases))
        bounds = {each.bound for each in cases}
        batch = read_batch(executor, self._platform.metrics, bounds, seconds, targets, until)()
        if until is None and batch.newest is not None:
            self._newest = (batch.newest, self._platform.clock.monotonic())
        if batch.requests and bounds - batch.bounds:
            self._see_bounds(bounds - batch.bounds)
        return batch

    def _source_time(self, now: datetime) -> float:
        """What the source's clock must show at least: its own newest scrape and the time since, if ours is behind."""
        if self._newest is None:
            return now.timestamp()
        at, read = self._newest
        return max(now.timestamp(), at + self._platform.clock.monotonic() - read)

    def _see_bounds(self, bounds: Iterable[float]) -> None:
        """Learn once why there is no data for a limit of latency."""
        for bound in bounds:
            if bound not in self._wrong_bounds:
                try:
                    self._platform.metrics.samples(Metric(Counted.WITHIN, bound), SHORTEST_CHUNK_SECONDS)
                except Permanent as error:
                    self._wrong_bounds[bound] = error.message

    # ------------------------------------------------------------------------------------------- verdicts

    def _judged(self, case: Case, followed: _Followed, reports: Reports, blind: str, now: datetime) -> Verdict:
        judge, missing = followed.judge, reports.missing.get(case.environment, "")
        judge.crashed(reports.exits.get(followed.target, ()), now)
        if missing:
            judge.crashed(None, now)
        behind = now.timestamp() - followed.reached
        replaying = not blind and behind > TOGETHER_SECONDS
        at = datetime.fromtimestamp(followed.reached, UTC) if replaying else now
        verdict = judge.verdict(max(at, case.since))
        outcome, reason = verdict.outcome, verdict.reason
        if outcome is not Outcome.FAIL:
            if blind:
                outcome, reason = Outcome.BLIND, f"cannot be judged: {blind}"
            elif followed.bound in self._wrong_bounds:
                outcome, reason = Outcome.BLIND, f"cannot be judged: {self._wrong_bounds[followed.bound]}"
            elif replaying:
                outcome = Outcome.INCONCLUSIVE
                reason = f"what was measured is still being replayed, {behind:.0f} s are left"
            if missing:
                reason = f"{reason} (no crash data from {missing})"
        return replace(
            verdict,
            outcome=outcome,
            reason=reason,
            incident=verdict.incident and outcome is verdict.outcome,
            link=self._link(case, followed, now),
        )

    def _link(self, case: Case, followed: _Followed, now: datetime) -> str:
        """A graph that shows the whole judged time; made anew only when it has doubled."""
        seconds = (now - case.since).total_seconds()
        if seconds > followed.linked or not followed.link:
            followed.linked = max(2 * seconds, LINK_SECONDS)
            followed.link = self._platform.metrics.link(case.environment, case.service, case.release, followed.linked)
        return followed.link
