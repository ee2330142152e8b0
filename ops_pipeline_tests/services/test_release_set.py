"""Release sets: dependencies first, all or none, back in reverse order; nothing is touched before all gates agree."""

from __future__ import annotations

from typing import Any

import pytest

from ops_pipeline.core.release import Action, Phase
from ops_pipeline.core.scan import Finding
from ops_pipeline.errors import BadInput, DeployFailed, LeaseHeld, NotFound, PolicyRefused
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.lease import acquire
from ops_pipeline.services.ledger import releases
from ops_pipeline.services.release_set import SetMember, deploy_set, roll_back_set, set_members
from ops_pipeline_tests.fakes.platform import Bed, Lifeline, catalogue, healthy, quiet
from ops_pipeline_tests.fakes.runtime import Behaviour


def bed_with(depends_on: dict[str, list[str]]) -> Bed:
    document = catalogue().model_dump(mode="json", exclude_unset=True)
    for service, others in depends_on.items():
        document["services"][service]["depends_on"] = others
    return Bed(catalogue(services=document["services"]))


@pytest.fixture
def bed() -> Bed:
    made = bed_with({"web": ["api"]})
    for service in ("api", "web"):
        made.image("1.0.0", service=service)
    deploy_set(made.platform(), "prod", ["api", "web"], progress=quiet)
    return made


def next_images(bed: Bed, **behaviour: Behaviour) -> None:
    for service in ("api", "web"):
        bed.image("2.0.0", behaviour.get(service), service=service)


def live(bed: Bed) -> dict[str, int]:
    found = {}
    for service in ("api", "web"):
        place = read_journal(bed.platform(), "prod", service).live
        found[service] = 0 if place is None else place.release
    return found


@pytest.mark.parametrize(
    ("depends_on", "order"),
    [({"web": ["api"]}, ["api", "web"]), ({"api": ["web"]}, ["web", "api"]), ({}, ["api", "web"])],
)
def test_dependencies_come_first(depends_on: dict[str, list[str]], order: list[str]) -> None:
    bed = bed_with(depends_on)
    next_images(bed)
    for named in (["web", "api"], ["api", "web"]):
        made = deploy_set(bed.platform(), "prod", named, progress=quiet, who="ann", run_id="run-1")
        assert [release.service for release in made] == order
    assert len({release.set_id for release in made}) == 1 and made[0].set_id
    assert {release.who for release in made} == {"ann"} and made[0].why == f"released together with {order[1]}"


def test_members_are_found_until_they_are_replaced(bed: Bed) -> None:
    set_id = releases(bed.store, "prod", "api")[0].set_id
    assert set_members(bed.platform(), "prod", set_id) == (SetMember("api", 1), SetMember("web", 1))
    next_images(bed)
    deploy_set(bed.platform(), "prod", ["api", "web"], progress=quiet)
    assert set_members(bed.platform(), "prod", set_id) == ()


def test_when_a_later_one_fails_the_earlier_ones_go_back(bed: Bed) -> None:
    next_images(bed, web=Behaviour(never_ready=True))
    bad: list[str] = []

    def watch(call: str) -> None:
        for path in ("/api", "/"):
            if not healthy(bed.ask(path=path)):
                bad.append(f"{path} after {call}")

    with pytest.raises(DeployFailed) as caught:
        deploy_set(bed.platform(lifeline=Lifeline(after_each=watch)), "prod", ["api", "web"], progress=quiet)
    assert "prod/web failed, so the set went back (prod/api is back at #1 (as #3))" in str(caught.value)
    assert not bad and live(bed) == {"api": 3, "web": 1}
    back, left = releases(bed.store, "prod", "api")[:2]
    assert (back.action, back.automatic, back.restores) == (Action.ROLLBACK, False, 1)
    assert left.phase is Phase.ROLLED_BACK and "its release set failed at web" in back.why


def test_when_the_first_one_fails_nothing_else_is_touched(bed: Bed) -> None:
    next_images(bed, api=Behaviour(never_ready=True))
    with pytest.raises(DeployFailed):
        deploy_set(bed.platform(), "prod", ["api", "web"], progress=quiet)
    assert live(bed) == {"api": 1, "web": 1} and len(releases(bed.store, "prod", "web")) == 1


def test_a_first_release_has_nothing_to_go_back_to_and_stays() -> None:
    bed = bed_with({"web": ["api"]})
    next_images(bed, web=Behaviour(never_ready=True))
    with pytest.raises(DeployFailed, match="prod/api #1 stays: there was nothing before it"):
        deploy_set(bed.platform(), "prod", ["api", "web"], progress=quiet)
    assert live(bed) == {"api": 1, "web": 0}


def test_a_service_that_is_live_already_is_neither_touched_nor_taken_back(bed: Bed) -> None:
    bed.image("2.0.0", Behaviour(never_ready=True), service="web")
    with pytest.raises(DeployFailed):
        deploy_set(bed.platform(), "prod", ["api", "web"], progress=quiet)
    assert live(bed) == {"api": 1, "web": 1}


def test_somebody_at_work_on_a_later_one_takes_the_earlier_one_back(bed: Bed) -> None:
    next_images(bed)
    with acquire(bed.platform("ci:9"), "prod", "web", run_id="run-9", reason="deploy"), pytest.raises(DeployFailed):
        deploy_set(bed.platform(), "prod", ["api", "web"], progress=quiet)
    assert live(bed) == {"api": 3, "web": 1}
    with acquire(bed.platform("ci:9"), "prod", "api", run_id="run-9", reason="deploy"), pytest.raises(LeaseHeld):
        deploy_set(bed.platform(), "prod", ["api", "web"], progress=quiet)
    assert live(bed) == {"api": 3, "web": 1}


@pytest.mark.parametrize(
    ("environment", "services", "named"),
    [
        ("prod", [], ["at least 2 services"]),
        ("prod", ["api"], ["at least 2 services"]),
        ("prod", ["api", "api"], ["named twice"]),
        ("stage", ["api", "shop"], ["no environment `stage`", "no service `shop`"]),
    ],
)
def test_names_that_make_no_set_are_all_named(
    bed: Bed, environment: str, services: list[str], named: list[str]
) -> None:
    stored = bed.store.objects
    with pytest.raises(BadInput) as caught:
        deploy_set(bed.platform(), environment, services, progress=quiet)
    assert all(words in str(caught.value) for words in named)
    assert bed.store.objects == stored


def test_gates_of_all_services_are_asked_before_anything_is_touched(bed: Bed) -> None:
    flaw = Finding("vulnerability", "CVE-2026-1", "CRITICAL", "openssl", "1", "2")
    bed.image("2.0.0", service="api")
    bed.image("2.0.0", service="web", findings=(flaw,))
    stored = bed.store.objects
    with pytest.raises(PolicyRefused, match=r"web: .*CVE-2026-1"):
        deploy_set(bed.platform(), "prod", ["api", "web"], progress=quiet)
    assert bed.store.objects == stored
    with pytest.raises(NotFound, match="no image of"):
        deploy_set(bed_with({}).platform(), "prod", ["api", "web"], progress=quiet)


@pytest.mark.parametrize("call", range(20, 180, 20))
def test_an_interruption_takes_the_set_back_and_passes_on(bed: Bed, call: int) -> None:
    next_images(bed)
    count = [0]

    def interrupt(name: str) -> None:
        count[0] += 1
        if count[0] == call:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deploy_set(bed.platform(lifeline=Lifeline(after_each=interrupt)), "prod", ["api", "web"], progress=quiet)
    versions = {service: releases(bed.store, "prod", service)[0] for service in ("api", "web")}
    assert bed.ask(path="/api")["h1"][0] == bed.ask(path="/")["h1"][0] == 200
    journals: dict[str, Any] = {service: read_journal(bed.platform(), "prod", service).live for service in versions}
    assert {place.version for place in journals.values()} == {"1.0.0"}


def test_going_back_leaves_nobody_out_because_another_one_fails(bed: Bed) -> None:
    next_images(bed)
    made = deploy_set(bed.platform(), "prod", ["api", "web"], progress=quiet)
    members = set_members(bed.platform(), "prod", made[0].set_id)
    with acquire(bed.platform("ci:9"), "prod", "web", run_id="run-9", reason="deploy"):
        results = roll_back_set(bed.platform(), "prod", members, verdicts={}, why="bad", progress=quiet)
    assert list(results) == ["web", "api"], "dependents first"
    assert isinstance(results["web"], LeaseHeld) and live(bed) == {"api": 3, "web": 2}
