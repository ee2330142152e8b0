"""What a deploy meets from outside: bad input, hosts and stores that fail, other controllers."""

from __future__ import annotations

import pytest

from ops_pipeline.core.release import Phase
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
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.ledger import manifest_key, releases
from ops_pipeline.services.reconcile import reconcile
from ops_pipeline.services.rollback import roll_back
from ops_pipeline_tests.fakes.platform import Bed, healthy, quiet
from ops_pipeline_tests.fakes.runtime import Behaviour
from ops_pipeline_tests.services.shipping import shipped


@pytest.fixture
def bed() -> Bed:
    return Bed()


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
