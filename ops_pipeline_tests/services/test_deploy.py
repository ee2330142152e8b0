"""Deploy, promote and roll-back over a world in memory."""

from __future__ import annotations

import json

import pytest

from ops_pipeline.core.quarantine import Quarantine
from ops_pipeline.core.release import Action, Phase
from ops_pipeline.core.scan import Finding
from ops_pipeline.errors import (
    BadInput,
    DeployFailed,
    LeaseHeld,
    NotFound,
    OpsError,
    Permanent,
    PolicyRefused,
    StaleGeneration,
    StoreDamaged,
    Unavailable,
)
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.gates import refusals
from ops_pipeline.services.health import check_health
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.ledger import current_key, manifest_key, read_current, releases
from ops_pipeline.services.plan import plan
from ops_pipeline.services.promote import promote
from ops_pipeline.services.records import encode
from ops_pipeline.services.rollback import roll_back
from ops_pipeline.services.status import status
from ops_pipeline_tests.fakes.platform import Bed, Lifeline, catalogue, healthy, quiet
from ops_pipeline_tests.fakes.runtime import Behaviour

CRITICAL = Finding("vulnerability", "CVE-2026-1", "CRITICAL", "openssl", "1", "2")


@pytest.fixture
def bed() -> Bed:
    return Bed()


def shipped(bed: Bed, *versions: str) -> None:
    for version in versions:
        bed.image(version)
        deploy(bed.platform(), "prod", "api", progress=quiet)


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
        services={**_services(), "api": {**_services()["api"], "environment": {"LEVEL": "debug"}}}
    )
    assert deploy(bed.platform(), "prod", "api", progress=quiet).number == 3
    bed.runtimes["prod"][1].breaks("ops-prod-api-3-1", "silent")
    assert deploy(bed.platform(), "prod", "api", progress=quiet).number == 4


def _services() -> dict[str, dict[str, object]]:
    return {name: service.model_dump(exclude_unset=True) for name, service in catalogue().services.items()}


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
    from ops_pipeline.services.reconcile import reconcile

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


REFUSED = {
    "scan failed": (lambda bed: bed.image("9", findings=(CRITICAL,)), "CVE-2026-1"),
    "never scanned": (lambda bed: bed.image("9", scanned=False), "no scan report"),
    "in quarantine": (
        lambda bed: bed.store.write(
            f"quarantine/{bed.image('9').ref.digest[7:]}.json",
            encode(Quarantine(bed.image("9").ref.digest, "it leaks", "ann", bed.clock.now())),
        ),
        "it leaks",
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_gates_refuse_every_path_before_anything_is_touched(bed: Bed, why: str) -> None:
    platform = bed.platform()
    deploy(platform, "dev", "api", digest=bed.image("9").ref.digest, progress=quiet)
    deploy(platform, "prod", "api", digest=bed.image("9").ref.digest, progress=quiet)
    deploy(platform, "prod", "api", digest=bed.image("10").ref.digest, progress=quiet)
    deploy(platform, "prod", "api", digest=bed.image("11").ref.digest, progress=quiet)
    for key in bed.store.objects:
        if key.startswith("scans/" + bed.image("9").ref.digest[7:]):
            bed.store.delete(key)
    make, words = REFUSED[why]
    bed.clock.advance(1)
    if why == "never scanned":
        for key in bed.store.objects:
            if key.startswith("scans/"):
                bed.store.delete(key)
    make(bed)
    digest = next(key for key in bed.store.objects if key == "images/api/latest")
    digest = bed.store.objects[digest].decode().strip()
    stored, containers = bed.store.objects, bed.containers()
    paths = {
        "deploy": lambda: deploy(platform, "prod", "api", progress=quiet),
        "deploy a digest": lambda: deploy(platform, "prod", "api", digest=digest, progress=quiet),
        "promote": lambda: promote(platform, "prod", "api", progress=quiet),
        "roll back": lambda: roll_back(platform, "prod", "api", to=1, progress=quiet),
    }
    for name, path in paths.items():
        with pytest.raises(PolicyRefused) as caught:
            path()
        assert words in caught.value.message, name
    assert bed.containers() == containers
    untouched = {key for key in stored if not key.startswith(("leases/", "journal/"))}
    assert {key: stored[key] for key in untouched} == {key: bed.store.objects[key] for key in untouched}
    assert words in " ".join(plan(platform, "prod", "api").refusals)


def test_a_return_to_the_warm_standby_is_warned_not_refused_for_its_scan(bed: Bed) -> None:
    shipped(bed, "1.0.0", "2.0.0")
    bed.clock.advance(1)
    bed.image("1.0.0", findings=(CRITICAL,))
    lines: list[str] = []
    made = roll_back(bed.platform(), "prod", "api", progress=lines.append)
    assert made.restores == 1 and any("CVE-2026-1" in warning for warning in made.scan_warnings)
    assert any(line.startswith("warning: ") for line in lines)


def test_quarantine_beats_even_the_warm_standby(bed: Bed) -> None:
    shipped(bed, "1.0.0", "2.0.0")
    digest = releases(bed.store, "prod", "api")[-1].digest
    bed.store.write(f"quarantine/{digest[7:]}.json", encode(Quarantine(digest, "leaks", "ann", bed.clock.now())))
    with pytest.raises(PolicyRefused, match="leaks"):
        roll_back(bed.platform(), "prod", "api", progress=quiet)
    assert not refusals(bed.platform(), "prod", "api", digest, Action.ROLLBACK, warm=True).allowed


def test_a_damaged_quarantine_record_never_lets_a_digest_pass(bed: Bed) -> None:
    image = bed.image("1.0.0")
    bed.store.write(f"quarantine/{image.ref.digest[7:]}.json", b"{")
    with pytest.raises(StoreDamaged, match="quarantine/"):
        deploy(bed.platform(), "prod", "api", progress=quiet)


def test_rolling_back_to_the_standby_is_one_switch_and_starts_nothing(bed: Bed) -> None:
    shipped(bed, "1.0.0", "2.0.0")
    for runtime in bed.runtimes["prod"]:
        runtime.calls.clear()
    made = roll_back(bed.platform(), "prod", "api", progress=quiet, who="ann")
    assert bed.ask() == {"h1": (200, 1), "h2": (200, 1)}
    assert (made.number, made.action, made.restores, made.containers_of) == (3, Action.ROLLBACK, 1, 1)
    assert made.version == "1.0.0" and made.why == "roll-back to #1"
    assert not {"create", "start", "stop", "remove"} & set(bed.runtimes["prod"][0].calls)
    phases = {release.number: release.phase for release in releases(bed.store, "prod", "api")}
    assert phases == {3: Phase.LIVE, 2: Phase.ROLLED_BACK, 1: Phase.RETIRED}
    # What was rolled back from stays warm: forward again is one switch too, on a person's word only.
    with pytest.raises(BadInput, match="nothing to roll back to"):
        roll_back(bed.platform(), "prod", "api", progress=quiet)
    forward = roll_back(bed.platform(), "prod", "api", to=2, progress=quiet)
    assert forward.containers_of == 2 and bed.ask()["h1"] == (200, 2)


def test_rolling_back_to_an_older_release_starts_its_recorded_configuration(bed: Bed) -> None:
    shipped(bed, "1.0.0")
    bed.catalogue = catalogue(
        services={**_services(), "api": {**_services()["api"], "environment": {"LEVEL": "debug"}}}
    )
    shipped(bed, "2.0.0", "3.0.0")
    made = roll_back(bed.platform(), "prod", "api", to=1, progress=quiet)
    assert made.restores == 1 and made.containers_of is None and made.configuration.environment == {}
    assert "LEVEL" not in bed.runtimes["prod"][0].named(f"ops-prod-api-{made.number}-0").spec.environment
    phases = {release.number: release.phase for release in releases(bed.store, "prod", "api")}
    assert phases == {4: Phase.LIVE, 3: Phase.ROLLED_BACK, 2: Phase.RETIRED, 1: Phase.RETIRED}


def test_a_broken_standby_is_started_again_instead(bed: Bed) -> None:
    shipped(bed, "1.0.0", "2.0.0")
    bed.runtimes["prod"][1].breaks("ops-prod-api-1-1", "exited")
    made = roll_back(bed.platform(), "prod", "api", progress=quiet)
    assert made.restores == 1 and made.containers_of is None
    assert bed.ask() == {"h1": (200, 3), "h2": (200, 3)}


def test_what_cannot_be_rolled_back_to_is_said_and_changes_nothing(bed: Bed) -> None:
    platform = bed.platform()
    with pytest.raises(BadInput, match="nothing is live"):
        roll_back(platform, "prod", "api", progress=quiet)
    shipped(bed, "1.0.0")
    bed.image("2.0.0", Behaviour(never_ready=True))
    with pytest.raises(DeployFailed):
        deploy(platform, "prod", "api", progress=quiet)
    stored = bed.store.objects
    for to, words in ((None, "oldest good release"), (7, "no release #7"), (1, "live already"), (2, "never live")):
        with pytest.raises(BadInput, match=words):
            roll_back(platform, "prod", "api", to=to, progress=quiet)
    assert bed.store.objects == stored


def test_an_image_that_is_gone_everywhere_cannot_be_rolled_back_to(bed: Bed) -> None:
    shipped(bed, "1.0.0", "2.0.0", "3.0.0")
    target = releases(bed.store, "prod", "api")[-1]
    for runtime in bed.runtimes["prod"]:
        runtime.present.discard(target.image)
    roll_back(bed.platform(), "prod", "api", to=1, progress=quiet)  # the registry has it
    shipped(bed, "4.0.0", "5.0.0")
    for runtime in bed.runtimes["prod"]:
        runtime.present.discard(target.image)
    bed.registry.digests.clear()
    with pytest.raises(NotFound, match="gone from the registry and from h1, h2"):
        roll_back(bed.platform(), "prod", "api", to=1, progress=quiet)
    assert healthy(bed.ask())


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


def test_bad_input_is_named_and_changes_nothing(bed: Bed) -> None:
    platform = bed.platform()
    cases: list[tuple[type[OpsError], str, dict[str, object]]] = [
        (BadInput, "there is no 'staging'", {"environment": "staging"}),
        (BadInput, "there is no 'shop'", {"service": "shop"}),
        (NotFound, "no image of api has been built", {}),
        (BadInput, "not of the form sha256", {"digest": "latest"}),
        (PolicyRefused, "the ledger has no image", {"digest": "sha256:" + "0" * 64}),
    ]
    for kind, words, changes in cases:
        arguments = {"environment": "prod", "service": "api", **changes}
        with pytest.raises(kind, match=words):
            deploy(platform, progress=quiet, **arguments)  # type: ignore[arg-type]
    assert bed.store.objects == {}
    bed.image("1.0.0")
    bed.secrets.clear()
    with pytest.raises(BadInput, match=r"secret TOKEN \(env:TOKEN\)"):
        deploy(platform, "prod", "api", progress=quiet)
    assert not bed.containers() and not [key for key in bed.store.objects if key.startswith(("journal", "releases"))]


def test_a_host_that_is_down_refuses_a_deploy_before_anything_is_touched(bed: Bed) -> None:
    shipped(bed, "1.0.0")
    bed.image("2.0.0")
    stored = bed.store.objects
    bed.host_down("prod", "h2")
    with pytest.raises(Unavailable, match="h2"):
        deploy(bed.platform(), "prod", "api", progress=quiet)
    assert bed.store.objects == stored


def test_a_damaged_ledger_stops_a_deploy_with_the_key(bed: Bed) -> None:
    shipped(bed, "1.0.0")
    bed.image("2.0.0")
    for key in ("current/prod/api", "journal/prod/api.json", "leases/prod/api.json"):
        good = bed.store.objects[key]
        bed.store.write(key, b"garbage")
        with pytest.raises(StoreDamaged, match=key):
            deploy(bed.platform(), "prod", "api", progress=quiet)
        assert healthy(bed.ask())
        bed.store.write(key, good)
    made = releases(bed.store, "prod", "api")[0]
    bed.store.write(manifest_key("prod", "api", made.timestamp), b"{}")
    with pytest.raises(StoreDamaged, match="manifest"):
        roll_back(bed.platform(), "prod", "api", progress=quiet)


def test_a_full_store_fails_the_deploy_and_traffic_stays(bed: Bed) -> None:
    shipped(bed, "1.0.0")
    bed.image("2.0.0")
    writes = [0]

    def full(operation: str, key: str) -> None:
        if operation == "write" and key.startswith("journal/"):
            writes[0] += 1
            if 3 <= writes[0] <= 3:
                raise Permanent("no space left on device")

    bed.store.before = full
    with pytest.raises(DeployFailed, match="no space left"):
        deploy(bed.platform(), "prod", "api", progress=quiet)
    assert bed.ask() == {"h1": (200, 1), "h2": (200, 1)}
    assert {name.split("-")[3] for _, name, _ in bed.containers()} == {"1"}


def test_two_deploys_at_once_one_is_refused_with_who_why_and_since_when(bed: Bed) -> None:
    shipped(bed, "1.0.0")
    bed.image("2.0.0", Behaviour(ready_after=3))
    refused: list[LeaseHeld] = []

    def meddle(seconds: float) -> None:
        if refused:
            return
        with pytest.raises(LeaseHeld) as caught:
            deploy(bed.platform("other:2"), "prod", "api", progress=quiet, run_id="run-2")
        refused.append(caught.value)

    bed.clock.on_sleep = meddle
    made = deploy(bed.platform("first:1"), "prod", "api", progress=quiet, run_id="run-1")
    assert made.phase is Phase.LIVE
    words = refused[0].message
    assert "first:1 (run run-1: deploy of 2.0.0)" in words and "since 2026-11-21 10:00" in words


def test_a_controller_that_slept_through_a_takeover_is_refused(bed: Bed) -> None:
    """It resumes in the middle of waiting for health; the other one has undone its work and deployed something else."""
    from ops_pipeline.services.reconcile import reconcile

    shipped(bed, "1.0.0")
    bed.image("2.0.0", Behaviour(ready_after=3))
    done: list[object] = []

    def sleep_long(seconds: float) -> None:
        if done:
            return
        done.append(True)
        bed.clock.advance(40)
        reconcile(bed.platform("second:2"), "prod", "api", progress=quiet)
        bed.image("3.0.0")
        done.append(deploy(bed.platform("second:2"), "prod", "api", progress=quiet))

    bed.clock.on_sleep = sleep_long
    with pytest.raises((StaleGeneration, LeaseHeld)):
        deploy(bed.platform("sleeper:1"), "prod", "api", progress=quiet)
    journal = read_journal(bed.platform(), "prod", "api")
    assert journal.live is not None and journal.live.version == "3.0.0" and journal.work is None
    assert bed.ask() == {"h1": (200, 3), "h2": (200, 3)}
    assert {name.split("-")[3] for _, name, _ in bed.containers()} == {"1", "3"}


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
