"""A MySQL or MariaDB server reached through the client in a container: one answer, or a session that stays open."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ops_pipeline.adapters.databases.container import Engine
from ops_pipeline.adapters.databases.streaming import Tool, failure_words, run
from ops_pipeline.errors import Permanent

ASK_SECONDS = 600.0
SETTINGS = (
    "SET NAMES utf8mb4; SET SESSION time_zone = '+00:00'; SET SESSION group_concat_max_len = 1073741824;"
    " SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO'; SET SESSION foreign_key_checks = 0;"
    " SET SESSION lock_wait_timeout = 60; SET SESSION wait_timeout = 86400;\n"
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_MEANT = {"n": "\n", "t": "\t", "0": "\0", "\\": "\\"}


@dataclass(frozen=True)
class MysqlServer:
    """Where and as whom. `container()` gives the id of the container whose tools are used."""

    engine: Engine
    container: Callable[[], str]
    user: str
    password: Callable[[], str] | None = field(default=None, repr=False)
    host: str = ""  # "" = the socket the tools were built for
    port: str = ""
    socket: str = ""
    source: str = ""
    _tools: dict[tuple[str, ...], str] = field(default_factory=dict, repr=False, compare=False)  # found so far

    def environment(self) -> Mapping[str, str]:
        """The password, for every tool; handed over by the engine, never as an argument."""
        return {"MYSQL_PWD": self.password() if self.password else ""}

    def where(self) -> list[str]:
        """Arguments that lead to the server."""
        found = [f"--user={self.user}"]
        found += [f"--host={self.host}", "--protocol=tcp"] if self.host else []
        found += [f"--port={self.port}"] if self.port else []
        return [*found, f"--socket={self.socket}"] if self.socket else found

    def tool(self, *names: str) -> str:
        """The first of these programs that the container has. Raise Permanent."""
        container = self.container()
        if (container, *names) not in self._tools:
            asked = 'for name in "$@"; do command -v "$name" >/dev/null && { echo "$name"; exit 0; }; done; exit 127'
            result = run(self.engine, container, ["sh", "-c", asked, "sh", *names], what="look for tools")
            if result.code != 0:
                raise Permanent(
                    f"data source {self.source}: its container has none of the tools {', '.join(names)}",
                    hint="Name a container that has the database's own tools.",
                )
            self._tools[(container, *names)] = result.text.strip()
        return self._tools[(container, *names)]

    def client(self) -> list[str]:
        """Arguments of the client that reads statements, prints bare rows and ends at the first error."""
        return [
            self.tool("mariadb", "mysql"),
            *self.where(),
            "--batch",
            "--skip-column-names",
            "--unbuffered",
            "--default-character-set=utf8mb4",
            "--max-allowed-packet=1G",
        ]

    def ask(self, sql: str, database: str = "", *, seconds: float = ASK_SECONDS) -> str:
        """Run statements and return what they print, as the client escapes it. Raise Permanent with its words."""
        result = run(
            self.engine,
            self.container(),
            [*self.client(), *([f"--database={database}"] if database else [])],
            chunks=[SETTINGS.encode(), sql.encode()],
            environment=self.environment(),
            hang_seconds=seconds,
            what="the database's client",
        )
        if result.code != 0:
            words = failure_words("the database's client", result.code, result.err)
            raise Permanent(f"data source {self.source}: {words}")
        return result.text.removesuffix("\n")

    def rows(self, sql: str, database: str = "") -> list[list[str]]:
        """Rows of one query; NULL is the word "NULL"."""
        return split_rows(self.ask(sql.rstrip().removesuffix(";") + ";\n", database))

    def as_local(self, container: str, user: str, socket: str) -> MysqlServer:
        """The same for a scratch server in another container, which asks for no password."""
        return replace(self, container=lambda: container, user=user, password=None, host="", port="", socket=socket)


class MysqlSession:
    """One connection that stays open, with its transaction and locks. Not thread-safe."""

    def __init__(self, server: MysqlServer, database: str = "") -> None:
        """Connect. Raise Permanent with the client's last words."""
        self._server = server
        self._asking = False
        self._tool = Tool(
            server.engine,
            server.container(),
            [*server.client(), *([f"--database={database}"] if database else [])],
            environment=server.environment(),
            fed=True,
            hang_seconds=ASK_SECONDS,
            what="the database's client",
        )
        try:
            self.rows(SETTINGS)
        except BaseException:
            self.close()
            raise

    def rows(self, sql: str) -> list[list[str]]:
        """Rows of statements; NULL is the word "NULL". Raise Permanent."""
        return [split_row(line) for line in self._lines(sql)]

    def text(self, sql: str) -> str:
        """What statements print, as `MysqlServer.ask` gives it. Raise Permanent."""
        return "\n".join(self._lines(sql))

    def _lines(self, sql: str) -> list[str]:
        self._asking = True
        end = f"end-{uuid.uuid4().hex}"
        self._tool.write(f"{sql.rstrip().removesuffix(';')};\nSELECT '{end}';\n".encode())
        lines: list[str] = []
        while True:
            line = self._tool.readline()
            if not line:
                words = failure_words("the database's client", self._tool.code, self._tool.error_tail)
                raise Permanent(f"data source {self._server.source}: {words}")
            text = line.decode(errors="surrogateescape").removesuffix("\n")
            if text == end:
                self._asking = False
                return lines
            lines.append(text)

    def close(self) -> None:
        """Disconnect; no error."""
        if self._asking:
            self._tool.close()
        else:
            self._tool.end()

    def __enter__(self) -> MysqlSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def split_rows(text: str) -> list[list[str]]:
    """Rows as the client prints them in batch mode."""
    return [split_row(line) for line in text.split("\n")] if text else []


def split_row(line: str) -> list[str]:
    """Columns of one row, unescaped."""
    return [_ESCAPED.sub(lambda match: _MEANT.get(match[1], match[1]), column) for column in line.split("\t")]


def identifier(name: str) -> str:
    """Quoted name."""
    return "`" + name.replace("`", "``") + "`"


def literal(text: str) -> str:
    """Quoted text, whatever `sql_mode` says about backslashes."""
    return f"_utf8mb4 0x{text.encode(errors='surrogateescape').hex()}" if text else "''"


def account(user: str, host: str) -> str:
    """Quoted `user`@`host`, or a role's name when there is no host."""
    return f"{identifier(user)}@{identifier(host)}" if host else identifier(user)


def listed(names: Sequence[str]) -> str:
    """Names for people."""
    shown = ", ".join(names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"
