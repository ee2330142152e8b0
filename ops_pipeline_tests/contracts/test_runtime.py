"""One suite for every implementation of the ContainerRuntime port: the one in memory and the Docker Engine."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from ipaddress import IPv4Network

import pytest

from ops_pipeline.core.measurement import ContainerExit
from ops_pipeline.errors import NotFound, Permanent
from ops_pipeline.ports import AddressInUse, ContainerSpec
from ops_pipeline_tests.contracts.runtime_stages import DockerStage, MemoryStage, Stage, started


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
