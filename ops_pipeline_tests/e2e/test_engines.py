"""One environment on three Docker engines, each a machine of its own: all switch or none, and the loss of one is borne.

Every host has its own edge; clients ask all of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from ops_pipeline.core.release import Phase
from ops_pipeline.errors import OpsError
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.ledger import releases
from ops_pipeline.services.reconcile import reconcile
from ops_pipeline.services.status import status
from ops_pipeline_tests.testbed.control_plane import until
from ops_pipeline_tests.testbed.load import Load
from ops_pipeline_tests.testbed.places import Place
from ops_pipeline_tests.testbed.registry import RunningRegistry
from ops_pipeline_tests.testbed.releases import ENVIRONMENT, ReleaseBed, release_bed
from ops_pipeline_tests.testbed.strategies import mixed

pytestmark = [pytest.mark.real, pytest.mark.timeout(250)]

SERVICE = "web"
QUIET_LOAD: dict[str, object] = {"clients": 30, "rate": 45.0, "slow_path": "", "upload_path": ""}


def quiet(line: str) -> None: ...


@pytest.fixture(scope="module")
def bed(registry: RunningRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReleaseBed]:
    services: dict[str, dict[str, object]] = {SERVICE: {"drain_seconds": 2, "stop_grace_seconds": 4, "memory_mb": 64}}
    with release_bed(registry.address, tmp_path_factory.mktemp("engines"), services, hosts=3) as made:
        made.image(SERVICE, "1")
        deploy(made.platform, ENVIRONMENT, SERVICE, progress=quiet)
        yield made


def answers(bed: ReleaseBed) -> list[int | None]:
    """Number of the release every edge sends users to; None = it does not say."""
    found: list[int | None] = []
    for edge in bed.platform.edges(ENVIRONMENT):
        routing = edge.observe(SERVICE)
        found.append(routing.pools[routing.live].release if routing.live else None)
    return found


def running(place: Place) -> bool:
    names = [container.name for container in place.engine.containers.list()]
    return f"ops-edge-{ENVIRONMENT}" in names and len(names) > 1


def test_all_hosts_switch_together_and_nothing_is_lost(bed: ReleaseBed) -> None:
    bed.image(SERVICE, "2")
    with Load(mixed(bed, SERVICE, **{**QUIET_LOAD, "upload_path": f"/{SERVICE}/upload", "upload_rate": 1.0})) as load:
        time.sleep(1)
        release = deploy(bed.platform, ENVIRONMENT, SERVICE, progress=quiet)
        time.sleep(0.5)
    assert load.report.total_lost == 0 and load.report.releases["2"] > 0, load.report
    assert answers(bed) == [release.number] * 3
    assert len(bed.containers(SERVICE)) == 6, "the earlier release stays warm on all hosts"


def test_containers_outlive_their_engine_and_no_host_switches_alone(bed: ReleaseBed) -> None:
    """SIGKILL of one engine: users notice nothing, a deploy is refused or undone as a whole, and works afterwards."""
    before = answers(bed)
    host = bed.site.places[2].host
    assert host is not None
    bed.image(SERVICE, "3")
    with Load(mixed(bed, SERVICE, **QUIET_LOAD)) as load:
        time.sleep(0.5)
        host.kill_engine()
        with pytest.raises(OpsError, match="h3"):
            deploy(bed.platform, ENVIRONMENT, SERVICE, progress=quiet)
        time.sleep(0.5)
        host.start_engine()
        assert reconcile(bed.platform, ENVIRONMENT, SERVICE, progress=quiet).settled
        assert answers(bed) == before
        release = deploy(bed.platform, ENVIRONMENT, SERVICE, progress=quiet)
        time.sleep(0.5)
    assert load.report.total_lost == 0, load.report
    assert answers(bed) == [release.number] * 3


def test_the_loss_of_a_host_in_the_middle_of_a_deploy(bed: ReleaseBed) -> None:
    """Its users lose what they had open; those of the other hosts lose nothing, and all hosts end as one."""
    before = answers(bed)[0]
    others, lost = bed.site.places[:2], bed.site.places[2]
    assert lost.host is not None
    bed.image(SERVICE, "4")
    plan = mixed(bed, SERVICE, **QUIET_LOAD, targets=tuple(place.target for place in others))
    with Load(plan) as load:
        time.sleep(0.5)

        def progress(line: str) -> None:
            if line.startswith("start "):
                assert lost.host is not None
                lost.host.kill()

        with pytest.raises(OpsError, match="h3"):
            deploy(bed.platform, ENVIRONMENT, SERVICE, progress=progress)
        lost.host.boot()
        lost.host.wait()
        until(lambda: running(lost), 30, "the host's containers")
        until(lambda: reconcile(bed.platform, ENVIRONMENT, SERVICE, progress=quiet).settled, 60, "reconcile")
        time.sleep(0.5)
    assert load.report.total_lost == 0, load.report
    assert answers(bed) == [before] * 3
    journal = read_journal(bed.platform, ENVIRONMENT, SERVICE)
    assert journal.work is None and journal.leaving == ()
    (newest, *_) = releases(bed.platform.store, ENVIRONMENT, SERVICE)
    assert newest.phase is Phase.FAILED
    (seen,) = status(bed.platform, ENVIRONMENT, SERVICE)
    assert seen.healthy and not seen.unfinished
    assert len(bed.containers(SERVICE)) == 6, "live and standby on every host, nothing else"
