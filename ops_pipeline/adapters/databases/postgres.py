# ruff: noqa: S608  (names and texts are quoted by `identifier` and `literal`)
"""A PostgreSQL database as a data source: dumped by pg_dump in its own container, restored by pg_restore."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from ops_pipeline.adapters.databases.container import DatabaseContainer, image_of
from ops_pipeline.adapters.databases.places import place
from ops_pipeline.adapters.databases.postgres_contents import SETTING
from ops_pipeline.adapters.databases.postgres_dump import database_dump, globals_dump
from ops_pipeline.adapters.databases.postgres_restore import (
    ADMIN,
    PostgresBeside,
    change_places,
    contents_of,
    drop,
    marks,
)
from ops_pipeline.adapters.databases.postgres_server import PostgresServer, PostgresSession, literal
from ops_pipeline.adapters.databases.scratch import DATA, scratch_server
from ops_pipeline.adapters.databases.streaming import run
from ops_pipeline.adapters.databases.tool_dump import ToolDump
from ops_pipeline.core.backup.records import Contents, Kind
from ops_pipeline.errors import NotFound, Permanent
from ops_pipeline.ports.backup import Beside, Dump

SCRATCH_SOCKET = "/tmp"  # noqa: S108  (inside the scratch container, whose /tmp is its own)
_SCRATCH_SCRIPT = f"""\
set -e
for folder in /usr/lib/postgresql/*/bin; do PATH="$folder:$PATH"; done
initdb -D {DATA} -U postgres --auth=trust -E UTF8 --locale=C --no-sync >/dev/null
exec postgres -D {DATA} -c listen_addresses= -c unix_socket_directories={SCRATCH_SOCKET} -c fsync=off \
  -c full_page_writes=off -c synchronous_commit=off -c autovacuum=off -c max_wal_size=1GB -c wal_level=minimal \
  -c max_wal_senders=0 -c maintenance_work_mem=64MB -c shared_buffers=64MB -c dynamic_shared_memory_type=mmap
"""


class PostgresSource:
    """One database of a server. Contacts nothing before the first call."""

    def __init__(
        self,
        name: str,
        container: DatabaseContainer,
        database: str,
        *,
        user: str = "postgres",
        password: Callable[[], str] | None = None,
        remote: str = "",
        timeout_seconds: float = 3600.0,
        memory_bytes: int = 1024 * 1024 * 1024,
    ) -> None:
        """`remote` is host:port of a server elsewhere, for which `container` lends its tools.

        `password()` is asked when it is needed; without one the server's local socket must let `user` in.
        """
        host, _, port = remote.rpartition(":") if remote else ("", "", "")
        if not remote and password is not None:
            host = "127.0.0.1"  # a socket mostly asks who the system's user is, an address asks for the password
        self._name = name
        self._container = container
        self._database = database
        self._seconds = timeout_seconds
        self._memory = memory_bytes
        self._snapshot = ""  # of the dumps that are open
        self._server = PostgresServer(
            engine=container.engine,
            container=lambda: container.find().id,
            user=user,
            password=password,
            host=host.strip("[]"),
            port=port,
            source=name,
        )

    @property
    def name(self) -> str:
        """Name in the catalogue."""
        return self._name

    @property
    def kind(self) -> Kind:
        """ "postgres"."""
        return "postgres"

    def check(self) -> Sequence[str]:
        """Warnings about what a dump will not hold. Raise Unavailable, NotFound, Permanent."""
        asked = {
            "version": "SHOW server_version_num",
            "superuser": "SELECT pg_catalog.current_setting('is_superuser')",
            "tablespaces": "SELECT string_agg(spcname, ', ' ORDER BY spcname) FROM pg_catalog.pg_tablespace"
            " WHERE spcname !~ '^pg_'",
            "slots": "SELECT string_agg(slot_name, ', ' ORDER BY slot_name) FROM pg_catalog.pg_replication_slots"
            " WHERE database = pg_catalog.current_database()",
            "others": "SELECT string_agg(datname, ', ' ORDER BY datname) FROM pg_catalog.pg_database d"
            " WHERE NOT datistemplate AND datname NOT IN (pg_catalog.current_database(), 'postgres')"
            " AND NOT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s, unnest(s.setconfig) v"
            f" WHERE s.setdatabase = d.oid AND v LIKE '{SETTING}=%')",
        }
        text = self._server.ask(self._database, "\n".join(f"{query};" for query in asked.values()))
        answers = dict(zip(asked, text.split("\n"), strict=True))
        major = int(answers["version"]) // 10000
        client = self._server.client("pg_dump")
        if (own := int(re.search(r"\d+", client)[0])) < major:  # type: ignore[index]  # a version has a number
            raise Permanent(
                f"data source {self._name}: {client} is older than the server ({major}) and refuses to dump it",
                hint="Name a container whose tools are as new as the server.",
            )
        warnings = []
        if own != major:
            warnings.append(f"{client} dumps a server of version {major}: a drill needs an image of version {major}")
        if answers["superuser"] != "on":
            warnings.append(f"user {self._server.user} is no superuser: the roles' passwords are not in the backup")
        if answers["tablespaces"]:
            warnings.append(f"tablespaces are not made by a restore: {answers['tablespaces']}")
        if answers["slots"]:
            warnings.append(f"replication slots are not in the backup: {answers['slots']}")
        if answers["others"]:
            warnings.append(f"the server has databases that this source does not back up: {answers['others']}")
        return warnings

    def version(self) -> str:
        """E.g. "PostgreSQL 15.14"."""
        return "PostgreSQL " + self._server.ask(self._database, "SHOW server_version;").split(" ")[0]

    def image(self) -> str:
        """Image of the container: its name while that still means the same image, else its id."""
        return image_of(self._container)

    @contextlib.contextmanager
    def dumps(self) -> Iterator[Sequence[Dump]]:
        """Roles and database; the context holds the snapshot that both the dump and its counts see."""
        engine = self.version()
        with PostgresSession(self._server, self._database) as session:
            session.do("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;")
            snapshot, superuser, first = session.rows(
                "SELECT pg_catalog.pg_export_snapshot(), pg_catalog.current_setting('is_superuser'),"
                " pg_catalog.pg_get_userbyid(10)"
            )[0]
            parts: list[ToolDump] = []
            self._snapshot = str(snapshot)
            try:
                parts.append(globals_dump(self._server, self._name, str(first), superuser == "on", engine))
                parts.append(
                    database_dump(
                        self._server,
                        self._name,
                        self._database,
                        session,
                        str(snapshot),
                        self._seconds,
                        engine,
                        {"database": self._database},
                    )
                )
                yield parts
            finally:
                self._snapshot = ""
                for part in parts:
                    part.close()

    def contents(self) -> Contents:
        """The live data's view, now."""
        return contents_of(self._server, self._database)

    def ask(self, query: str) -> str:
        """Answer of a query, as bare text: of the snapshot while `dumps` is open, else now. Nothing can be written."""
        begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\n"
        if self._snapshot:
            begin += f"SET TRANSACTION SNAPSHOT {literal(self._snapshot)};\n"
        return self._server.ask(self._database, f"{begin}{query.rstrip().removesuffix(';')};\nCOMMIT;\n")

    def beside(self, token: str) -> Beside:
        """An empty database on the live server; what an earlier attempt of the same token left is dropped."""
        name = place(self._database, "r", token)
        if place(self._database, "h", token) in marks(self._server):
            raise Permanent(
                f"data source {self._name}: token {token} is in use, its hold exists",
                hint="Release the hold, or use another token.",
            )
        made = PostgresBeside(self._server, name, token, self._seconds, scratch=False)
        made.make()
        return made

    @contextlib.contextmanager
    def scratch(self, image: str, labels: Mapping[str, str]) -> Iterator[Beside]:
        """A throw-away server of this image with an empty database of the same name."""
        engine = self._container.engine
        environment = {"PGHOST": SCRATCH_SOCKET, "PGUSER": "postgres"}

        def answers(container: str) -> bool:
            asked = ["psql", "-X", "-At", "-d", "postgres", "-c", "SELECT 1"]
            return run(engine, container, asked, environment=environment, hang_seconds=20).text.strip() == "1"

        with scratch_server(
            engine,
            image,
            ["sh", "-c", _SCRATCH_SCRIPT],
            answers=answers,
            source=self._name,
            user="postgres",
            labels=labels,
            memory_bytes=self._memory,
        ) as container:
            server = self._server.as_local(container, "postgres", SCRATCH_SOCKET)
            beside = PostgresBeside(server, self._database, "", self._seconds, scratch=True)
            if self._database != ADMIN:
                beside.make()
            yield beside

    def swap(self, token: str) -> None:
        """Live becomes the hold, beside becomes live, in one transaction. Raise NotFound when there is no beside."""
        found = marks(self._server)
        if found.get(self._database) == f"l{token}":
            return
        beside, hold = place(self._database, "r", token), place(self._database, "h", token)
        if beside not in found:
            raise NotFound(f"data source {self._name}: there is no restored database {beside}")
        if hold in found:
            raise Permanent(f"data source {self._name}: the hold {hold} exists already")
        change_places(self._server, self._database, (hold, f"h{token}"), beside, f"l{token}")

    def swapped(self, token: str) -> bool:
        """Whether beside `token` is what is live now."""
        return marks(self._server).get(self._database) == f"l{token}"

    def unswap(self, token: str) -> None:
        """The hold becomes live again, what was live becomes beside. Raise NotFound when there is no hold any more."""
        found = marks(self._server)
        if found.get(self._database) != f"l{token}":
            return
        beside, hold = place(self._database, "r", token), place(self._database, "h", token)
        if found.get(hold) != f"h{token}":
            raise NotFound(f"data source {self._name}: there is no hold {hold}")
        if beside in found:
            raise Permanent(f"data source {self._name}: {beside} exists already")
        change_places(self._server, self._database, (beside, f"r{token}"), hold, "")

    def drop_beside(self, token: str) -> None:
        """Remove what `beside` made."""
        drop(self._server, place(self._database, "r", token))

    def holds(self) -> Sequence[str]:
        """Tokens of the holds that exist."""
        found = marks(self._server)
        tokens = (mark[1:] for mark in found.values() if mark.startswith("h"))
        return sorted(token for token in tokens if found.get(place(self._database, "h", token)) == f"h{token}")

    def drop_hold(self, token: str) -> None:
        """Remove a hold; a database of that name which no swap made stays."""
        hold = place(self._database, "h", token)
        if marks(self._server).get(hold) == f"h{token}":
            drop(self._server, hold)
