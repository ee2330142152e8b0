# ruff: noqa: S608  (names and texts are quoted by `identifier` and `literal`)
"""A PostgreSQL server reached through the tools in a container: questions by psql, one answer or a whole session."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ops_pipeline.adapters.databases.container import Engine
from ops_pipeline.adapters.databases.streaming import Tool, failure_words, run
from ops_pipeline.errors import Permanent

ASK_SECONDS = 600.0

SETTINGS = """\
SET search_path = ''; SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres';
SET extra_float_digits = 3; SET bytea_output = 'hex'; SET xmloption = 'content'; SET lc_monetary = 'C';
SET client_encoding = 'UTF8'; SET statement_timeout = 0; SET lock_timeout = '60s';
SET idle_in_transaction_session_timeout = 0; SET row_security = off; SET standard_conforming_strings = on;
SET quote_all_identifiers = off;
"""
"""With these the same data read the same in every session, whatever server, database and role have set."""


@dataclass(frozen=True)
class PostgresServer:
    """Where and as whom. `container()` gives the id of the container whose tools are used."""

    engine: Engine
    container: Callable[[], str]
    user: str
    password: Callable[[], str] | None = field(default=None, repr=False)
    host: str = ""  # "" = the socket the tools were built for
    port: str = ""
    source: str = ""

    def environment(self) -> Mapping[str, str]:
        """Variables of libpq; they hold the password, and are handed over by the engine, never as arguments."""
        found = {
            "PGUSER": self.user,
            "PGHOST": self.host,
            "PGPORT": self.port,
            "PGPASSWORD": self.password() if self.password else "",
            "PGCONNECT_TIMEOUT": "15",
            "PGAPPNAME": "ops_pipeline",
        }
        # The container's own options must not change what we set.
        cleared = {"PGOPTIONS": ""}
        return {**{name: value for name, value in found.items() if value}, **cleared}

    def ask(self, database: str, sql: str, *, seconds: float = ASK_SECONDS) -> str:
        """Run `sql` (several statements may be) and return what its queries print, without the last line end.

        Raise Permanent with psql's last words at the first statement that fails.
        """
        result = run(
            self.engine,
            self.container(),
            psql(database),
            chunks=[sql.encode()],
            environment=self.environment(),
            hang_seconds=seconds,
            what="psql",
        )
        if result.code != 0:
            raise Permanent(f"data source {self.source}: {failure_words('psql', result.code, result.err)}")
        return result.text.removesuffix("\n")

    def rows(self, database: str, sql: str) -> list[list[Any]]:
        """Rows of one query."""
        with PostgresSession(self, database) as session:
            return session.rows(sql)

    def client(self, tool: str) -> str:
        """Version of a tool, e.g. "pg_dump 15.14"."""
        text = run(
            self.engine, self.container(), [tool, "--version"], environment=self.environment(), check=True
        ).text.strip()
        match = re.search(r"\d+(\.\d+)*\S*", text)
        return f"{tool} {match[0] if match else text}"

    def as_local(self, container: str, user: str, host: str) -> PostgresServer:
        """The same for a scratch server in another container, which asks for no password."""
        return replace(self, container=lambda: container, user=user, password=None, host=host, port="")


class PostgresSession:
    """One connection that stays open: settings, transactions and snapshots live as long as it. Not thread-safe."""

    def __init__(self, server: PostgresServer, database: str) -> None:
        """Connect. Raise Permanent with psql's last words."""
        self._server = server
        self._asking = False
        self._tool = Tool(
            server.engine,
            server.container(),
            psql(database),
            environment=server.environment(),
            fed=True,
            hang_seconds=ASK_SECONDS,
            what="psql",
        )
        try:
            self.do(SETTINGS)
        except BaseException:
            self.close()
            raise

    def do(self, sql: str) -> None:
        """Run statements whose answers do not matter. Raise Permanent."""
        for _ in self._lines(sql):
            pass

    def rows(self, sql: str) -> list[list[Any]]:
        """Rows of one query, its columns as JSON gives them; whatever they are called. Raise Permanent."""
        asked = f"SELECT pg_catalog.to_json(answer) FROM ({sql}\n) AS answer;"
        return [json.loads(line, object_pairs_hook=_values) for line in self._lines(asked)]

    def close(self) -> None:
        """Disconnect; no error."""
        if self._asking:
            self._tool.close()
        else:
            self._tool.end()

    def __enter__(self) -> PostgresSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lines(self, sql: str) -> list[str]:
        self._asking = True
        end = f"end-{uuid.uuid4().hex}"
        # A query prints and is flushed when it is done; `\echo` would stay in a buffer.
        self._tool.write(f"{sql}\nSELECT '{end}';\n".encode())
        lines: list[str] = []
        while True:
            line = self._tool.readline()
            if not line:
                words = failure_words("psql", self._tool.code, self._tool.error_tail)
                raise Permanent(f"data source {self._server.source}: {words}")
            text = line.decode(errors="replace").removesuffix("\n")
            if text == end:
                self._asking = False
                return lines
            lines.append(text)


def _values(pairs: list[tuple[str, Any]]) -> list[Any]:
    return [value for _, value in pairs]


def psql(database: str) -> list[str]:
    """Arguments of psql that reads statements, prints bare rows, and ends with code 3 at the first error."""
    return ["psql", "-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-d", _connection(database)]


def _connection(database: str) -> str:
    """A database's name as libpq takes it, where a name with "=" or "://" would be taken for more than a name."""
    return "dbname='" + database.replace("\\", "\\\\").replace("'", "\\'") + "'"


def identifier(name: str) -> str:
    """Quoted name."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quoted text, under `standard_conforming_strings`."""
    return "'" + text.replace("'", "''") + "'"


def connection_arguments(database: str) -> Sequence[str]:
    """`-d` with any name."""
    return ("-d", _connection(database))
