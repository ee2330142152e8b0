"""Containers of releases on the hosts: found by label, started with a static address, probed, removed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ops_pipeline.core.addresses import candidate_addresses
from ops_pipeline.core.numbering import container_name
from ops_pipeline.core.release import ServiceConfiguration
from ops_pipeline.core.world import Replica
from ops_pipeline.errors import OpsError, Permanent, Transient, Unavailable
from ops_pipeline.ports import AddressInUse, Clock, Container, ContainerRuntime, ContainerSpec, Edge
from ops_pipeline.services.fleet import Fleet
from ops_pipeline.services.retrying import retried

LABEL = "ops."


@dataclass(frozen=True)
class Launch:
    """All that the containers of one release have in common. `secrets` holds values and is never shown."""

    environment: str
    service: str
    release: int
    version: str
    image: str
    pool: str
    generation: int
    configuration: ServiceConfiguration
    secrets: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Launch({self.environment}/{self.service} #{self.release})"

    def spec(self, network: str, address: str, index: int) -> ContainerSpec:
        """The container of one replica."""
        configuration = self.configuration
        return ContainerSpec(
            name=container_name(self.environment, self.service, self.release, index),
            image=self.image,
            labels={
                "ops.environment": self.environment,
                "ops.service": self.service,
                "ops.release": str(self.release),
                "ops.digest": self.image.partition("@")[2],
                "ops.generation": str(self.generation),
                "ops.pool": self.pool,
                "ops.replica": str(index),
            },
            network=network,
            address=address,
            environment={
                **configuration.environment,
                "OPS_ENVIRONMENT": self.environment,
                "OPS_SERVICE": self.service,
                "OPS_RELEASE": str(self.release),
                "OPS_VERSION": self.version,
            },
            secrets=self.secrets,
            volumes=configuration.volumes,
            command=configuration.command,
            read_only=configuration.read_only,
            tmpfs=configuration.tmpfs,
            memory_bytes=configuration.memory_bytes,
            cpus=configuration.cpus,
        )


def start_replica(
    runtime: ContainerRuntime, launch: Launch, fleet: Fleet, index: int, *, reserved: Iterable[str], prefer: str = ""
) -> str:
    """Create and start one replica and return its address.

    `reserved` are addresses an edge still sends requests to; `prefer` is tried first. A container of that name that
    was created and never started is replaced. Raise Permanent, Transient, NotFound.
    """
    name = container_name(launch.environment, launch.service, launch.release, index)
    for left in runtime.containers({"ops.environment": launch.environment, "ops.service": launch.service}):
        if left.name == name:
            runtime.remove(left.id)
    used = {*runtime.addresses(fleet.network), *reserved} - {prefer}
    wishes = [prefer] if prefer else []
    for address in (*wishes, *candidate_addresses(fleet.subnet, name, used)):
        container = ""
        try:
            container = runtime.create(launch.spec(fleet.network, address, index))
            runtime.start(container)
        except AddressInUse:
            if container:
                runtime.remove(container)
            continue
        return address
    raise Permanent(
        f"no free address left in the lower half of {fleet.subnet} on host {runtime.host}",
        hint="Give the environment a larger subnet in the catalogue.",
    )


def find_replicas(clock: Clock, runtime: ContainerRuntime, environment: str, service: str) -> tuple[Replica, ...]:
    """Containers of a service on one host, by label. Raise Unavailable, Permanent."""
    labels = {"ops.environment": environment, "ops.service": service}
    found = retried(clock, f"list containers on {runtime.host}", lambda: runtime.containers(labels), attempts=2)
    return tuple(_replica(runtime.host, container) for container in found if "ops.release" in container.labels)


def silence(edge: Edge, replica: Replica, port: int, path: str) -> str:
    """Why a replica does not answer its health path, asked from where the edge stands; "" = it does."""
    if replica.state != "running" or not replica.address:
        return f"is {replica.state}"
    try:
        probe = edge.probe(replica.address, port, path)
    except (Transient, Unavailable) as error:
        return f"could not be asked: {error.message}"
    if probe.ok:
        return ""
    return f"GET {path} answered {probe.status}" if probe.status else f"GET {path}: {probe.detail or 'no answer'}"


def last_words(runtime: ContainerRuntime, container: str, tail: int = 20) -> str:
    """Last log lines of a container, or why there are none."""
    try:
        return runtime.logs(container, tail).strip() or "(no output)"
    except OpsError as error:
        return f"(log could not be read: {error.message})"


def _replica(host: str, container: Container) -> Replica:
    labels = container.labels
    return Replica(
        host=host,
        id=container.id,
        name=container.name,
        release=_number(labels["ops.release"]),
        index=_number(labels.get("ops.replica", "0")),
        digest=labels.get("ops.digest", ""),
        address=container.address,
        state=container.state,
        health=container.health,
        restarts=container.restarts,
        exit_code=container.exit_code,
        oom_killed=container.oom_killed,
    )


def _number(text: str) -> int:
    # A container somebody labelled by hand belongs to no release: it shows up as release -1, an orphan.
    return int(text) if text.isdigit() else -1
