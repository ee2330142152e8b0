"""What the Docker SDK returns, in the project's own values, and how a one-shot container differs from a replica."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ops_pipeline.ports import Container, ContainerSpec

if TYPE_CHECKING:
    from docker import APIClient


def once(spec: ContainerSpec) -> ContainerSpec:
    """The specification of a one-shot container: nothing about it looks like a replica of a release."""
    kept = {
        name: value for name, value in spec.labels.items() if name not in {"ops.release", "ops.replica", "ops.pool"}
    }
    return replace(spec, labels={**kept, "ops.once": "true", "ops.once.name": spec.name}, aliases=())


def command_of(spec: ContainerSpec) -> dict[str, list[str] | None]:
    """What a container runs. A one-shot container's command is run as it stands, past the image's entry point."""
    if spec.command and "ops.once" in spec.labels:
        return {"Entrypoint": list(spec.command), "Cmd": None}
    return {"Cmd": list(spec.command) or None}


def read_timed_out(error: BaseException) -> bool:
    """Whether waiting was what failed; over a socket the SDK wraps that in a connection error."""
    return "timed out" in str(error).lower()


def address_on(settings: Mapping[str, Any], network: str) -> str:
    """A container's address on a network: the live one, else the static one it will have again."""
    endpoint = (settings.get("Networks") or {}).get(network) or {}
    static = (endpoint.get("IPAMConfig") or {}).get("IPv4Address") or ""
    return str(endpoint.get("IPAddress") or static)


def as_container(found: Mapping[str, Any]) -> Container:
    """A container as inspecting it shows."""
    state, config = found["State"], found["Config"]
    network = str(found["HostConfig"].get("NetworkMode") or "")
    started = engine_time(str(state.get("StartedAt") or ""))
    running = state["Status"] in {"running", "paused", "restarting"}
    return Container(
        id=str(found["Id"]),
        name=str(found["Name"]).lstrip("/"),
        labels=dict(config.get("Labels") or {}),
        image=str(config["Image"]),
        state=str(state["Status"]),
        health=str((state.get("Health") or {}).get("Status") or "none"),
        address=address_on(found["NetworkSettings"], network),
        exit_code=None if running or started is None else int(state["ExitCode"]),
        oom_killed=bool(state.get("OOMKilled")),
        restarts=int(found.get("RestartCount") or 0),
        started_at=started,
    )


def engine_time(text: str) -> datetime | None:
    """The engine's RFC 3339 time with nanoseconds; its zero time means «never»."""
    if not text or text.startswith("0001-"):
        return None
    seconds = text.rstrip("Z").partition(".")
    fraction = (seconds[2] + "000000")[:6]
    return datetime.strptime(f"{seconds[0]}.{fraction}", "%Y-%m-%dT%H:%M:%S.%f").replace(tzinfo=UTC)


def file_of(client: APIClient, container: str, path: str) -> str:
    """Content of a file of a container that has not been started, "" when it has none."""
    import docker.errors

    try:
        stream, _ = client.get_archive(container, path)
        data = b"".join(stream)
    except docker.errors.NotFound:
        return ""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        member = archive.extractfile(archive.getmembers()[0])
        return "" if member is None else member.read().decode(errors="replace")
