# ruff: noqa: S608  (names and texts are quoted by `identifier` and `literal`)
"""Restoring MySQL or MariaDB into a schema beside the live one or in a scratch server."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from ops_pipeline.adapters.databases.mysql_contents import contents, granted_on, tables
from ops_pipeline.adapters.databases.mysql_dump import END, PROGRAMS_END, USERS_END
from ops_pipeline.adapters.databases.mysql_programs import MARK, PLACE, switched_off
from ops_pipeline.adapters.databases.mysql_server import SETTINGS, MysqlServer, MysqlSession, identifier, literal
from ops_pipeline.adapters.databases.streaming import run
from ops_pipeline.adapters.databases.tool_dump import Tail, noted
from ops_pipeline.core.backup.records import Contents
from ops_pipeline.errors import Permanent, StoreDamaged

MAX_TEXT = 256 * 1024 * 1024
_SANDBOX = re.compile(rb"/\*M?!999999\\?- enable the sandbox mode \*/ ?\n")
_CHARSET = re.compile(r"[A-Za-z0-9_]+")
_HEAD_BYTES = 4096


class MysqlBeside:
    """A `Beside`: the schema `name` on a server."""

    def __init__(self, server: MysqlServer, name: str, live: str, token: str, seconds: float, *, scratch: bool) -> None:
        """`live` is the schema it is a copy of.

        `scratch`: the server is ours alone; else users that exist already stay as they are.
        """
        self._server, self._name, self._live, self._token = server, name, live, token
        self._seconds, self._scratch = seconds, scratch
        self._later: list[str] = []  # grants on single tables and routines, which must exist first

    @property
    def name(self) -> str:
        """The schema's name."""
        return self._name

    def make(self, charset: str = "", collation: str = "") -> None:
        """An empty schema of this name; an earlier one is dropped."""
        how = f" CHARACTER SET {charset} COLLATE {collation}" if charset else ""
        self._server.ask(
            f"DROP DATABASE IF EXISTS {identifier(self._name)};\nCREATE DATABASE {identifier(self._name)}{how};\n"
            f"CREATE TABLE {identifier(self._name)}.{PLACE} (what VARCHAR(20), name LONGTEXT) ENGINE = InnoDB"
            " DEFAULT CHARSET = utf8mb4;\n"
            f"INSERT INTO {identifier(self._name)}.{PLACE} VALUES ('token', {literal(self._token)});\n"
        )

    def load(self, part: str, chunks: Iterator[bytes]) -> None:
        """Load one part. Raise Permanent with the client's last words, StoreDamaged when it is cut."""
        if part == "dump":
            self._load_dump(chunks)
        elif part == "globals":
            self._load_users(_text(chunks, USERS_END))
        elif part == "programs":
            self._load_programs(_text(chunks, PROGRAMS_END))
        else:
            raise Permanent(f"data source {self._server.source}: a MySQL backup has no part {part!r}")

    def finish(self) -> None:
        """Statistics."""
        with MysqlSession(self._server) as session:
            names = tables(session, self._name)
        if names:
            listed = ", ".join(f"{identifier(self._name)}.{identifier(name)}" for name in names)
            self._server.ask(f"ANALYZE TABLE {listed};\n", seconds=self._seconds)

    def contents(self) -> Contents:
        """What it holds now."""
        return contents_of(self._server, self._name, self._live)

    def ask(self, query: str) -> str:
        """Answer of a query, as bare text."""
        return self._server.ask(query.rstrip().removesuffix(";") + ";\n", self._name)

    def _load_dump(self, chunks: Iterator[bytes]) -> None:
        head = b""
        for chunk in chunks:
            head += chunk
            if len(head) >= _HEAD_BYTES:
                break
        line, _, rest = head.partition(b"\n")
        charset = collation = ""
        if line.startswith(MARK.encode()):
            about = noted(line.removeprefix(MARK.encode()), f"the dump for {self._name}")
            charset, collation = str(about["charset"]), str(about["collation"])
            if not _CHARSET.fullmatch(charset) or not _CHARSET.fullmatch(collation):
                raise StoreDamaged(f"the dump for {self._name} names the character set {charset!r}, {collation!r}")
            head = rest
        # Older clients and MySQL's take the line for an unknown command.
        head = _SANDBOX.sub(b"", head, count=1)
        self.make(charset, collation)
        tail = Tail(f"the dump for {self._name}", END)

        def whole() -> Iterator[bytes]:
            # The dump itself starts with its own settings; these make many small statements one transaction.
            yield SETTINGS.encode() + b"SET SESSION autocommit = 0, unique_checks = 0;\n"
            tail.feed(head)
            yield head
            for chunk in chunks:
                tail.feed(chunk)
                yield chunk
            tail.finish()
            yield b"\nCOMMIT;\n"

        run(
            self._server.engine,
            self._server.container(),
            [*self._server.client(), f"--database={self._name}"],
            chunks=whole(),
            environment=self._server.environment(),
            hang_seconds=self._seconds,
            what="the database's client",
            check=True,
        )

    def _load_programs(self, text: str) -> None:
        script, enabled = switched_off(text)
        remembered = "".join(
            f"INSERT INTO {identifier(self._name)}.{PLACE} VALUES ('enabled', {literal(name)});\n" for name in enabled
        )
        self._server.ask(remembered + script, self._name)
        for statement in self._later:
            # Beside a live database these speak of the live one's objects, which may not be there now.
            with contextlib.nullcontext() if self._scratch else contextlib.suppress(Permanent):
                self._server.ask(statement + "\n")
        self._later.clear()

    def _load_users(self, text: str) -> None:
        statements = []
        with MysqlSession(self._server) as session:
            existing = set()
            for user, host in session.rows("SELECT User, Host FROM mysql.user"):
                existing |= {f"{identifier(user)}@{identifier(host)}", *([identifier(user)] if not host else [])}
        for piece in re.split(rf"(?m)^(?={re.escape(MARK)}\{{)", text):
            if not piece.startswith(MARK + "{"):
                continue
            line, _, body = piece.partition("\n")
            if str(noted(line.removeprefix(MARK), "the users")["name"]) not in existing:
                statements.append(body.replace(USERS_END + "\n", ""))
        # All are made before any is granted something: a grant may name a role that comes later.
        made: list[str] = []
        granted: list[str] = []
        for body in statements:
            for statement in re.split(r"(?<=;)\n(?=CREATE |GRANT |SET |ALTER |$)", body):
                if (single := granted_on(statement)) is not None:
                    if single == self._name or not self._scratch:
                        self._later.append(statement)
                else:
                    (made if statement.startswith("CREATE ") else granted).append(statement)
        if statements:
            self._server.ask("\n".join([*made, *granted]) + "\n")


def contents_of(server: MysqlServer, schema: str, live: str = "") -> Contents:
    """What a schema holds, its tables at one moment."""
    with MysqlSession(server, schema) as session:
        session.rows("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        session.rows("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        return contents(session, schema, live)


def _text(chunks: Iterator[bytes], end: str) -> str:
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > MAX_TEXT:
            raise StoreDamaged("a text of more than 256 MiB where users, triggers and events were expected")
    text = data.decode(errors="surrogateescape")
    if not text.endswith(end + "\n"):
        raise StoreDamaged(f"a text is cut off: it does not end with «{end}»")
    return text
