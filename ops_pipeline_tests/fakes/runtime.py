"""A Docker host in memory, held to the same contract as the real one."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from ipaddress import IPv4Network

from ops_pipeline.core.measurement import ContainerExit
from ops_pipeline.errors import NotFound, Permanent, Unavailable
from ops_pipeline.ports import AddressInUse, Clock, Container, ContainerRuntime, ContainerSpec, Probe, Progress

_REPLICA_LABELS = {"ops.release", "ops.replica", "ops.pool"}


@dataclass
class Behaviour:
    """How containers of an image behave. Seconds count from their start, by the test's clock.

    `errors` and `slow` are shares of the requests that `Bed.users` sends, from `bad_after` seconds on. `command` acts
    out a one-shot container: its exit code, its output and the seconds it takes.
    """

    ready_after: float = 0.0
    never_ready: bool = False
    exits_after: float | None = None
    exit_code: int = 1
    unhealthy_after: float | None = None  # the image's HEALTHCHECK
    log: str = "started\n"
    errors: float = 0.0
    slow: float = 0.0
    bad_after: float = 0.0
    command: Callable[[ContainerSpec], tuple[int, str, float]] = lambda spec: (0, "", 0.1)


@dataclass
class _Box:
    """One container."""

    spec: ContainerSpec
    id: str
    behaviour: Behaviour
    state: str = "created"
    started: float = 0.0
    broken: str = ""  # a test's wish: "silent", "exited"
    restarts: int = 0
    log: list[str] = field(default_factory=list)


class FakeRuntime(ContainerRuntime):
    """Safe for threads. `before` runs ahead of every call with its name; raise to act a failure out.

    `images` are the digests a registry could give, `present` those pulled already. `down` makes every call fail.
    """

    def __init__(self, host: str, clock: Clock) -> None:
        self._host = host
        self._clock = clock
        self._lock = threading.RLock()
        self._ids = itertools.count(1)
        self.images: dict[str, Behaviour] = {}
        self.present: set[str] = set()
        self.networks: dict[str, str] = {}
        self.boxes: dict[str, _Box] = {}
        self.gone: list[ContainerExit] = []
        self.once: list[ContainerSpec] = []  # one-shot containers that were run
        self.down = ""
        self.before: Callable[[str], None] = lambda call: None
        self.calls: list[str] = []

    @property
    def host(self) -> str:
        return self._host

    def check(self) -> None:
        self._called("check")

    def pull(self, image: str, progress: Progress) -> None:
        self._called("pull")
        if image not in self.images:
            raise NotFound(f"host {self._host} could not pull {image}: manifest unknown")
        progress(f"{self._host}: pulled {image}")
        with self._lock:
            self.present.add(image)

    def has_image(self, image: str) -> bool:
        self._called("has_image")
        return image in self.present

    def ensure_network(self, name: str, subnet: str) -> None:
        self._called("ensure_network")
        with self._lock:
            known = self.networks.setdefault(name, subnet)
        if known != subnet:
            raise Permanent(f"network {name} has the subnet {known}, not {subnet}")

    def addresses(self, network: str) -> frozenset[str]:
        self._called("addresses")
        with self._lock:
            return frozenset(box.spec.address for box in self.boxes.values() if box.spec.network == network)

    def create(self, spec: ContainerSpec) -> str:
        self._called("create")
        with self._lock:
            if spec.network not in self.networks:
                raise NotFound(f"network {spec.network} not found")
            if spec.image not in self.present:
                raise NotFound(f"no such image: {spec.image}")
            if any(box.spec.name == spec.name for box in self.boxes.values()):
                raise Permanent(f"the container name {spec.name} is already in use")
            if any((box.spec.network, box.spec.address) == (spec.network, spec.address) for box in self.boxes.values()):
                raise AddressInUse(spec.address)
            lower = next(IPv4Network(self.networks[spec.network]).subnets())
            assert spec.address in {str(address) for address in lower.hosts()}, "static addresses are the lower half"
            box = _Box(spec, f"{self._host}-{next(self._ids):04d}", self.images[spec.image])
            self.boxes[box.id] = box
            return box.id

    def start(self, container_id: str) -> None:
        self._called("start")
        with self._lock:
            box = self.boxes.get(container_id)
            if box is None:
                raise NotFound(f"no such container: {container_id}")
            if box.state != "running":
                box.state, box.started, box.broken = "running", self._clock.monotonic(), ""
                box.log += box.behaviour.log.splitlines()

    def stop(self, container_id: str, grace_seconds: float) -> None:
        self._called("stop")
        with self._lock:
            box = self.boxes.get(container_id)
            if box is not None and box.state == "running":
                self._ended(box, 143, wanted=True)
                box.state = "exited"
                box.log.append("stopped")

    def remove(self, container_id: str) -> None:
        self._called("remove")
        with self._lock:
            box = self.boxes.pop(container_id, None)
            if box is not None and box.state == "running":
                self._ended(box, 137, wanted=True)

    def containers(self, labels: Mapping[str, str]) -> Sequence[Container]:
        self._called("containers")
        with self._lock:
            wanted = [
                self._seen(box)
                for box in self.boxes.values()
                if all(box.spec.labels.get(name) == value for name, value in labels.items())
            ]
        return sorted(wanted, key=lambda container: container.name)

    def logs(self, container_id: str, tail: int = 50) -> str:
        self._called("logs")
        with self._lock:
            box = self.boxes.get(container_id)
            if box is None:
                raise NotFound(f"no such container: {container_id}")
            return "".join(f"{line}\n" for line in box.log[-tail:])

    def follow_logs(self, container_id: str, tail: int = 50) -> Iterator[str]:
        yield from self.logs(container_id, tail).splitlines()

    def exits(self, environment: str, since: datetime) -> Sequence[ContainerExit]:
        self._called("exits")
        with self._lock:
            for box in self.boxes.values():
                self._age(box)
            return sorted(
                (gone for gone in self.gone if gone.environment == environment and gone.at >= since),
                key=lambda gone: gone.at,
            )

    def run_once(self, spec: ContainerSpec, timeout_seconds: float) -> tuple[int, str]:
        self._called("run_once")
        with self._lock:
            if spec.network not in self.networks:
                raise NotFound(f"network {spec.network} not found")
            if spec.image not in self.present:
                raise NotFound(f"no such image: {spec.image}")
            if spec.address and spec.address in {box.spec.address for box in self.boxes.values()}:
                raise AddressInUse(spec.address)
            kept = {name: value for name, value in spec.labels.items() if name not in _REPLICA_LABELS}
            spec = replace(spec, labels={**kept, "ops.once": "true", "ops.once.name": spec.name}, aliases=())
            self.once.append(spec)
            code, output, seconds = self.images[spec.image].command(spec)
        self._clock.sleep(min(seconds, timeout_seconds))
        return (124, output) if seconds > timeout_seconds else (code, output)

    # ------------------------------------------------------------------------------------- what tests and edges ask

    def answer(self, address: str, port: int, path: str) -> Probe:
        """What a request to an address gets now: its container's health, or no answer."""
        with self._lock:
            for box in self.boxes.values():
                if box.spec.address == address:
                    return self._answer(box)
        return Probe(0, "no route to host")

    def release_at(self, address: str) -> int | None:
        """Release of the container at an address, None when there is none."""
        with self._lock:
            for box in self.boxes.values():
                if box.spec.address == address:
                    return int(box.spec.labels["ops.release"])
        return None

    def named(self, name: str) -> _Box:
        """A container by name."""
        return next(box for box in self.boxes.values() if box.spec.name == name)

    def breaks(self, name: str, how: str) -> None:
        """Make a running container `silent` or `exited`, as a crash would."""
        with self._lock:
            box = self.named(name)
            box.broken = how
            if how == "exited":
                self._ended(box, box.behaviour.exit_code)
                box.state = "exited"

    def crash(self, name: str, exit_code: int = 1, *, oom_killed: bool = False) -> None:
        """Let a running container exit; the restart policy starts it again at once."""
        with self._lock:
            box = self.named(name)
            self._ended(box, exit_code, oom_killed=oom_killed)
            box.restarts += 1
            box.started = self._clock.monotonic()

    def traffic_at(self, address: str) -> tuple[float, float]:
        """Shares of failed and of slow requests among those that reach an address now."""
        with self._lock:
            for box in self.boxes.values():
                if box.spec.address == address and self._answer(box).ok:
                    bad = self._clock.monotonic() - box.started >= box.behaviour.bad_after
                    return (box.behaviour.errors, box.behaviour.slow) if bad else (0.0, 0.0)
        return 1.0, 0.0

    def _answer(self, box: _Box) -> Probe:
        self._age(box)
        if box.state != "running":
            return Probe(0, "connection refused")
        age = self._clock.monotonic() - box.started
        if box.broken or box.behaviour.never_ready or age < box.behaviour.ready_after:
            return Probe(503, "not ready")
        return Probe(200)

    def _age(self, box: _Box) -> None:
        ends = box.behaviour.exits_after
        if box.state == "running" and ends is not None and self._clock.monotonic() - box.started >= ends:
            self._ended(box, box.behaviour.exit_code, ago=self._clock.monotonic() - box.started - ends)
            box.restarts += 1
            box.state = "restarting"

    def _ended(self, box: _Box, code: int, *, wanted: bool = False, oom_killed: bool = False, ago: float = 0.0) -> None:
        labels = box.spec.labels
        if box.state == "running" and labels.get("ops.release", "").isdigit():
            at = self._clock.now() - timedelta(seconds=ago)
            environment, service = labels.get("ops.environment", ""), labels.get("ops.service", "")
            self.gone.append(
                ContainerExit(
                    self._host, box.spec.name, environment, service, int(labels["ops.release"]),
                    at, code, oom_killed, wanted,
                )
            )  # fmt: skip

    def _seen(self, box: _Box) -> Container:
        self._age(box)
        age = self._clock.monotonic() - box.started
        sick = box.behaviour.unhealthy_after is not None and age >= box.behaviour.unhealthy_after
        return Container(
            id=box.id,
            name=box.spec.name,
            labels=dict(box.spec.labels),
            image=box.spec.image,
            state=box.state,
            health="unhealthy" if sick else "none",
            address=box.spec.address,
            exit_code=box.behaviour.exit_code if box.state in {"exited", "restarting"} else None,
            oom_killed=False,
            restarts=box.restarts,
            started_at=self._clock.now() if box.state != "created" else None,
        )

    def _called(self, call: str) -> None:
        self.before(f"{self._host}.{call}")
        if self.down:
            raise Unavailable(f"the Docker engine of host {self._host} does not answer: {self.down}")
        self.calls.append(call)
