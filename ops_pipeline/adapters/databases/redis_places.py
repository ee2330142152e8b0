"""Where Redis keeps what a restore makes: a volume of its own for each copy of the data, and a server on it.

A copy is a Docker volume on the live server's engine, found by its labels. What it holds is an RDB file. Whenever
somebody talks to it, a server runs on it in a container that shares the live container's network and listens there on
127.0.0.1 only. The container is thrown away and made anew as needed (after a restart of the live server it would be
in a network that is gone), the volume is not. So a copy survives restarts of servers, engine and machine.
"""

from __future__ import annotations

import contextlib
import io
import re
import secrets
import tarfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ops_pipeline.adapters.databases.container import DatabaseContainer, Engine
from ops_pipeline.adapters.databases.redis_server import RedisServer
from ops_pipeline.adapters.databases.scratch import DATA, FOLDER, remove
from ops_pipeline.adapters.databases.streaming import run
from ops_pipeline.adapters.docker_facts import file_of
from ops_pipeline.adapters.docker_secrets import user_ids
from ops_pipeline.errors import NotFound, OpsError, Permanent, Transient

PLACE, KIND, TOKEN, PORT = "ops.redis.place", "ops.redis.kind", "ops.redis.token", "ops.redis.port"
START_SECONDS = 120.0
PORTS = (20000, 32000)  # below what the kernel gives to outgoing connections
_LIMIT = re.compile(r"[a-z]+-max-[a-z]+-(entries|value|size)|list-compress-depth|stream-node-max-(bytes|entries)")

# Waits for the data, then serves them as the replica of nobody: a replica deletes no key whose time is over.
_SCRIPT = f"""\
cd {DATA} || exit 1
while [ ! -e go ]; do sleep 0.05; done
exec redis-server "$@" $(cat limits 2>/dev/null)
"""


def serving(port: int, *, alone: bool) -> list[str]:
    """The command of a server on DATA. `alone`: it replicates nobody from the start."""
    command = ["sh", "-c", _SCRIPT, "sh", "--dir", DATA, "--dbfilename", "dump.rdb", "--port", str(port)]
    command += ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--repl-diskless-sync", "yes"]
    command += ["--repl-diskless-sync-delay", "0", "--daemonize", "no"]
    return command if alone else [*command, "--replicaof", "127.0.0.1", "1"]


def give_limits(engine: Engine, container: str, limits: Mapping[str, str]) -> None:
    """Let the server keep values in the same encodings as the one they come from, so that they compare equal."""
    text = " ".join(
        f"--{name} {value}"
        for name, value in limits.items()
        if _LIMIT.fullmatch(name) and re.fullmatch(r"-?\d+", value)
    )
    run(engine, container, ["sh", "-c", f"cat > {DATA}/limits"], chunks=[text.encode()], what="cat", check=True)


def wait_for(server: RedisServer, engine: Engine, container: str, seconds: float) -> None:
    """Return once the server has loaded its data. Raise Permanent with its last words, or when it takes too long."""
    deadline = time.monotonic() + seconds
    while True:
        with engine.doing(f"look at {container[:12]}") as client:
            state = client.inspect_container(container)["State"]
            if not state["Running"]:
                log: bytes = client.logs(container, tail=30)
                why = "ran out of memory" if state.get("OOMKilled") else f"ended with code {state['ExitCode']}"
                raise Permanent(
                    f"data source {server.source}: the server for restored data {why}: "
                    + log.decode(errors="replace").strip()[-2000:]
                )
        with contextlib.suppress(OpsError):
            if server.info("persistence").get("loading") == "0":
                return
        if time.monotonic() > deadline:
            raise Permanent(f"data source {server.source}: the server for restored data does not answer")
        time.sleep(0.1)


class RedisPlaces:
    """Copies of one data source beside its live server. `kind`: "r" = restored, "h" = hold, "w" = hold is whole."""

    def __init__(self, container: DatabaseContainer, source: str, memory_bytes: int, seconds: float) -> None:
        """Several sources may be on an engine: a copy belongs to the container's selector and the source's name."""
        self._container = container
        self._engine = container.engine
        self._source = source
        self._memory = memory_bytes
        self._seconds = seconds
        self._place = f"{source}@{container.selector}"

    def tokens(self, kind: str) -> list[str]:
        """Tokens of all copies of a kind."""
        wanted = [f"{PLACE}={self._place}", f"{KIND}={kind}"]
        with self._engine.doing("list volumes") as client:
            listed: list[dict[str, Any]] = client.volumes(filters={"label": wanted}).get("Volumes") or []
        return sorted(str(each["Labels"][TOKEN]) for each in listed)

    def make(self, kind: str, token: str, *, alone: bool = False) -> tuple[RedisServer, str]:
        """A new empty copy; an earlier one is dropped. Return its server, which waits for data, and its container."""
        self.drop(kind, token)
        self.note(kind, token)
        return self._start(kind, token, alone=alone)

    def note(self, kind: str, token: str) -> None:
        """Make the volume."""
        with self._engine.doing(f"make a volume for {self._source}") as client:
            client.create_volume(self.name(kind, token), labels=self._labels(kind, token))

    def server(self, kind: str, token: str) -> RedisServer:
        """The server of a copy, started if it does not run or cannot be reached. Raise NotFound."""
        if token not in self.tokens(kind):
            raise NotFound(f"data source {self._source}: there is no copy {self.name(kind, token)}")
        for container in self._containers(kind, token):
            with self._engine.doing(f"look at {container[:12]}") as client:
                port = int(client.inspect_container(container)["Config"]["Labels"][PORT])
            # From the live container: only what it reaches can be swapped in.
            near = RedisServer(self._engine, lambda: self._container.find().id, self._source, port=port)
            with contextlib.suppress(OpsError):
                if near.ask("PING") == "PONG":
                    return near
        self._stop(kind, token)
        server, container = self._start(kind, token, alone=False)
        wait_for(server, self._engine, container, self._seconds)
        return server

    def drop(self, kind: str, token: str) -> None:
        """Remove a copy; no error when there is none."""
        self._stop(kind, token)
        name = self.name(kind, token)
        for attempt in range(20):
            try:
                with self._engine.doing(f"remove the volume {name}") as client, contextlib.suppress(NotFound):
                    client.remove_volume(name, force=True)
                return
            except NotFound:
                return
            except (Permanent, Transient):
                if attempt == 19:
                    raise
                time.sleep(0.25)

    def stop(self, kind: str, token: str) -> None:
        """End the server of a copy, which stays."""
        self._stop(kind, token)

    def _stop(self, kind: str, token: str) -> None:
        for container in self._containers(kind, token):
            remove(self._engine, container)

    def _containers(self, kind: str, token: str) -> list[str]:
        wanted = [f"{name}={value}" for name, value in self._labels(kind, token).items()]
        with self._engine.doing("list containers") as client:
            return [str(each["Id"]) for each in client.containers(all=True, filters={"label": wanted})]

    def _start(self, kind: str, token: str, *, alone: bool) -> tuple[RedisServer, str]:
        live = self._container.find()
        port = PORTS[0] + secrets.randbelow(PORTS[1] - PORTS[0])
        name = self.name(kind, token)
        with self._engine.doing(f"make a server for {name}") as client:
            host = client.create_host_config(
                network_mode=f"container:{live.id}",
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                read_only=True,
                tmpfs={"/tmp": "mode=1777"},  # noqa: S108  (inside the container)
                mem_limit=self._memory,
                init=True,
            )
            host["Mounts"] = [
                {"Type": "volume", "Source": name, "Target": FOLDER, "VolumeOptions": {"NoCopy": True}},
            ]
            created = client.create_container_from_config(  # type: ignore[no-untyped-call]
                {
                    "Image": live.image_id,
                    "Entrypoint": serving(port, alone=alone),
                    "Cmd": [],
                    "User": live.user,
                    "WorkingDir": "/",
                    "Labels": {**self._labels(kind, token), PORT: str(port)},
                    "Healthcheck": {"Test": ["NONE"]},
                    "HostConfig": host,
                },
                f"{name}-{secrets.token_hex(4)}",
            )
            container = str(created["Id"])
            passwd, group = (file_of(client, container, path) for path in ("/etc/passwd", "/etc/group"))
            try:
                uid, gid = user_ids(live.user, passwd, group)
            except ValueError as error:
                raise Permanent(f"data source {self._source}: {error}") from error
            client.put_archive(container, FOLDER, _folder(uid, gid))
            client.start(container)
        return RedisServer(self._engine, lambda: container, self._source, port=port), container

    def name(self, kind: str, token: str) -> str:
        """The volume's name."""
        slug = re.sub(r"[^a-zA-Z0-9]+", "-", self._place).strip("-")
        return f"ops-redis-{slug}-{kind}-{token}"

    def _labels(self, kind: str, token: str) -> dict[str, str]:
        return {PLACE: self._place, KIND: kind, TOKEN: token}


def _folder(uid: int, gid: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo(DATA.removeprefix(f"{FOLDER}/"))
        entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o700, uid, gid
        archive.addfile(entry)
    return stream.getvalue()


__all__: Sequence[str] = ("RedisPlaces", "give_limits", "serving", "wait_for")
