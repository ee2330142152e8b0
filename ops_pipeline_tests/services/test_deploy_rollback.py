"""Roll-backs over a world in memory: to the warm standby, to older releases, and by themselves."""

from __future__ import annotations

import pytest

from ops_pipeline.core.judgement.verdict import Outcome, Verdict
from ops_pipeline.core.release import Action, Phase, Release
from ops_pipeline.errors import (
    BadInput,
    DeployFailed,
    NotFound,
    PolicyRefused,
)
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.ledger import find_quarantine, releases
from ops_pipeline.services.quarantine import quarantine
from ops_pipeline.services.rollback import roll_back
from ops_pipeline.services.verdicts import read_verdict
from ops_pipeline_tests.fakes.platform import Bed, Lifeline, catalogue, healthy, quiet
from ops_pipeline_tests.fakes.runtime import Behaviour
from ops_pipeline_tests.services.shipping import settings_of_services, shipped


@pytest.fixture
def bed() -> Bed:
    return Bed()


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
        services={**settings_of_services(), "api": {**settings_of_services()["api"], "environment": {"LEVEL": "debug"}}}
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


def bad_verdict(bed: Bed, release: int) -> Verdict:
    now = bed.clock.now()
    return Verdict(Outcome.FAIL, "300 of 900 requests failed", now, now, release, release - 1)


def by_itself(bed: Bed, release: int, lifeline: Lifeline | None = None) -> Release:
    platform = bed.platform(lifeline=lifeline)
    verdict = bad_verdict(bed, release)
    return roll_back(platform, "prod", "api", automatic=True, verdict=verdict, who="sensor", progress=quiet)


def test_by_itself_it_goes_to_the_second_best_when_the_standby_is_in_quarantine(bed: Bed) -> None:
    shipped(bed, "1.0.0", "2.0.0", "3.0.0")
    known = {release.number: release for release in releases(bed.store, "prod", "api")}
    quarantine(bed.platform(), known[2].digest, "leaks", "ann")
    with pytest.raises(PolicyRefused, match="leaks"):
        roll_back(bed.platform(), "prod", "api", progress=quiet)  # a person is told, and may say where to go
    made = by_itself(bed, 3)
    assert (made.restores, made.automatic, made.containers_of) == (1, True, None)
    assert find_quarantine(bed.store, known[3].digest) is not None
    assert bed.ask() == {"h1": (200, 4), "h2": (200, 4)}


def test_by_itself_it_goes_nowhere_when_all_there_is_is_in_quarantine(bed: Bed) -> None:
    shipped(bed, "1.0.0", "2.0.0")
    known = {release.number: release for release in releases(bed.store, "prod", "api")}
    quarantine(bed.platform(), known[1].digest, "leaks", "ann")
    stored = bed.store.objects
    with pytest.raises(BadInput, match=r"every good release before prod/api #2 is in quarantine \(#1\)"):
        by_itself(bed, 2)
    assert bed.store.objects == stored


def test_when_the_same_digest_serves_again_its_configuration_was_to_blame(bed: Bed) -> None:
    shipped(bed, "1.0.0")
    changed = {**settings_of_services()["api"], "environment": {"LEVEL": "debug"}}
    bed.catalogue = catalogue(services={**settings_of_services(), "api": changed})
    deploy(bed.platform(), "prod", "api", progress=quiet)
    made = by_itself(bed, 2)
    assert made.restores == 1 and find_quarantine(bed.store, made.digest) is None
    verdict = read_verdict(bed.platform(), "prod", "api", 2)
    assert verdict is not None and verdict.outcome is Outcome.FAIL, "the evidence is kept all the same"


def test_the_way_to_the_warm_standby_is_short(bed: Bed) -> None:
    """Users of a bad release wait for everything that is done before the switch: a ratchet."""
    shipped(bed, *(f"{number}.0.0" for number in range(1, 20)))
    lifeline = Lifeline()
    by_itself(bed, 19, lifeline)
    before = lifeline.calls[: next(n for n, call in enumerate(lifeline.calls) if call.endswith(".apply"))]
    edge = [call for call in before if call.startswith("edge h1")]
    assert sorted(edge) == ["edge h1.observe", "edge h1.probe", "edge h1.probe"], "side by side: one exec's time"
    assert len([call for call in before if call.startswith("h1.")]) == 1, "containers are listed once"
    assert len([call for call in before if call.startswith("store.write ")]) <= 5
    assert len([call for call in before if call.startswith("store.read ")]) <= 25, "however long the history"
