"""Restoring Redis: into a server that holds nothing yet, beside the live one or thrown away afterwards."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ops_pipeline.adapters.databases.redis_dump import checked, with_users
from ops_pipeline.adapters.databases.redis_end import RdbEnd
from ops_pipeline.adapters.databases.redis_places import give_limits, wait_for
from ops_pipeline.adapters.databases.redis_rdb import RdbWalker
from ops_pipeline.adapters.databases.redis_server import RedisServer
from ops_pipeline.adapters.databases.scratch import DATA
from ops_pipeline.adapters.databases.streaming import Tool, run
from ops_pipeline.core.backup.records import Contents
from ops_pipeline.errors import Permanent, StoreDamaged

_IN_DATABASE = re.compile(r"db(\d+)\s+(.*)", re.IGNORECASE | re.DOTALL)
MAX_GLOBALS = 64 * 1024 * 1024


class RedisBeside:
    """A `Beside`: a server that waits for its data. As a replica of nobody it keeps keys whose time is over."""

    def __init__(self, server: RedisServer, container: str, name: str, seconds: float) -> None:
        self._server = server
        self._container = container
        self._name = name
        self._seconds = seconds
        self._users: dict[str, str] = {}

    @property
    def name(self) -> str:
        """What holds it."""
        return self._name

    def load(self, part: str, chunks: Iterator[bytes]) -> None:
        """Load one part. Raise Permanent with the server's last words, StoreDamaged when the data are cut."""
        if part == "globals":
            self._load_globals(chunks)
        elif part == "dump":
            self._load_dump(chunks)
        else:
            raise Permanent(f"data source {self._server.source}: a Redis backup has no part {part!r}")

    def finish(self) -> None:
        """Let the users in, now that the server runs."""
        for name, rules in self._users.items():
            self._server.ask("ACL", "SETUSER", name, "reset", *rules.split(" "))

    def contents(self) -> Contents:
        """What it holds now, expired keys included: from the file it saves, as it was counted in the dump."""
        self._server.ask("SAVE")
        what = f"data source {self._server.source}: the restored data"
        walker, end = RdbWalker(what), RdbEnd(what)
        with Tool(
            self._server.engine, self._container, ["cat", f"{DATA}/dump.rdb"], hang_seconds=self._seconds, what="cat"
        ) as tool:
            while data := tool.read(1024 * 1024):
                walker.feed(end.feed(data))
            tool.require_success()
        walker.feed(end.finish())
        walker.finish()
        found = walker.contents()
        if found is None:
            raise Permanent(f"{what} cannot be counted: {walker.unknown}")
        return with_users(found, self._server)

    def ask(self, query: str) -> str:
        """Answer of one Redis command, in database 0 or, as «db3 GET key», in another."""
        return ask(self._server, query)

    def _load_globals(self, chunks: Iterator[bytes]) -> None:
        data = b""
        for chunk in chunks:
            data += chunk
            if len(data) > MAX_GLOBALS:
                raise StoreDamaged(f"data source {self._server.source}: the list of users is larger than 64 MiB")
        try:
            document: dict[str, Any] = json.loads(data)
            users, limits = dict(document["users"]), dict(document["limits"])
            whole = document["count"] == len(users)
        except (ValueError, KeyError, TypeError) as error:
            raise StoreDamaged(f"data source {self._server.source}: the list of users is cut or damaged") from error
        if not whole:
            raise StoreDamaged(f"data source {self._server.source}: the list of users is not whole")
        self._users = {str(name): str(rules) for name, rules in users.items()}
        give_limits(self._server.engine, self._container, {str(k): str(v) for k, v in limits.items()})

    def _load_dump(self, chunks: Iterator[bytes]) -> None:
        script = f"cat > {DATA}/part && mv {DATA}/part {DATA}/dump.rdb && : > {DATA}/go"
        run(
            self._server.engine,
            self._container,
            ["sh", "-c", script],
            chunks=checked(chunks, f"data source {self._server.source}: the stored RDB"),
            hang_seconds=self._seconds,
            what="storing the RDB",
            check=True,
        )
        wait_for(self._server, self._server.engine, self._container, self._seconds)


def ask(server: RedisServer, query: str) -> str:
    """Answer of one command line, in database 0 or, as «db3 GET key», in another. Raise Permanent."""
    found = _IN_DATABASE.match(query.strip())
    if found is None:
        return server.raw(query.strip())
    return server.raw(found[2], database=int(found[1]))
