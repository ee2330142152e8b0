"""One suite for every implementation of the Edge port: the one in memory and HAProxy in its container."""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Protocol

import pytest

from ops_pipeline.core.routing import EdgeService, EdgeTopology, Pool, RouteRule, Routing, Server
from ops_pipeline.errors import NotFound, Permanent, StaleGeneration
from ops_pipeline.ports import Edge, Probe
from ops_pipeline_tests.fakes.edge import FakeEdge
from ops_pipeline_tests.testbed.edge import EdgeBed, edge_bed

HEALTH = "/health/ready"


class Stage(Protocol):
    """What the suite needs around an edge."""

    edge: Edge

    def replica(self, release: int, *, ready: bool = True) -> Server:
        """A running replica of a release; the same one for the same release."""

    def ask(self, path: str, *, host: str = "localhost", bucket: int = 0, track: str = "") -> tuple[int, int | None]:
        """Status and release number of one request."""

    def hold(self, service: str, pool: str, path: str) -> contextlib.AbstractContextManager[None]:
        """Keep a WebSocket open through the edge."""

    def restart(self) -> None:
        """Kill the edge's process and wait until it is back."""


class MemoryStage:
    def __init__(self) -> None:
        self.unready: set[str] = set()
        self._fake = FakeEdge(answers=self._answer)
        self.edge: Edge = self._fake

    def _answer(self, address: str, port: int, path: str) -> Probe:
        return Probe(503, "HTTP 503") if path == HEALTH and address in self.unready else Probe(200, "HTTP 200")

    def replica(self, release: int, *, ready: bool = True) -> Server:
        address = f"10.0.0.{release}"
        if not ready:
            self.unready.add(address)
        return Server(address, 8080)

    def ask(self, path: str, *, host: str = "localhost", bucket: int = 0, track: str = "") -> tuple[int, int | None]:
        return self._fake.request(path, host, bucket, track)

    @contextlib.contextmanager
    def hold(self, service: str, pool: str, path: str) -> Iterator[None]:
        self._fake.open_connections[service, pool] += 1
        yield
        self._fake.open_connections[service, pool] -= 1

    def restart(self) -> None:
        """Nothing to lose: routing and generations are what a restarted edge must come back with."""


class RealStage:
    def __init__(self, bed: EdgeBed) -> None:
        self.bed = bed
        self.edge: Edge = bed.edge
        self._replicas: dict[int, Server] = {}

    def replica(self, release: int, *, ready: bool = True) -> Server:
        if release not in self._replicas:
            switches = {} if ready else {"FAIL_HEALTH": "1"}
            self._replicas[release] = self.bed.upstream(str(release), **switches).server
        return self._replicas[release]

    def ask(self, path: str, *, host: str = "localhost", bucket: int = 0, track: str = "") -> tuple[int, int | None]:
        headers = {"Host": host, "Cookie": f"ops_bucket={bucket}"} | ({"X_Ops_Track": track} if track else {})
        answer = self.bed.request(path, body=None, **headers)
        return answer.status, int(answer.release) if answer.release else None

    @contextlib.contextmanager
    def hold(self, service: str, pool: str, path: str) -> Iterator[None]:
        with socket.create_connection(("127.0.0.1", self.bed.port), timeout=5) as connection:
            connection.sendall(
                f"GET {path}/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            assert b" 101 " in connection.recv(200)
            yield

    def restart(self) -> None:
        self.bed.kill_haproxy()


@pytest.fixture(scope="module", params=["memory", pytest.param("haproxy", marks=pytest.mark.real)])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    if request.param == "memory":
        yield MemoryStage()
    else:
        with edge_bed() as bed:
            yield RealStage(bed)


_numbers = itertools.count(1)
_declared: dict[int, list[EdgeService]] = {}


@pytest.fixture
def name(stage: Stage) -> str:
    """A service nobody has deployed yet, at `/<name>`; the ones of earlier tests stay declared."""
    return declare(stage)


def declare(stage: Stage, *, slots: int = 2) -> str:
    service = f"svc{next(_numbers)}"
    services = _declared.setdefault(id(stage), [])
    services.append(EdgeService(service, RouteRule(f"/{service}"), slots, HEALTH))
    assert stage.edge.ensure(EdgeTopology("test", tuple(services)))
    return service


def pool(stage: Stage, release: int, *, ready: bool = True) -> Pool:
    return Pool(release, (stage.replica(release, ready=ready),))


def test_answers_503_when_nothing_is_deployed(stage: Stage, name: str) -> None:
    assert stage.ask(f"/{name}") == (503, None)
    assert stage.edge.observe(name) == Routing()
    assert stage.edge.probe_route(f"/{name}").status == 503


def test_answers_404_where_no_service_is(stage: Stage, name: str) -> None:
    assert stage.ask("/elsewhere") == (404, None)
    assert stage.ask(f"/{name}x") == (404, None)


def test_does_not_know_an_undeclared_service(stage: Stage) -> None:
    for call in (
        lambda: stage.edge.observe("ghost"),
        lambda: stage.edge.apply("ghost", Routing(), 1),
        lambda: stage.edge.connections("ghost", "a"),
    ):
        with pytest.raises(NotFound, match="ghost"):
            call()


def test_serves_a_first_release_and_switches_there_and_back(stage: Stage, name: str) -> None:
    first, second = pool(stage, 1), pool(stage, 2)
    stage.edge.apply(name, Routing("a", pools={"a": first}), 1)
    assert stage.ask(f"/{name}/x") == (200, 1)
    both = {"a": first, "b": second}
    stage.edge.apply(name, Routing("b", pools=both), 1)
    assert stage.ask(f"/{name}/x") == (200, 2)
    assert stage.edge.observe(name) == Routing("b", pools=both)
    stage.edge.apply(name, Routing("a", pools=both), 1)
    assert stage.ask(f"/{name}/x") == (200, 1)
    stage.edge.apply(name, Routing("a", pools={"a": first}), 1)
    assert stage.edge.observe(name) == Routing("a", pools={"a": first})
    stage.edge.apply(name, Routing(), 1)
    assert stage.ask(f"/{name}/x") == (503, None)


def test_applying_the_same_again_changes_nothing(stage: Stage, name: str) -> None:
    routing = Routing("c", pools={"c": pool(stage, 1)})
    for _ in range(2):
        stage.edge.apply(name, routing, 1)
        assert stage.edge.observe(name) == routing
        assert stage.ask(f"/{name}") == (200, 1)


def test_weight_shares_clients_and_each_client_sticks(stage: Stage, name: str) -> None:
    pools = {"a": pool(stage, 1), "b": pool(stage, 2)}
    seen: dict[int, dict[int, int | None]] = {}
    for weight in (0, 10, 50, 100):
        stage.edge.apply(name, Routing("a", "b", weight, pools), 1)
        seen[weight] = {bucket: stage.ask(f"/{name}", bucket=bucket)[1] for bucket in range(100)}
        assert Counter(seen[weight].values())[2] == weight
    assert [stage.ask(f"/{name}", bucket=3)[1] for _ in range(3)] == [seen[100][3]] * 3
    # Who got the candidate keeps it while its share grows.
    assert {b for b, r in seen[10].items() if r == 2} < {b for b, r in seen[50].items() if r == 2}


def test_testers_choose_their_track(stage: Stage, name: str) -> None:
    pools = {"a": pool(stage, 1), "b": pool(stage, 2)}
    stage.edge.apply(name, Routing("a", "b", 0, pools), 1)
    assert stage.ask(f"/{name}", track="candidate") == (200, 2)
    assert stage.ask(f"/{name}") == (200, 1)
    stage.edge.apply(name, Routing("a", "b", 100, pools), 1)
    assert stage.ask(f"/{name}", track="stable") == (200, 1)
    stage.edge.apply(name, Routing("a", pools=pools), 1)
    assert stage.ask(f"/{name}", track="candidate") == (200, 1)


def test_a_stale_generation_is_refused_and_changes_nothing(stage: Stage, name: str) -> None:
    routing = Routing("a", pools={"a": pool(stage, 1)})
    stage.edge.apply(name, routing, 5)
    stage.edge.fence(name, 7)
    stage.edge.fence(name, 7)
    for attempt in range(2):
        with pytest.raises(StaleGeneration):
            stage.edge.apply(name, Routing("b", pools={"b": pool(stage, 2)}), 6)
        with pytest.raises(StaleGeneration):
            stage.edge.fence(name, 6)
        assert stage.edge.observe(name) == routing
        assert stage.ask(f"/{name}") == (200, 1)
        if attempt == 0:
            stage.restart()
    stage.edge.apply(name, Routing("b", pools={"b": pool(stage, 2)}), 7)
    assert stage.ask(f"/{name}") == (200, 2)


def test_a_restart_brings_the_wanted_routing_back(stage: Stage, name: str) -> None:
    pools = {"a": pool(stage, 1), "b": pool(stage, 2)}
    routing = Routing("b", "a", 30, pools)
    stage.edge.apply(name, routing, 1)
    before = [stage.ask(f"/{name}", bucket=bucket) for bucket in range(0, 100, 10)]
    stage.restart()
    assert stage.edge.observe(name) == routing
    assert [stage.ask(f"/{name}", bucket=bucket) for bucket in range(0, 100, 10)] == before


def test_traffic_does_not_move_to_a_pool_that_is_not_ready(stage: Stage, name: str) -> None:
    good, bad = pool(stage, 1), pool(stage, 3, ready=False)
    routing = Routing("a", pools={"a": good})
    stage.edge.apply(name, routing, 1)
    for wanted in (Routing("b", pools={"a": good, "b": bad}), Routing("a", "b", 10, {"a": good, "b": bad})):
        with pytest.raises(Permanent, match="pool b"):
            stage.edge.apply(name, wanted, 1)
        assert stage.edge.observe(name) == routing
        assert stage.ask(f"/{name}") == (200, 1)
    # Without traffic it may stand there.
    stage.edge.apply(name, Routing("a", pools={"a": good, "b": bad}), 1)
    assert stage.ask(f"/{name}") == (200, 1)


def test_services_do_not_disturb_one_another(stage: Stage, name: str) -> None:
    other = declare(stage)
    mine, theirs = Routing("a", pools={"a": pool(stage, 1)}), Routing("b", pools={"b": pool(stage, 2)})
    stage.edge.apply(name, mine, 9)
    stage.edge.apply(other, theirs, 2)
    assert (stage.edge.observe(name), stage.edge.observe(other)) == (mine, theirs)
    assert (stage.ask(f"/{name}"), stage.ask(f"/{other}")) == ((200, 1), (200, 2))
    stage.edge.apply(other, Routing(), 2)
    assert (stage.ask(f"/{name}"), stage.ask(f"/{other}")) == ((200, 1), (503, None))


def test_a_new_service_keeps_what_the_others_do(stage: Stage, name: str) -> None:
    routing = Routing("b", pools={"b": pool(stage, 2)})
    stage.edge.apply(name, routing, 1)
    declare(stage)
    assert stage.edge.observe(name) == routing
    assert stage.ask(f"/{name}") == (200, 2)
    assert not stage.edge.ensure(EdgeTopology("test", tuple(_declared[id(stage)])))


def test_connections_count_websockets(stage: Stage, name: str) -> None:
    stage.edge.apply(name, Routing("a", pools={"a": pool(stage, 1), "b": pool(stage, 2)}), 1)
    assert (stage.edge.connections(name, "a"), stage.edge.connections(name, "b")) == (0, 0)
    with stage.hold(name, "a", f"/{name}"):
        stage.edge.apply(name, Routing("b", pools={"a": pool(stage, 1), "b": pool(stage, 2)}), 1)
        declare(stage)  # a reload: the old worker's connections count too
        assert (stage.edge.connections(name, "a"), stage.edge.connections(name, "b")) == (1, 0)


def test_an_impossible_routing_changes_nothing(stage: Stage, name: str) -> None:
    good = pool(stage, 1)
    stage.edge.apply(name, Routing("a", pools={"a": good}), 1)
    crowd = Pool(4, tuple(Server("10.9.9.9", port) for port in (1, 2, 3)))
    for wanted, words in (
        (Routing("b", pools={"a": good}), "live pool b has no servers"),
        (Routing("a", "a", 5, {"a": good}), "live and candidate at once"),
        (Routing("a", None, 5, {"a": good}), "needs a candidate"),
        (Routing("a", pools={"a": crowd}), "declares 1 to 2"),
        (Routing("a", pools={"a": Pool(1, (Server("name; shutdown", 80),))}), "not an IPv4 address"),
        (Routing("a", pools={"a": good, "d": good}), "no pool d"),
    ):
        with pytest.raises(Permanent, match=words):
            stage.edge.apply(name, wanted, 1)
        assert stage.edge.observe(name) == Routing("a", pools={"a": good})


def test_an_impossible_structure_changes_nothing(stage: Stage, name: str) -> None:
    routing = Routing("a", pools={"a": pool(stage, 1)})
    stage.edge.apply(name, routing, 1)
    known = tuple(_declared[id(stage)])
    twice = EdgeService("other", RouteRule(f"/{name}"), 1, HEALTH)
    broken = EdgeService("other", RouteRule('/x" bad'), 0, "/health\nbind :1")
    with pytest.raises(Permanent, match=f"already belongs to {name}"):
        stage.edge.ensure(EdgeTopology("test", (*known, twice)))
    with pytest.raises(Permanent, match=r"route path .*health path .*0 slots"):
        stage.edge.ensure(EdgeTopology("test", (*known, broken)))
    assert stage.edge.observe(name) == routing
    assert stage.ask(f"/{name}") == (200, 1)


def test_hosts_come_before_paths_and_long_prefixes_before_short_ones(stage: Stage, name: str) -> None:
    services = _declared[id(stage)]
    inner = EdgeService(f"{name}-in", RouteRule(f"/{name}/in"), 1, HEALTH)
    hosted = EdgeService(f"{name}-host", RouteRule("/", "shop.example"), 1, HEALTH)
    services += [inner, hosted]
    stage.edge.ensure(EdgeTopology("test", tuple(services)))
    for number, service in enumerate((name, inner.name, hosted.name), start=1):
        stage.edge.apply(service, Routing("a", pools={"a": Pool(number, pool(stage, number % 3 or 4).servers)}), 1)
    assert stage.ask(f"/{name}/other")[0:2] == (200, 1)
    assert stage.ask(f"/{name}/in/deep")[0:2] == (200, 2)
    assert stage.ask(f"/{name}/inner")[0:2] == (200, 1)
    assert stage.ask(f"/{name}/in", host="shop.example:8080")[0] == 200
    assert stage.ask(f"/{name}/in", host="shop.example:8080") != stage.ask(f"/{name}/in")
    services[:] = [service for service in services if service not in (inner, hosted)]
    assert stage.edge.ensure(EdgeTopology("test", tuple(services)))
    assert stage.ask(f"/{name}/in/deep")[0:2] == (200, 1)


def test_flags_are_replaced_whole_and_outlive_a_restart(stage: Stage) -> None:
    assert stage.edge.flags() is None
    large = b'{"flags":{' + b",".join(b'"flag%d":{"x":"\xc3\xa4"}' % number for number in range(20_000)) + b"}}\n"
    for document in (b"{}", large, b'{"flags":{}}\n', b"\x00 anything, \xff even this \r\n\n"):
        stage.edge.publish_flags(document)
        assert stage.edge.flags() == document
    with pytest.raises(Permanent, match="empty"):
        stage.edge.publish_flags(b"")
    stage.restart()
    assert stage.edge.flags() == b"\x00 anything, \xff even this \r\n\n"


def test_probes_a_replica_directly(stage: Stage) -> None:
    ready, unready = stage.replica(1), stage.replica(3, ready=False)
    assert stage.edge.probe(ready.address, ready.port, HEALTH).ok
    assert not stage.edge.probe(unready.address, unready.port, HEALTH).ok
