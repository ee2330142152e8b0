"""The two streams of a PostgreSQL backup: roles (`globals`) and one database (`dump`), of one moment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from ops_pipeline.adapters.databases.postgres_archive import ArchiveWalker, Entry
from ops_pipeline.adapters.databases.postgres_contents import contents, position, table_name
from ops_pipeline.adapters.databases.postgres_server import PostgresServer, PostgresSession, connection_arguments
from ops_pipeline.adapters.databases.streaming import Tool
from ops_pipeline.adapters.databases.tool_dump import Tail, ToolDump
from ops_pipeline.core.backup.records import Arrived, Contents
from ops_pipeline.errors import Permanent

GLOBALS_END = b"-- PostgreSQL database cluster dump complete\n"
FIRST_ROLE = "-- ops_pipeline: first role "
"""Line we put before the roles: name (as JSON) of the server's own superuser, which a scratch server must have too."""
_SETVAL = re.compile(r"setval\('(?:[^']|'')*', (-?\d+), (true|false)\)")


def globals_dump(server: PostgresServer, source: str, first_role: str, passwords: bool, engine: str) -> ToolDump:
    """All roles, their memberships and settings; without passwords unless `passwords`."""
    import json

    command = ["pg_dumpall", "--globals-only", "--no-tablespaces", "--no-password"]
    command += [] if passwords else ["--no-role-passwords"]
    tail = Tail("the dump of roles", GLOBALS_END)
    prefix = f"{FIRST_ROLE}{json.dumps(first_role)}\n".encode()
    client = server.client("pg_dumpall")
    return ToolDump(
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
        stands=True,  # roles are read when it streams, but they are no rows that name a file
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
) -> ToolDump:
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

    return ToolDump("dump", source, start, arrived, walker.feed, walker.finish, cause=cause, stands=True)


def positions(entries: Iterable[Entry]) -> dict[str, str]:
    """Where the sequences stand in an archive."""
    found = {}
    for entry in entries:
        match = _SETVAL.search(entry.definition) if entry.kind == "SEQUENCE SET" else None
        if match:
            found[table_name(entry.schema, entry.tag)] = position(int(match[1]), match[2] == "true")
    return found


def _tool(server: PostgresServer, argv: Sequence[str], hang_seconds: float) -> Tool:
    return Tool(
        server.engine,
        server.container(),
        argv,
        environment=server.environment(),
        bulk=True,
        hang_seconds=hang_seconds,
    )
