"""Reconcile: what differs from the journal is put right, and said in words."""

from __future__ import annotations

import pytest

from ops_pipeline.core.quarantine import Quarantine
from ops_pipeline.core.routing import Routing
from ops_pipeline.ports import ContainerSpec
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.ledger import releases
from ops_pipeline.services.reconcile import ReconcileReport, reconcile
from ops_pipeline.services.records import encode
from ops_pipeline_tests.fakes.platform import Bed, Killed, Lifeline, healthy, quiet


@pytest.fixture
def bed() -> Bed:
    made = Bed()
    for version in ("1.0.0", "2.0.0"):
        made.image(version)
        deploy(made.platform(), "prod", "api", progress=quiet)
    return made


def run(bed: Bed, **arguments: bool) -> ReconcileReport:
    return reconcile(bed.platform("reconciler:1"), "prod", "api", progress=quiet, **arguments)


def test_nothing_to_do_is_said_and_nothing_is_done(bed: Bed) -> None:
    for runtime in bed.runtimes["prod"]:
        runtime.calls.clear()
    report = run(bed)
    assert (report.actions, report.problems, report.settled) == ((), (), True)
    assert not {"create", "start", "stop", "remove"} & set(bed.runtimes["prod"][0].calls)


def test_a_service_never_deployed_is_left_alone(bed: Bed) -> None:
    stored = bed.store.objects
    assert reconcile(bed.platform(), "prod", "web", progress=quiet).actions == ()
    assert bed.store.objects == stored


def test_a_dry_run_tells_and_changes_nothing(bed: Bed) -> None:
    bed.runtimes["prod"][0].breaks("ops-prod-api-2-1", "exited")
    stored, containers = bed.store.objects, bed.containers()
    report = run(bed, dry_run=True)
    assert report.actions == ("h1/ops-prod-api-2-1 is exited",) and not report.settled
    assert (bed.store.objects, bed.containers()) == (stored, containers)


@pytest.mark.parametrize("how", ["exited", "silent"])
def test_a_live_container_that_stopped_or_hangs_is_restarted(bed: Bed, how: str) -> None:
    bed.runtimes["prod"][0].breaks("ops-prod-api-2-1", how)
    report = run(bed)
    assert report.settled and "ops-prod-api-2-1" in report.actions[0]
    assert {state for _, _, state in bed.containers()} == {"running"}


def test_a_live_container_that_is_gone_comes_back_at_its_address(bed: Bed) -> None:
    runtime = bed.runtimes["prod"][1]
    box = runtime.named("ops-prod-api-2-0")
    runtime.remove(box.id)
    report = run(bed)
    assert report.settled and "replica 0 of live #2 is missing on h2" in report.actions[0]
    again = runtime.named("ops-prod-api-2-0")
    assert again.spec.address == box.spec.address and again.spec.secrets == box.spec.secrets
    assert runtime.answer(again.spec.address, 8080, "/").ok


def test_when_its_address_is_taken_the_edge_learns_the_new_one(bed: Bed) -> None:
    runtime = bed.runtimes["prod"][1]
    box = runtime.named("ops-prod-api-2-0")
    runtime.remove(box.id)
    squatter = ContainerSpec("squatter", box.spec.image, {"ops.release": "9"}, box.spec.network, box.spec.address)
    runtime.create(squatter)
    report = run(bed)
    assert report.settled, report
    moved = runtime.named("ops-prod-api-2-0").spec.address
    assert moved != box.spec.address
    servers = bed.edges["prod"][1].routings["api"].pools["b"].servers
    assert moved in {server.address for server in servers} and len(servers) == 2


def test_a_container_of_no_release_in_service_is_removed(bed: Bed) -> None:
    runtime = bed.runtimes["prod"][0]
    box = runtime.named("ops-prod-api-2-0")
    labels = {**box.spec.labels, "ops.release": "77"}
    runtime.create(ContainerSpec("stray", box.spec.image, labels, box.spec.network, "10.9.5.100"))
    report = run(bed)
    assert report.settled and "h1/stray belongs to no release in service (#77)" in report.actions[0]
    assert "stray" not in {name for _, name, _ in bed.containers()}


def test_a_container_of_another_digest_is_replaced(bed: Bed) -> None:
    runtime = bed.runtimes["prod"][0]
    box = runtime.named("ops-prod-api-2-0")
    wrong = {**box.spec.labels, "ops.digest": "sha256:" + "e" * 64}
    runtime.remove(box.id)
    bad = runtime.create(
        ContainerSpec(box.spec.name, box.spec.image, wrong, box.spec.network, box.spec.address, secrets={})
    )
    runtime.start(bad)
    report = run(bed)
    assert report.settled and "the ledger says" in report.actions[0]
    assert runtime.named(box.spec.name).spec.labels["ops.digest"] == box.spec.labels["ops.digest"]


def test_an_edge_that_says_something_else_is_set_right(bed: Bed) -> None:
    edge = bed.edges["prod"][1]
    good = edge.routings["api"]
    edge.routings["api"] = Routing(live="a", pools=good.pools)
    report = run(bed)
    assert report.settled and report.actions[0] == "repair: the edge of h2 differs from the wanted routing"
    assert edge.routings["api"] == good
    edge.routings["api"] = Routing()
    assert run(bed).settled and edge.routings["api"] == good


def test_a_host_that_is_new_in_the_catalogue_gets_the_live_release(bed: Bed) -> None:
    one, two = bed.edges["prod"], bed.runtimes["prod"]
    for box in list(two[1].boxes.values()):
        two[1].remove(box.id)
    one[1].routings["api"] = Routing()
    report = run(bed)
    assert report.settled, report
    assert bed.ask() == {"h1": (200, 2), "h2": (200, 2)}


def test_a_standby_over_its_time_or_no_longer_whole_leaves(bed: Bed) -> None:
    bed.clock.advance(29 * 60)
    assert run(bed).actions == ()
    bed.clock.advance(2 * 60)
    report = run(bed)
    assert report.settled and "#1 was standby for 30 minutes" in report.actions[0]
    assert {name.split("-")[3] for _, name, _ in bed.containers()} == {"2"}
    assert read_journal(bed.platform(), "prod", "api").standby is None
    bed.image("3.0.0")
    deploy(bed.platform(), "prod", "api", progress=quiet)
    runtime = bed.runtimes["prod"][0]
    runtime.remove(runtime.named("ops-prod-api-2-0").id)
    report = run(bed)
    assert report.settled and "no longer whole" in report.actions[0]


def test_a_damaged_or_wrong_pointer_is_written_anew(bed: Bed) -> None:
    good = bed.store.objects["current/prod/api"]
    bed.store.write("current/prod/api", b"rubbish")
    assert "written anew" in run(bed).actions[0]
    assert bed.store.objects["current/prod/api"] == good


def test_a_host_that_is_away_is_reported_and_the_rest_is_repaired(bed: Bed) -> None:
    bed.host_down("prod", "h2")
    bed.runtimes["prod"][0].breaks("ops-prod-api-2-1", "exited")
    report = run(bed)
    assert not report.settled and any("h2" in problem for problem in report.problems)
    assert ("h1", "ops-prod-api-2-1", "running") in bed.containers()
    bed.host_up("prod", "h2")
    assert run(bed).settled


def test_restarting_what_does_not_help_is_done_once_and_said(bed: Bed) -> None:
    for runtime in bed.runtimes["prod"]:
        for index in (0, 1):
            box = runtime.named(f"ops-prod-api-2-{index}")
            box.behaviour.never_ready = True
    for runtime in bed.runtimes["prod"]:
        runtime.calls.clear()
    report = run(bed)
    assert not report.settled and any("did not help" in problem for problem in report.problems)
    starts = [call for runtime in bed.runtimes["prod"] for call in runtime.calls if call == "start"]
    assert len(starts) <= 2, "a database that is down must not make us restart the whole fleet"


def test_what_is_in_quarantine_is_not_started_anew(bed: Bed) -> None:
    runtime = bed.runtimes["prod"][0]
    runtime.remove(runtime.named("ops-prod-api-2-0").id)
    digest = releases(bed.store, "prod", "api")[0].digest
    bed.store.write(f"quarantine/{digest[7:]}.json", encode(Quarantine(digest, "leaks", "ann", bed.clock.now())))
    report = run(bed)
    assert any("quarantine" in problem for problem in report.problems)


def test_a_killed_deploy_is_told_in_a_dry_run_and_undone_in_a_real_one(bed: Bed) -> None:
    bed.image("3.0.0")
    counts = 0

    def third(call: str) -> bool:
        return call.startswith("store.write journal/")

    with pytest.raises(Killed):
        deploy(bed.platform("doomed:1", lifeline=Lifeline(4, third)), "prod", "api", progress=quiet, run_id="run-9")
    assert counts == 0 and healthy(bed.ask())
    bed.clock.advance(31)
    rehearsal = run(bed, dry_run=True)
    assert any("taken over while #3 was starting" in action for action in rehearsal.actions), rehearsal
    report = run(bed)
    assert report.settled and any("#3 is undone" in action for action in report.actions)
    failed = releases(bed.store, "prod", "api", limit=1)[0]
    assert "its controller (run run-9) ended while it was starting" in failed.phases[-1].reason
