"""The plan's decisions as a table: journal and world in, step out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ops_pipeline.core import journal as transitions
from ops_pipeline.core import succession
from ops_pipeline.core.journal import Journal, Placement, free_pool, same_routing
from ops_pipeline.core.release import Action, Phase, Release, ServiceConfiguration
from ops_pipeline.core.release_plan import Do, Step, needs, next_step
from ops_pipeline.core.repair_plan import Mend, repairs
from ops_pipeline.core.routing import Pool, Routing, Server
from ops_pipeline.core.world import Replica, World

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64
CONFIGURATION = ServiceConfiguration(8080, "/health/ready", replicas=1, start_timeout_seconds=20, drain_seconds=5)
HOSTS = ("h1", "h2")


def release(number: int, pool: str, action: Action = Action.DEPLOY, containers_of: int | None = None) -> Release:
    return Release(
        environment="prod",
        service="api",
        number=number,
        timestamp=f"2026112{number}T000000.000Z",
        action=action,
        repository="r/api",
        digest=DIGEST,
        version=f"{number}.0.0",
        commit="c",
        configuration=CONFIGURATION,
        configuration_hash="h",
        pool=pool,
        who="ann",
        why="",
        run_id="r",
        containers_of=containers_of,
    )


def placement(number: int, pool: str) -> Placement:
    return Placement(number, f"2026112{number}T000000.000Z", pool, number, f"r/api@{DIGEST}", "v", CONFIGURATION, NOW)


def address(number: int) -> str:
    return f"10.0.0.{number}"


def routing(live: str, **pools: int) -> Routing:
    return Routing(live, pools={name: Pool(number, (Server(address(number), 8080),)) for name, number in pools.items()})


def replica(number: int, host: str, **changes: object) -> Replica:
    seen = Replica(host, f"{host}-{number}", f"ops-prod-api-{number}-0", number, 0, DIGEST, address(number),
                   "running", "none", 0, None, False)  # fmt: skip
    return replace(seen, **changes)  # type: ignore[arg-type]


SERVING = Journal(
    "prod",
    "api",
    generation=5,
    last_number=2,
    live=placement(2, "b"),
    standby=placement(1, "a"),
    routing={host: routing("b", a=1, b=2) for host in HOSTS},
)
OLD = tuple(replica(number, host) for number in (1, 2) for host in HOSTS)
NEW = tuple(replica(3, host) for host in HOSTS)
BEGUN = transitions.planned(SERVING, release(3, "c"), HOSTS, NOW, own_containers=True)
STARTING = transitions.advanced(BEGUN, Phase.STARTING, NOW, "start")
JOINED = {host: routing("b", a=1, b=2, c=3) for host in HOSTS}
HEALTHY = transitions.advanced(STARTING, Phase.HEALTHY, NOW, "healthy", routing=JOINED)
SWITCHED = {host: routing("c", a=1, b=2, c=3) for host in HOSTS}
SHIFTING = transitions.advanced(HEALTHY, Phase.SHIFTING, NOW, "shift", routing=SWITCHED)
LIVE = succession.committed(SHIFTING, NOW, keep_standby=True)


def world(journal: Journal, *replicas: Replica, **changes: object) -> World:
    return replace(World(HOSTS, replicas or OLD, dict(journal.routing)), **changes)  # type: ignore[arg-type]


def decide(journal: Journal, seen: World, after: float = 0.0) -> Step:
    return next_step(journal, seen, NOW + timedelta(seconds=after))


def test_the_way_of_a_deploy_step_by_step() -> None:
    step = decide(BEGUN, world(BEGUN, without_image=frozenset({"h2"})))
    assert (step.do, step.hosts, step.then) == (Do.PULL, ("h2",), None)
    step = decide(BEGUN, world(BEGUN))
    assert step.do is Do.START and step.replicas == (("h1", 0), ("h2", 0))
    assert step.then is not None and step.then.work is not None and step.then.work.stage is Phase.STARTING
    step = decide(STARTING, world(STARTING, *OLD, *NEW, silent={NEW[0].key: "GET answered 503"}), 1)
    assert step.do is Do.WAIT
    step = decide(STARTING, world(STARTING, *OLD, *NEW), 1)
    assert step.do is Do.ROUTE and step.then is not None
    assert dict(step.then.routing) == JOINED and len(step.then.outbox[0].instances) == 2
    assert decide(HEALTHY, world(HEALTHY, *OLD, *NEW), 0.5).do is Do.WAIT
    step = decide(HEALTHY, world(HEALTHY, *OLD, *NEW), 1.5)
    assert step.do is Do.ROUTE and step.then is not None and dict(step.then.routing) == SWITCHED
    step = decide(SHIFTING, world(SHIFTING, *OLD, *NEW), 2)
    assert step.do is Do.RECORD and step.then is not None
    assert step.then.live is not None and step.then.live.release == 3
    assert step.then.standby is not None and step.then.standby.release == 2
    assert [place.release for place in step.then.leaving] == [1]


def test_the_way_of_the_release_that_leaves() -> None:
    assert decide(LIVE, world(LIVE, *OLD, *NEW, connections=3), 2).do is Do.WAIT
    step = decide(LIVE, world(LIVE, *OLD, *NEW, connections=3), 6)
    assert step.do is Do.REMOVE and step.containers == (("h1", "h1-1"), ("h2", "h2-1"))
    gone = tuple(one for one in (*OLD, *NEW) if one.release != 1)
    step = decide(LIVE, world(LIVE, *gone))
    assert step.do is Do.ROUTE and step.then is not None and set(step.then.routing["h1"].pools) == {"b", "c"}
    step = decide(step.then, world(step.then, *gone))
    assert step.do is Do.RECORD and step.then is not None and step.then.leaving == ()
    assert [(change.release, change.phase) for change in step.then.outbox] == [(1, Phase.RETIRED)]
    assert decide(step.then, world(step.then, *gone)).do is Do.DONE


FAILING = {
    "exits": (STARTING, (replica(3, "h1", state="exited", exit_code=3), NEW[1]), {}, 1, "exit code 3"),
    "out of memory": (
        STARTING,
        (replica(3, "h1", state="restarting", exit_code=137, oom_killed=True), NEW[1]),
        {},
        1,
        "out of memory",
    ),
    "unhealthy": (STARTING, (replica(3, "h1", health="unhealthy"), NEW[1]), {}, 1, "HEALTHCHECK"),
    "too slow": (STARTING, NEW, {"silent": {NEW[1].key: "GET answered 503"}}, 21, "not healthy within 20 s"),
    "sick before the switch": (HEALTHY, NEW, {"silent": {NEW[1].key: "no answer"}}, 2, "before the switch"),
    "restarted before the switch": (HEALTHY, (replica(3, "h1", restarts=1), NEW[1]), {}, 2, "restarted"),
    "sick after the switch": (SHIFTING, NEW, {"silent": {NEW[1].key: "no answer"}}, 2, "after the switch"),
    "gone after the switch": (SHIFTING, NEW[:1], {}, 2, "has no replica 0"),
    "edge answers 503": (SHIFTING, NEW, {"route_faults": {"h2": "GET / answered 503"}}, 2, "through the edge of h2"),
    "host away": (HEALTHY, NEW, {"unreachable": {"h2": "connection refused"}}, 2, "host h2 does not answer"),
}


@pytest.mark.parametrize("case", FAILING)
def test_whatever_fails_turns_the_work_round_to_the_exact_earlier_routing(case: str) -> None:
    journal, new, changes, after, words = FAILING[case]
    step = decide(journal, world(journal, *OLD, *new, **changes), after)
    assert step.then is not None and step.then.work is not None
    assert words in step.then.work.undo
    assert step.then.routing == SERVING.routing


def test_an_undo_moves_traffic_first_then_removes_then_records() -> None:
    turned = transitions.withdrawn(SHIFTING, "because", NOW)
    seen = world(SHIFTING, *OLD, *NEW)
    assert decide(turned, seen).do is Do.ROUTE
    back = replace(seen, routing=dict(SERVING.routing))
    step = decide(turned, back)
    assert step.do is Do.REMOVE and {container for _, container in step.containers} == {"h1-3", "h2-3"}
    step = decide(turned, replace(back, replicas=OLD))
    assert step.do is Do.RECORD and step.then is not None and step.then.work is None
    assert step.then.live == SERVING.live and step.then.standby == SERVING.standby
    assert [(change.release, change.phase, change.reason) for change in step.then.outbox] == [
        (3, Phase.FAILED, "because")
    ]


def test_an_undo_removes_nothing_where_the_edge_could_not_be_told() -> None:
    turned = transitions.withdrawn(SHIFTING, "because", NOW)
    seen = World(HOSTS, (*OLD[:2], NEW[0]), {"h1": SERVING.routing["h1"]}, unreachable={"h2": "down"})
    step = decide(turned, seen)
    assert step.do is Do.REMOVE and step.containers == (("h1", "h1-3"),)
    assert decide(turned, replace(seen, replicas=OLD[:2])).do is Do.BLOCKED


@pytest.mark.parametrize("journal", [BEGUN, STARTING, HEALTHY], ids=["planned", "starting", "healthy"])
def test_a_takeover_before_the_switch_undoes(journal: Journal) -> None:
    taken = transitions.taken_over(journal, 9, "run-2", NOW)
    assert taken.generation == 9 and taken.work is not None and "ended while it was" in taken.work.undo
    assert taken.routing == SERVING.routing and taken.outbox == journal.outbox


def test_a_takeover_during_the_switch_finishes_when_the_new_one_is_healthy_and_goes_back_when_not() -> None:
    taken = transitions.taken_over(SHIFTING, 9, "run-2", NOW)
    assert taken.work is not None and not taken.work.undo and taken.outbox == SHIFTING.outbox
    half = {"h1": SWITCHED["h1"], "h2": JOINED["h2"]}
    assert decide(taken, world(taken, *OLD, *NEW, routing=half)).do is Do.ROUTE
    step = decide(taken, world(taken, *OLD, *NEW[:1], routing=half))
    assert step.then is not None and step.then.work is not None and step.then.work.undo


def test_a_return_to_the_standby_needs_its_health_and_starts_nothing() -> None:
    back = transitions.planned(
        SERVING, release(3, "a", Action.ROLLBACK, containers_of=1), HOSTS, NOW, own_containers=False
    )
    assert needs(back, NOW).probes[0].release == 1
    step = decide(back, world(back, silent={OLD[0].key: "no answer"}))
    assert step.then is not None and step.then.work is not None and "standby is not healthy" in step.then.work.undo
    step = decide(back, world(back, routing={}))
    assert step.do is Do.ROUTE and step.then is not None, "one switch, straight away: nothing has to join the edge"
    assert all(one.live == "a" for one in step.then.routing.values())
    step = decide(step.then, world(step.then))
    done = step.then
    assert done is not None and done.live is not None and done.standby is not None
    assert (done.live.release, done.live.containers, done.standby.release, done.leaving) == (3, 1, 2, ())
    phases = [(change.release, change.phase) for change in done.outbox]
    assert phases == [(3, Phase.LIVE), (1, Phase.RETIRED), (2, Phase.ROLLED_BACK)]
    undone = transitions.withdrawn(back, "because", NOW)
    assert decide(undone, world(undone)).do is Do.RECORD, "the standby's containers are never removed by an undo"


def test_pools() -> None:
    assert free_pool(SERVING) == "c"
    assert free_pool(LIVE) is None
    left = routing("b", a=1, b=2)
    swapped = replace(left, pools=dict(reversed(list(left.pools.items()))), candidate="a", weight=0)
    assert same_routing(left, swapped)
    assert not same_routing(left, replace(left, live="a"))


def test_repairs_bring_back_what_is_live_before_anything_else() -> None:
    stray = replica(7, "h2")
    seen = world(SERVING, *(one for one in OLD if one.key != OLD[2].key), stray)
    found = repairs(SERVING, replace(seen, routing={**SERVING.routing, "h2": Routing()}), NOW, 1800)
    assert [repair.mend for repair in found] == [Mend.CREATE, Mend.ROUTE, Mend.REMOVE]
    assert repairs(SERVING, world(SERVING), NOW, 1800) == ()
    late = repairs(SERVING, world(SERVING), NOW + timedelta(seconds=1801), 1800)
    assert [(repair.mend, repair.release) for repair in late] == [(Mend.DISMISS, 1)]
