"""The Docker engine a database runs on, and the one container that is the database's server (or lends its tools)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ops_pipeline.adapters.docker_errors import docker_errors
from ops_pipeline.errors import NotFound, Permanent, Unavailable
from ops_pipeline.ports import AddressInUse

if TYPE_CHECKING:
    from docker import APIClient

TIMEOUT_SECONDS = 30.0


class Engine:
    """One Docker engine. Contacts nothing before the first call; safe to share by threads."""

    def __init__(self, docker_url: str, host: str) -> None:
        """`docker_url` is unix://, tcp:// or ssh://; `host` is the catalogue's name for it."""
        self.url = docker_url
        self.host = host
        self._lock = threading.Lock()
        self._clients: dict[float, APIClient] = {}

    @contextlib.contextmanager
    def doing(self, what: str, timeout: float = TIMEOUT_SECONDS) -> Iterator[APIClient]:
        """A client whose errors are the project's own; `what` completes «could not …»."""
        try:
            with docker_errors(self.host, self.url, what):
                yield self.client(timeout)
        except AddressInUse as error:
            raise Permanent(str(error)) from error

    def client(self, timeout: float = TIMEOUT_SECONDS) -> APIClient:
        """The SDK's client with this time-out in seconds, for each single answer; its errors are the SDK's."""
        import docker  # here, because it costs 0.2 s that a process which takes no backup need not spend

        with self._lock:
            if timeout not in self._clients:
                self._clients[timeout] = docker.APIClient(
                    base_url=self.url,
                    version="auto",
                    timeout=timeout,  # type: ignore[arg-type]  # the stubs want whole seconds, requests does not
                    use_ssh_client=self.url.startswith("ssh://"),
                )
            return self._clients[timeout]


@dataclass(frozen=True)
class Found:
    """A container as it stands now. `image` is what it was created from, `image_id` pins exactly that content."""

    id: str
    name: str
    image: str
    image_id: str
    user: str  # of its processes, "" = root
    environment: Mapping[str, str] = field(repr=False)  # may hold secrets


class DatabaseContainer:
    """Finds the one container a data source names, anew at each call: containers come and go."""

    def __init__(self, engine: Engine, selector: str, source: str) -> None:
        """`selector` is a container's name, or `key=value,key=value`; `source` is the data source, for messages."""
        self.engine = engine
        self.selector = selector
        self.source = source

    def find(self) -> Found:
        """The running container. Raise NotFound (none), Permanent (several), Unavailable (does not run), Transient."""
        where = f"data source {self.source}"
        with self.engine.doing(f"look for the container of {where}") as client:
            if "=" in self.selector:
                labels = [label.strip() for label in self.selector.split(",")]
                listed = client.containers(all=True, filters={"label": labels})
            else:
                # The engine matches a part of the name; only the whole one counts.
                listed = client.containers(all=True, filters={"name": self.selector})
                listed = [entry for entry in listed if f"/{self.selector}" in (entry.get("Names") or [])]
            running = [entry for entry in listed if entry["State"] == "running"]
            if not listed:
                raise NotFound(
                    f"{where}: no container {self.selector!r} on host {self.engine.host}",
                    hint="Correct `container` of this source in the catalogue, or start the database.",
                )
            if not running:
                states = ", ".join(sorted(f"{_name(entry)} is {entry['State']}" for entry in listed))
                raise Unavailable(
                    f"{where}: its container on host {self.engine.host} does not run ({states})",
                    hint="Start the database.",
                )
            if len(running) > 1:
                names = ", ".join(sorted(_name(entry) for entry in running))
                raise Permanent(
                    f"{where}: {self.selector!r} finds {len(running)} containers on host {self.engine.host}: {names}",
                    hint="Add labels to `container` of this source in the catalogue until exactly one is found.",
                )
            details = client.inspect_container(running[0]["Id"])
        return found(details)


def image_of(container: DatabaseContainer) -> str:
    """Image of the container: its name while that still means the same image, else its id."""
    now = container.find()
    with contextlib.suppress(NotFound), container.engine.doing(f"look for {now.image}") as client:
        if client.inspect_image(now.image)["Id"] == now.image_id:  # type: ignore[no-untyped-call]
            return now.image
    return now.image_id


def found(details: Mapping[str, Any]) -> Found:
    """Given the engine's `inspect` of a container, return what databases need of it."""
    config = details["Config"]
    pairs = (entry.partition("=") for entry in config.get("Env") or [])
    return Found(
        id=str(details["Id"]),
        name=str(details["Name"]).lstrip("/"),
        image=str(config["Image"]),
        image_id=str(details["Image"]),
        user=str(config.get("User") or ""),
        environment={name: value for name, _, value in pairs},
    )


def _name(entry: Mapping[str, Any]) -> str:
    names = entry.get("Names") or [entry["Id"][:12]]
    return str(names[0]).lstrip("/")
