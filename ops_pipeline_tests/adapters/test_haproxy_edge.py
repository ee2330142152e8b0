"""What only a real HAProxy can show: nothing lost under load, crashes, damage, and what passes through it."""

from __future__ import annotations

import io
import json
import random
import socket
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import docker
import pytest

from ops_pipeline.adapters.docker_exec import ContainerExec
from ops_pipeline.adapters.haproxy_edge import HaproxyEdge
from ops_pipeline.core.edge_config import frame_config
from ops_pipeline.core.routing import EdgeService, EdgeTopology, Pool, RouteRule, Routing, Server
from ops_pipeline.errors import OpsError, Permanent, StaleGeneration, Transient, Unavailable
from ops_pipeline_tests.testbed.edge import DOCKER_URL, EdgeBed, Upstream, edge_bed
from ops_pipeline_tests.testbed.load import Load, LoadPlan

pytestmark = pytest.mark.real

WEB = EdgeService("web", RouteRule("/"), 2, "/health/ready", 7.0)
API = EdgeService("api", RouteRule("/api", strip_prefix=True), 2, "/health/ready", 2.0)
TOPOLOGY = EdgeTopology("test", (WEB, API))


@pytest.fixture(scope="module")
def bed() -> Iterator[EdgeBed]:
    with edge_bed() as running:
        yield running


@pytest.fixture(scope="module")
def ups(bed: EdgeBed) -> tuple[Upstream, Upstream]:
    bed.edge.ensure(TOPOLOGY)
    return bed.upstream("one"), bed.upstream("two")


@pytest.fixture
def pools(bed: EdgeBed, ups: tuple[Upstream, Upstream]) -> dict[str, Pool]:
    """Release 1 in pool a, release 2 in pool b; `web` and `api` both on a at the start of every test."""
    both = {"a": bed.pool(1, ups[0]), "b": bed.pool(2, ups[1])}
    bed.edge.ensure(TOPOLOGY)
    for service in ("web", "api"):
        bed.edge.fence(service, 10)
        bed.edge.apply(service, Routing("a", pools=both), 10)
    return both


def soon(check: Callable[[], bool], seconds: float = 5.0) -> float:
    begin = time.monotonic()
    while not check():
        assert time.monotonic() - begin < seconds
        time.sleep(0.02)
    return time.monotonic() - begin


# ------------------------------------------------------------------------------------------- nothing is lost


def test_switches_and_weights_under_load_lose_nothing(bed: EdgeBed, pools: dict[str, Pool]) -> None:
    with Load(LoadPlan(port=bed.port, rate=150, upload_path="/upload")) as load:
        for turn in range(7):
            bed.edge.apply("web", Routing("ba"[turn % 2], pools=pools), 10)
            time.sleep(0.5)
            bed.edge.apply("web", Routing("a", "b", (turn * 37) % 101, pools), 10)
            time.sleep(0.5)
    assert load.report.total_lost == 0, load.report
    assert load.report.total_ok > 700
    assert min(load.report.releases["one"], load.report.releases["two"]) > 150


def test_a_retired_release_closes_its_websockets_and_loses_nothing(bed: EdgeBed, pools: dict[str, Pool]) -> None:
    old = bed.upstream("old")
    with_old = pools | {"c": bed.pool(3, old)}
    bed.edge.apply("web", Routing("c", pools=with_old), 10)
    with Load(LoadPlan(port=bed.port, rate=100, slow_path="/slow?seconds=2")) as load:
        time.sleep(1)
        assert bed.edge.connections("web", "c") >= 5
        bed.edge.apply("web", Routing("a", pools=with_old), 10)
        soon(lambda: bed.edge.connections("web", "c") == 5, 10)  # the slow ones are done, the WebSockets stay
        old.container.stop(timeout=5)
        bed.edge.apply("web", Routing("a", pools=pools), 10)
        soon(lambda: bed.edge.connections("web", "a") >= 5)
        assert bed.edge.connections("web", "c") == 0
    assert load.report.total_lost == 0, load.report
    assert load.report.websocket_closes["by server 1001"] == 5


def test_reloads_under_load_lose_nothing(bed: EdgeBed, pools: dict[str, Pool]) -> None:
    with Load(LoadPlan(port=bed.port, rate=100)) as load:
        for number in range(3):
            extra = EdgeService(f"extra{number}", RouteRule(f"/extra{number}"), 1, "/health/ready")
            assert bed.edge.ensure(EdgeTopology("test", (WEB, API, extra)))
            bed.edge.apply("web", Routing("ba"[number % 2], pools=pools), 10)
            time.sleep(1)
    assert load.report.total_lost == 0, load.report


def test_a_connection_older_than_a_reload_follows_later_switches(bed: EdgeBed, pools: dict[str, Pool]) -> None:
    gone = bed.upstream("gone")
    bed.edge.apply("web", Routing("c", pools=pools | {"c": bed.pool(3, gone)}), 10)
    with socket.create_connection(("127.0.0.1", bed.port), timeout=5) as connection:

        def ask() -> bytes:
            connection.sendall(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
            return connection.recv(65536)

        assert b"x-release: gone" in ask().lower()
        bed.edge.ensure(EdgeTopology("test", (WEB,)))
        fresh = bed.upstream("fresh")  # in a slot and at an address the old worker has never heard of
        bed.edge.apply("web", Routing("b", pools={"b": bed.pool(4, fresh)}), 10)
        gone.container.remove(force=True)
        answer = ask().lower()
        assert b"x-release: fresh" in answer
        assert b"connection: close" in answer


# ------------------------------------------------------------------------------------------- crashes and damage


def test_a_killed_haproxy_is_back_within_two_seconds(bed: EdgeBed, pools: dict[str, Pool]) -> None:
    bed.edge.apply("web", Routing("b", pools=pools), 10)
    time.sleep(2.1)  # one that dies at once is left to the engine
    assert bed.kill_haproxy() < 2
    assert bed.request("/x").release == "two"
    assert bed.edge.observe("web") == Routing("b", pools=pools)


def test_a_restarted_container_has_the_wanted_routing(bed: EdgeBed, pools: dict[str, Pool]) -> None:
    routing = Routing("b", "a", 20, pools)
    bed.edge.apply("web", routing, 10)
    bed.container.restart(timeout=0)
    bed.wait()
    assert bed.edge.observe("web") == routing
    with pytest.raises(StaleGeneration):
        bed.edge.apply("web", Routing(), 9)


def test_killing_a_change_anywhere_leaves_the_old_or_the_new_routing(bed: EdgeBed, pools: dict[str, Pool]) -> None:
    choice = random.Random(20)
    wanted = [Routing("a", pools=pools), Routing("b", pools=pools)]
    for turn in range(12):
        new = wanted[(turn + 1) % 2]
        with ThreadPoolExecutor(1) as pool:
            change = pool.submit(bed.edge.apply, "web", new, 10)
            time.sleep(choice.uniform(0.02, 0.12))
            bed.shell(
                "pkill -9 -f 'edge apply web' || kill -9 $(grep -laz '^apply' /proc/[0-9]*/cmdline | cut -d/ -f3)"
            )
            try:
                change.result()
            except OpsError as error:
                assert isinstance(error, Transient), error  # worth another try
        assert bed.request("/x").release in {"one", "two"}
        if turn % 4 == 3:
            bed.container.restart(timeout=0)
            bed.wait()
            assert bed.request("/x").release in {"one", "two"}
        assert bed.edge.observe("web") in wanted
        bed.edge.apply("web", new, 10)
        assert bed.request("/x").release == {"a": "one", "b": "two"}[new.live or ""]


def test_what_killed_changes_left_on_disk_does_no_harm(bed: EdgeBed, pools: dict[str, Pool]) -> None:
    bed.shell(
        "cd /var/lib/ops-edge; for f in services/.tmp.1.web.cfg.new generations/.tmp.1.web.new .tmp.1.routing; do"
        " echo 'garbage {' >$f; done; mkdir -p staging.1/new; echo x >staging.1/new/frame.cfg;"
        " rm routes.map routing.map"
    )
    bed.container.restart(timeout=0)
    bed.wait()
    assert bed.request("/x").release == "one"
    assert bed.edge.observe("web") == Routing("a", pools=pools)
    assert bed.shell("cd /var/lib/ops-edge; find . -name '*tmp*' -o -name 'staging*'") == ""


def test_a_damaged_file_costs_its_own_service_only(bed: EdgeBed, pools: dict[str, Pool]) -> None:
    bed.shell("echo 'server nonsense' >/var/lib/ops-edge/services/api.cfg")
    bed.container.restart(timeout=0)
    bed.wait()
    assert bed.request("/x").release == "one"
    assert "api.cfg is damaged" in bed.container.logs().decode()
    assert bed.edge.ensure(TOPOLOGY)
    bed.edge.apply("api", Routing("b", pools=pools), 10)
    assert bed.request("/api/x").release == "two"
    bed.shell("echo 'nonsense' >/var/lib/ops-edge/frame.cfg")
    bed.container.restart(timeout=0)
    bed.wait()
    assert bed.request("/x").release == "one"
    assert bed.edge.ensure(TOPOLOGY)
    assert not bed.edge.ensure(TOPOLOGY)


def test_a_configuration_haproxy_refuses_changes_nothing(bed: EdgeBed, pools: dict[str, Pool]) -> None:
    files = ContainerExec(DOCKER_URL, "local", bed.container.name or "", "")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, text in (("frame.cfg", frame_config(TOPOLOGY)), ("services/web.cfg", "backend web__a\n  nonsense\n")):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    before = bed.shell("cd /var/lib/ops-edge && cat frame.cfg services/* routing.map | sha256sum")
    pid = bed.worker_pid()
    etag = files.run(["edge", "read", "1"], b"\n", 10).out.splitlines()[0].split()[1]
    payload = stream.getvalue()
    result = files.run(["edge", "ensure", str(len(payload)), etag, "digest"], payload, 30)
    assert result.code == 17
    assert "services/web.cfg:2" in result.err and "unknown keyword 'nonsense'" in result.err
    assert bed.shell("cd /var/lib/ops-edge && cat frame.cfg services/* routing.map | sha256sum") == before
    assert bed.worker_pid() == pid
    assert files.run(["edge", "ensure", str(len(payload)), "0" * 32, "digest"], payload, 30).code == 18


def test_a_full_disk_is_named_and_changes_nothing() -> None:
    with edge_bed(volume_options={"type": "tmpfs", "device": "tmpfs", "o": "size=300k,uid=10080,mode=0700"}) as bed:
        bed.edge.ensure(EdgeTopology("test", (WEB,)))
        first, second = bed.upstream("one"), bed.upstream("two")
        routing = Routing("a", pools={"a": bed.pool(1, first)})
        bed.edge.apply("web", routing, 1)
        bed.shell("head -c 1000000 /dev/zero >/var/lib/ops-edge/ballast")
        for generation in (1, 2):
            with pytest.raises(Permanent, match="is the disk full"):
                bed.edge.apply("web", Routing("b", pools={"b": bed.pool(2, second)}), generation)
        with pytest.raises(Permanent, match="is the disk full"):
            bed.edge.ensure(TOPOLOGY)
        assert bed.edge.observe("web") == routing
        assert bed.request("/x").release == "one"
        bed.shell("rm /var/lib/ops-edge/ballast")
        bed.edge.apply("web", Routing("b", pools={"b": bed.pool(2, second)}), 2)
        assert bed.request("/x").release == "two"


def test_changes_at_the_same_time_are_serialised(bed: EdgeBed, pools: dict[str, Pool]) -> None:
    pair = tuple(EdgeService(name, RouteRule(f"/{name}"), 2, "/health/ready") for name in ("left", "right"))
    bed.edge.ensure(EdgeTopology("test", (WEB, API, *pair)))

    def change(number: int) -> str:
        try:
            routing = Routing("ab"[number % 3 % 2], pools=pools)
            bed.edge.apply(pair[number % 2].name, routing, number // 4)
        except StaleGeneration:
            return "stale"
        return "done"

    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(change, range(12)))
    assert set(outcomes) <= {"done", "stale"} and outcomes[-1] == "done", outcomes
    for service in pair:
        assert bed.edge.view(service.name).generation == 2
        assert bed.edge.observe(service.name) == bed.edge.view(service.name).wanted


# ------------------------------------------------------------------------------------------- health


def test_a_dead_replica_gets_no_traffic_and_a_dead_pool_answers_503_quickly(bed: EdgeBed) -> None:
    two = bed.upstream("x"), bed.upstream("x")
    bed.edge.ensure(TOPOLOGY)
    bed.edge.apply("web", Routing("c", pools={"c": bed.pool(9, *two)}), 10)
    two[0].container.remove(force=True)
    soon(lambda: len(bed.edge.view("web").up["c"]) == 1)
    assert [bed.request("/x").status for _ in range(10)] == [200] * 10
    two[1].container.remove(force=True)
    soon(lambda: len(bed.edge.view("web").up["c"]) == 0)
    begin = time.monotonic()
    answer = bed.request("/x")
    assert answer.status == 503 and json.loads(answer.body)["error"]
    assert time.monotonic() - begin < 0.5
    again = bed.upstream("again")
    bed.edge.apply("web", Routing("c", pools={"c": bed.pool(10, again)}), 10)
    assert bed.request("/x").release == "again"  # at once, though HAProxy had this slot down


def test_a_recovered_replica_is_used_again(bed: EdgeBed) -> None:
    one = bed.upstream("flapping")
    bed.edge.apply("web", Routing("a", pools={"a": bed.pool(11, one)}), 10)
    bed.request("/health/set?ready=0")
    soon(lambda: bed.request("/x").status == 503)
    one.container.restart(timeout=1)
    soon(lambda: bed.request("/x").status == 200)


# ------------------------------------------------------------------------------------------- what passes


def test_requests_carry_what_services_need(bed: EdgeBed, pools: dict[str, Pool]) -> None:
    bed.edge.apply("web", Routing("a", pools=pools), 10)
    bed.edge.apply("api", Routing("a", pools=pools), 10)
    seen = json.loads(bed.request("/headers", X_Request_Id="given-1", Upgrade="h2c", Connection="Upgrade").body)
    assert seen["headers"]["x-request-id"] == "given-1"
    assert seen["headers"]["x-forwarded-for"] and seen["headers"]["x-forwarded-proto"] == "http"
    assert "upgrade" not in seen["headers"]
    answer = bed.request("/headers", X_Request_Id='bad "id"')
    made = json.loads(answer.body)["headers"]["x-request-id"]
    assert len(made) == 36 and answer.headers["x-request-id"] == made
    assert answer.headers["x-ops-release"] == "1"
    assert json.loads(bed.request("/api/headers?q=1").body)["path"] == "/headers?q=1"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/metrics", 404),
        ("/Metrics/", 404),
        ("//metrics", 404),
        ("/%6detrics?x", 404),
        ("/api/metrics", 404),
        ("/api//metrics", 404),
        ("/metricsdata", 200),
        ("/x/../metrics", 400),
        ("/api/%2e%2e/metrics", 400),
        ("/health/ready", 200),
    ],
)
def test_private_paths_stay_private(bed: EdgeBed, pools: dict[str, Pool], path: str, status: int) -> None:
    bed.edge.apply("web", Routing("a", pools=pools), 10)
    bed.edge.apply("api", Routing("a", pools=pools), 10)
    assert bed.request(path).status == status


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20000 + b"\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000000\r\n\r\n",
    ],
)
def test_requests_that_programs_read_differently_are_refused(
    bed: EdgeBed, pools: dict[str, Pool], request_bytes: bytes
) -> None:
    bed.edge.apply("web", Routing("a", pools=pools), 10)
    with socket.create_connection(("127.0.0.1", bed.port), timeout=5) as connection:
        connection.sendall(request_bytes)
        status = int(connection.recv(4096).split(b" ")[1])
    # 422/501 are HAProxy's and 400 everybody's words for it; a 2xx would be wrong.
    assert 400 <= status < 502 and status != 404


def test_time_outs_are_the_services_own(bed: EdgeBed, pools: dict[str, Pool]) -> None:
    bed.edge.apply("web", Routing("a", pools=pools), 10)
    bed.edge.apply("api", Routing("a", pools=pools), 10)
    assert bed.request("/slow?seconds=3").status == 200
    begin = time.monotonic()
    answer = bed.request("/api/slow?seconds=3")
    assert answer.status == 504 and json.loads(answer.body)["error"]
    assert 1.8 < time.monotonic() - begin < 2.8


def test_new_clients_get_a_cookie_that_keeps_them_on_their_release(bed: EdgeBed, pools: dict[str, Pool]) -> None:
    bed.edge.apply("web", Routing("a", "b", 50, pools), 10)
    for client in range(8):
        first = bed.request("/x", User_Agent=f"browser/{client}", X_Forwarded_For=f"192.0.2.{client}")
        cookie = first.headers["set-cookie"].split(";")[0]
        assert cookie.startswith("ops_bucket=") and "HttpOnly" in first.headers["set-cookie"]
        assert {bed.request("/x", User_Agent=f"other/{n}", Cookie=cookie).release for n in range(4)} == {first.release}
    by_token = {bed.request("/x", Authorization="Bearer t", User_Agent=f"p/{n}").release for n in range(6)}
    assert len(by_token) == 1
    bed.edge.apply("web", Routing("a", pools=pools), 10)
    assert "set-cookie" not in bed.request("/x").headers


def test_every_request_is_logged_as_a_line_of_json_without_its_query(bed: EdgeBed, pools: dict[str, Pool]) -> None:
    bed.edge.apply("web", Routing("a", "b", 0, pools), 10)
    bed.request(
        '/log"ged?token=verysecret', Authorization="Bearer verysecret", X_Request_Id="log-1", X_Ops_Track="canary"
    )
    soon(lambda: b"log-1" in bed.container.logs(tail=50))
    text = bed.container.logs().decode()
    assert "verysecret" not in text
    line = next(json.loads(line) for line in text.splitlines() if line.startswith("{") and "log-1" in line)
    assert (line["env"], line["service"], line["release"], line["track"]) == ("test", "web", "2", "canary")
    assert (line["method"], line["path"], line["status"], line["end"]) == ("GET", '/log"ged', 200, "--")
    assert all(line[key] >= 0 for key in ("time", "queue_ms", "connect_ms", "response_ms", "active_ms", "bytes"))
    for other in text.splitlines():
        if other.startswith("{"):
            json.loads(other)


def test_the_container_shows_little(bed: EdgeBed) -> None:
    assert bed.shell("id -u").strip() == "10080"
    listening = bed.shell('cat /proc/net/tcp /proc/net/tcp6 | awk \'$4 == "0A" { split($2, at, ":"); print at[2] }\'')
    ports = {int(port, 16) for port in listening.split()}
    ours = {8080, 8405, 8406}
    assert ours <= ports and not {port for port in ports - ours if port < 30000}
    assert "Read-only file system" in bed.shell("touch /etc/x")
    assert "haproxy_backend_status" in bed.shell("curl -s http://127.0.0.1:8405/metrics")
    bed.container.reload()
    assert bed.container.attrs["State"]["Health"]["Status"] in {"healthy", "starting"}


# ------------------------------------------------------------------------------------------- errors in words


def test_what_is_out_of_reach_is_named_with_what_to_do(bed: EdgeBed, ups: tuple[Upstream, Upstream]) -> None:
    engine = docker.DockerClient(base_url=DOCKER_URL)
    stopped = engine.containers.create("debian:bookworm-slim", labels=bed.labels, name=f"ops-testbed-off-{bed.id}")
    cases = [
        (DOCKER_URL, "ops-edge-nowhere", Unavailable, "ops-edge-nowhere does not exist on hostname"),
        (DOCKER_URL, stopped.name, Unavailable, "does not run"),
        (DOCKER_URL, ups[0].container.name, Permanent, "is not made from the edge's image"),
        ("unix:///nowhere/docker.sock", "any", Unavailable, "Docker engine of hostname"),
        ("tcp://127.0.0.1:1", "any", Unavailable, "Docker engine of hostname"),
    ]
    for url, container, kind, words in cases:
        edge = HaproxyEdge(url, "hostname", "prod", container or "")
        for call in (edge.check, lambda edge=edge: edge.observe("web"), lambda edge=edge: edge.fence("web", 1)):
            with pytest.raises(kind, match=words) as caught:
                call()
            assert caught.value.hint
    engine.close()


def test_an_address_nobody_answers_on_is_probed_in_bounded_time(bed: EdgeBed) -> None:
    begin = time.monotonic()
    probe = bed.edge.probe("192.0.2.1", 80, "/", timeout_seconds=0.5)
    assert (probe.status, probe.ok) == (0, False) and probe.detail
    assert time.monotonic() - begin < 3
    with pytest.raises(Permanent, match="no replica of pool a"):
        bed.edge.ensure(TOPOLOGY)
        bed.edge.apply("api", Routing("a", pools={"a": Pool(99, (Server("192.0.2.1", 80),))}), 10)
