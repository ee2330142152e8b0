"""What a judge with other thresholds would have done to a past release, from what was recorded of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ops_pipeline.core.judgement.account import HALF_LEVELS, THRESHOLD_LEVEL
from ops_pipeline.core.judgement.judge import Judge
from ops_pipeline.core.judgement.units import Readings
from ops_pipeline.core.judgement.verdict import MetricEvidence, Outcome, Thresholds, Verdict
from ops_pipeline.core.measurement import Counted, Sample, SeriesKey
from ops_pipeline.core.release import Action, Phase, Release

LOOK_SECONDS = 1.0
"""Replayed looks are so far apart, as live ones are."""

LONGEST = timedelta(hours=24)
"""Of a release that is watched without an end, so much is judged again."""

GONE = (Phase.STANDBY, Phase.RETIRED, Phase.ROLLED_BACK, Phase.FAILED)


@dataclass(frozen=True)
class Course:
    """A past release from its first request on. `until`: when judging it ended, or now."""

    release: Release
    containers: int
    stable: int | None  # number the containers of the release before it carry
    began: datetime
    live: datetime | None
    ended: datetime | None  # when it lost its requests; None = it has them still
    until: datetime


@dataclass(frozen=True)
class Replayed:
    """One past release, as it was and as other thresholds would have had it."""

    release: int
    version: str
    began: datetime
    happened: str  # what did happen
    was_rolled_back: bool
    sentence: str  # what would have happened
    rolled_back: bool
    after_seconds: float | None  # from its first request to the roll-back that would have been
    recorded: bool  # False: nothing can be said, which is not the same as «nothing»
    recorded_seconds: float
    crashes: str
    verdict: Verdict | None  # the FAIL that would have been, else the last judgement

    @property
    def differs(self) -> bool:
        """Whether it would have ended otherwise."""
        return self.recorded and self.rolled_back != self.was_rolled_back


def course_of(release: Release, known: Mapping[int, Release], now: datetime) -> Course | None:
    """Given a release and all releases by number, return when it was judged; None = it never had a request.

    A roll-back has no course: it is never judged, because it is never rolled back by itself.
    """
    began = next((entry.at for entry in release.phases if entry.phase is Phase.SHIFTING), None)
    live = next((entry.at for entry in release.phases if entry.phase is Phase.LIVE), None)
    began = began or live
    if began is None or release.action is Action.ROLLBACK:
        return None
    ended = next((entry.at for entry in release.phases if entry.phase in GONE and entry.at >= began), None)
    until = ended or now
    seconds = release.rollout.watch_seconds
    if live is not None:
        watched = LONGEST if seconds is None else timedelta(seconds=seconds)
        until = min(until, live + watched)
    before = known.get(release.previous) if release.previous is not None else None
    stable = None if release.previous is None else release.previous
    if before is not None and before.containers_of is not None:
        stable = before.containers_of
    return Course(release, release.containers_of or release.number, stable, began, live, ended, until)


def judge_of(course: Course, thresholds: Thresholds, hosts: int) -> Judge:
    """A fresh judge of a past release, with other thresholds and everything else as it was."""
    return Judge(
        replace(course.release.rollout, thresholds=thresholds),
        release=course.containers,
        stable=course.stable,
        since=course.began,
        replicas=course.release.configuration.replicas,
        hosts=hosts,
    )


def first_fail(judge: Judge, readings: Readings, begin: datetime, end: datetime) -> Verdict | None:
    """Show a judge what was scraped from `begin` to `end` look by look, and return its FAIL, None when it never fails.

    Called for one stretch of time after the other.
    """
    places: dict[tuple[Counted, SeriesKey], int] = {}  # how far each series has been shown
    at = begin
    while at < end:
        at = min(at + timedelta(seconds=LOOK_SECONDS), end)
        new = _until(readings, at.timestamp(), places)
        if not any(new.values()):
            continue
        judge.feed(new, at)
        verdict = judge.verdict(at)
        if verdict.outcome is Outcome.FAIL:
            return verdict
    return None


def replayed(
    course: Course, thresholds: Thresholds, fail: Verdict | None, last: Verdict, seconds: float, stored: Verdict | None
) -> Replayed:
    """Put into words what came of a replay.

    `fail` is the first FAIL, `last` the judgement at the end, `seconds` the recorded time, `stored` the newest verdict
    the ledger has: it alone knows of crashes, because engines do not keep exits.
    """
    release = course.release
    what, was = _happened(course, stored)
    crashed = stored if stored is not None and _for_crashes(stored) else None
    sentence, rolled_back, after, recorded = "nothing", False, None, seconds > 0
    if fail is not None and (crashed is None or fail.at <= crashed.at):
        why_not = _why_not(course, fail)
        rolled_back = not why_not
        after = (fail.at - course.began).total_seconds() if rolled_back else None
        words = "judged bad" if why_not else "rolled back"
        sentence = f"would have been {words} {_when(course, fail.at)}: {fail.reason}{why_not}"
    elif crashed is not None and (thresholds.crash_rate <= release.rollout.thresholds.crash_rate or _by_rule(crashed)):
        after = (crashed.at - course.began).total_seconds()
        sentence, rolled_back, recorded = f"rolled back as it was, for crashes: {crashed.reason}", True, True
    elif crashed is not None:
        sentence, recorded = f"not known: the minutes of its crashes are not recorded ({crashed.reason})", False
    elif not recorded:
        sentence = "no recorded data"
    elif was:
        sentence = f"nothing until then ({_evidence(last)})"
    span = (course.until - course.began).total_seconds()
    if recorded and seconds < 0.5 * span and not rolled_back:
        sentence += f"; only {seconds / 60:.0f} of {span / 60:.0f} min are recorded"
    crashes = next((one for one in stored.metrics if one.name == "crashes"), None) if stored else None
    return Replayed(
        release=release.number,
        version=release.version,
        began=course.began,
        happened=what,
        was_rolled_back=was,
        sentence=sentence,
        rolled_back=rolled_back,
        after_seconds=after,
        recorded=recorded,
        recorded_seconds=seconds,
        crashes=f"{crashes.bad} of {crashes.total} instance-minutes" if crashes else "not recorded",
        verdict=fail or (last if seconds else None),
    )


def _why_not(course: Course, fail: Verdict) -> str:
    """Why a FAIL would have taken nothing back; "" = it would have."""
    if course.release.previous is None:
        return "; there was nothing to go back to"
    live = course.live is not None and fail.at >= course.live
    if live and not course.release.rollout.automatic_rollback:
        return "; a person would have been told, because nothing is rolled back by itself there"
    return ""


def _until(readings: Readings, until: float, places: dict[tuple[Counted, SeriesKey], int]) -> Readings:
    """Samples that have not been shown yet, up to a moment. Bisection would cost more than all of the judging."""
    new: dict[Counted, dict[SeriesKey, tuple[Sample, ...]]] = {}
    for counted, series in readings.items():
        taken = new.setdefault(counted, {})
        for key, samples in series.items():
            first = last = places.get((counted, key), 0)
            while last < len(samples) and samples[last].at <= until:
                last += 1
            if last > first:
                taken[key] = samples[first:last]
                places[counted, key] = last
    return new


def _happened(course: Course, stored: Verdict | None) -> tuple[str, bool]:
    """What became of the release in fact, and whether it was rolled back."""
    end = next((entry for entry in course.release.phases if entry.at == course.ended and entry.phase in GONE), None)
    if end is None:
        return "live", False
    lasted = _duration((end.at - course.began).total_seconds())
    if end.phase is Phase.ROLLED_BACK:
        by = "by its verdict" if stored is not None and stored.outcome is Outcome.FAIL else "by a person"
        return f"rolled back {by} after {lasted}", True
    if end.phase is Phase.FAILED:
        return f"taken away after {lasted}: {end.reason}", False
    return f"kept, served {lasted}", False


def _when(course: Course, at: datetime) -> str:
    if course.live is not None and at >= course.live:
        return f"{_duration((at - course.live).total_seconds())} after it went live"
    return f"{_duration((at - course.began).total_seconds())} after its first request"


def _duration(seconds: float) -> str:
    for size, unit in ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _evidence(verdict: Verdict) -> str:
    worst = max((one for one in verdict.metrics if one.name != "crashes"), key=_nearness, default=None)
    if worst is None or not worst.total:
        return verdict.reason
    level = HALF_LEVELS[worst.name]
    return f"evidence {worst.against_half:.3g} of {level:,.0f} by then, {worst.bad} of {worst.total} {_bad(worst)}"


def _bad(metric: MetricEvidence) -> str:
    return "failed" if metric.name == "errors" else metric.name


def _nearness(metric: MetricEvidence) -> float:
    return metric.against_half / HALF_LEVELS[metric.name]


def _reached(metric: MetricEvidence) -> bool:
    return metric.against_half >= HALF_LEVELS[metric.name] and metric.against_threshold >= THRESHOLD_LEVEL


def _for_crashes(verdict: Verdict) -> bool:
    """Whether a stored FAIL was about crashes: no other metric had the evidence for it."""
    others = (one for one in verdict.metrics if one.name != "crashes")
    return verdict.outcome is Outcome.FAIL and not any(_reached(one) for one in others)


def _by_rule(verdict: Verdict) -> bool:
    """Whether a hard rule on single exits decided, which no threshold changes."""
    return not any(_reached(one) for one in verdict.metrics if one.name == "crashes")
