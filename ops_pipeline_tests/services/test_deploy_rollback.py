"""Roll-backs over a world in memory: to the warm standby, to older releases, and by themselves."""

from __future__ import annotations

import pytest

from ops_pipeline.core.release import Action, Phase
from ops_pipeline.errors import (
    BadInput,
    DeployFailed,
    NotFound,
)
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.ledger import releases
from ops_pipeline.services.rollback import roll_back
from ops_pipeline_tests.fakes.platform import Bed, catalogue, healthy, quiet
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
