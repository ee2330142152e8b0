"""What the suite of the ContainerRuntime port needs around an engine, in memory and real."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from typing import Protocol

from ops_pipeline.ports import ContainerRuntime, ContainerSpec
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


def started(stage: Stage, spec: ContainerSpec) -> str:
    container = stage.runtime.create(spec)
    stage.runtime.start(container)
    return container
