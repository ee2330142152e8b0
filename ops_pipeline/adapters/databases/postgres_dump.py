"""The two streams of a PostgreSQL backup: roles (`globals`) and one database (`dump`), of one moment."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from ops_pipeline.adapters.databases.postgres_archive import ArchiveWalker, Entry
from ops_pipeline.adapters.databases.postgres_contents import contents, position, table_name
from ops_pipeline.adapters.databases.postgres_server import PostgresServer, PostgresSession, connection_arguments
from ops_pipeline.adapters.databases.streaming import Tool
from ops_pipeline.core.backup.records import Arrived, Contents
from ops_pipeline.errors import Permanent, StoreDamaged

GLOBALS_END = b"-- PostgreSQL database cluster dump complete"
FIRST_ROLE = "-- ops_pipeline: first role "
"""Line we put before the roles: name (as JSON) of the server's own superuser, which a scratch server must have too."""
TAIL_BYTES = 4096
_SETVAL = re.compile(r"setval\('(?:[^']|'')*', (-?\d+), (true|false)\)")


class PostgresDump:
    """A `Dump` of one tool. `check` sees all bytes and raises StoreDamaged when something is missing."""

    def __init__(
        self,
        name: str,
        source: str,
        start: Callable[[], Tool],
        arrived: Callable[[], Arrived],
        feed: Callable[[bytes], None],
        finish: Callable[[], None],
        prefix: bytes = b"",
        cause: Callable[[], None] = lambda: None,
    ) -> None:
        """`arrived`, `feed`, `finish`: see the methods; `prefix` goes before the tool's output.

        `cause` is called when the tool failed, and raises what it failed of if that is known.
        """
        self._name = name
        self._source = source
        self._start = start
        self._arrived = arrived
        self._feed = feed
        self._finish = finish
        self._prefix = prefix
        self._cause = cause
        self._tool: Tool | None = None
        self._done = False

    @property
    def name(self) -> str:
        """Name of the part."""
        return self._name

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; b"" only once the tool ended with code 0 and the end of the stream was proved."""
        if self._done:
            return b""
        if self._tool is None:
            self._tool = self._start()
        if self._prefix:
            data, self._prefix = self._prefix[:size], self._prefix[size:]
            return data
        data = self._tool.read(size)
        try:
            if data:
                self._feed(data)
                return data
            self._tool.require_success()
            self._finish()
        except (Permanent, StoreDamaged) as error:
            self.close()
            self._cause()
            raise Permanent(f"data source {self._source}: {error.message}", hint=error.hint) from error
        self._done = True
        return b""

    def arrived(self) -> Arrived:
        """What is known now. Raise Permanent before the end was read."""
        if not self._done:
            raise Permanent(f"data source {self._source}: {self._name} was not read to its end")
        return self._arrived()

    def close(self) -> None:
        """End the tool if it still runs; no error."""
        if self._tool is not None:
            self._tool.close()


class Tail:
    """Sees that a plain text ends with a marker."""

    def __init__(self, what: str, marker: bytes) -> None:
        self._what, self._marker, self._tail = what, marker, b""

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        self._tail = (self._tail + data)[-TAIL_BYTES:] if len(data) < TAIL_BYTES else data[-TAIL_BYTES:]

    def finish(self) -> None:
        """Raise StoreDamaged unless the marker stands near the end."""
        if self._marker not in self._tail:
            raise StoreDamaged(f"{self._what} is cut off: it does not end with «{self._marker.decode()}»")


def globals_dump(server: PostgresServer, source: str, first_role: str, passwords: bool, engine: str) -> PostgresDump:
    """All roles, their memberships and settings; without passwords unless `passwords`."""
    import json

    command = ["pg_dumpall", "--globals-only", "--no-tablespaces", "--no-password"]
    command += [] if passwords else ["--no-role-passwords"]
    tail = Tail("the dump of roles", GLOBALS_END)
    prefix = f"{FIRST_ROLE}{json.dumps(first_role)}\n".encode()
    client = server.client("pg_dumpall")
    return PostgresDump(
        "globals",
        source,
        lambda: _tool(server, [*command, "-l", "postgres"], 600.0),
        lambda: Arrived(
            engine=engine,
            client=client,
            command=tuple(command),
            consistency="snapshot",
            marker="the last line of pg_dumpall",
            details={"passwords": "yes" if passwords else "no"},
        ),
        tail.feed,
        tail.finish,
        prefix,
    )


def database_dump(
    server: PostgresServer,
    source: str,
    database: str,
    session: PostgresSession,
    snapshot: str,
    hang_seconds: float,
    engine: str,
    details: Mapping[str, str],
) -> PostgresDump:
    """One database as of `snapshot`, which `session` holds; what it holds is counted there while it streams."""
    command = ["pg_dump", "-Fc", "-Z0", "--no-password", "--lock-wait-timeout=60s"]
    walker = ArchiveWalker(f"the dump of {database}")
    client = server.client("pg_dump")
    counting: list[Future[Contents]] = []

    def start() -> Tool:
        # Beside the dump: both see the same snapshot, and the dump mostly waits for its reader.
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="contents")
        counting.append(pool.submit(contents, session, {}))
        pool.shutdown(wait=False)
        return _tool(server, [*command, f"--snapshot={snapshot}", *connection_arguments(database)], hang_seconds)

    def cause() -> None:
        # The snapshot ends with the session that counts: then this is why the dump failed, and not what it says.
        if counting and counting[0].done() and (error := counting[0].exception()) is not None:
            raise error

    def arrived() -> Arrived:
        try:
            found = counting[0].result(timeout=hang_seconds)
        except TimeoutError as error:
            raise Permanent(f"data source {source}: counting took more than {hang_seconds:g} s") from error
        objects = {
            **found.objects,
            **{f"sequence position {name}": value for name, value in positions(walker.entries).items()},
        }
        return Arrived(
            engine=engine,
            client=client,
            command=(*command, "--snapshot=…", f"dbname={database}"),
            consistency="snapshot",
            marker=f"archive walked: {walker.blocks} blocks of data closed, none missing",
            contents=Contents(found.counts, objects, found.samples),
            details={**details, "large_objects": str(walker.large_objects)},
        )

    return PostgresDump("dump", source, start, arrived, walker.feed, walker.finish, cause=cause)


def positions(entries: Iterable[Entry]) -> dict[str, str]:
    """Where the sequences stand in an archive."""
    found = {}
    for entry in entries:
        match = _SETVAL.search(entry.definition) if entry.kind == "SEQUENCE SET" else None
        if match:
            found[table_name(entry.schema, entry.tag)] = position(int(match[1]), match[2] == "true")
    return found


def _tool(server: PostgresServer, argv: Sequence[str], hang_seconds: float) -> Tool:
    return Tool(server.engine, server.container(), argv, environment=server.environment(), hang_seconds=hang_seconds)
