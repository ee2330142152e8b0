"""What the engine holds, with the labels and connections that tell whose it is."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deploy.setup.docker_cli import need_docker


@dataclass(frozen=True, eq=False)
class Thing:
    """A container, network, volume or image. `networks` and `volumes` are what a container is connected to."""

    kind: str
    id: str
    name: str
    labels: Mapping[str, str]
    networks: tuple[str, ...] = field(default=())
    volumes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def docker(*arguments: str, timeout: float = 120) -> str:
    """Standard output, also of a command that failed in part (something vanished meanwhile)."""
    done = subprocess.run(
        [need_docker().path, *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
        check=False,
    )
    return done.stdout


def _inspect(kind: str, ids: Iterable[str]) -> list[dict[str, Any]]:
    wanted = list(dict.fromkeys(ids))
    if not wanted:
        return []
    prefix = ["inspect"] if kind == "container" else [kind, "inspect"]
    found: list[dict[str, Any]] = json.loads(docker(*prefix, *wanted) or "[]")
    return found


def containers() -> list[Thing]:
    """All containers, running or not."""
    return [
        Thing(
            "container",
            each["Id"],
            each["Name"].lstrip("/"),
            each["Config"].get("Labels") or {},
            tuple((each.get("NetworkSettings", {}).get("Networks") or {}).keys()),
            tuple(mount["Name"] for mount in each.get("Mounts", ()) if mount.get("Type") == "volume"),
        )
        for each in _inspect("container", docker("ps", "--all", "--quiet", "--no-trunc").split())
    ]


def networks() -> list[Thing]:
    """All networks that somebody created."""
    found = _inspect("network", docker("network", "ls", "--quiet", "--no-trunc", "--filter", "type=custom").split())
    return [Thing("network", each["Id"], each["Name"], each.get("Labels") or {}) for each in found]


def volumes() -> list[Thing]:
    """All volumes."""
    found = _inspect("volume", docker("volume", "ls", "--quiet").split())
    return [Thing("volume", each["Name"], each["Name"], each.get("Labels") or {}) for each in found]


def images(label: str) -> list[Thing]:
    """Images that carry this label key."""
    found = _inspect("image", docker("images", "--all", "--quiet", "--no-trunc", "--filter", f"label={label}").split())
    return [
        Thing("image", each["Id"], (each.get("RepoTags") or [each["Id"][:19]])[0], each["Config"].get("Labels") or {})
        for each in found
    ]


def everything(image_label: str) -> list[Thing]:
    """Containers, networks, volumes, and the images with this label key."""
    return [*containers(), *networks(), *volumes(), *images(image_label)]


def remove(things: Iterable[Thing]) -> None:
    """Remove by id, containers first; what is gone already is no error."""
    commands = {
        "container": ("rm", "--force", "--volumes"),
        "network": ("network", "rm"),
        "volume": ("volume", "rm", "--force"),
        "image": ("rmi", "--force"),
    }
    todo = list(things)
    for kind, command in commands.items():
        ids = [each.id for each in todo if each.kind == kind]
        if ids:
            docker(*command, *ids)
