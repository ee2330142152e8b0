"""Replay over what a real Prometheus has scraped."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ops_pipeline.adapters.clock import SystemClock
from ops_pipeline.adapters.prometheus import DURATION, NAMES, Prometheus
from ops_pipeline.core.judgement.verdict import Thresholds
from ops_pipeline.core.measurement import Counted
from ops_pipeline.core.release import Action, Phase, PhaseTime, Release
from ops_pipeline.core.replay import Replayed
from ops_pipeline.services.ledger import add_release, releases
from ops_pipeline.services.replay import replay
from ops_pipeline_tests.fakes.platform import Bed
from ops_pipeline_tests.services.shipping import shipped
from ops_pipeline_tests.testbed.prometheus import exporter, prometheus

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

PER_SECOND = 40
BAD_SECONDS = 14.0
SHARE = 0.3


def exposition(begin: float) -> str:
    """Counters of two releases: #1 answers all well; #2 answers as many from `begin` on, 30 % of them with errors."""
    seconds = time.time() - begin
    lines = []
    for release, track, passed, share in ((1, "stable", seconds + 60, 0.0), (2, "canary", max(0.0, seconds), SHARE)):
        labels = f'environment="prod",service="api",release="{release}",track="{track}"'
        total = int(passed * PER_SECOND)
        lines += [
            f"{NAMES[Counted.ERRORS]}{{{labels}}} {int(share * total)}",
            f'{DURATION}_bucket{{{labels},le="2.0"}} {total}',
            f'{DURATION}_bucket{{{labels},le="+Inf"}} {total}',
            f"{DURATION}_count{{{labels}}} {total}",
            f"{DURATION}_sum{{{labels}}} {total * 0.01}",
        ]
    return "\n".join([f"# TYPE {DURATION} histogram", *lines]) + "\n"


def record(bed: Bed, begin: datetime, end: datetime) -> Release:
    """#2 was a canary from `begin` on, and rolled back at `end`; #3 of the day before was never measured."""
    (first,) = releases(bed.store, "prod", "api")
    made = replace(
        first, number=2, timestamp="29990101T000000.000Z", action=Action.DEPLOY, previous=1, version="2.0.0", phases=()
    )
    add_release(
        bed.store,
        replace(made, phases=(PhaseTime(Phase.SHIFTING, begin), PhaseTime(Phase.ROLLED_BACK, end, "bad"))),
    )
    day = timedelta(days=1)
    old = (
        PhaseTime(Phase.SHIFTING, begin - day),
        PhaseTime(Phase.LIVE, begin - day),
        PhaseTime(Phase.STANDBY, end - day),
    )
    add_release(bed.store, replace(made, number=3, timestamp="29990101T000001.000Z", phases=old))
    return made


def test_past_releases_are_judged_again_from_what_prometheus_kept() -> None:
    bed = Bed()
    shipped(bed, "1.0.0")
    begin = time.time() + 50
    with exporter(lambda: exposition(begin)) as target, prometheus([target]) as server:
        begin = time.time() + 4  # from now on both are scraped, so that stable's counters are known before
        time.sleep(max(0.0, begin + BAD_SECONDS - time.time()))
        start, end = (datetime.fromtimestamp(at, UTC) for at in (begin, begin + BAD_SECONDS - 1))
        record(bed, start, end)
        platform = replace(bed.platform(), metrics=Prometheus(server.url), clock=SystemClock())

        def with_thresholds(**changes: float) -> dict[int, Replayed]:
            found = replay(platform, "prod", "api", start - timedelta(days=2), Thresholds(**changes))
            return {one.release: one for one in found}

        strict, loose = with_thresholds(error_rate=0.05), with_thresholds(error_rate=0.6)
    bad = strict[2]
    print(bad.sentence)
    assert bad.rolled_back and bad.after_seconds is not None and 4 <= bad.after_seconds <= BAD_SECONDS
    assert bad.verdict is not None
    errors = next(metric for metric in bad.verdict.metrics if metric.name == "errors")
    assert errors.share == pytest.approx(SHARE, abs=0.02)
    assert errors.stable_total > 0 and errors.stable_bad == 0
    assert not loose[2].rolled_back and loose[2].sentence.startswith("nothing until then")
    assert strict[3].sentence == "no recorded data" and not strict[3].recorded
