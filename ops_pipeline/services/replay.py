"""Verdict replay: changed thresholds over what is recorded of past releases. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from ops_pipeline.core.judgement.units import Readings
from ops_pipeline.core.judgement.verdict import Thresholds
from ops_pipeline.core.measurement import BUCKETS, Counted, Metric, Sample, SeriesKey
from ops_pipeline.core.release import Release
from ops_pipeline.core.replay import Course, Replayed, course_of, first_fail, judge_of, replayed
from ops_pipeline.errors import BadInput, Problem
from ops_pipeline.ports import Progress
from ops_pipeline.services.configuration import check_names
from ops_pipeline.services.ledger import releases
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried
from ops_pipeline.services.verdicts import read_verdict

CHUNK = timedelta(minutes=10)
"""Recorded samples are read in such stretches: memory stays flat, however long a release was watched."""

BEFORE = timedelta(seconds=10)
"""So much from before the first request is read too, for the counters to begin at."""

Series = Mapping[SeriesKey, tuple[Sample, ...]]


def _quiet(line: str) -> None:
    """Progress nobody reads."""


def replay(
    platform: Platform,
    environment: str,
    service: str,
    since: datetime,
    thresholds: Thresholds,
    *,
    progress: Progress = _quiet,
) -> tuple[Replayed, ...]:
    """What `thresholds` would have done to each release that was judged since a moment, newest first.

    Raise BadInput (names, thresholds), StoreDamaged, Unavailable (store or Prometheus away).
    """
    check_names(platform.catalogue, environment, service)
    check_thresholds(thresholds)
    now, place = platform.clock.now(), f"{environment}/{service}"
    known = retried(
        platform.clock, f"read the releases of {place}", lambda: releases(platform.store, environment, service)
    )
    by_number = {release.number: release for release in known}
    courses = [course for release in known if (course := course_of(release, by_number, now)) is not None]
    found = []
    for course in courses:
        if course.until <= since:
            continue
        progress(f"judging {course.release.label} again, {course.began:%Y-%m-%d %H:%M} UTC")
        found.append(_again(platform, course, thresholds))
    return tuple(found)


def check_thresholds(thresholds: Thresholds) -> None:
    """Raise BadInput naming every threshold that nothing can be judged by."""
    problems = []
    for name, share in (("error_rate", thresholds.error_rate), ("crash_rate", thresholds.crash_rate)):
        if not 0 < share < 1:
            problems.append(Problem(f"thresholds.{name}", f"{share:g} is not a share between 0 and 1 (0.05 is 5 %)"))
    if thresholds.p95_seconds not in BUCKETS:
        bounds = ", ".join(f"{bound:g}" for bound in BUCKETS)
        words = f"{thresholds.p95_seconds:g} s was not counted at the edge, which counts requests within {bounds} s"
        problems.append(Problem("thresholds.p95_seconds", words))
    if problems:
        raise BadInput(problems, subject="thresholds")


def _again(platform: Platform, course: Course, thresholds: Thresholds) -> Replayed:
    """One release, judged again from its samples."""
    release = course.release
    hosts = len({one.host for one in release.instances}) or len(
        platform.catalogue.environments[release.environment].hosts
    )
    judge, fail, end = judge_of(course, thresholds, hosts), None, course.began - BEFORE
    while fail is None and end < course.until:
        begin, end = end, min(end + CHUNK, course.until)
        readings = _read(platform, release, thresholds, begin, end)
        fail = first_fail(judge, readings, begin, end)
    seconds = sum(unit.seconds for unit in judge.units)
    stored = read_verdict(platform, release.environment, release.service, course.containers)
    last = judge.verdict(end) if fail is None else fail
    return replayed(course, thresholds, fail, last, seconds, stored)


def _read(platform: Platform, release: Release, thresholds: Thresholds, begin: datetime, end: datetime) -> Readings:
    """Raw samples of one stretch of time, its beginning included: three queries."""
    metrics = (
        Metric(Counted.REQUESTS),
        Metric(Counted.ERRORS),
        Metric(Counted.WITHIN, thresholds.p95_seconds),
    )
    seconds, targets = (end - begin).total_seconds(), [(release.environment, release.service)]

    def ask(metric: Metric) -> Series:
        return retried(
            platform.clock,
            "read recorded measurements",
            lambda: platform.metrics.samples(metric, seconds, targets=targets, until=end),
            attempts=2,
        )

    return {metric.counted: ask(metric) for metric in metrics}
