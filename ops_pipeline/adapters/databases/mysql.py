# ruff: noqa: S608  (names and texts are quoted by `identifier` and `literal`)
"""A MySQL or MariaDB database as a data source: dumped by its own tool in its own container."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from ops_pipeline.adapters.databases.container import DatabaseContainer, image_of
from ops_pipeline.adapters.databases.mysql_contents import SCRATCH_USER, users_readable
from ops_pipeline.adapters.databases.mysql_dump import dumps
from ops_pipeline.adapters.databases.mysql_exchange import exchange, exists, place_of, settle
from ops_pipeline.adapters.databases.mysql_programs import JOURNAL, PLACE, has_table
from ops_pipeline.adapters.databases.mysql_restore import MysqlBeside, contents_of
from ops_pipeline.adapters.databases.mysql_server import MysqlServer, MysqlSession, identifier, listed, literal
from ops_pipeline.adapters.databases.places import place
from ops_pipeline.adapters.databases.scratch import DATA, scratch_server
from ops_pipeline.core.backup.records import Contents, Kind
from ops_pipeline.errors import Permanent
from ops_pipeline.ports.backup import Beside, Dump

SCRATCH_SOCKET = "/tmp/mysql.sock"  # noqa: S108  (inside the scratch container, whose /tmp is its own)
_OPTIONS = (
    f"--no-defaults --datadir={DATA} --socket={SCRATCH_SOCKET} --pid-file=/tmp/mysql.pid --skip-networking"
    " --event-scheduler=OFF --skip-log-bin --innodb-flush-log-at-trx-commit=0 --max-allowed-packet=1G"
    " --character-set-server=utf8mb4"
)
_SCRATCH_SCRIPT = f"""\
set -e
if command -v mariadbd >/dev/null; then
  mariadb-install-db --no-defaults --datadir={DATA} --auth-root-authentication-method=normal --skip-test-db \
    --skip-name-resolve --innodb-flush-method=nosync --innodb-log-file-size=32M >/dev/null
  exec mariadbd {_OPTIONS} --innodb-flush-method=nosync --innodb-log-file-size=32M
fi
mysqld --no-defaults --initialize-insecure --datadir={DATA} >&2
exec mysqld {_OPTIONS} --mysqlx=OFF
"""


class MysqlSource:
    """One database (schema) of a server. Contacts nothing before the first call."""

    def __init__(
        self,
        name: str,
        kind: Kind,
        container: DatabaseContainer,
        database: str,
        *,
        user: str = "root",
        password: Callable[[], str] | None = None,
        remote: str = "",
        timeout_seconds: float = 3600.0,
        memory_bytes: int = 1024 * 1024 * 1024,
    ) -> None:
        """`remote` is host:port of a server elsewhere, for which `container` lends its tools."""
        host, _, port = remote.rpartition(":") if remote else ("", "", "")
        self._name, self._kind, self._container, self._database = name, kind, container, database
        self._seconds, self._memory = timeout_seconds, memory_bytes
        self._moment: MysqlSession | None = None  # of the dumps that are open
        self._server = MysqlServer(
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
        """ "mysql" or "mariadb", as the catalogue says."""
        return self._kind

    def check(self) -> Sequence[str]:
        """Warnings about what a dump will not hold. Raise Unavailable, NotFound, Permanent."""
        with MysqlSession(self._server) as session:
            if not exists(session, self._database):
                raise Permanent(f"data source {self._name}: there is no database {self._database}")
            grants = session.rows("SHOW GRANTS")
            versioned = [
                row[0]
                for row in session.rows(
                    "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = 'SYSTEM VERSIONED'"
                    f" AND TABLE_SCHEMA = {literal(self._database)} ORDER BY 1"
                )
            ]
        warnings = []
        if other := self._other_engines():
            warnings.append(
                f"{len(other)} tables have an engine without transactions and are not of the dump's moment: "
                + listed(other)
            )
        text = "\n".join(row[0] for row in grants)
        if "ALL PRIVILEGES ON *.*" not in text and "RELOAD" not in text:
            warnings.append(
                f"user {self._server.user} may not take a global read lock (RELOAD): rows are counted in the stream,"
                " and no samples are hashed"
            )
        if not users_readable(grants):
            warnings.append(f"user {self._server.user} may not read mysql.user: users are not in the backup")
        if versioned:
            warnings.append(f"the history of system-versioned tables is not in the backup: {listed(versioned)}")
        return warnings

    def version(self) -> str:
        """E.g. "MariaDB 10.11.14" or "MySQL 8.0.40"."""
        text = self._server.ask("SELECT VERSION();\n")
        product = "MariaDB" if "mariadb" in text.lower() else "MySQL"
        return f"{product} {text.split('-')[0]}"

    def image(self) -> str:
        """Image of the container: its name while that still means the same image, else its id."""
        return image_of(self._container)

    @contextlib.contextmanager
    def dumps(self) -> Iterator[Sequence[Dump]]:
        """Users, tables, triggers with events: of one moment."""
        with dumps(self._server, self._name, self._database, self._seconds, self.version(), self._other_engines()) as (
            parts,
            self._moment,
        ):
            try:
                yield parts
            finally:
                self._moment = None

    def contents(self) -> Contents:
        """The live data's view, now."""
        return contents_of(self._server, self._database)

    def ask(self, query: str) -> str:
        """Answer of a query, as bare text: of the dumps' moment while they are open, else now. Nothing is written.

        Where the user may not take a global read lock the answer is always of now.
        """
        text = query.rstrip().removesuffix(";")
        if self._moment is None:
            return self._server.ask(f"START TRANSACTION READ ONLY;\n{text};\nCOMMIT;\n", self._database)
        try:
            return self._moment.text(text)
        except Permanent:
            self._moment = None  # the client ends at its first error
            raise

    def beside(self, token: str) -> Beside:
        """An empty schema on the live server; what an earlier attempt of the same token left is dropped."""
        made, hold = self._places(token)
        self._settle(token)
        with MysqlSession(self._server) as session:
            if exists(session, hold):
                raise Permanent(
                    f"data source {self._name}: token {token} is in use, its hold exists",
                    hint="Release the hold, or use another token.",
                )
        beside = MysqlBeside(self._server, made, self._database, token, self._seconds, scratch=False)
        beside.make()
        return beside

    @contextlib.contextmanager
    def scratch(self, image: str, labels: Mapping[str, str]) -> Iterator[Beside]:
        """A throw-away server of this image with an empty schema of the same name."""
        engine = self._container.engine

        def answers(container: str) -> bool:
            return self._server.as_local(container, "root", SCRATCH_SOCKET).ask("SELECT 1;\n") == "1"

        with scratch_server(
            engine,
            image,
            ["sh", "-c", _SCRATCH_SCRIPT],
            answers=answers,
            source=self._name,
            user="mysql",
            labels=labels,
            memory_bytes=self._memory,
        ) as container:
            root = self._server.as_local(container, "root", SCRATCH_SOCKET)
            own = f"{identifier(SCRATCH_USER)}@`localhost`"
            root.ask(
                f"CREATE USER {own};\nGRANT ALL PRIVILEGES ON *.* TO {own} WITH GRANT OPTION;\n"
                f"GRANT PROXY ON ''@'%' TO {own} WITH GRANT OPTION;\n"
                if self._maria(root)
                else f"CREATE USER {own};\nGRANT ALL PRIVILEGES ON *.* TO {own} WITH GRANT OPTION;\n"
                f"GRANT PROXY ON ''@'' TO {own} WITH GRANT OPTION;\n"
            )
            server = self._server.as_local(container, SCRATCH_USER, SCRATCH_SOCKET)
            # Its first users are the installation's, not the backup's.
            for user, host in server.rows("SELECT User, Host FROM mysql.user WHERE User IN ('root', '')"):
                server.ask(f"DROP USER {identifier(user)}@{identifier(host)};\n")
            beside = MysqlBeside(server, self._database, self._database, "", self._seconds, scratch=True)
            beside.make()
            yield beside

    def swap(self, token: str) -> None:
        """Live becomes the hold, beside becomes live; see mysql_exchange. Raise NotFound when there is no beside."""
        beside, hold = self._places(token)
        settle(self._server, self._database, beside, hold)  # an `unswap` that was killed
        exchange(self._server, self._database, hold, beside, token)

    def swapped(self, token: str) -> bool:
        """Whether beside `token` is what is live now, and everything about it is done."""
        _, hold = self._places(token)
        with MysqlSession(self._server) as session:
            return place_of(session, hold) == token and not has_table(session, hold, JOURNAL)

    def unswap(self, token: str) -> None:
        """The hold becomes live again, what was live becomes beside; nothing when it is so."""
        beside, hold = self._places(token)
        self._settle(token)
        with MysqlSession(self._server) as session:
            if place_of(session, hold) != token:
                return
        exchange(self._server, self._database, beside, hold, token)

    def drop_beside(self, token: str) -> None:
        """Remove what `beside` made."""
        beside, _ = self._places(token)
        self._settle(token)
        self._server.ask(f"DROP DATABASE IF EXISTS {identifier(beside)};\n")

    def holds(self) -> Sequence[str]:
        """Tokens of the holds that exist."""
        with MysqlSession(self._server) as session:
            found = [
                (row[0], place_of(session, row[0]))
                for row in session.rows(
                    f"SELECT TABLE_SCHEMA FROM information_schema.TABLES WHERE TABLE_NAME = {literal(PLACE)}"
                )
            ]
        return sorted(token for schema, token in found if token and place(self._database, "h", token) == schema)

    def drop_hold(self, token: str) -> None:
        """Remove a hold; a schema of that name which no swap made stays."""
        _, hold = self._places(token)
        self._settle(token)
        with MysqlSession(self._server) as session:
            if place_of(session, hold) != token:
                return
        self._server.ask(f"DROP DATABASE IF EXISTS {identifier(hold)};\n")

    def _settle(self, token: str) -> None:
        beside, hold = self._places(token)
        settle(self._server, self._database, hold, beside)
        settle(self._server, self._database, beside, hold)

    def _places(self, token: str) -> tuple[str, str]:
        return place(self._database, "r", token), place(self._database, "h", token)

    def _other_engines(self) -> list[str]:
        return [
            row[0]
            for row in self._server.rows(
                "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE'"
                f" AND TABLE_SCHEMA = {literal(self._database)} AND ENGINE NOT IN ('InnoDB', 'ROCKSDB')"
                f" AND TABLE_NAME NOT LIKE '\\_\\_ops\\_%' ORDER BY 1"
            )
        ]

    @staticmethod
    def _maria(server: MysqlServer) -> bool:
        return "mariadb" in server.ask("SELECT VERSION();\n").lower()
