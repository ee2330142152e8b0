"""Where an environment of the bed runs: beside everything else on this machine's engine, or on hosts of its own."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import docker
from docker.models.containers import Container

from deploy.setup.testbed import new_id
from ops_pipeline.adapters.haproxy_edge import HaproxyEdge
from ops_pipeline.errors import OpsError
from ops_pipeline_tests.testbed.control_plane import until
from ops_pipeline_tests.testbed.edge import DOCKER_URL, EdgeBed, edge_bed, edge_image
from ops_pipeline_tests.testbed.engines import EngineHost, engines

ENVIRONMENT = "test"
USERS_PORT, METRICS_PORT = 8080, 8406


@dataclass(frozen=True)
class Place:
    """One host with its edge. `target` is where users send requests, `scrape` where Prometheus finds the counters."""

    name: str
    docker_url: str
    engine: docker.DockerClient
    edge: Container
    target: str
    scrape: str
    host: EngineHost | None = None  # None: this machine's own engine

    def inside(self, *command: str) -> str:
        """Run a program in the edge's container; the replicas can be reached from there."""
        output: bytes = self.engine.containers.get(self.edge.id).exec_run(list(command)).output
        return output.decode()


@dataclass(frozen=True)
class Site:
    """One environment: its places share the network's name, its subnet, and the name of the edge's container."""

    id: str
    labels: dict[str, str]
    network: str
    subnet: str
    edge_container: str
    places: tuple[Place, ...]
    edge: EdgeBed | None = field(default=None)  # with one host on this machine's own engine


@contextlib.contextmanager
def one_host() -> Iterator[Site]:
    """An environment on this machine's engine."""
    with edge_bed(ENVIRONMENT) as bed:
        place = Place(
            "local",
            DOCKER_URL,
            bed.engine,
            bed.container,
            f"127.0.0.1:{bed.port}",
            f"127.0.0.1:{bed.requests_port}",
        )
        name = bed.network.name or ""
        yield Site(bed.id, bed.labels, name, f"{bed.subnet}.0/24", bed.container.name or "", (place,), bed)


@contextlib.contextmanager
def several_hosts(count: int, registry: str) -> Iterator[Site]:
    """An environment on hosts of its own; `registry` ("127.0.0.1:port") is reached from all of them."""
    identity = new_id()
    labels = {"ops.testbed": identity}
    subnet = f"10.{random.randint(224, 250)}.{random.randint(0, 254)}"
    own = docker.from_env(timeout=300)
    try:
        image = edge_image(own)
    finally:
        own.close()
    with engines(count, registry=registry, images=(image,)) as hosts:
        places = tuple(_place(host, image, identity, labels, subnet) for host in hosts)
        for place in places:
            edge = HaproxyEdge(place.docker_url, place.name, ENVIRONMENT, place.edge.name or "")
            until(lambda edge=edge: _answers(edge), 20, f"the edge of {place.name}")  # type: ignore[misc]
        yield Site(identity, labels, f"ops-{ENVIRONMENT}", f"{subnet}.0/24", f"ops-edge-{ENVIRONMENT}", places)


def _place(host: EngineHost, image: str, identity: str, labels: dict[str, str], subnet: str) -> Place:
    engine = host.client
    pool = docker.types.IPAMPool(subnet=f"{subnet}.0/24", iprange=f"{subnet}.128/25")
    engine.networks.create(
        f"ops-{ENVIRONMENT}", ipam=docker.types.IPAMConfig(pool_configs=[pool]), labels=labels, check_duplicate=True
    )
    edge = engine.containers.run(
        image,
        name=f"ops-edge-{ENVIRONMENT}",
        detach=True,
        labels=labels,
        healthcheck={"test": ["NONE"]},
        network=f"ops-{ENVIRONMENT}",
        ports={f"{port}/tcp": (host.address, port) for port in (USERS_PORT, METRICS_PORT)},
        volumes={"ops-edge": {"bind": "/var/lib/ops-edge"}, "ops-flags": {"bind": "/var/lib/ops-flags"}},
        read_only=True,
        tmpfs={"/run/ops-edge": ""},
        shm_size="64m",
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        restart_policy={"Name": "always"},
    )
    return Place(
        host.name,
        host.docker_url,
        engine,
        edge,
        f"{host.address}:{USERS_PORT}",
        f"{host.address}:{METRICS_PORT}",
        host,
    )


def _answers(edge: HaproxyEdge) -> bool:
    try:
        edge.check()
    except OpsError:
        return False
    return True
