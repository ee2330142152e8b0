"""The two streams of a Redis backup: users and encodings (`globals`), and the data as RDB (`dump`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from ops_pipeline.adapters.databases.redis_end import RdbEnd
from ops_pipeline.adapters.databases.redis_rdb import RdbWalker
from ops_pipeline.adapters.databases.redis_server import RedisServer
from ops_pipeline.adapters.databases.streaming import Tool
from ops_pipeline.core.backup.records import Arrived, Contents
from ops_pipeline.errors import Permanent, StoreDamaged

LIMITS = "*-max-*"


class GlobalsDump:
    """A `Dump` of the users, as JSON that says how many there are."""

    def __init__(self, server: RedisServer, engine: str) -> None:
        self._server = server
        self._engine = engine
        self._rest: bytes | None = None
        self.users: Mapping[str, str] = {}

    @property
    def name(self) -> str:
        """ "globals"."""
        return "globals"

    @property
    def stands(self) -> bool:
        """True: it holds no row that could name a file."""
        return True

    def read(self, size: int) -> bytes:
        """Up to `size` bytes."""
        if self._rest is None:
            self.users = self._server.users()
            limits = {**self._server.settings(LIMITS), **self._server.settings("list-compress-depth")}
            document = {"users": self.users, "count": len(self.users), "limits": limits}
            self._rest = json.dumps(document, sort_keys=True).encode() + b"\n"
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def arrived(self) -> Arrived:
        """What is known. Raise Permanent before the end was read."""
        if self._rest != b"":
            raise Permanent(f"data source {self._server.source}: {self.name} was not read to its end")
        return Arrived(
            engine=self._engine,
            client="redis-cli",
            command=("redis-cli", "ACL", "LIST"),
            consistency="snapshot",
            marker="closed JSON object",
            details={"users": str(len(self.users))},
        )

    def close(self) -> None:
        """Nothing is open."""


class RdbDump:
    """A `Dump` of all data, as a replica gets them."""

    def __init__(self, server: RedisServer, engine: str, client: str, hang_seconds: float) -> None:
        self._server = server
        self._users: Mapping[str, str] = {}
        self._engine = engine
        self._client = client
        self._hang_seconds = hang_seconds
        what = f"data source {server.source}: the RDB stream"
        self._end = RdbEnd(what)
        self.walker = RdbWalker(what)
        self._rest = b""
        self._tool: Tool | None = None
        self._done = False
        self._command = [*server.arguments(), "--rdb", "-"]

    @property
    def name(self) -> str:
        """ "dump"."""
        return "dump"

    @property
    def stands(self) -> bool:
        """False: its moment is when the server begins to send."""
        return False

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; b"" only once redis-cli ended with code 0 and end and checksum were proved."""
        while not self._rest and not self._done:
            if self._tool is None:
                self._users = self._server.user_objects()
                self._tool = Tool(
                    self._server.engine,
                    self._server.container(),
                    self._command,
                    environment=self._server.environment(),
                    bulk=True,
                    hang_seconds=self._hang_seconds,
                    what="redis-cli --rdb",
                )
            data = self._tool.read(max(size, 65536))
            try:
                if data:
                    self._rest = self._end.feed(data)
                else:
                    self._tool.require_success()
                    self._rest = self._end.finish()
                    self._done = True
                self.walker.feed(self._rest)
                if self._done:
                    self.walker.finish()
            except (Permanent, StoreDamaged) as error:
                self.close()
                self._rest = b""
                raise Permanent(
                    error.message
                    if error.message.startswith("data source")
                    else f"data source {self._server.source}: {error.message}",
                    hint=error.hint or self._tool.error_tail[-500:],
                ) from error
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def arrived(self) -> Arrived:
        """What is known now. Raise Permanent before the end was read."""
        if not self._done or self._rest:
            raise Permanent(f"data source {self._server.source}: the dump was not read to its end")
        checksum = "CRC-64 right" if self._end.checksum else "no checksum (rdbchecksum is off)"
        walked = f"not walked: {self.walker.unknown}" if self.walker.unknown else "every record walked"
        return Arrived(
            engine=self._engine,
            client=self._client,
            command=tuple(self._command),
            consistency="snapshot",
            marker=f"end of file, {checksum}, {walked}",
            contents=self.contents(),
            details={
                "rdb_version": str(self.walker.version),
                "transfer": "diskless" if self._end.mark else "from disk",
                **({"not_counted": self.walker.unknown} if self.walker.unknown else {}),
            },
        )

    def contents(self) -> Contents | None:
        """What it holds, once it was read, and the users; None when the data could not be counted."""
        found = self.walker.contents()
        return None if found is None else Contents(found.counts, {**found.objects, **self._users}, found.samples)

    def close(self) -> None:
        """End the tool if it still runs; no error."""
        if self._tool is not None:
            self._tool.close()


def with_users(contents: Contents, server: RedisServer) -> Contents:
    """The same with the server's users among the objects."""
    return Contents(contents.counts, {**contents.objects, **server.user_objects()}, contents.samples)


def checked(chunks: Iterator[bytes], what: str) -> Iterator[bytes]:
    """Pass an RDB file on; raise StoreDamaged before its end unless it is whole and its checksum right."""
    end, walker = RdbEnd(what), RdbWalker(what)
    for chunk in chunks:
        passed = end.feed(chunk)
        walker.feed(passed)
        if passed:
            yield passed
    last = end.finish()
    walker.feed(last)
    walker.finish()
    yield last
