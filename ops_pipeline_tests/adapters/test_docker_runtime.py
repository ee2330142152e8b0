"""What only the Docker Engine can show: secrets, confinement, who ended a container, what it has forgotten."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from ipaddress import IPv4Network
from itertools import pairwise

import pytest

from ops_pipeline.adapters.docker_facts import once
from ops_pipeline.core.measurement import ContainerExit
from ops_pipeline.errors import OpsError, Unavailable
from ops_pipeline.ports import AddressInUse, ContainerSpec
from ops_pipeline_tests.contracts.runtime_stages import DockerStage, Stage, started

pytestmark = pytest.mark.real


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


def test_named_volumes_outlive_the_container(real: DockerStage) -> None:
    volume = f"ops-testbed-data-{real.id}"
    spec = real_spec(real, 12, volumes={volume: "/data"})
    container = started(real, spec)
    real.runtime.remove(container)
    assert real.engine.volumes.get(volume).attrs["Labels"]["ops.testbed.stage"] == real.id


def test_dynamic_addresses_come_from_the_upper_half(real: DockerStage) -> None:
    other = real.engine.containers.run(
        real.image, detach=True, network=real.network, labels=real.labels, name=f"ops-testbed-dyn-{real.id}"
    )
    other.reload()
    given = other.attrs["NetworkSettings"]["Networks"][real.network]["IPAddress"]
    assert int(given.rpartition(".")[2]) >= 128
    assert given in real.runtime.addresses(real.network)
    other.remove(force=True)


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


def test_a_container_that_ends_well_by_itself_still_ended(real: DockerStage) -> None:
    spec, since = release_of(real, 36), real.now()
    real.ask(started(real, spec), "/control?exit=0")
    real.until(lambda: bool(real_exits(real, spec, since)))
    assert [(exit_.exit_code, exit_.wanted) for exit_ in real_exits(real, spec, since)] == [(0, False)]


def test_every_exit_of_a_crash_loop_is_told(real: DockerStage) -> None:
    spec, since = release_of(real, 42, environment={"EXIT_AFTER": "0.2"}), real.now()
    started(real, spec)
    real.until(lambda: len(real_exits(real, spec, since)) >= 3)
    assert {(exit_.exit_code, exit_.wanted) for exit_ in real_exits(real, spec, since)} == {(1, False)}


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


def test_a_one_shot_container_has_secrets_that_go_with_it_and_replaces_a_leftover(real: DockerStage) -> None:
    before = {volume.name for volume in real.engine.volumes.list()}
    spec = real_spec(real, 41, secrets={"TOKEN": "very secret"}, command=("cat", "/run/secrets/TOKEN"), address="")
    left = real.runtime.create(once(spec))
    assert real.runtime.run_once(spec, 10) == (0, "very secret")
    assert left not in {container.id for container in real.engine.containers.list(all=True)}
    mine = [volume for volume in real.engine.volumes.list() if volume.name not in before]
    assert [volume for volume in mine if (volume.attrs.get("Labels") or {}).get("ops.testbed.stage") == real.id] == []


def test_a_log_is_followed_until_the_container_stops(real: DockerStage) -> None:
    container = started(real, real_spec(real, 14, environment={"RELEASE": "9"}))
    real.until(lambda: "listens" in real.runtime.logs(container))
    threading.Timer(0.5, real.runtime.stop, (container, 5)).start()
    lines = list(real.runtime.follow_logs(container))
    assert lines[0] == "release 9 listens" and lines[-1] == "release 9 stopped"


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


def test_an_engine_that_is_down_says_what_to_do() -> None:
    from ops_pipeline.adapters.docker_runtime import DockerRuntime

    runtime = DockerRuntime("unix:///nonexistent/docker.sock", "h9")
    with pytest.raises(Unavailable, match=r"h9.*does not answer") as caught:
        runtime.check()
    assert "systemctl start docker" in caught.value.hint
    with pytest.raises(OpsError, match="does not answer"):
        runtime.containers({})
