"""Canary, rolling and blue-green over a world in memory, judged by the real verdict engine on counters in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.core.judgement.verdict import Outcome
from ops_pipeline.core.release import Phase, Release
from ops_pipeline.errors import DeployFailed, PolicyRefused, RolledBack
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.ledger import find_quarantine, releases
from ops_pipeline.services.reconcile import reconcile
from ops_pipeline.services.verdicts import Decision, decide, read_verdict
from ops_pipeline.services.watches import read_watch
from ops_pipeline_tests.fakes.platform import Bed, Lifeline, catalogue, healthy, quiet
from ops_pipeline_tests.fakes.runtime import Behaviour
from ops_pipeline_tests.services.shipping import settings_of_services

QUICK = ({"weight": 10}, {"weight": 50}, {"weight": 100})


def bed_catalogue(hosts: int, *, hold_minutes: float = 60, **api: object) -> Catalogue:
    """`prod` on so many hosts with three replicas of `api` each, whose settings are changed as told."""
    services = settings_of_services()
    document: dict[str, object] = {
        "dev": {"hosts": [{"name": "h1"}], "url": "http://127.0.0.1:8081", "subnet": "10.9.4.0/24"},
        "prod": {
            "hosts": [{"name": f"h{number + 1}"} for number in range(hosts)],
            "url": "http://127.0.0.1:8080",
            "subnet": "10.9.5.0/24",
            "hold_minutes": hold_minutes,
            "services": {"api": {"replicas": 3}},
        },
    }
    return catalogue(services={**services, "api": {**services["api"], **api}}, environments=document)


def bed_with(hosts: int = 2, users: float = 100.0, *, hold_minutes: float = 60, **api: object) -> Bed:
    """`api` 1.0.0 is live there and has users."""
    made = Bed(bed_catalogue(hosts, hold_minutes=hold_minutes, **api))
    made.users(users)
    made.image("1.0.0")
    deploy(made.platform(), "prod", "api", progress=quiet)
    made.clock.advance(40)
    return made


@dataclass
class Story:
    """What a deploy did, as seen from outside."""

    shares: list[tuple[float, int]] = field(default_factory=list)  # (seconds, percent of the users)
    unserved: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    release: Release | None = None
    error: DeployFailed | None = None

    @property
    def percents(self) -> list[int]:
        return [share for _, share in self.shares]


def roll_out(bed: Bed, behaviour: Behaviour | None = None, *, during: Callable[[float], None] | None = None) -> Story:
    """Deploy a new version and watch every moment of it; `during` hears of the seconds passed at every sleep."""
    story, begin = Story(), bed.clock.monotonic()
    bed.image("2.0.0", behaviour or Behaviour())
    number = releases(bed.store, "prod", "api", limit=1)[0].number + 1

    def watch(call: str) -> None:
        story.calls.append(call)
        if not healthy(bed.ask()):
            story.unserved.append(f"{call}: {bed.ask()}")
        routing = bed.edges["prod"][-1].routings["api"]
        pools = {name for name, pool in routing.pools.items() if pool.release == number}
        share = 100 if routing.live in pools else routing.weight if routing.candidate in pools else 0
        if not story.shares or story.shares[-1][1] != share:
            story.shares.append((bed.clock.monotonic() - begin, share))

    bed.clock.on_sleep = lambda seconds: None if during is None else during(bed.clock.monotonic() - begin)
    platform = bed.platform(lifeline=Lifeline(after_each=watch))
    try:
        story.release = deploy(platform, "prod", "api", progress=story.lines.append)
    except DeployFailed as error:
        story.error = error
    finally:
        bed.clock.on_sleep = lambda seconds: None
    assert not story.unserved, story.unserved[:3]
    return story


def assert_as_before(bed: Bed, story: Story) -> None:
    """Traffic, containers and standby are what they were before the deploy that failed."""
    assert story.release is None and story.error is not None
    assert {name.split("-")[3] for _, name, _ in bed.containers()} == {"1"}
    for edge in bed.edges["prod"]:
        routing = edge.routings["api"]
        assert (routing.candidate, routing.weight, set(routing.pools)) == (None, 0, {"a"})


def test_a_good_canary_gets_more_users_with_every_verdict_and_is_watched_when_live() -> None:
    bed = bed_with(strategy="canary", canary=QUICK, verify={"seconds": 10})
    story = roll_out(bed)
    assert story.percents == [0, 10, 50, 100]
    made = story.release
    assert made is not None and made.phase is Phase.LIVE and len(made.rollout.steps) == 3
    assert [entry.phase for entry in made.phases].count(Phase.SHIFTING) == 1
    verdict = read_verdict(bed.platform(), "prod", "api", 2)
    assert verdict is not None and verdict.outcome is Outcome.PASS and verdict.release == 2
    watch = read_watch(bed.platform(), "prod", "api")
    assert watch is not None and (watch.release, watch.containers, watch.stable, watch.replicas) == (2, 2, 1, 3)
    assert not bed.alerts.fired
    assert sum(call.startswith("store.write journal/") for call in story.calls) <= 14, "only changes are written down"
    assert any(line.startswith("10 %: ") and "requests" in line for line in story.lines), "it says how it stands"


@pytest.mark.parametrize(("errors", "limit"), [(0.1, 25), (0.5, 10)])
def test_a_bad_canary_is_taken_back_by_itself_and_kept_out(errors: float, limit: float) -> None:
    bed = bed_with(strategy="canary", canary=QUICK)
    story = roll_out(bed, Behaviour(errors=errors))
    assert isinstance(story.error, RolledBack) and story.error.exit_code == 6
    assert "requests failed" in story.error.message and "threshold 5 %" in story.error.message
    assert story.percents == [0, 10, 0] and story.shares[2][0] - story.shares[1][0] <= limit
    assert_as_before(bed, story)
    bad = releases(bed.store, "prod", "api", limit=1)[0]
    assert bad.phase is Phase.ROLLED_BACK and "requests failed" in bad.phases[-1].reason
    kept = find_quarantine(bed.store, bad.digest)
    assert kept is not None and kept.evidence is not None and kept.evidence.outcome is Outcome.FAIL
    assert (kept.environment, kept.service, kept.release) == ("prod", "api", 2)
    assert read_verdict(bed.platform(), "prod", "api", 2) == kept.evidence
    assert [alert.name for alert in bed.alerts.fired] == ["ReleaseRolledBack"]
    for environment in ("prod", "dev"):
        with pytest.raises(PolicyRefused, match="requests failed"):
            deploy(bed.platform(), environment, "api", progress=quiet)
    watch = read_watch(bed.platform(), "prod", "api")
    assert watch is not None and watch.release == 1, "what is live is watched as before"


@pytest.mark.parametrize("how", ["exits", "is stopped by somebody", "is unhealthy"])
def test_a_dead_canary_is_found_without_prometheus(how: str) -> None:
    bed = bed_with(strategy="canary", canary=QUICK)
    behaviour = Behaviour(unhealthy_after=20) if how == "is unhealthy" else Behaviour()

    def during(seconds: float) -> None:
        bed.metrics.down = "connection refused"
        runtime = bed.runtimes["prod"][0]
        if seconds >= 20 and how == "exits" and runtime.named("ops-prod-api-2-0").state == "running":
            runtime.breaks("ops-prod-api-2-0", "exited")
        elif seconds >= 20 and how == "is stopped by somebody":
            runtime.stop(runtime.named("ops-prod-api-2-0").id, 5)

    story = roll_out(bed, behaviour, during=during)
    assert story.percents == [0, 10, 0] and story.shares[-1][0] <= 22.5
    assert_as_before(bed, story)
    blamed = how == "exits"
    assert isinstance(story.error, RolledBack) is blamed
    newest = releases(bed.store, "prod", "api", limit=1)[0]
    assert newest.phase is (Phase.ROLLED_BACK if blamed else Phase.FAILED)
    assert (find_quarantine(bed.store, newest.digest) is not None) is blamed


@pytest.mark.parametrize("how", ["stopped", "empty", "stale"])
def test_without_measurements_it_freezes_rests_and_goes_on_by_itself(how: str) -> None:
    bed = bed_with(strategy="canary", canary=QUICK)

    def during(seconds: float) -> None:
        away = 20 <= seconds < 300
        if how == "stopped":
            bed.metrics.down = "connection refused" if away else ""
        elif how == "empty":
            bed.metrics.empty = away
        elif away and not bed.metrics._pauses:
            bed.metrics.pause()
        elif not away:
            bed.metrics.resume()

    story = roll_out(bed, during=during)
    assert story.percents == [0, 10, 0, 10, 50, 100] and story.release is not None
    rested, again = story.shares[2][0], story.shares[3][0]
    assert 80 <= rested <= 95, "frozen for blind_seconds, then returned to stable"
    assert 300 <= again <= 315, "and on again soon after the data are back"
    assert [alert.name for alert in bed.alerts.fired] == ["JudgementBlind"] and not bed.alerts.firing
    assert not [key for key in bed.store.objects if key.startswith("quarantine/")]


def test_with_too_few_requests_it_rests_until_there_are_more_users() -> None:
    steps = ({"weight": 10, "max_seconds": 120}, {"weight": 100})
    bed = bed_with(users=0.5, strategy="canary", canary=steps)
    story = roll_out(bed, during=lambda seconds: bed.users(100) if 300 <= seconds < 301.5 else None)
    assert story.percents == [0, 10, 0, 10, 100]
    assert 300 < story.shares[3][0] < 400
    assert [alert.name for alert in bed.alerts.fired] == ["CanaryWithoutVerdict"] and not bed.alerts.firing


def test_what_cannot_be_judged_is_taken_away_in_the_end_and_not_blamed() -> None:
    steps = ({"weight": 10, "max_seconds": 120}, {"weight": 100})
    bed = bed_with(users=0.5, hold_minutes=5, strategy="canary", canary=steps)
    story = roll_out(bed)
    assert_as_before(bed, story)
    assert not isinstance(story.error, RolledBack) and "could not be judged for 5 minutes" in str(story.error)
    newest = releases(bed.store, "prod", "api", limit=1)[0]
    assert newest.phase is Phase.FAILED and find_quarantine(bed.store, newest.digest) is None
    assert "CanaryWithdrawn" in bed.alerts.names()


def test_when_stable_is_as_bad_nobody_is_rolled_back_and_people_are_told() -> None:
    steps = ({"weight": 10, "max_seconds": 60}, {"weight": 100})
    bed = bed_with(hold_minutes=1, strategy="canary", canary=steps)
    for runtime in bed.runtimes["prod"]:
        for box in runtime.boxes.values():
            box.behaviour.errors = 0.3
    story = roll_out(bed, Behaviour(errors=0.3))
    assert_as_before(bed, story)
    assert not isinstance(story.error, RolledBack)
    assert "EnvironmentIncident" in [alert.name for alert in bed.alerts.fired]
    assert not [key for key in bed.store.objects if key.startswith("quarantine/")]


@pytest.mark.parametrize("go", [True, False])
def test_it_waits_for_a_person_and_does_what_they_say(go: bool) -> None:
    bed = bed_with(strategy="canary", canary=({"weight": 10, "pause": True}, {"weight": 100}))

    def during(seconds: float) -> None:
        if 400 <= seconds < 401.5:
            decision = Decision(2, 0, go, "ann", "seen on the dashboard", bed.clock.now())
            decide(bed.platform(), "prod", "api", decision)

    story = roll_out(bed, during=during)
    assert story.percents == ([0, 10, 100] if go else [0, 10, 0])
    assert 400 <= story.shares[2][0] <= 403
    assert any("seen on the dashboard" in line for line in story.lines)
    if not go:
        assert_as_before(bed, story)
        assert not isinstance(story.error, RolledBack)
    assert [alert.name for alert in bed.alerts.fired][:1] == ["CanaryWaits"]
    assert "CanaryWaits" not in bed.alerts.names()


@pytest.mark.parametrize("hosts", [1, 2, 3])
def test_rolling_goes_replica_by_replica_on_every_host(hosts: int) -> None:
    bed = bed_with(hosts, strategy="rolling", verify={"seconds": 5})
    seen: set[tuple[int, int]] = set()

    def during(seconds: float) -> None:
        running = sum(name.startswith("ops-prod-api-2") for _, name, _ in bed.containers()) // hosts
        seen.add((running, bed.edges["prod"][0].routings["api"].weight))

    story = roll_out(bed, during=during)
    assert story.percents == [0, 33, 67, 100]
    assert all(weight <= round(100 * running / 3) for running, weight in seen)
    made = story.release
    assert made is not None and len(made.instances) == 3 * hosts
    assert {name.split("-")[3] for _, name, _ in bed.containers()} == {"1", "2"}, "the old ones are the warm standby"


@pytest.mark.parametrize("strategy", ["blue_green", "rolling"])
def test_bad_soon_after_the_switch_is_taken_back_before_it_counts_as_live(strategy: str) -> None:
    bed = bed_with(strategy=strategy, verify={"seconds": 30})
    story = roll_out(bed, Behaviour(errors=0.5, bad_after=10))
    assert isinstance(story.error, RolledBack)
    assert_as_before(bed, story)
    assert story.percents[-2:] == [100, 0] and story.shares[-1][0] <= 30
    assert Phase.LIVE not in [entry.phase for entry in releases(bed.store, "prod", "api", limit=1)[0].phases]


@pytest.mark.parametrize("strategy", ["blue_green", "rolling", "canary"])
def test_when_one_of_three_hosts_fails_all_return_to_what_they_had(strategy: str) -> None:
    """The third host's edge dies with the share half given; it comes back, and the next reconcile tidies it up."""
    bed = bed_with(3, strategy=strategy, canary=QUICK, verify={"seconds": 10})
    before = [dict(edge.routings) for edge in bed.edges["prod"]]
    third = bed.edges["prod"][2]

    def during(seconds: float) -> None:
        routing = third.routings["api"]
        if routing.weight or routing.live != "a":
            third.reachable = False

    story = roll_out(bed, during=during)
    assert story.error is not None and not isinstance(story.error, RolledBack) and "h3" in story.error.message
    assert [dict(edge.routings) for edge in bed.edges["prod"][:2]] == before[:2]
    third.reachable = True
    bed.clock.advance(31)
    assert reconcile(bed.platform(), "prod", "api", progress=quiet).settled
    assert [dict(edge.routings) for edge in bed.edges["prod"]] == before
    assert_as_before(bed, story)


def test_a_smoke_test_that_fails_undoes_and_blames_nobody() -> None:
    smoke = [{"name": "orders can be listed", "path": "/orders", "status": 418}]
    bed = bed_with()
    bed.catalogue = bed_catalogue(2, verify={"seconds": 0, "smoke": smoke})
    story = roll_out(bed)
    assert story.error is not None and "orders can be listed" in story.error.message
    assert not isinstance(story.error, RolledBack)
    assert_as_before(bed, story)
