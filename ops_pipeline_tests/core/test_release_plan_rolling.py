"""A rolling release: replica by replica on all hosts, traffic in proportion, the old ones whole until the end."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from ops_pipeline.core import journal as transitions
from ops_pipeline.core.journal import Journal, Placement, switched_over, weight, work_of
from ops_pipeline.core.release import Phase
from ops_pipeline.core.release_plan import Do, needs, next_step
from ops_pipeline.core.rollout import Rollout, Strategy
from ops_pipeline.core.routing import Pool, Routing, Server
from ops_pipeline.core.world import Replica, World
from ops_pipeline_tests.core.test_release_plan import CONFIGURATION, DIGEST, NOW, release

HOSTS = ("h1", "h2", "h3")


def one(number: int, index: int, host: str) -> Replica:
    address = f"10.0.{number}.{index}"
    return Replica(host, f"{host}-{number}-{index}", f"ops-prod-api-{number}-{index}", number, index, DIGEST, address,
                   "running", "none", 0, None, False)  # fmt: skip


def all_of(number: int, count: int) -> tuple[Replica, ...]:
    return tuple(one(number, index, host) for host in HOSTS for index in range(count))


def serving(count: int) -> Journal:
    configuration = replace(CONFIGURATION, replicas=count)
    live = Placement(2, "20261122T000000.000Z", "b", 2, f"r/api@sha256:{'c' * 64}", "v", configuration, NOW)
    pool = Pool(2, tuple(Server(f"10.0.2.{index}", 8080) for index in range(count)))
    return Journal(
        "prod", "api", 5, last_number=2, live=live, routing={h: Routing("b", pools={"b": pool}) for h in HOSTS}
    )


def begun(count: int) -> Journal:
    configuration = replace(CONFIGURATION, replicas=count)
    made = replace(release(3, "c"), configuration=configuration, rollout=Rollout(Strategy.ROLLING))
    return transitions.planned(serving(count), made, HOSTS, NOW, own_containers=True)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_from_the_first_replica_to_live(count: int) -> None:
    """A perfect world obeys every step; what it is told is what the strategy promises."""
    journal, now = begun(count), NOW
    there: set[tuple[str, int]] = set()
    routing = dict(journal.routing)
    told: list[int] = []
    pools: list[int] = []
    phases: list[Phase] = []
    for _ in range(20 * count):
        wanted = needs(journal, now)
        new = tuple(one(3, index, host) for host, index in sorted(there))
        world = World(HOSTS, (*all_of(2, count), *new), routing if wanted.routing else {})
        step = next_step(journal, world, now)
        if step.do is Do.DONE:
            break
        if step.then is not None:
            journal = step.then
            phases += [change.phase for change in journal.outbox if change.release == 3]
        if step.do is Do.START:
            assert {host for host, _ in step.replicas} == set(HOSTS), "side by side on all hosts"
            there |= set(step.replicas)
        elif step.do is Do.ROUTE:
            routing = dict(journal.routing)
            for host, route in routing.items():
                servers = route.pools["c"].servers
                ready = {one(3, index, host).address for h, index in there if h == host}
                assert {server.address for server in servers} <= ready, "only what is ready is in the pool"
                assert len(route.pools["b"].servers) == count, "the old ones stay until the end"
            told.append(weight(journal))
            pools.append(len(routing["h1"].pools["c"].servers))
        elif step.do is Do.WAIT:
            now += timedelta(seconds=step.wait_seconds)
    assert told == [0, *(round(100 * done / count) for done in range(1, count + 1))]
    assert pools == [1, *range(1, count + 1)]
    assert phases == [Phase.STARTING, Phase.HEALTHY, Phase.SHIFTING, Phase.LIVE]
    assert journal.live is not None and journal.live.release == 3
    assert journal.standby is not None and journal.standby.release == 2, "the old ones are the warm standby"


def half_way() -> Journal:
    """Two of three replicas have two thirds of the traffic, the third one is about to start."""
    journal, now = begun(3), NOW
    there: tuple[Replica, ...] = ()
    while not (work_of(journal).step == 1 and weight(journal) == 67):
        step = next_step(journal, World(HOSTS, (*all_of(2, 3), *there)), now)
        journal = step.then or journal
        there += tuple(one(3, index, host) for host, index in step.replicas)
        now += timedelta(seconds=1.5 if step.do is Do.WAIT else 0)
    return journal


BAD = {
    "a replica with traffic exits": ({"state": "exited", "exit_code": 1}, True),
    "a replica with traffic is unhealthy": ({"health": "unhealthy"}, False),
}


@pytest.mark.parametrize("case", BAD)
def test_half_way_what_goes_wrong_takes_all_hosts_back(case: str) -> None:
    changes, blamed = BAD[case]
    journal = half_way()
    new = [replica for replica in all_of(3, 2) if replica.key != "h2/ops-prod-api-3-0"]
    sick = replace(one(3, 0, "h2"), **changes)  # type: ignore[arg-type]
    step = next_step(journal, World(HOSTS, (*all_of(2, 3), *new, sick)), NOW + timedelta(seconds=9))
    assert step.do is Do.ROUTE and step.then is not None
    assert step.then.routing == serving(3).routing
    assert (work_of(step.then).blame is not None) is blamed


def test_a_later_replica_that_does_not_get_ready_takes_all_back_unblamed() -> None:
    journal = half_way()
    new = all_of(3, 2)
    step = next_step(journal, World(HOSTS, (*all_of(2, 3), *new)), NOW)
    assert step.do is Do.START and step.replicas == tuple((host, 2) for host in HOSTS) and step.then is not None
    silent = {one(3, 2, "h3").key: "GET answered 503"}
    world = World(HOSTS, (*all_of(2, 3), *all_of(3, 3)), silent=silent)
    assert next_step(step.then, world, NOW + timedelta(seconds=5)).do is Do.WAIT
    turned = next_step(step.then, world, work_of(step.then).entered + timedelta(seconds=21)).then
    assert turned is not None and "not healthy within 20 s" in work_of(turned).undo and work_of(turned).blame is None


def test_a_takeover_half_way_undoes() -> None:
    journal = half_way()
    assert not switched_over(journal)
    taken = transitions.taken_over(journal, 9, "run-2", NOW)
    assert "shifting (67 %)" in work_of(taken).undo and taken.routing == serving(3).routing
