"""A live release that turns bad, for real: edge, exporter, Prometheus, engine, Alertmanager; the tick rolls it back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ops_pipeline.core.watch_decision import Act
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.judging import Judging
from ops_pipeline.services.ledger import find_quarantine, releases
from ops_pipeline.services.watch import Memory, tick
from ops_pipeline.services.watches import list_watches
from ops_pipeline_tests.testbed.load import Load, LoadPlan
from ops_pipeline_tests.testbed.registry import running_registry
from ops_pipeline_tests.testbed.releases import ENVIRONMENT, measured_bed

pytestmark = pytest.mark.real

SERVICES = {"api": {"memory_mb": 64}, "calm": {"memory_mb": 64}}


def test_a_bad_one_goes_back_within_seconds_and_a_good_one_stays(tmp_path: Path) -> None:
    with running_registry() as registry, measured_bed(registry.address, tmp_path, SERVICES) as measured:
        bed, lines = measured.bed, []
        platform = bed.platform
        for service in SERVICES:
            for version in (f"{service}-1", f"{service}-2"):
                bed.image(service, version)
                deploy(platform, ENVIRONMENT, service, progress=lines.append)
        assert len(list_watches(platform)) == 2
        plan = LoadPlan(
            port=0,
            targets=tuple(place.target for place in bed.site.places),
            get_path="/api/load",
            post_path="/api/load",
            slow_path="",
            websocket_path="",
            clients=50,
            rate=100.0,
            bad_releases=("api-2", "#2"),
        )
        judging, memory, handled = Judging(platform), Memory(), []
        with Load(plan) as load:
            time.sleep(3)
            assert not [one for one in tick(platform, judging, memory=memory, progress=lines.append) if one.made]
            bed.misbehave("api", 2, error_rate=0.5)
            deadline = time.monotonic() + 40
            while time.monotonic() < deadline and not any(one.made for one in handled):
                began, used = time.monotonic(), time.process_time()
                handled = list(tick(platform, judging, memory=memory, progress=lines.append))
                print(f"tick {time.monotonic() - began:.3f} s, {time.process_time() - used:.3f} s of CPU")
                time.sleep(max(0.0, 1 - (time.monotonic() - began)))
            time.sleep(1)
        print("\n".join(lines[-12:]))
        print(load.report)
        (done,) = [one for one in handled if one.made]
        assert (done.service, done.release, done.made, done.act) == ("api", 2, 3, Act.ROLL_BACK)
        assert load.report.total_lost == 0
        assert load.report.time_to_safety < 30
        back, left = releases(platform.store, ENVIRONMENT, "api", limit=2)
        assert back.automatic and back.restores == 1 and left.was_rolled_back
        record = find_quarantine(platform.store, left.digest)
        assert record is not None and record.evidence is not None and record.evidence.metrics
        assert [watch.service for watch in list_watches(platform)] == ["calm"]
        calm = read_journal(platform, ENVIRONMENT, "calm").live
        assert calm is not None and calm.release == 2
