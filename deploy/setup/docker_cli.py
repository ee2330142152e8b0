"""Which of the installed docker and compose commands can do what we need."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from deploy.setup import debian
from deploy.setup.commands import SetupError, output


@dataclass(frozen=True)
class DockerCli:
    """A docker command and how it builds."""

    path: str
    version: str
    buildkit: str  # "buildx", "integrated" (client before 23 with DOCKER_BUILDKIT=1) or "" (legacy builder only)

    @property
    def environment(self) -> dict[str, str]:
        """Our environment, with what makes this command build at its best."""
        return {**os.environ, "DOCKER_BUILDKIT": "1" if self.buildkit else "0", "BUILDKIT_PROGRESS": "plain"}


def _every(command: str) -> list[str]:
    """All executables of this name on PATH, and in the places where distributions put them."""
    folders = [*os.environ.get("PATH", "").split(":"), "/usr/local/bin", "/usr/bin"]
    found: list[str] = []
    for folder in folders:
        path = Path(folder or ".") / command
        if os.access(path, os.X_OK) and path.is_file() and str(path.resolve()) not in map(os.path.realpath, found):
            found.append(str(path))
    return found


@cache
def docker() -> DockerCli | None:
    """The most capable docker command: buildx first, then integrated BuildKit, then any."""
    best: DockerCli | None = None
    for path in _every("docker"):
        match = re.search(r"version (\d+)\.[\w.+~-]+", output([path, "--version"]) or "")
        if match is None:
            continue
        if output([path, "buildx", "version"]) is not None:
            buildkit = "buildx"
        else:
            buildkit = "integrated" if 18 < int(match[1]) < 23 else ""
        cli = DockerCli(path, match[0].removeprefix("version "), buildkit)
        if best is None or _rank(cli) > _rank(best):
            best = cli
    return best


def _rank(cli: DockerCli) -> int:
    return {"buildx": 2, "integrated": 1, "": 0}[cli.buildkit]


def need_docker() -> DockerCli:
    """The docker command. Raise SetupError when there is none."""
    cli = docker()
    if cli is None:
        raise SetupError(
            "no docker command was found on PATH; install Docker's command line (docker.io or docker-ce-cli)"
        )
    return cli


@cache
def compose() -> tuple[str, ...] | None:
    """The compose command: `docker compose` v2 of any docker on PATH, else docker-compose."""
    for path in _every("docker"):
        if output([path, "compose", "version"]) is not None:
            return (path, "compose")
    for path in _every("docker-compose"):
        if output([path, "version", "--short"]) is not None:
            return (path,)
    return None


def compose_package() -> str:
    """Name of the package that brings a compose command; Ubuntu's is the newer one."""
    return "docker-compose-v2" if debian.can_install() and debian.offers("docker-compose-v2") else "docker-compose"


def ensure_compose() -> tuple[str, ...]:
    """The compose command, installed first where we may. Raise SetupError."""
    found = compose()
    if found is not None:
        return found
    package = compose_package()
    debian.install(
        "compose",
        [package],
        "no compose command was found",
        otherwise="  sudo apt-get install docker-compose     # Debian 12\n"
        "  sudo apt-get install docker-compose-v2  # Ubuntu\n"
        "  or Docker's own package docker-compose-plugin",
    )
    compose.cache_clear()
    found = compose()
    if found is None:
        raise SetupError(f"package {package} is installed, but neither `docker compose` nor `docker-compose` works")
    return found
