"""Deploys over a world in memory: what is started, recorded, undone and left standing."""

from __future__ import annotations

import json

import pytest

from ops_pipeline.core.release import Action, Phase
from ops_pipeline.errors import (
    BadInput,
    DeployFailed,
    PolicyRefused,
)
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.health import check_health
from ops_pipeline.services.ledger import current_key, manifest_key, read_current, releases
from ops_pipeline.services.plan import plan
from ops_pipeline.services.promote import promote
from ops_pipeline.services.reconcile import reconcile
from ops_pipeline.services.status import status
from ops_pipeline_tests.fakes.platform import Bed, Lifeline, catalogue, healthy, quiet
from ops_pipeline_tests.fakes.runtime import Behaviour
from ops_pipeline_tests.services.shipping import settings_of_services, shipped


@pytest.fixture
def bed() -> Bed:
    return Bed()


def test_a_first_deploy_serves_on_every_host_and_leaves_a_full_record(bed: Bed) -> None:
    image = bed.image("1.0.0")
    made = deploy(bed.platform(), "prod", "api", progress=quiet, who="ann", why="first", run_id="r1")
    assert bed.ask() == {"h1": (200, 1), "h2": (200, 1)}
    assert (made.number, made.version, made.digest, made.who, made.why, made.run_id) == (
        1,
        "1.0.0",
        image.ref.digest,
        "ann",
        "first",
        "r1",
    )
    assert [entry.phase for entry in made.phases] == [
        Phase.PLANNED,
        Phase.STARTING,
        Phase.HEALTHY,
        Phase.SHIFTING,
        Phase.LIVE,
    ]
    assert len(made.instances) == 4 and made.previous is None
    assert made.scan_report.startswith("scans/") and made.scan_counts["CRITICAL"] == 0
    assert json.loads(bed.store.objects[manifest_key("prod", "api", made.timestamp)])["version"] == "1.0.0"
    text = bed.store.objects[current_key("prod", "api")].decode()
    assert text == f"number: 1\nversion: 1.0.0\ndigest: {made.digest}\ntimestamp: {made.timestamp}\n"


def test_the_container_gets_its_configuration_and_the_record_never_the_secret(bed: Bed) -> None:
    bed.image("1.0.0")
    lines: list[str] = []
    deploy(bed.platform(), "prod", "api", progress=lines.append)
    spec = bed.runtimes["prod"][0].named("ops-prod-api-1-0").spec
    assert spec.secrets == {"TOKEN": "s3cret-token"}
    assert spec.environment == {
        "OPS_ENVIRONMENT": "prod",
        "OPS_SERVICE": "api",
        "OPS_RELEASE": "1",
        "OPS_VERSION": "1.0.0",
    }
    assert spec.labels["ops.pool"] == "a" and spec.labels["ops.replica"] == "0" and spec.labels["ops.generation"] == "1"
    assert "s3cret" not in "".join(lines) + "".join(value.decode() for value in bed.store.objects.values())
    assert "s3cret" not in str(dict(spec.labels)) + str(dict(spec.environment)) + repr(spec)


def test_the_second_keeps_the_first_warm_and_the_third_retires_it(bed: Bed) -> None:
    shipped(bed, "1.0.0", "2.0.0")
    assert {name for _, name, _ in bed.containers()} == {
        f"ops-prod-api-{release}-{index}" for release in (1, 2) for index in (0, 1)
    }
    shipped(bed, "3.0.0")
    phases = {release.number: release.phase for release in releases(bed.store, "prod", "api")}
    assert phases == {3: Phase.LIVE, 2: Phase.STANDBY, 1: Phase.RETIRED}
    assert {name.split("-")[3] for _, name, _ in bed.containers()} == {"2", "3"}


def test_nothing_is_done_when_it_is_live_already_unless_forced_changed_or_unhealthy(bed: Bed) -> None:
    shipped(bed, "1.0.0")
    lines: list[str] = []
    assert deploy(bed.platform(), "prod", "api", progress=lines.append).number == 1
    assert "already live as #1" in lines[-1]
    assert deploy(bed.platform(), "prod", "api", progress=quiet, force=True).number == 2
    bed.catalogue = catalogue(
        services={**settings_of_services(), "api": {**settings_of_services()["api"], "environment": {"LEVEL": "debug"}}}
    )
    assert deploy(bed.platform(), "prod", "api", progress=quiet).number == 3
    bed.runtimes["prod"][1].breaks("ops-prod-api-3-1", "silent")
    assert deploy(bed.platform(), "prod", "api", progress=quiet).number == 4


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (Behaviour(never_ready=True, log="boom s3cret-token\n"), "not healthy within 20 s"),
        (Behaviour(exits_after=0.5, exit_code=3, log="boom s3cret-token\n"), "exit code 3"),
        (Behaviour(unhealthy_after=0.1, ready_after=1, log="boom s3cret-token\n"), "HEALTHCHECK says unhealthy"),
        (Behaviour(exits_after=0.9, exit_code=4, log="boom s3cret-token\n"), "exit code 4"),
    ],
    ids=["never ready", "exits", "unhealthy", "exits after it was ready"],
)
def test_a_bad_release_is_undone_and_its_last_words_are_told_without_secrets(
    bed: Bed, behaviour: Behaviour, words: str
) -> None:
    shipped(bed, "1.0.0", "2.0.0")
    before, containers = [dict(edge.routings) for edge in bed.edges["prod"]], bed.containers()
    bed.image("3.0.0", behaviour)
    bad: list[str] = []
    watch = Lifeline(after_each=lambda call: None if healthy(bed.ask()) else bad.append(call))
    with pytest.raises(DeployFailed) as caught:
        deploy(bed.platform(lifeline=watch), "prod", "api", progress=quiet)
    assert words in caught.value.message and "boom [secret]" in caught.value.message
    assert "s3cret" not in str(caught.value)
    assert not bad
    assert [dict(edge.routings) for edge in bed.edges["prod"]] == before
    assert bed.containers() == containers, "the standby is not lost by a failed deploy"
    newest = releases(bed.store, "prod", "api", limit=1)[0]
    assert newest.phase is Phase.FAILED and words in newest.phases[-1].reason
    assert read_current(bed.store, "prod", "api").number == 2  # type: ignore[union-attr]
    assert "s3cret" not in "".join(value.decode() for value in bed.store.objects.values())


def test_when_one_host_fails_all_return_to_the_exact_earlier_routing(bed: Bed) -> None:
    shipped(bed, "1.0.0", "2.0.0")
    before = [dict(edge.routings) for edge in bed.edges["prod"]]
    bed.image("3.0.0")
    second = bed.edges["prod"][1]

    def fail(call: str) -> None:
        # The switch has happened on h1; h2 stops answering before it is asked.
        if call == "edge h1.apply" and second.reachable and bed.edges["prod"][0].routings["api"].live == "c":
            second.reachable = False

    with pytest.raises(DeployFailed, match="h2 does not answer") as caught:
        deploy(bed.platform(lifeline=Lifeline(after_each=fail)), "prod", "api", progress=quiet)
    assert "unfinished" in caught.value.message
    assert bed.edges["prod"][0].routings == before[0], "h1 is back although h2 is away"
    second.reachable = True
    bed.clock.advance(31)
    assert reconcile(bed.platform(), "prod", "api", progress=quiet).settled
    assert [dict(edge.routings) for edge in bed.edges["prod"]] == before
    assert {name.split("-")[3] for _, name, _ in bed.containers()} == {"1", "2"}


def test_connections_are_drained_before_the_oldest_is_stopped(bed: Bed) -> None:
    shipped(bed, "1.0.0", "2.0.0")
    edge = bed.edges["prod"][0]
    edge.open_connections["api", "a"] = 3
    seen: list[float] = []
    bed.clock.on_sleep = lambda seconds: seen.append(seconds)
    begin = bed.clock.monotonic()
    bed.image("3.0.0")
    made = deploy(bed.platform(), "prod", "api", progress=quiet)
    assert made.phase is Phase.LIVE
    assert 5 <= bed.clock.monotonic() - begin <= 8, "it waited for the connections, and no longer than drain_seconds"


def test_promotion_takes_the_exact_digest_and_is_refused_when_nothing_is_live(bed: Bed) -> None:
    platform = bed.platform()
    with pytest.raises(PolicyRefused, match="nothing is live in dev"):
        promote(platform, "prod", "api", progress=quiet)
    with pytest.raises(BadInput, match="promote_from"):
        promote(platform, "dev", "api", progress=quiet)
    wanted = bed.image("1.0.0")
    deploy(platform, "dev", "api", progress=quiet)
    bed.image("2.0.0")
    made = promote(platform, "prod", "api", progress=quiet)
    assert (made.digest, made.action, made.why) == (wanted.ref.digest, Action.PROMOTE, "live in dev as #1")


def test_status_plan_and_health_tell_what_is_there(bed: Bed) -> None:
    platform = bed.platform()
    assert check_health(platform, "prod", "api").summary == "prod/api: nothing is live"
    assert not check_health(platform, "prod", "api").healthy
    shipped(bed, "1.0.0", "2.0.0")
    bed.clock.advance(60)
    (seen,) = status(platform, "prod", "api")
    assert seen.healthy and seen.live is not None and seen.standby is not None
    assert (seen.live.number, seen.standby.number, seen.ready, seen.wanted) == (2, 1, 4, 4)
    assert seen.age_seconds is not None and seen.age_seconds >= 60
    assert plan(platform, "prod", "api").nothing_to_do
    bed.image("3.0.0")
    coming = plan(platform, "prod", "api")
    assert not coming.refusals and coming.live_number == 2 and "warm and healthy" in coming.standby
    assert coming.steps[0].startswith("pull the image on h1, h2") and "drain and remove #1" in coming.steps[-1]
    assert any(change.startswith("version: 2.0.0 -> 3.0.0") for change in coming.changes)
    bed.runtimes["prod"][0].breaks("ops-prod-api-2-0", "silent")
    report = check_health(platform, "prod", "api")
    assert not report.healthy and "h1/ops-prod-api-2-0" in report.summary
    assert status(platform, "prod", "api")[0].ready == 3
    bed.host_down("prod", "h1")
    assert "h1" in status(platform, "prod", "api")[0].problems[0]
    assert not check_health(platform, "prod", "api").healthy
    assert any("h1" in reason for reason in plan(platform, "prod", "api").refusals)
