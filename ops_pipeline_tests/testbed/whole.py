"""Everything real at once: a git project, registry, two edges, front door, `ops serve`, Trivy; always removed.

The project has three services made of the small upstream image, each answering with its version in `X-Release`, and
the environments `dev` and `prod`. Nothing is built or deployed at first. Service names end in something unique,
because the engine may be shared and containers are named after service and environment.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import docker
import httpx
import pytest

from deploy.setup import stack_images
from deploy.setup.commands import SetupError
from deploy.setup.stack import Stack, prepare_door
from deploy.setup.testbed import new_id
from ops_pipeline.adapters.docker_runtime import DockerRuntime
from ops_pipeline.core.image import Image
from ops_pipeline.core.release import Release
from ops_pipeline.defs.resources import build_platform
from ops_pipeline.errors import NotFound
from ops_pipeline.services.build import build_image
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.scan import make_sbom, scan_image
from ops_pipeline_tests.testbed import free_port
from ops_pipeline_tests.testbed.control_plane import ControlPlaneBed, end_runs, serving, status_of, until
from ops_pipeline_tests.testbed.engine_images import forget_images
from ops_pipeline_tests.testbed.market import CATALOGUE, DESCRIPTIONS, DOCKERFILE, SERVICE
from ops_pipeline_tests.testbed.upstream import upstream_image

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENTS = ("dev", "prod")
COMPONENTS = ("registry", "prometheus", "alertmanager", "edge-dev", "edge-prod", "front-door")
PORTS = ("registry", "dev", "prod", "door", "prometheus", "alertmanager")
SCREENSHOTS = "OPS_SCREENSHOTS"
"""Variable naming a folder that keeps screenshots; services then have plain names, which read better."""


@dataclass(frozen=True)
class World:
    """What bad input and refusals must leave as it is. Leases and the journal's generations may move on."""

    store: Mapping[str, str]
    containers: tuple[str, ...]
    routing: Mapping[str, str]
    answers: Mapping[str, tuple[int, str]]


@dataclass
class Whole:
    """The bed. `suffix` ends every service's name; `dev` and `prod` are the edges' ports."""

    id: str
    plane: ControlPlaneBed
    stack: Stack
    suffix: str
    base: str

    @property
    def shop(self) -> str:
        """The first service."""
        return f"shop{self.suffix}"

    @property
    def basket(self) -> str:
        """The second service."""
        return f"basket{self.suffix}"

    @property
    def search(self) -> str:
        """The third service."""
        return f"search{self.suffix}"

    @property
    def root(self) -> Path:
        """The project folder."""
        return self.plane.root

    @cached_property
    def platform(self) -> Platform:
        """The platform the control plane uses, in this process; its containers carry the bed's label too."""
        made = build_platform(self.plane.catalogue)
        labels = {"ops.testbed": self.id}
        runtimes = {
            name: [DockerRuntime(host.docker, host.name, labels) for host in environment.hosts]
            for name, environment in made.catalogue.environments.items()
        }
        return dataclasses.replace(made, runtimes=lambda environment: runtimes[environment])

    def commit(self, service: str, version: str, dockerfile: str = DOCKERFILE, **files: str) -> None:
        """Change a service, commit and tag it as a team would."""
        folder = self.root / service
        folder.mkdir(exist_ok=True)
        (folder / "Dockerfile").write_text(dockerfile.replace("{base}", self.base))
        (folder / "words.txt").write_text(f"{service} {version}\n")
        for name, text in files.items():
            (folder / name).write_text(text)
        git(self.root, "add", "--all")
        git(self.root, "commit", "--quiet", "--allow-empty", "--message", f"{service} {version}")
        git(self.root, "tag", "--force", f"v{version}")

    def build(self, service: str, version: str, dockerfile: str = DOCKERFILE) -> Image:
        """Commit, build and scan a version in this process; it is the latest of its service then."""
        self.commit(service, version, dockerfile)
        image = build_image(self.platform, service, progress=quiet).image
        make_sbom(self.platform, image, progress=quiet)
        scan_image(self.platform, service, image, progress=quiet)
        return image

    def deploy(self, environment: str, service: str, digest: str | None = None) -> Release:
        """Deploy in this process."""
        return deploy(self.platform, environment, service, digest=digest, who="test", progress=quiet)

    def answer(self, environment: str, service: str) -> tuple[int, str]:
        """What a user gets: status and version."""
        url = self.platform.catalogue.environments[environment].url
        answer = httpx.get(f"{url}/{service}/", timeout=10)
        return answer.status_code, answer.headers.get("x-release", "")

    def misbehave(self, environment: str, service: str, release: int, **how: object) -> None:
        """Change how every container of a release behaves (see the upstream's `/control`)."""
        wish = "&".join(f"{name}={value}" for name, value in how.items())
        (runtime,) = self.platform.runtimes(environment)
        labels = {"ops.environment": environment, "ops.service": service, "ops.release": str(release)}
        for container in runtime.containers(labels):
            httpx.get(f"http://{container.address}:8080/control?{wish}", timeout=5).raise_for_status()

    def world(self) -> World:
        """Store, containers, routing and answers as they are now."""
        names = list(self.platform.catalogue.services)
        services = [(environment, service) for environment in ENVIRONMENTS for service in names]
        routing = {}
        for environment, service in services:
            (edge,) = self.platform.edges(environment)
            try:
                routing[f"{environment}/{service}"] = repr(edge.observe(service))
            except NotFound:
                routing[f"{environment}/{service}"] = "not declared yet"
        return World(
            stored(self.root / ".ops" / "store"),
            self.containers(),
            routing,
            {f"{environment}/{service}": self.answer(environment, service) for environment, service in services},
        )

    def containers(self) -> tuple[str, ...]:
        """Containers of releases: name, id, state and since when."""
        engine = docker.from_env(timeout=60)
        try:
            found = [
                container.attrs
                for environment in ENVIRONMENTS
                for container in engine.containers.list(all=True, filters={"network": f"{self.id}-{environment}"})
                if "ops.release" in container.labels
            ]
        finally:
            engine.close()
        states = [
            (each["Name"], each["Id"][:12], each["State"]["Status"], each["State"]["StartedAt"]) for each in found
        ]
        return tuple(" ".join(state) for state in sorted(states))


def quiet(line: str) -> None:
    """Take progress and say nothing."""


def stored(store: Path) -> dict[str, str]:
    """Objects of a directory store by key, without leases; of journals what a mere change of hands leaves alone.

    What the sensor notes about watched releases is left out too: it goes on looking meanwhile.
    """
    found = {}
    for path in sorted(store.rglob("*")):
        key = path.relative_to(store).as_posix()
        if not path.is_file() or key.startswith((".store/", "leases/", "verdicts/", "watch/")):
            continue
        text = path.read_text(errors="backslashreplace")
        if key.startswith("journal/"):
            with contextlib.suppress(ValueError, KeyError):
                journal = json.loads(text)
                text = repr({name: journal[name] for name in ("live", "standby", "leaving", "work", "routing")})
        found[key] = text
    return found


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder with an author of its own."""
    person = {"NAME": "Market", "EMAIL": "team@market.example"}
    names = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in person.items()}
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env={**os.environ, **names, "GIT_CONFIG_GLOBAL": os.devnull},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture(scope="session")
def whole() -> Iterator[Whole]:
    """One bed for all tests of the process."""
    with whole_bed() as made:
        yield made


@contextlib.contextmanager
def whole_bed() -> Iterator[Whole]:
    """A running bed; all of it is gone afterwards."""
    identity = new_id().replace(".", "-")
    engine = docker.from_env(timeout=300)
    stack_images.ensure(("registry", "edge", "front-door", "prometheus", "alertmanager"))
    base = upstream_image(engine)
    with tempfile.TemporaryDirectory(prefix="ops-test-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        ports = {name: free_port() for name in PORTS}
        plane = ControlPlaneBed(root, ports["door"], {"OPS_EXTRA_LABELS": f"ops.testbed={identity}"})
        prepare_door(plane.door)
        made: Whole | None = None
        try:
            # The first start also chooses subnets; the rest follows from them.
            with ThreadPoolExecutor(1) as pool:
                stack, subnets = _networks(identity, ports, plane.door)
                suffix = "" if SCREENSHOTS in os.environ else f"-{uuid.uuid4().hex[:4]}"
                made = Whole(identity, plane, stack, suffix, base)
                _write_project(made, ports, subnets)
                starting = pool.submit(stack.up, *COMPONENTS)
                with serving(plane):
                    starting.result()
                    until(lambda: status_of(f"{plane.url}/server_info") == 200, 60, "the front door")
                    yield made
                    end_runs(plane)
        finally:
            end_runs(plane)
            _clear_away(engine, identity, f"127.0.0.1:{ports['registry']}/")
            engine.close()


def _networks(identity: str, ports: Mapping[str, int], door: Path) -> tuple[Stack, Mapping[str, str]]:
    """A stack whose networks exist: subnets nobody uses are found by trying."""
    for _ in range(20):
        block = f"10.{random.randint(224, 250)}.{random.randint(0, 254)}"
        subnets = {"dev": f"{block}.0/25", "prod": f"{block}.128/25"}
        variables = {
            "OPS_STACK": identity,
            "OPS_STACK_LABEL": f"ops.testbed={identity}",
            "OPS_PORT_REGISTRY": str(ports["registry"]),
            "OPS_PORT_FRONT_DOOR": str(ports["door"]),
            "OPS_PORT_PROMETHEUS": str(ports["prometheus"]),
            "OPS_PORT_ALERTMANAGER": str(ports["alertmanager"]),
        }
        for name in ENVIRONMENTS:
            variables[f"OPS_PORT_EDGE_{name.upper()}"] = str(ports[name])
            variables[f"OPS_SUBNET_{name.upper()}"] = subnets[name]
            variables[f"OPS_NETWORK_{name.upper()}"] = f"{identity}-{name}"
            variables[f"OPS_EDGE_{name.upper()}"] = f"{identity}-edge-{name}"
            variables[f"OPS_FLAGS_{name.upper()}"] = f"{identity}-flags-{name}"
        stack = Stack(identity, variables, door)
        try:
            stack.up("edge-dev", "edge-prod", wait=False)
        except SetupError as error:
            if "overlap" not in str(error):
                raise
            stack.down()
            continue
        return stack, subnets
    raise AssertionError("no free subnets")


def _write_project(made: Whole, ports: Mapping[str, int], subnets: Mapping[str, str]) -> None:
    root = made.root
    text = CATALOGUE.format(
        id=made.id, **ports, subnet_dev=subnets["dev"], subnet_prod=subnets["prod"]
    )  # fmt: skip
    for name, description in DESCRIPTIONS.items():
        text += SERVICE.format(name=name + made.suffix, description=description)
    made.plane.catalogue.parent.mkdir()
    made.plane.catalogue.write_text(text)
    shutil.copytree(REPOSITORY / "deploy" / "sample-vulnerabilities", root / "deploy" / "sample-vulnerabilities")
    (root / ".gitignore").write_text(".ops/\nserve.log\n")
    git(root, "init", "--quiet", "--initial-branch", "main")
    for name in DESCRIPTIONS:
        made.commit(name + made.suffix, "0.1.0")


def _clear_away(engine: docker.DockerClient, identity: str, registry: str) -> None:
    """Remove by label and network, whatever was started by whom."""
    mine = {"label": f"ops.testbed={identity}"}
    containers = engine.containers.list(all=True, filters=mine)
    networks = engine.networks.list(filters=mine)
    for network in networks:
        containers += engine.containers.list(all=True, filters={"network": network.id})
    volumes = {volume.name for volume in engine.volumes.list(filters=mine)}
    for container in {each.id: each for each in containers}.values():
        volumes |= {mount["Name"] for mount in container.attrs.get("Mounts", []) if mount.get("Type") == "volume"}
        with contextlib.suppress(docker.errors.APIError):
            container.remove(force=True, v=True)
    for network in networks:
        with contextlib.suppress(docker.errors.APIError):
            network.remove()
    for name in volumes:
        with contextlib.suppress(docker.errors.APIError):
            engine.volumes.get(name).remove(force=True)
    forget_images(engine, registry)
