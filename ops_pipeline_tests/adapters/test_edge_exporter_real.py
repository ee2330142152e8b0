"""The edge's exporter on a real edge: nothing lost, not by load, nor by kills, nor by reloads."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ops_pipeline.core.routing import EdgeService, EdgeTopology, Pool, RouteRule, Routing
from ops_pipeline_tests.testbed.edge import EdgeBed, edge_bed
from ops_pipeline_tests.testbed.flood import Flood

pytestmark = pytest.mark.real

WEB = EdgeService("web", RouteRule("/"), 2, "/health/ready", 7.0)
COUNT = "ops_edge_request_duration_seconds_count"


@pytest.fixture(scope="module")
def bed() -> Iterator[EdgeBed]:
    with edge_bed() as running:
        running.edge.ensure(EdgeTopology("test", (WEB,)))
        yield running


@pytest.fixture(scope="module")
def pools(bed: EdgeBed) -> dict[str, Pool]:
    """Release 1 in pool a, which answers quickly, release 2 in pool b, which can be told to wait."""
    return {"a": bed.pool(1, bed.quick_upstream()), "b": bed.pool(2, bed.upstream("two"))}


def soon(check: Callable[[], bool], seconds: float = 8.0) -> None:
    begin = time.monotonic()
    while not check():
        assert time.monotonic() - begin < seconds
        time.sleep(0.02)


def counted(bed: EdgeBed, **labels: str) -> int:
    return int(bed.counted(COUNT, service="web", **labels))


def listens(bed: EdgeBed) -> None:
    """Wait until a killed exporter is back."""

    def answers() -> bool:
        try:
            bed.scrape()
        except OSError:
            return False
        return True

    soon(answers, 15)


def exporter_pid(bed: EdgeBed) -> str:
    return bed.shell("for p in /proc/[0-9]*; do grep -qs '^python3' $p/comm && echo ${p#/proc/}; done; true").strip()


def test_nothing_is_lost_in_a_flood_also_when_the_exporter_is_killed(bed: EdgeBed, pools: dict[str, Pool]) -> None:
    bed.edge.apply("web", Routing("a", pools=pools), 1)
    before = counted(bed)
    with Flood(bed.port, rate=2500, seconds=3) as flood:
        for _ in range(2):
            time.sleep(0.8)
            bed.shell(f"kill -9 {exporter_pid(bed)}")
        flood.wait()
        listens(bed)
        assert counted(bed) - before == flood.requests
    # As many as a busy machine lets through; `make bench ARGS=exporter` proves the rate.
    assert flood.requests > 500
    assert bed.request("/x").status == 200


def test_a_request_is_visible_within_a_tenth_of_a_second(bed: EdgeBed, pools: dict[str, Pool]) -> None:
    bed.edge.apply("web", Routing("a", pools=pools), 1)
    late = 0
    for _ in range(20):
        before = counted(bed)
        bed.request("/x")
        began = time.monotonic()
        soon(lambda before=before: counted(bed) == before + 1)
        late += time.monotonic() - began > 0.1
    assert late <= 2, "a busy machine may be late once or twice"


def test_what_a_replaced_worker_finishes_is_counted_once(bed: EdgeBed, pools: dict[str, Pool]) -> None:
    bed.edge.apply("web", Routing("b", pools=pools), 1)
    before = counted(bed)
    with ThreadPoolExecutor(3) as pool:
        slow = [pool.submit(bed.request, "/slow?seconds=2") for _ in range(3)]
        time.sleep(0.3)
        extra = EdgeService("extra", RouteRule("/extra"), 1, "/health/ready")
        assert bed.edge.ensure(EdgeTopology("test", (WEB, extra)))
        assert bed.request("/x").status == 200
        assert [each.result().status for each in slow] == [200] * 3
    soon(lambda: counted(bed) - before >= 4)
    time.sleep(0.3)
    assert counted(bed) - before == 4


def test_a_request_handed_on_by_a_replaced_worker_is_counted_once(bed: EdgeBed, pools: dict[str, Pool]) -> None:
    bed.edge.apply("web", Routing("b", pools=pools), 1)
    before = counted(bed)
    with socket.create_connection(("127.0.0.1", bed.port), timeout=5) as connection:
        for _ in range(2):
            connection.sendall(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
            assert b" 200 " in connection.recv(65536)
            bed.edge.ensure(EdgeTopology("test", (WEB,)))
            bed.edge.apply("web", Routing("b", pools=pools), 1)
    soon(lambda: counted(bed) - before >= 2)
    assert counted(bed) - before == 2


def test_counters_outlive_a_killed_haproxy_and_name_every_release_at_zero(bed: EdgeBed, pools: dict[str, Pool]) -> None:
    bed.edge.apply("web", Routing("a", pools=pools), 1)
    before = counted(bed)
    assert bed.request("/x").status == 200
    time.sleep(2.1)  # one that dies at once is left to the engine
    bed.kill_haproxy()
    assert bed.request("/x").status == 200
    soon(lambda: counted(bed) >= before + 2)
    assert counted(bed) == before + 2
    third = {"c": Pool(33, pools["b"].servers)}
    bed.edge.apply("web", Routing("a", "c", 0, pools | third), 1)
    for track in ("stable", "canary"):
        assert counted(bed, release="33", track=track) == 0
        for name in (COUNT, "ops_edge_request_errors_total", "ops_edge_requests_total"):
            text = bed.shell(f"curl -s http://127.0.0.1:8406/metrics | grep -c '^{name}{{.*release=.33.,.*{track}'")
            assert int(text) >= 1
    assert bed.request("/x", X_Ops_Track="canary").release == "two"
    soon(lambda: counted(bed, release="33", track="canary") == 1)
    assert counted(bed, release="33", track="stable") == 0


def test_an_edge_without_room_for_its_log_serves_and_goes_on_counting(bed: EdgeBed, pools: dict[str, Pool]) -> None:
    bed.edge.apply("web", Routing("a", pools=pools), 1)
    before, pid = counted(bed), exporter_pid(bed)
    bed.shell("head -c 100000000 /dev/zero >/dev/shm/ballast 2>/dev/null; true")
    for _ in range(5):
        assert bed.request("/x").status == 200
    time.sleep(1.5)  # the exporter has tried to store its state
    bed.shell("rm /dev/shm/ballast")
    assert bed.request("/x").status == 200
    soon(lambda: counted(bed) > before)  # not those there was no room for
    assert before < counted(bed) <= before + 6
    assert exporter_pid(bed) == pid


def test_it_stops_with_the_container(bed: EdgeBed, pools: dict[str, Pool]) -> None:
    bed.edge.apply("web", Routing("a", pools=pools), 1)
    began = time.monotonic()
    bed.container.stop(timeout=10)
    assert time.monotonic() - began < 5
    bed.container.start()
    bed.wait()
    soon(lambda: bed.request("/x").status == 200)
    soon(lambda: "ops_edge_requests_total{" in bed.shell("curl -s http://127.0.0.1:8406/metrics"))
