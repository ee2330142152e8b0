"""The FileTree port for a Docker volume, on any engine.

Where the volume's directory lies on this machine and this process is root it is used as it is. Everywhere else the
same code runs inside a courier: a container with nothing but the volume, sent the modules of `trees` and talked to
over `docker exec`. A courier ends by itself half a minute after its last use, whatever became of its user.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops_pipeline.adapters.docker_errors import docker_errors
from ops_pipeline.adapters.file_tree import DirectoryTree, as_ops_error
from ops_pipeline.adapters.trees.places import TRANSIENT, TreeError
from ops_pipeline.adapters.trees.session import COMMAND, Session
from ops_pipeline.adapters.trees.wire import WireError, full_fields
from ops_pipeline.core.backup.records import Kind
from ops_pipeline.errors import NotFound, Unavailable
from ops_pipeline.ports import FileEntry, Piece

if TYPE_CHECKING:
    from docker import APIClient

CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETFCAP"]
TIMEOUT_SECONDS = 60
LABEL = "ops.courier"


class VolumeTree:
    """A volume; contacts nothing before the first call. Safe to share by threads.

    `direct`: whether to use the volume's directory on this machine; None = when that is possible. `labels` go on
    couriers. `close` ends the courier early.
    """

    def __init__(
        self,
        name: str,
        volume: str,
        *,
        docker_url: str,
        host: str,
        image: str,
        exclude: Sequence[str] = (),
        direct: bool | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self._name = name
        self._volume = volume
        self._url = docker_url
        self._host = host
        self._image = image
        self._exclude = tuple(exclude)
        self._direct = direct
        self._labels = dict(labels or {})
        self._lock = threading.RLock()
        self._client: APIClient | None = None
        self._container = ""
        self._idle: list[Session] = []

    @property
    def name(self) -> str:
        """Name in the catalogue."""
        return self._name

    @property
    def kind(self) -> Kind:
        """ "volume"."""
        return "volume"

    def close(self) -> None:
        """End the courier, if there is one."""
        with self._lock:
            idle, self._idle = self._idle, []
            container, self._container = self._container, ""
        for session in idle:
            session.close()
        if container:
            import docker.errors

            with contextlib.suppress(docker.errors.DockerException, OSError):
                self._engine().remove_container(container, force=True)

    def check(self) -> Sequence[str]:
        """Warnings. Raise NotFound (no such volume), Unavailable (engine, courier's image)."""
        tree = self._tree()
        if tree is not None:
            return tree.check()
        self._place("holds")
        return ()

    def walk(self) -> Iterator[FileEntry]:
        """See `FileTree.walk`."""
        tree = self._tree()
        return self._walked("") if tree is None else tree.walk()

    def read(self, entries: Sequence[FileEntry]) -> Iterator[Piece]:
        """See `FileTree.read`."""
        tree = self._tree()
        return self._read("", entries) if tree is None else tree.read(entries)

    def beside(self, token: str) -> None:
        """See `FileTree.beside`. A volume that is gone is made again, empty."""
        self._make_volume()
        tree = self._tree()
        if tree is not None:
            tree.beside(token)
        else:
            self._place("beside", token)

    def write(self, token: str, entries: Iterator[tuple[FileEntry, Iterator[bytes]]], *, durable: bool = True) -> None:
        """See `FileTree.write`."""
        tree = self._tree()
        if tree is not None:
            tree.write(token, entries, durable=durable)
            return
        with self._session() as session:
            session.write({"do": "write", "token": token, "durable": durable}, entries)

    def walk_beside(self, token: str) -> Iterator[FileEntry]:
        """See `FileTree.walk_beside`."""
        tree = self._tree()
        return self._walked(token) if tree is None else tree.walk_beside(token)

    def read_beside(self, token: str, entries: Sequence[FileEntry]) -> Iterator[Piece]:
        """See `FileTree.read_beside`."""
        tree = self._tree()
        return self._read(token, entries) if tree is None else tree.read_beside(token, entries)

    def swap(self, token: str) -> None:
        """See `FileTree.swap`."""
        tree = self._tree()
        if tree is not None:
            tree.swap(token)
        else:
            self._place("swap", token)

    def swapped(self, token: str) -> bool:
        """See `FileTree.swapped`."""
        tree = self._tree()
        return bool(self._place("swapped", token)) if tree is None else tree.swapped(token)

    def unswap(self, token: str) -> None:
        """See `FileTree.unswap`."""
        tree = self._tree()
        if tree is not None:
            tree.unswap(token)
        else:
            self._place("unswap", token)

    def drop_beside(self, token: str) -> None:
        """See `FileTree.drop_beside`."""
        tree = self._tree()
        if tree is not None:
            tree.drop_beside(token)
        else:
            self._place("drop_beside", token)

    def holds(self) -> Sequence[str]:
        """See `FileTree.holds`."""
        tree = self._tree()
        return [str(token) for token in self._place("holds")] if tree is None else tree.holds()

    def drop_hold(self, token: str) -> None:
        """See `FileTree.drop_hold`."""
        tree = self._tree()
        if tree is not None:
            tree.drop_hold(token)
        else:
            self._place("drop_hold", token)

    # ------------------------------------------------------------------------------------------------ by courier

    def _walked(self, token: str) -> Iterator[FileEntry]:
        request = {"do": "walk", "token": token, "exclude": [] if token else list(self._exclude)}
        with self._session() as session:
            yield from session.walk(request)

    def _read(self, token: str, entries: Sequence[FileEntry]) -> Iterator[Piece]:
        if not entries:
            return
        with self._session() as session:
            yield from session.read(
                {"do": "read", "token": token, "entries": [full_fields(entry) for entry in entries]}
            )

    def _place(self, action: str, token: str = "") -> Any:
        with self._session() as session:
            return session.ask({"do": "place", "action": action, "token": token})

    @contextmanager
    def _session(self) -> Iterator[Session]:
        """A courier process for one request; it goes back to the others when all went well."""
        session = self._borrowed()
        well = False
        try:
            yield session
            well = True
        except TreeError as error:
            raise as_ops_error(self._name, error.kind, f"volume {self._volume}: {error.text}") from error
        except WireError as error:
            raise as_ops_error(self._name, TRANSIENT, f"volume {self._volume} on {self._host}: {error}") from error
        finally:
            if well:
                with self._lock:
                    self._idle.append(session)
            else:
                session.close()

    def _borrowed(self) -> Session:
        while True:
            with self._lock:
                if not self._idle:
                    break
                session = self._idle.pop()
            if session.alive:
                return session
            session.close()
        import docker.errors

        with self._lock, docker_errors(self._host, self._url, f"read the volume {self._volume}"):
            for attempt in (1, 2):
                fresh = not self._container
                if fresh:
                    self._start()
                client = self._engine()
                try:
                    created = client.exec_create(
                        self._container, list(COMMAND), stdin=True, stdout=True, stderr=True, user="0:0"
                    )
                    stream = client.exec_start(created["Id"], socket=True)
                except docker.errors.APIError:
                    # It ended by itself since it was last used.
                    self._container = ""
                    if fresh or attempt == 2:
                        raise
                    continue
                # docker-py wraps the socket of a local engine, and gives it bare for TLS and ssh.
                return Session(stream, getattr(stream, "_sock", stream))
        raise AssertionError("unreachable")

    def _start(self) -> None:
        import docker.errors
        import docker.types

        client = self._engine()
        self._known_volume(client)
        limits = client.create_host_config(
            mounts=[docker.types.Mount("/volume", self._volume, no_copy=True)],
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            cap_add=CAPABILITIES,
            security_opt=["no-new-privileges"],
            mem_limit="512m",
            pids_limit=64,
            auto_remove=True,
        )
        try:
            made = client.create_container(
                self._image,
                name=f"ops-courier-{uuid.uuid4().hex[:12]}",
                labels={**self._labels, LABEL: self._name},
                host_config=limits,
                network_disabled=True,
            )
        except docker.errors.ImageNotFound as error:
            raise Unavailable(
                f"volume {self._volume}: the image {self._image} is not on host {self._host}",
                hint="`make images` builds it; another host gets it with `docker save` and `docker load`, or name "
                "one in a registry as `backups.courier_image`.",
            ) from error
        client.start(made["Id"])
        self._container = made["Id"]

    # ------------------------------------------------------------------------------------------------ the engine

    def _tree(self) -> DirectoryTree | None:
        """The volume's directory, when it can be used as it is."""
        if self._direct is False:
            return None
        with self._lock, docker_errors(self._host, self._url, f"look at the volume {self._volume}"):
            place = self._place_here(self._engine())
        if place is None and self._direct:
            raise Unavailable(f"volume {self._volume} does not lie on this machine, or this process is not root")
        if place is None:
            return None
        return DirectoryTree(self._name, place, exclude=self._exclude, kind="volume", inside=True)

    def _place_here(self, client: APIClient) -> Path | None:
        found = self._known_volume(client)
        if not self._url.startswith("unix://") or os.geteuid() != 0 or found["Driver"] != "local" or found["Options"]:
            return None
        # A forwarded socket is local too: the engine must call itself what this machine is called.
        if client.info()["Name"] != socket.gethostname():
            return None
        place = Path(found["Mountpoint"])
        return place if place.is_dir() and not place.is_symlink() else None

    def _known_volume(self, client: APIClient) -> dict[str, Any]:
        import docker.errors

        try:
            found: dict[str, Any] = client.inspect_volume(self._volume)
        except docker.errors.NotFound as error:
            raise NotFound(f"there is no volume {self._volume} on host {self._host}") from error
        return found

    def _make_volume(self) -> None:
        with docker_errors(self._host, self._url, f"make the volume {self._volume}"):
            self._engine().create_volume(self._volume, labels=self._labels or None)

    def _engine(self) -> APIClient:
        with self._lock:
            if self._client is None:
                import docker  # here, because it costs 0.2 s that a process without volumes need not spend

                self._client = docker.APIClient(base_url=self._url, version="auto", timeout=TIMEOUT_SECONDS)
            return self._client
