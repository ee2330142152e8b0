"""Smoke tests of a release: every replica, through the edge, and commands; each fault one sentence that says all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.catalogue.resolve import resolve
from ops_pipeline.core.release import Action, Release
from ops_pipeline.core.rollout import Rollout, SmokeTest
from ops_pipeline.core.routing import EdgeService, EdgeTopology, Pool, RouteRule, Routing, Server
from ops_pipeline.ports import Answer, ContainerSpec
from ops_pipeline.services.fleet import fleet_of
from ops_pipeline.services.instances import Launch, start_replica
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.smoke import smoke_faults, users_path
from ops_pipeline.services.topology import topology_of
from ops_pipeline_tests.fakes.platform import Bed, catalogue, quiet
from ops_pipeline_tests.fakes.runtime import Behaviour
from ops_pipeline_tests.testbed.edge import DOCKER_URL, EdgeBed, edge_bed
from ops_pipeline_tests.testbed.upstream import upstream_image

SECRET = "s3cret-token"


def release(platform: Platform, image: str, *tests: SmokeTest, environment: str = "prod", number: int = 7) -> Release:
    repository, _, digest = image.partition("@")
    return Release(
        environment=environment,
        service="api",
        number=number,
        timestamp="20261121T100000.000Z",
        action=Action.DEPLOY,
        repository=repository,
        digest=digest,
        version="2.0.0",
        commit="c0ffee0",
        configuration=resolve(platform.catalogue, environment, "api"),
        configuration_hash="",
        pool="a",
        who="ada",
        why="",
        run_id="r1",
        rollout=Rollout(smoke=tests),
    )


def launch(found: Release, secrets: dict[str, str]) -> Launch:
    return Launch(
        found.environment, "api", found.number, found.version, found.image, "a", 1, found.configuration, secrets
    )


class Stage:
    """Release #7 of prod/api, two replicas on each of two hosts, live at both edges. `reply` is what a replica says."""

    def __init__(self, *tests: SmokeTest, command: Callable[[ContainerSpec], tuple[int, str, float]] | None = None):
        self.bed = Bed()
        self.platform = self.bed.platform()
        behaviour = Behaviour() if command is None else Behaviour(command=command)
        image = str(self.bed.image("2.0.0", behaviour).ref)
        self.release = release(self.platform, image, *tests)
        self.reply: Callable[[str, str, str], Answer] = lambda place, method, path: Answer(200, "{}")
        self.asked: list[tuple[str, str, str]] = []
        self.names: dict[tuple[str, str], str] = {}
        fleet = fleet_of(self.platform, "prod")
        for runtime, edge in zip(self.bed.runtimes["prod"], self.bed.edges["prod"], strict=True):
            runtime.ensure_network(fleet.network, fleet.subnet)
            runtime.pull(image, quiet)
            servers = []
            for index in range(2):
                address = start_replica(runtime, launch(self.release, {}), fleet, index, reserved=())
                servers.append(Server(address, 8080))
                self.names[runtime.host, address] = f"{runtime.host}/ops-prod-api-7-{index}"
            edge.ensure(topology_of(self.platform.catalogue, "prod"))
            edge.apply("api", Routing("a", pools={"a": Pool(7, tuple(servers))}), 1)

            def reply(address: str, port: int, path: str, method: str, host: str = runtime.host) -> Answer:
                assert port == 8080
                place = self.names[host, address]
                self.asked.append((place, method, path))
                return self.reply(place, method, path)

            edge.replies = reply

    def faults(self) -> tuple[str, ...]:
        self.lines: list[str] = []
        return smoke_faults(self.platform, "prod", "api", self.release, progress=self.lines.append)


PAGE = SmokeTest("page", path="/version", contains="2.0.0")


def test_without_tests_nothing_is_asked() -> None:
    stage = Stage()
    assert stage.faults() == () and stage.asked == []


def test_a_request_goes_to_every_replica_and_through_every_edge() -> None:
    stage = Stage(PAGE)
    stage.reply = lambda place, method, path: Answer(200, '{"version": "2.0.0"}')
    assert stage.faults() == ()
    assert stage.lines == ["smoke test «page»: passed"]
    direct = [ask for ask in stage.asked if ask[2] == "/version"]
    assert {place for place, _, _ in direct} == set(stage.names.values())
    # Through the edge it is `/api/version`; the edge of the test takes the prefix away no more than that.
    assert sorted(path for _, _, path in stage.asked) == ["/api/version"] * 2 + ["/version"] * 4


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(500, "oops"), "answered 500, expected 200"),
        (Answer(0, detail="Connection refused"), "got no answer (Connection refused), expected 200"),
        (Answer(200, "version 1.0.0"), "answered 200, expected «2.0.0» in the body, got «version 1.0.0»"),
        (Answer(200, ""), "answered 200, expected «2.0.0» in the body, got nothing"),
        (Answer(200, "x" * 65536, cut=True), "in the beginning of the body, got «" + "x" * 200 + "…»"),
        (Answer(200, "2.0.0", detail="timed out"), "answered 200 and broke off (timed out), expected all of it"),
        (Answer(200, f"{SECRET} 1.0.0"), "in the body, got «[secret] 1.0.0»"),
    ],
)  # fmt: skip
def test_each_fault_names_test_replica_expected_and_got(answer: Answer, words: str) -> None:
    stage = Stage(PAGE)
    bad = "h2/ops-prod-api-7-1"
    stage.reply = lambda place, method, path: answer if place == bad and path == "/version" else Answer(200, "2.0.0")
    (fault,) = stage.faults()
    assert fault.startswith(f"smoke test «page»: {bad}: GET /version ") and fault.endswith(words)
    assert stage.lines == [fault]


@pytest.mark.parametrize(("method", "asked"), [("GET", 2), ("HEAD", 2), ("POST", 1), ("DELETE", 1)])
def test_only_a_request_that_changes_nothing_gets_a_second_chance(method: str, asked: int) -> None:
    stage = Stage(SmokeTest("once", path="/once", method=method))
    unlucky = ("h1/ops-prod-api-7-0", method, "/once")
    # `asked` holds the request that is being answered.
    stage.reply = lambda *ask: Answer(503 if ask == unlucky and stage.asked.count(unlucky) == 1 else 200)
    assert len(stage.faults()) == (0 if asked == 2 else 1)
    assert stage.asked.count(unlucky) == asked


def test_a_fault_that_only_users_meet_is_found_through_the_edge() -> None:
    stage = Stage(PAGE)
    stage.reply = lambda place, method, path: Answer(404 if path.startswith("/api") else 200, "2.0.0")
    assert stage.faults() == (
        "smoke test «page»: the edge of h1: GET /api/version answered 404, expected 200",
        "smoke test «page»: the edge of h2: GET /api/version answered 404, expected 200",
    )


def test_every_test_is_run_also_after_one_has_failed() -> None:
    stage = Stage(
        SmokeTest("a", path="/a", status=201), SmokeTest("b", path="/b", status=404), SmokeTest("c", path="/c")
    )
    stage.reply = lambda place, method, path: Answer(200)
    faults = stage.faults()
    assert [sum(f"«{name}»" in fault for fault in faults) for name in "abc"] == [6, 6, 0]
    assert len(stage.lines) == 3


def test_a_host_or_a_replica_that_cannot_be_asked_is_a_fault() -> None:
    stage = Stage(PAGE)
    stage.reply = lambda place, method, path: Answer(200, "2.0.0")
    stage.bed.host_down("prod", "h2")
    faults = stage.faults()
    assert faults[0].startswith("smoke tests: host h2 could not be asked for its replicas: ")
    assert faults[1].startswith("smoke test «page»: the edge of h2: GET /api/version could not be sent: ")
    stage.bed.host_up("prod", "h2")
    runtime = stage.bed.runtimes["prod"][1]
    for container in runtime.containers({"ops.service": "api"}):
        runtime.remove(container.id)
    assert "smoke tests: host h2 has no replica of #7" in stage.faults()


def test_a_release_that_runs_in_anothers_containers_is_asked_there() -> None:
    stage = Stage(PAGE)
    stage.reply = lambda place, method, path: Answer(200, "2.0.0")
    stage.release = replace(stage.release, number=9, restores=7, containers_of=7)
    assert stage.faults() == () and len(stage.asked) == 6


CHECK = SmokeTest("check", command=("python3", "-m", "check", "all of it"), timeout_seconds=5)


def test_a_command_runs_once_in_a_container_like_a_replicas() -> None:
    stage = Stage(CHECK)
    assert stage.faults() == ()
    (spec,) = [spec for runtime in stage.bed.runtimes["prod"] for spec in runtime.once]
    replica = stage.bed.runtimes["prod"][0].named("ops-prod-api-7-0").spec
    assert spec.command == CHECK.command and spec.name == "ops-prod-api-7-smoke-0"
    assert (spec.image, spec.network, spec.environment) == (replica.image, replica.network, replica.environment)
    assert (spec.read_only, spec.tmpfs, spec.volumes) == (replica.read_only, replica.tmpfs, replica.volumes)
    assert spec.secrets == {"TOKEN": SECRET} and spec.address == "" and spec.aliases == ()
    # Recognisable, and no replica of anything: `drift` and the edges never see it.
    assert "ops.release" not in spec.labels and spec.labels["ops.smoke"] == "7"
    assert spec.labels["ops.environment"] == "prod" and spec.labels["ops.service"] == "api"


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ((3, f"first\nlast words, {SECRET}\n", 0.1), "ended with exit code 3, expected 0; it said «first last words, "
         "[secret]»"),
        ((1, "", 0.1), "ended with exit code 1, expected 0; it said nothing"),
        ((0, "on it", 60.0), "did not end within 5 s, expected exit code 0; it said «on it»"),
    ],
)  # fmt: skip
def test_a_command_that_fails_says_how(outcome: tuple[int, str, float], words: str) -> None:
    stage = Stage(CHECK, command=lambda spec: outcome)
    assert stage.faults() == (f"smoke test «check»: h1: python3 -m check 'all of it' {words}",)


def test_a_command_that_cannot_be_run_is_a_fault_and_so_is_a_secret_that_cannot_be_read() -> None:
    stage = Stage(CHECK)
    del stage.bed.secrets["env:TOKEN"]
    (fault,) = stage.faults()
    assert fault.startswith("smoke tests: secrets: 1 problem") and "env:TOKEN" in fault
    stage.bed.secrets["env:TOKEN"] = SECRET
    stage.bed.runtimes["prod"][0].present.clear()
    (fault,) = stage.faults()
    assert fault.startswith("smoke test «check»: h1: python3 -m check 'all of it' could not be run: no such image")


def test_what_a_killed_controller_left_of_a_test_is_removed_first() -> None:
    stage = Stage(CHECK)
    runtime = stage.bed.runtimes["prod"][0]
    (left,) = (box.spec for box in runtime.boxes.values() if box.spec.name == "ops-prod-api-7-0")
    labels = {"ops.environment": "prod", "ops.service": "api", "ops.smoke": "6"}
    runtime.create(replace(left, name="ops-prod-api-6-smoke-0", labels=labels, address="10.9.5.99"))
    stage.faults()
    assert sorted(box.spec.name for box in runtime.boxes.values()) == ["ops-prod-api-7-0", "ops-prod-api-7-1"]


@pytest.mark.parametrize(
    ("route", "path", "expected"),
    [
        ({"path": "/api"}, "/api/version?full=1", "/api/version?full=1"),
        ({"path": "/api"}, "/api", "/api"),
        ({"path": "/api"}, "/apis", None),
        ({"path": "/api"}, "/health/ready", None),
        ({"path": "/api", "strip_prefix": True}, "/health/ready", "/api/health/ready"),
        ({"path": "/"}, "/health", "/health"),
        ({"path": "/"}, "/admin/users", None),  # belongs to another service
        ({"path": "/"}, "/administration", "/administration"),
        ({"path": "/", "host": "shop.example.org"}, "/admin/users", "/admin/users"),
    ],
)
def test_what_users_ask_for(route: dict[str, object], path: str, expected: str | None) -> None:
    service = {"build": {"context": "x"}, "port": 8080}
    book = catalogue(
        services={"api": {**service, "route": route}, "admin": {**service, "route": {"path": "/admin"}}},
    )
    assert users_path(book, "api", path) == expected


# ------------------------------------------------------------------------------------------ HAProxy and the engine


@dataclass
class RealStage:
    """Release #3 of test/api: one real replica behind a real edge."""

    platform: Platform
    release: Release
    bed: EdgeBed
    server: Server

    def faults(self, *tests: SmokeTest) -> tuple[str, ...]:
        found = replace(self.release, rollout=Rollout(smoke=tests))
        return smoke_faults(self.platform, "test", "api", found, progress=quiet)


def pushed_upstream(bed: EdgeBed, registry: str) -> str:
    """The test upstream in a real registry, by digest."""
    repository = f"{registry}/smoke-{bed.id}"
    bed.engine.images.get(upstream_image(bed.engine)).tag(repository, "1")
    bed.engine.images.push(repository, "1")
    digest = bed.engine.images.get_registry_data(f"{repository}:1").id
    bed.engine.images.remove(f"{repository}:1")
    return f"{repository}@{digest}"


@pytest.fixture(scope="module")
def real(request: pytest.FixtureRequest) -> Iterator[RealStage]:
    from ops_pipeline.adapters.clock import SystemClock
    from ops_pipeline.adapters.docker_runtime import DockerRuntime

    with edge_bed() as bed:
        book = Catalogue.model_validate(
            {
                "version": 1,
                "project": "shop",
                "registry": {"address": "127.0.0.1:5000"},
                "store": {"directory": "store"},
                "environments": {
                    "test": {
                        "hosts": [{"name": "local"}],
                        "url": "http://127.0.0.1:1",
                        "subnet": f"{bed.subnet}.0/24",
                        "network": bed.network.name,
                    }
                },
                "services": {
                    "api": {
                        "build": {"context": "x"},
                        "port": 8080,
                        "route": {"path": "/api"},
                        "secrets": {"TOKEN": "env:TOKEN"},
                        "flags": "/run/flags",
                    }
                },
            }
        )
        runtime = DockerRuntime(DOCKER_URL, "local", bed.labels)
        platform = replace(
            Bed(book).platform(),
            clock=SystemClock(),
            runtimes=lambda environment: [runtime],
            edges=lambda environment: [bed.edge],
        )
        image = pushed_upstream(bed, request.getfixturevalue("registry").address)
        runtime.pull(image, quiet)
        # A number of its own, for names: other test runs use the same engine.
        found = release(platform, image, environment="test", number=int(bed.id[:7], 16))
        volumes = {f"ops-testbed-flags-{bed.id}": "/run/flags:ro"}
        found = replace(found, configuration=replace(found.configuration, volumes=volumes))
        address = start_replica(runtime, launch(found, {"TOKEN": SECRET}), fleet_of(platform, "test"), 0, reserved=())
        server = Server(address, 8080)
        bed.edge.ensure(EdgeTopology("test", (EdgeService("api", RouteRule("/api"), 1, "/health/ready"),)))
        deadline = time.monotonic() + 15
        while not bed.edge.probe(address, 8080, "/health/ready").ok:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        bed.edge.apply("api", Routing("a", pools={"a": Pool(found.number, (server,))}), 1)
        yield RealStage(platform, found, bed, server)
        bed.engine.images.remove(image, force=False, noprune=True)


@pytest.mark.real
def test_whole_answers_from_a_replica_and_through_the_edge(real: RealStage) -> None:
    edge = real.bed.edge
    for server in (real.server, None):
        answer = edge.ask("/api/headers", server=server)
        assert (answer.status, answer.cut, answer.detail) == (200, False, "")
        assert json.loads(answer.body)["headers"]["user-agent"] == "ops-edge"
        assert json.loads(edge.ask("/api/x", "POST", server=server).body)["length"] == 0
        assert edge.ask("/api/x", "HEAD", server=server) == Answer(200)
        assert edge.ask("/api/x", "DELETE", server=server).status == 200
        late = edge.ask("/api/slow?seconds=5", server=server, timeout_seconds=0.5)
        assert late.status == 0 and "timed out" in late.detail
    assert edge.ask("/elsewhere").status == 404
    refused = edge.ask("/", server=Server(real.server.address, 9))
    assert refused.status == 0 and "connect" in refused.detail


@pytest.mark.real
def test_a_body_is_read_as_far_as_agreed_and_one_that_breaks_off_is_told(real: RealStage) -> None:
    script = (
        "import http.server as h\n"
        "class A(h.BaseHTTPRequestHandler):\n"
        " def do_GET(self):\n"
        "  size = int(self.path[1:]); self.send_response(200)\n"
        "  self.send_header('Content-Length', str(size)); self.end_headers()\n"
        "  self.wfile.write(b'x' * (500 if size == 1000 else size))\n"
        "h.HTTPServer(('', 8080), A).serve_forever()\n"
    )
    big = real.bed.engine.containers.run(
        upstream_image(real.bed.engine), ["-c", script], entrypoint=["python3"], detach=True, labels=real.bed.labels,
        network=real.bed.network.name, init=True,
    )  # fmt: skip
    big.reload()
    server = Server(big.attrs["NetworkSettings"]["Networks"][real.bed.network.name]["IPAddress"], 8080)
    ask = real.bed.edge.ask
    deadline = time.monotonic() + 10
    while not ask("/10", server=server).status:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert ask("/65536", server=server) == Answer(200, "x" * 65536)
    assert ask("/65537", server=server) == Answer(200, "x" * 65536, cut=True)
    assert ask("/900000", server=server) == Answer(200, "x" * 65536, cut=True)
    short = ask("/1000", server=server)
    assert (short.status, short.body, short.cut) == (200, "x" * 500, False) and short.detail


@pytest.mark.real
def test_smoke_tests_on_a_real_replica(real: RealStage) -> None:
    good = SmokeTest("page", path="/api/page", contains='"path": "/api/page"')
    assert real.faults(good) == ()
    bad = real.faults(
        SmokeTest("teapot", path="/api/page", status=418), SmokeTest("tea", path="/api/page", contains="tea")
    )
    assert len(bad) == 4 and "the edge of local: GET /api/page answered 200, expected 418" in bad[1]


@pytest.mark.real
def test_commands_in_a_real_one_shot_container(real: RealStage) -> None:
    checks = (
        'test $(id -u) -ne 0 && test "$OPS_ENVIRONMENT" = test && test $(cat /run/secrets/TOKEN) = s3cret-token',
        "! touch /x 2>/dev/null && ! touch /run/flags/x 2>/dev/null && touch /tmp/x && test -d /run/flags",
    )
    assert real.faults(*(SmokeTest(check, command=("sh", "-c", check)) for check in checks)) == ()
    began = time.monotonic()
    failed, late = real.faults(
        SmokeTest("fails", command=("sh", "-c", "echo no; cat /run/secrets/TOKEN; exit 3")),
        SmokeTest("late", command=("sh", "-c", "echo waiting; sleep 60"), timeout_seconds=2),
    )
    assert time.monotonic() - began < 20
    assert failed.endswith("ended with exit code 3, expected 0; it said «no [secret]»")
    assert late.endswith("did not end within 2 s, expected exit code 0; it said «waiting»")
    left = real.bed.engine.containers.list(all=True, filters={"label": ["ops.smoke", f"ops.testbed={real.bed.id}"]})
    assert left == []
    replicas = real.platform.runtimes("test")[0].containers({"ops.environment": "test", "ops.service": "api"})
    assert [one.state for one in replicas if one.labels.get("ops.release") == str(real.release.number)] == ["running"]
    exits = real.platform.runtimes("test")[0].exits("test", datetime.now(UTC) - timedelta(seconds=60))
    assert [exit_ for exit_ in exits if exit_.release == real.release.number] == []
