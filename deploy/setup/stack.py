"""Starting and stopping the local stack of `deploy/compose.stack.yml`, also a second one beside it for tests."""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.setup import inventory, stack_images
from deploy.setup.commands import ROOT, SetupError, execute, output, say, step
from deploy.setup.docker_cli import ensure_compose, need_docker
from deploy.setup.down import CHECKOUT
from deploy.setup.down import LABEL as DEMO_LABEL

FILE = ROOT / "deploy" / "compose.stack.yml"
PORTS = {
    "OPS_PORT_FRONT_DOOR": 3000,
    "OPS_PORT_EDGE_PROD": 8080,
    "OPS_PORT_EDGE_DEV": 8081,
    "OPS_PORT_REGISTRY": 5000,
    "OPS_PORT_PROMETHEUS": 9090,
    "OPS_PORT_ALERTMANAGER": 9093,
    "OPS_PORT_AZURITE": 10000,
}
HEALTHY_SECONDS = 90.0


@dataclass(frozen=True)
class Stack:
    """One stack: compose project name and the variables that differ from compose.stack.yml's defaults.

    `door` is the folder that the front door mounts: the webserver's socket and the secret.
    """

    project: str = "ops-stack"
    variables: Mapping[str, str] = field(default_factory=dict)
    door: Path = ROOT / ".ops" / "run" / "ui"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of this process, the images, then our own."""
        environment = {
            **os.environ,
            **stack_images.tags(),
            "OPS_DOOR": str(self.door),
            "OPS_STACK_LABEL": f"{DEMO_LABEL}={CHECKOUT}",
            **self.variables,
        }
        return {**self.upper_halves(), **environment}

    def upper_halves(self) -> dict[str, str]:
        """Variables of the ranges that dynamic addresses come from, for subnets that were chosen by variables."""
        chosen = {**os.environ, **self.variables}
        return {
            f"OPS_RANGE_{name}": str(list(ipaddress.ip_network(chosen[f"OPS_SUBNET_{name}"]).subnets(1))[1])
            for name in ("DEV", "PROD")
            if chosen.get(f"OPS_SUBNET_{name}")
        }

    def port(self, variable: str) -> int:
        """Published port, by the name of its variable."""
        return int(self.environment.get(variable) or PORTS[variable])

    def _compose(self, *arguments: str) -> list[str]:
        return [*ensure_compose(), "--project-name", self.project, "--file", str(FILE), *arguments]

    def up(self, *services: str, wait: bool = True) -> None:
        """Start what is not running and wait until every health check is content. Raise SetupError with its log."""
        self._refuse_another_checkout()
        prepare_door(self.door)
        with step("stack", f"starting {', '.join(services) or 'everything'} as project {self.project}"):
            execute(
                self._compose("up", "--detach", "--no-build", "--remove-orphans", *services),
                log="stack-up",
                timeout=180,
                env=self.environment,
                hint="A port or subnet that is taken can be changed: see the variables in deploy/compose.stack.yml",
            )
            if wait:
                self._wait()

    def _refuse_another_checkout(self) -> None:
        """Never take over containers that another checkout's demo runs under the same names."""
        mine = self.environment["OPS_STACK_LABEL"]
        key, _, value = mine.partition("=")
        for each in inventory.containers():
            theirs = each.labels.get("com.docker.compose.project") == self.project
            if theirs and key in each.labels and each.labels[key] != value:
                folder = each.labels.get("com.docker.compose.project.working_dir", "another folder")
                raise SetupError(f"the stack {self.project} runs already, started from {folder}: run `make down` there")

    def _wait(self) -> None:
        deadline = time.monotonic() + HEALTHY_SECONDS
        while True:
            states = self.health()
            waiting = {name: state for name, state in states.items() if state != "healthy"}
            if states and not waiting:
                return
            if time.monotonic() > deadline:
                logs = output(self._compose("logs", "--tail", "15", *waiting), env=self.environment) or ""
                raise SetupError(f"not healthy after {HEALTHY_SECONDS:.0f} s: {waiting}\n{logs}")
            time.sleep(0.25)

    def health(self) -> dict[str, str]:
        """Service → healthy, unhealthy, starting, or the container's state when it does not run."""
        cli = need_docker().path
        label = f"label=com.docker.compose.project={self.project}"
        ids = (output([cli, "ps", "--all", "--quiet", "--filter", label]) or "").split()
        if not ids:
            return {}
        found = json.loads(output([cli, "inspect", *ids]) or "[]")
        states = {}
        for each in found:
            state = each["State"]
            health = state.get("Health", {}).get("Status", "healthy")
            service = each["Config"]["Labels"]["com.docker.compose.service"]
            states[service] = health if state["Status"] == "running" else state["Status"]
        return states

    def down(self) -> None:
        """Stop and remove its containers, networks and volumes."""
        with step("stack", f"removing project {self.project}"):
            execute(
                self._compose("down", "--volumes", "--remove-orphans", "--timeout", "10"),
                log="stack-down",
                timeout=180,
                env=self.environment,
            )

    def addresses(self) -> str:
        """One line a service, for people."""
        width = max(map(len, PORTS)) - len("OPS_PORT_")
        names = {variable: variable.removeprefix("OPS_PORT_").lower().replace("_", " ") for variable in PORTS}
        return "\n".join(f"  {names[each]:{width}}  http://127.0.0.1:{self.port(each)}/" for each in PORTS)


def services() -> list[str]:
    """Names of all services; one edge per environment, else a service is named like its image."""
    names = [each.name for each in stack_images.IMAGES if each.serves and each.name != "edge"]
    return [*names, "edge-dev", "edge-prod"]


def prepare_door(folder: Path) -> None:
    """Make what the front door waits for, as `ops serve` would: the folder, and the secret once per installation."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.parent.chmod(0o700)
    folder.chmod(0o755)
    secret = folder / "secret"
    if not secret.exists() or not secret.read_text(encoding="utf-8").strip():
        temporary = secret.with_name(f".secret.{os.getpid()}")
        temporary.write_text(secrets.token_urlsafe(32), encoding="utf-8")
        temporary.chmod(0o444)
        temporary.replace(secret)


def demo_stack() -> Stack:
    """The stack of `make demo`: its control plane works on the project in `.ops/demo/project`."""
    return Stack(door=ROOT / ".ops" / "demo" / "project" / ".ops" / "run" / "ui")


def plain_stack() -> Stack:
    """The stack of `make stack`: the control plane of this folder, unless OPS_DOOR says where it is."""
    door = os.environ.get("OPS_DOOR")
    return Stack(door=Path(door).absolute()) if door else Stack()


def report(stack: Stack) -> None:
    """Print the addresses."""
    say("stack", f"{len(stack.health())} services are healthy\n{stack.addresses()}")
