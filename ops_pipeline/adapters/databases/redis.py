"""A Redis server as a data source, whole: dumped as its replicas get it, restored beside it, swapped by replication."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from ops_pipeline.adapters.databases.container import DatabaseContainer
from ops_pipeline.adapters.databases.redis_dump import GlobalsDump, RdbDump
from ops_pipeline.adapters.databases.redis_places import RedisPlaces, serving
from ops_pipeline.adapters.databases.redis_restore import RedisBeside, ask
from ops_pipeline.adapters.databases.redis_server import RedisServer
from ops_pipeline.adapters.databases.redis_swap import (
    add_missing_users,
    capture,
    end_sessions,
    finish_following,
    follow,
    follows_copy,
)
from ops_pipeline.adapters.databases.scratch import scratch_server
from ops_pipeline.adapters.databases.streaming import run
from ops_pipeline.core.backup.records import Contents, Kind
from ops_pipeline.errors import NotFound, OpsError, Permanent, Unavailable
from ops_pipeline.ports.backup import Beside, Dump

OLDEST_SWAP = 7  # major version; marks are functions


class RedisSource:
    """One Redis server with all its databases. Contacts nothing before the first call."""

    def __init__(
        self,
        name: str,
        container: DatabaseContainer,
        *,
        user: str = "",
        password: Callable[[], str] | None = None,
        remote: str = "",
        port: int = 6379,
        timeout_seconds: float = 3600.0,
        memory_bytes: int = 1024 * 1024 * 1024,
    ) -> None:
        """`remote` is host:port of a server elsewhere, for which `container` lends its redis-cli.

        `password()` is asked when it is needed. `memory_bytes` bounds each server of restored data.
        """
        host, _, remote_port = remote.rpartition(":")
        self._name = name
        self._container = container
        self._remote = remote
        self._seconds = timeout_seconds
        self._memory = memory_bytes
        self._live = RedisServer(
            container.engine,
            lambda: container.find().id,
            name,
            user=user,
            password=password,
            host=host.strip("[]") or "127.0.0.1",
            port=int(remote_port) if remote_port else port,
        )
        self._places = RedisPlaces(container, name, memory_bytes, timeout_seconds)

    @property
    def name(self) -> str:
        """Name in the catalogue."""
        return self._name

    @property
    def kind(self) -> Kind:
        """ "redis"."""
        return "redis"

    def check(self) -> Sequence[str]:
        """Warnings about what a dump will not hold. Raise Unavailable, NotFound, Permanent."""
        with self._live.session(60.0) as live:
            return self._warnings(live)

    def _warnings(self, live: RedisServer) -> list[str]:
        warnings: list[str] = []
        if live.info("persistence").get("loading") == "1":
            raise Unavailable(f"data source {self._name}: the server is still loading its data")
        if live.setting("rdbchecksum") == "no":
            warnings.append("rdbchecksum is off: the dump has no checksum of its own, only its structure is proved")
        replication = live.info("replication")
        if replication.get("role") == "slave":
            if replication.get("master_link_status") != "up":
                raise Permanent(f"data source {self._name}: it is a replica without its master, so it refuses to dump")
            warnings.append("the server is a replica: back up its master, and restore there")
        if live.info("cluster").get("cluster_enabled") == "1":
            warnings.append("the server is a node of a cluster: only this node's keys are in the backup")
        modules = live.ask("MODULE", "LIST")
        if modules:
            warnings.append("the server has modules: a drill needs an image that has them too")
        return warnings

    def version(self) -> str:
        """E.g. "Redis 7.0.15"."""
        found = self._live.info("server")
        if "valkey_version" in found:
            return f"Valkey {found['valkey_version']}"
        return f"Redis {found['redis_version']}"

    def image(self) -> str:
        """Image of the container: its name while that still means the same image, else its id."""
        found = self._container.find()
        with contextlib.suppress(NotFound), self._container.engine.doing(f"look for {found.image}") as client:
            if client.inspect_image(found.image)["Id"] == found.image_id:  # type: ignore[no-untyped-call]
                return found.image
        return found.image_id

    @contextlib.contextmanager
    def dumps(self) -> Iterator[Sequence[Dump]]:
        """Users, and all data as of the moment the server begins to send them."""
        parts = (GlobalsDump(self._live, self.version()), self._dump())
        try:
            yield parts
        finally:
            for part in parts:
                part.close()

    def contents(self) -> Contents:
        """The live data's view, now: counted in a stream like that of a dump."""
        dump = self._dump()
        try:
            while dump.read(1024 * 1024):
                continue
        finally:
            dump.close()
        found = dump.contents()
        if found is None:
            raise Permanent(f"data source {self._name}: the data cannot be counted: {dump.walker.unknown}")
        return found

    def ask(self, query: str) -> str:
        """Answer of one Redis command, now, as `RedisBeside.ask`: the engine has no snapshot that can be asked."""
        return ask(self._live, query)

    def beside(self, token: str) -> Beside:
        """A server beside the live one that waits for data; what an earlier attempt of the token left is dropped."""
        with self._live.session(self._seconds) as live:
            self._swappable(live)
        if token in self.holds():
            raise Permanent(
                f"data source {self._name}: token {token} is in use, its hold exists",
                hint="Release the hold, or use another token.",
            )
        server, container = self._places.make("r", token)
        return RedisBeside(server, container, self._places.name("r", token), self._seconds)

    @contextlib.contextmanager
    def scratch(self, image: str, labels: Mapping[str, str]) -> Iterator[Beside]:
        """A throw-away server of this image that waits for data."""
        engine = self._container.engine

        def answers(container: str) -> bool:
            return run(engine, container, ["redis-cli", "--version"], hang_seconds=20).code == 0

        with scratch_server(
            engine,
            image,
            serving(6379, alone=False),
            answers=answers,
            source=self._name,
            user=self._container.find().user,
            labels=labels,
            memory_bytes=self._memory,
        ) as container:
            server = RedisServer(engine, lambda: container, self._name)
            yield RedisBeside(server, container, self._name, self._seconds)

    def swap(self, token: str) -> None:
        """Live becomes the hold, beside becomes live. Raise NotFound (no beside), Permanent (refused, broken off)."""
        with self._live.session(self._seconds) as live:
            self._swappable(live)
            finish_following(live)
            restored = token in self._places.tokens("r")
            if token not in live.marks():
                copy = self._places.server("r", token)
                self._places.drop("w", token)
                capture(live, self._places, "h", token, self._seconds)
                with _unpaused(live):
                    follow(live, copy, token, self._seconds)
                end_sessions(live)
            elif not restored:
                return
            if restored:
                add_missing_users(live, self._places.server("r", token).users())
            live.persist(self._seconds)
            self._places.stop("h", token)
            self._places.note("w", token)
            self._places.drop("r", token)

    def swapped(self, token: str) -> bool:
        """Whether beside `token` is what is live now."""
        return token in self._live.marks()

    def unswap(self, token: str) -> None:
        """The hold becomes live again, what was live becomes beside. Raise NotFound when there is no hold any more."""
        with self._live.session(self._seconds) as live:
            self._swappable(live)
            finish_following(live)
            marks, undone = live.marks(), f"undone_{token}"
            if token in marks:
                if token not in self._places.tokens("h"):
                    raise NotFound(f"data source {self._name}: there is no hold {token}")
                hold = self._places.server("h", token)
                # What the hold's data were marked with, so that an older swap can be undone after this one.
                earlier = sorted(mark for mark in hold.marks() if not mark.startswith("undone_"))
                capture(live, self._places, "r", token, self._seconds)
                with _unpaused(live):
                    follow(live, hold, "_then_".join([undone, *earlier]), self._seconds)
                end_sessions(live)
                marks = live.marks()
            for mark in marks:
                if mark == undone or mark.startswith(f"{undone}_then_"):
                    live.persist(self._seconds)
                    self._places.drop("w", token)
                    self._places.drop("h", token)
                    self._places.stop("r", token)
                    live.mark(mark.removeprefix(undone).removeprefix("_then_"))

    def drop_beside(self, token: str) -> None:
        """Remove what `beside` made."""
        self._places.drop("r", token)

    def holds(self) -> Sequence[str]:
        """Tokens of the holds that exist."""
        whole = set(self._places.tokens("w"))
        return [token for token in self._places.tokens("h") if token in whole or self.swapped(token)]

    def drop_hold(self, token: str) -> None:
        """Remove a hold."""
        self._places.drop("w", token)
        self._places.drop("h", token)

    def _dump(self) -> RdbDump:
        text = run(
            self._container.engine, self._container.find().id, ["redis-cli", "--version"], check=True
        ).text.strip()
        return RdbDump(self._live, self.version(), text, self._seconds)

    def _swappable(self, live: RedisServer) -> None:
        problem = ""
        replication, server = live.info("replication"), live.info("server")
        if self._remote:
            problem = f"it runs elsewhere ({self._remote})"
        elif int(server["redis_version"].split(".")[0]) < OLDEST_SWAP:
            problem = f"it is older than Redis {OLDEST_SWAP}"
        elif live.info("cluster").get("cluster_enabled") == "1":
            problem = "it is a node of a cluster"
        elif replication.get("role") == "slave" and not follows_copy(replication):
            problem = f"it is a replica of {replication.get('master_host')}"
        if problem:
            raise Permanent(
                f"data source {self._name}: data cannot be swapped into this server: {problem}",
                hint="Restore into a new server, and point the application there.",
            )


@contextlib.contextmanager
def _unpaused(live: RedisServer) -> Iterator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(OpsError):
            live.ask("CLIENT", "UNPAUSE")
