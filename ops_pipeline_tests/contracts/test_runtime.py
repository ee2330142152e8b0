"""One suite for every implementation of the ContainerRuntime port: the one in memory and the Docker Engine."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from itertools import pairwise
from typing import Protocol

import pytest

from ops_pipeline.adapters.docker_facts import once
from ops_pipeline.core.measurement import ContainerExit
from ops_pipeline.errors import NotFound, OpsError, Permanent, Unavailable
from ops_pipeline.ports import AddressInUse, ContainerRuntime, ContainerSpec
from ops_pipeline_tests.fakes.clock import FakeClock
from ops_pipeline_tests.fakes.runtime import Behaviour, FakeRuntime


class Stage(Protocol):
    """What the suite needs around an engine."""

    def now(self) -> datetime:
        """The time."""

    def crash(self, container_id: str, name: str) -> None:
        """Let a running container end by itself with code 7."""

    def script(self, exit_code: int, output: str, seconds: float) -> tuple[str, ...]:
        """Command of a one-shot container that ends so."""

    runtime: ContainerRuntime
    image: str  # present nowhere yet, in the registry
    unknown_image: str
    network: str
    subnet: str

    def until(self, condition: Callable[[], bool]) -> None:
        """Let time pass until a condition holds."""


class MemoryStage:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.runtime = FakeRuntime("h1", self.clock)
        self.image = "127.0.0.1:5000/x@sha256:" + "1" * 64
        self.unknown_image = "127.0.0.1:5000/x@sha256:" + "2" * 64
        self.runtime.images[self.image] = Behaviour(log="release 7 listens\n")
        self.network, self.subnet = "ops-test", "10.9.0.0/24"

    def now(self) -> datetime:
        return self.clock.now()

    def crash(self, container_id: str, name: str) -> None:
        self.runtime.crash(name, 7)

    def script(self, exit_code: int, output: str, seconds: float) -> tuple[str, ...]:
        self.runtime.images[self.image].command = lambda spec: (exit_code, output, seconds)
        return ("anything",)

    def until(self, condition: Callable[[], bool]) -> None:
        self.clock.advance(1)
        assert condition()


class DockerStage:
    """A network of its own on the real engine, and the test upstream in a real registry."""

    def __init__(self, stack: ExitStack, address: str) -> None:
        import docker

        from ops_pipeline.adapters.docker_runtime import DockerRuntime
        from ops_pipeline_tests.testbed import testbed_id
        from ops_pipeline_tests.testbed.upstream import upstream_image

        self.engine = docker.from_env(timeout=60)
        stack.callback(self.engine.close)
        self.id = uuid.uuid4().hex[:8]
        self.labels = {"ops.testbed": f"{testbed_id()}", "ops.testbed.stage": self.id}
        self.runtime = DockerRuntime("unix:///var/run/docker.sock", "local", self.labels)
        repository = f"{address}/runtime-{self.id}"
        local = self.engine.images.get(upstream_image(self.engine))
        local.tag(repository, "1")
        self.engine.images.push(repository, "1")
        digest = self.engine.images.get_registry_data(f"{repository}:1").id
        self.image = f"{repository}@{digest}"
        self.unknown_image = f"{repository}@sha256:{'2' * 64}"
        self.engine.images.remove(f"{repository}:1")
        with suppress(docker.errors.ImageNotFound):
            self.engine.images.remove(self.image, force=False)
        stack.callback(self._clear)
        self.network = f"ops-testbed-{self.id}"
        self.subnet = f"10.{random.randint(200, 223)}.{random.randint(0, 254)}.0/24"

    def _clear(self) -> None:
        import docker

        mine = {"label": f"ops.testbed.stage={self.id}"}
        for container in self.engine.containers.list(all=True, filters=mine):
            container.remove(force=True, v=True)
        for network in self.engine.networks.list(filters=mine):
            network.remove()
        for volume in self.engine.volumes.list(filters=mine):
            volume.remove(force=True)
        with suppress(docker.errors.ImageNotFound):
            self.engine.images.remove(self.image)

    def now(self) -> datetime:
        return datetime.now(UTC)

    def crash(self, container_id: str, name: str) -> None:
        self.ask(container_id, "/control?exit=7")

    def ask(self, container_id: str, path: str) -> None:
        """Send the upstream a request from inside its container, as soon as it answers."""
        import docker

        script = f"from urllib.request import urlopen; urlopen('http://127.0.0.1:8080{path}')"

        def answered() -> bool:
            with suppress(docker.errors.APIError):  # it is just restarting
                return self.engine.containers.get(container_id).exec_run(["python3", "-c", script]).exit_code == 0
            return False

        self.until(answered)

    def script(self, exit_code: int, output: str, seconds: float) -> tuple[str, ...]:
        return ("sh", "-c", f"echo '{output}'; sleep {seconds}; exit {exit_code}")

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.fixture(scope="module", params=["memory", pytest.param("docker", marks=pytest.mark.real)])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with ExitStack() as stack:
        if request.param == "memory":
            made: Stage = MemoryStage()
        else:
            made = DockerStage(stack, request.getfixturevalue("registry").address)
        lines: list[str] = []
        assert not made.runtime.has_image(made.image)
        made.runtime.pull(made.image, lines.append)
        made.runtime.ensure_network(made.network, made.subnet)
        yield made


@pytest.fixture
def spec(stage: Stage) -> Iterator[ContainerSpec]:
    """A container nobody else has; removed afterwards."""
    name = f"ops-test-{uuid.uuid4().hex[:8]}"
    number = random.randint(10, 120)
    address = str(IPv4Network(stage.subnet).network_address + number)
    yield ContainerSpec(
        name=name,
        image=stage.image,
        labels={"ops.service": name, "ops.release": "7", "ops.environment": "test"},
        network=stage.network,
        address=address,
        environment={"RELEASE": "7"},
        tmpfs=("/tmp",),
    )
    for container in stage.runtime.containers({"ops.service": name}):
        stage.runtime.remove(container.id)


def started(stage: Stage, spec: ContainerSpec) -> str:
    container = stage.runtime.create(spec)
    stage.runtime.start(container)
    return container


def test_the_image_is_there_after_a_pull_and_pulling_again_is_no_error(stage: Stage) -> None:
    assert stage.runtime.has_image(stage.image)
    stage.runtime.pull(stage.image, lambda line: None)


def test_an_image_the_registry_does_not_have_is_not_found(stage: Stage) -> None:
    assert not stage.runtime.has_image(stage.unknown_image)
    with pytest.raises(NotFound):
        stage.runtime.pull(stage.unknown_image, lambda line: None)


def test_a_network_is_made_once_and_another_subnet_is_refused(stage: Stage) -> None:
    stage.runtime.ensure_network(stage.network, stage.subnet)
    with pytest.raises(Permanent, match="subnet"):
        stage.runtime.ensure_network(stage.network, "10.199.0.0/24")


def test_a_created_container_is_listed_and_not_running(stage: Stage, spec: ContainerSpec) -> None:
    container = stage.runtime.create(spec)
    (found,) = stage.runtime.containers({"ops.service": spec.name, "ops.release": "7"})
    assert (found.id, found.name, found.state, found.image) == (container, spec.name, "created", spec.image)
    assert dict(spec.labels).items() <= dict(found.labels).items()
    assert found.address == spec.address and found.exit_code is None and found.started_at is None
    assert stage.runtime.containers({"ops.service": spec.name, "ops.release": "8"}) == []


def test_a_started_container_runs_at_its_address_and_logs(stage: Stage, spec: ContainerSpec) -> None:
    container = started(stage, spec)
    (found,) = stage.runtime.containers({"ops.service": spec.name})
    assert (found.state, found.address, found.restarts, found.oom_killed) == ("running", spec.address, 0, False)
    assert found.started_at is not None
    stage.until(lambda: "release 7 listens" in stage.runtime.logs(container))
    assert list(stage.runtime.follow_logs(container))[:1] == ["release 7 listens"] if _memory(stage) else True


def test_addresses_of_stopped_containers_stay_taken(stage: Stage, spec: ContainerSpec) -> None:
    container = started(stage, spec)
    stage.runtime.stop(container, 5)
    assert spec.address in stage.runtime.addresses(stage.network)
    with pytest.raises(AddressInUse):
        stage.runtime.create(replace(spec, name=f"{spec.name}-b"))
    assert [c.name for c in stage.runtime.containers({"ops.service": spec.name})] == [spec.name]
    stage.runtime.remove(container)
    assert spec.address not in stage.runtime.addresses(stage.network)


def test_a_created_container_keeps_its_address_too(stage: Stage, spec: ContainerSpec) -> None:
    stage.runtime.create(spec)
    assert spec.address in stage.runtime.addresses(stage.network)
    with pytest.raises(AddressInUse):
        stage.runtime.create(replace(spec, name=f"{spec.name}-b"))


def test_stopping_and_starting_keeps_the_address(stage: Stage, spec: ContainerSpec) -> None:
    container = started(stage, spec)
    stage.runtime.stop(container, 5)
    (found,) = stage.runtime.containers({"ops.service": spec.name})
    assert found.state == "exited" and found.exit_code is not None
    stage.runtime.start(container)
    (found,) = stage.runtime.containers({"ops.service": spec.name})
    assert (found.state, found.address) == ("running", spec.address)


def test_stopping_and_removing_twice_is_no_error(stage: Stage, spec: ContainerSpec) -> None:
    container = started(stage, spec)
    for _ in range(2):
        stage.runtime.stop(container, 5)
    for _ in range(2):
        stage.runtime.remove(container)
    stage.runtime.stop(container, 5)
    assert stage.runtime.containers({"ops.service": spec.name}) == []


def test_a_name_is_given_once(stage: Stage, spec: ContainerSpec) -> None:
    stage.runtime.create(spec)
    other = str(IPv4Network(stage.subnet).network_address + 125)
    with pytest.raises(Permanent, match="already in use"):
        stage.runtime.create(replace(spec, address=other))


def test_an_unknown_image_cannot_be_created(stage: Stage, spec: ContainerSpec) -> None:
    with pytest.raises(NotFound):
        stage.runtime.create(replace(spec, image=stage.unknown_image))


def test_logs_of_an_unknown_container_are_not_found(stage: Stage) -> None:
    with pytest.raises(NotFound):
        stage.runtime.logs("0123456789ab")
    with pytest.raises(NotFound):
        list(stage.runtime.follow_logs("0123456789ab"))


def exits(stage: Stage, spec: ContainerSpec, since: datetime) -> list[ContainerExit]:
    return [exit_ for exit_ in stage.runtime.exits("test", since) if exit_.container == spec.name]


def test_a_container_that_ends_by_itself_is_an_unwanted_exit(stage: Stage, spec: ContainerSpec) -> None:
    container, since = started(stage, spec), stage.now()
    assert exits(stage, spec, since) == []
    stage.crash(container, spec.name)
    stage.until(lambda: bool(exits(stage, spec, since)))
    (seen,) = exits(stage, spec, since)
    assert (seen.host, seen.environment, seen.service, seen.release) == (stage.runtime.host, "test", spec.name, 7)
    assert (seen.exit_code, seen.wanted, seen.oom_killed) == (7, False, False)
    assert since <= seen.at <= stage.now()
    assert exits(stage, spec, seen.at + timedelta(milliseconds=1)) == []
    assert [exit_ for exit_ in stage.runtime.exits("other", since) if exit_.container == spec.name] == []


def test_a_stop_and_a_removal_are_wanted_exits(stage: Stage, spec: ContainerSpec) -> None:
    since = stage.now()
    container = started(stage, spec)
    stage.runtime.stop(container, 5)
    stage.until(lambda: len(exits(stage, spec, since)) == 1)
    stage.runtime.start(container)
    stage.runtime.remove(container)
    stage.until(lambda: len(exits(stage, spec, since)) == 2)
    assert [exit_.wanted for exit_ in exits(stage, spec, since)] == [True, True]


def test_exits_come_oldest_first_and_asking_again_says_the_same(stage: Stage, spec: ContainerSpec) -> None:
    container, since = started(stage, spec), stage.now()
    for number in (1, 2):
        stage.crash(container, spec.name)
        stage.until(lambda number=number: len(exits(stage, spec, since)) == number)  # type: ignore[misc]
    found = exits(stage, spec, since)
    assert found == sorted(found, key=lambda exit_: exit_.at)
    assert exits(stage, spec, since) == found


@pytest.mark.parametrize(("code", "output"), [(0, "all well"), (3, "three things are wrong")])
def test_a_one_shot_container_gives_its_code_and_words_and_leaves_nothing(
    stage: Stage, spec: ContainerSpec, code: int, output: str
) -> None:
    since = stage.now()
    one = replace(spec, address="", command=stage.script(code, output, 0.0), secrets={"TOKEN": "x"})
    got, words = stage.runtime.run_once(one, 20.0)
    assert (got, words.strip()) == (code, output)
    assert stage.runtime.containers({"ops.service": spec.name}) == []
    assert exits(stage, spec, since) == []


def test_a_one_shot_container_past_its_time_is_killed(stage: Stage, spec: ContainerSpec) -> None:
    one = replace(spec, address="", command=stage.script(0, "begun", 60.0))
    begun = stage.now()
    got, words = stage.runtime.run_once(one, 1.0)
    assert (got, words.strip()) == (124, "begun")
    assert stage.now() - begun < timedelta(seconds=15)
    assert stage.runtime.containers({"ops.service": spec.name}) == []


def test_a_one_shot_container_of_an_unknown_image_is_not_found(stage: Stage, spec: ContainerSpec) -> None:
    with pytest.raises(NotFound):
        stage.runtime.run_once(replace(spec, image=stage.unknown_image, address=""), 5.0)


def _memory(stage: Stage) -> bool:
    return isinstance(stage, MemoryStage)


# ------------------------------------------------------------------------------------------ the Docker Engine only


@pytest.fixture(scope="module")
def real(request: pytest.FixtureRequest) -> Iterator[DockerStage]:
    with ExitStack() as stack:
        made = DockerStage(stack, request.getfixturevalue("registry").address)
        made.runtime.pull(made.image, lambda line: None)
        made.runtime.ensure_network(made.network, made.subnet)
        yield made


def address(stage: Stage, number: int) -> str:
    return str(IPv4Network(stage.subnet).network_address + number)


def real_spec(real: DockerStage, number: int, **changes: object) -> ContainerSpec:
    name = f"ops-test-{real.id}-{number}"
    base = ContainerSpec(
        name=name,
        image=real.image,
        labels={"ops.service": name},
        network=real.network,
        address=address(real, number),
        tmpfs=("/tmp",),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.mark.real
def test_secrets_are_files_only_the_image_user_can_read_and_go_with_the_container(real: DockerStage) -> None:
    value = f"very secret {uuid.uuid4().hex}"
    spec = real_spec(real, 10, secrets={"TOKEN": value, "OTHER": "x"})
    container = started(real, spec)
    seen = real.engine.containers.get(container)
    assert value not in str(seen.attrs)
    script = (
        "stat -c '%a %u' /run/secrets /run/secrets/TOKEN; cat /run/secrets/TOKEN; id -u; "
        "touch /run/secrets/new || echo refused"
    )
    output = seen.exec_run(["sh", "-c", script], demux=True).output[0].decode()
    assert output.startswith(f"755 0\n400 10001\n{value}10001\n"), output
    assert "refused" in output
    (mount,) = [mount for mount in seen.attrs["Mounts"] if mount["Destination"] == "/run/secrets"]
    volume = real.engine.volumes.get(mount["Name"])
    assert volume.attrs["Labels"]["ops.testbed.stage"] == real.id
    real.runtime.stop(container, 1)
    real.runtime.start(container)
    seen = real.engine.containers.get(container)
    assert seen.exec_run(["cat", "/run/secrets/TOKEN"]).output.decode() == value
    real.runtime.remove(container)
    assert mount["Name"] not in {volume.name for volume in real.engine.volumes.list()}


@pytest.mark.real
def test_containers_run_with_nothing_to_spare(real: DockerStage) -> None:
    spec = real_spec(real, 11, memory_bytes=64 * 1024 * 1024, cpus=0.5)
    container = started(real, spec)
    attributes = real.engine.containers.get(container).attrs
    host = attributes["HostConfig"]
    assert host["CapDrop"] == ["ALL"] and host["SecurityOpt"] == ["no-new-privileges"]
    assert host["ReadonlyRootfs"] and host["Init"] and host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}
    assert host["Memory"] == 64 * 1024 * 1024 and host["NanoCpus"] == 500_000_000
    assert attributes["Config"]["Labels"]["ops.testbed.stage"] == real.id
    shell = real.engine.containers.get(container)
    assert shell.exec_run(["sh", "-c", "touch /tmp/a && ! touch /srv/a 2>/dev/null"]).exit_code == 0


@pytest.mark.real
def test_named_volumes_outlive_the_container(real: DockerStage) -> None:
    volume = f"ops-testbed-data-{real.id}"
    spec = real_spec(real, 12, volumes={volume: "/data"})
    container = started(real, spec)
    real.runtime.remove(container)
    assert real.engine.volumes.get(volume).attrs["Labels"]["ops.testbed.stage"] == real.id


@pytest.mark.real
def test_dynamic_addresses_come_from_the_upper_half(real: DockerStage) -> None:
    other = real.engine.containers.run(
        real.image, detach=True, network=real.network, labels=real.labels, name=f"ops-testbed-dyn-{real.id}"
    )
    other.reload()
    given = other.attrs["NetworkSettings"]["Networks"][real.network]["IPAddress"]
    assert int(given.rpartition(".")[2]) >= 128
    assert given in real.runtime.addresses(real.network)
    other.remove(force=True)


@pytest.mark.real
def test_a_container_that_exits_shows_its_code_and_its_restarts(real: DockerStage) -> None:
    container = started(real, real_spec(real, 13, environment={"EXIT_AFTER": "0.1"}))

    def restarted() -> bool:
        (found,) = real.runtime.containers({"ops.service": f"ops-test-{real.id}-13"})
        return found.restarts > 0

    real.until(restarted)
    real.runtime.remove(container)


def real_exits(real: DockerStage, spec: ContainerSpec, since: datetime) -> list[ContainerExit]:
    return [exit_ for exit_ in real.runtime.exits("real", since) if exit_.container == spec.name]


def release_of(real: DockerStage, number: int, **changes: object) -> ContainerSpec:
    labels = {"ops.service": f"ops-test-{real.id}-{number}", "ops.environment": "real", "ops.release": "3"}
    return real_spec(real, number, labels=labels, **changes)


@pytest.mark.real
@pytest.mark.parametrize(
    ("number", "how", "code", "wanted"),
    [
        (30, "docker stop", 0, True),
        (31, "docker kill", 137, True),
        (32, "docker kill -s TERM", 0, True),
        (33, "docker restart", 0, True),
        (34, "docker kill -s WINCH, then it exits", 7, False),
        (35, "SIGKILL from inside", 137, False),
    ],
)
def test_who_ended_it_is_told_apart(real: DockerStage, number: int, how: str, code: int, wanted: bool) -> None:
    spec, since = release_of(real, number), real.now()
    seen = real.engine.containers.get(started(real, spec))
    real.until(lambda: b"listens" in seen.logs())
    match how:
        case "docker stop":
            seen.stop(timeout=5)
        case "docker kill":
            seen.kill()
        case "docker kill -s TERM":
            seen.kill("SIGTERM")
        case "docker restart":
            seen.restart(timeout=5)
        case "SIGKILL from inside":
            seen.exec_run(["sh", "-c", "kill -9 -1"])
        case _:
            seen.kill("SIGWINCH")
            real.crash(seen.id, spec.name)
    real.until(lambda: bool(real_exits(real, spec, since)))
    (found,) = real_exits(real, spec, since)
    assert (found.exit_code, found.wanted, found.oom_killed) == (code, wanted, False)


@pytest.mark.real
def test_a_container_that_ends_well_by_itself_still_ended(real: DockerStage) -> None:
    spec, since = release_of(real, 36), real.now()
    real.ask(started(real, spec), "/control?exit=0")
    real.until(lambda: bool(real_exits(real, spec, since)))
    assert [(exit_.exit_code, exit_.wanted) for exit_ in real_exits(real, spec, since)] == [(0, False)]


@pytest.mark.real
def test_every_exit_of_a_crash_loop_is_told(real: DockerStage) -> None:
    spec, since = release_of(real, 42, environment={"EXIT_AFTER": "0.2"}), real.now()
    started(real, spec)
    real.until(lambda: len(real_exits(real, spec, since)) >= 3)
    assert {(exit_.exit_code, exit_.wanted) for exit_ in real_exits(real, spec, since)} == {(1, False)}


@pytest.mark.real
def test_running_out_of_memory_is_told(real: DockerStage) -> None:
    eat = "b = []\nwhile True: b.append(bytearray(b'x' * (1 << 20)))"
    spec, since = release_of(real, 37), real.now()
    real.engine.containers.run(
        real.image, entrypoint=["python3", "-c", eat], mem_limit="24m", init=True, detach=True,
        name=spec.name, labels={**real.labels, **spec.labels},
    )  # fmt: skip
    real.until(lambda: any(exit_.oom_killed for exit_ in real_exits(real, spec, since)))
    (found,) = real_exits(real, spec, since)
    assert (found.oom_killed, found.wanted, found.exit_code) == (True, False, 137)


@pytest.mark.real
def test_what_the_engine_has_forgotten_is_read_from_the_containers(real: DockerStage) -> None:
    spec, since = release_of(real, 38, environment={"EXIT_AFTER": "1"}), real.now()
    stopped = release_of(real, 39)
    started(real, spec)
    real.runtime.stop(started(real, stopped), 5)
    real.until(lambda: bool(real_exits(real, spec, since)))
    known = real_exits(real, spec, since)[0]
    noise = real.engine.containers.get(started(real, real_spec(real, 40)))
    for _ in range(260):  # more events than an engine remembers
        noise.kill("SIGWINCH")
    left = real_exits(real, spec, since)
    assert left and not any(exit_.wanted for exit_ in left)
    assert all(later.at - earlier.at > timedelta(milliseconds=90) for earlier, later in pairwise(left))
    assert left[-1].at >= known.at - timedelta(milliseconds=90)
    assert [exit_.wanted for exit_ in real_exits(real, stopped, since)] == [True]


@pytest.mark.real
def test_a_one_shot_container_has_secrets_that_go_with_it_and_replaces_a_leftover(real: DockerStage) -> None:
    before = {volume.name for volume in real.engine.volumes.list()}
    spec = real_spec(real, 41, secrets={"TOKEN": "very secret"}, command=("cat", "/run/secrets/TOKEN"), address="")
    left = real.runtime.create(once(spec))
    assert real.runtime.run_once(spec, 10) == (0, "very secret")
    assert left not in {container.id for container in real.engine.containers.list(all=True)}
    mine = [volume for volume in real.engine.volumes.list() if volume.name not in before]
    assert [volume for volume in mine if (volume.attrs.get("Labels") or {}).get("ops.testbed.stage") == real.id] == []


@pytest.mark.real
def test_a_log_is_followed_until_the_container_stops(real: DockerStage) -> None:
    container = started(real, real_spec(real, 14, environment={"RELEASE": "9"}))
    real.until(lambda: "listens" in real.runtime.logs(container))
    threading.Timer(0.5, real.runtime.stop, (container, 5)).start()
    lines = list(real.runtime.follow_logs(container))
    assert lines[0] == "release 9 listens" and lines[-1] == "release 9 stopped"


@pytest.mark.real
def test_two_creations_at_once_never_share_an_address(real: DockerStage) -> None:
    got: list[str] = []

    def create(number: int) -> None:
        spec = real_spec(real, 20 + number, address=address(real, 90))
        with suppress(AddressInUse):
            got.append(real.runtime.create(spec))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) <= 1
    for container in got:
        real.runtime.remove(container)


@pytest.mark.real
def test_an_engine_that_is_down_says_what_to_do() -> None:
    from ops_pipeline.adapters.docker_runtime import DockerRuntime

    runtime = DockerRuntime("unix:///nonexistent/docker.sock", "h9")
    with pytest.raises(Unavailable, match=r"h9.*does not answer") as caught:
        runtime.check()
    assert "systemctl start docker" in caught.value.hint
    with pytest.raises(OpsError, match="does not answer"):
        runtime.containers({})
