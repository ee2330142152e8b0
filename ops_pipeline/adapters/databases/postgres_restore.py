# ruff: noqa: S608  (names and texts are quoted by `identifier` and `literal`)
"""Restoring PostgreSQL beside the live database or in a scratch server, and changing places with the live one."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator, Sequence

from ops_pipeline.adapters.databases.postgres_archive import ArchiveWalker, Entry
from ops_pipeline.adapters.databases.postgres_contents import SETTING, contents
from ops_pipeline.adapters.databases.postgres_dump import FIRST_ROLE
from ops_pipeline.adapters.databases.postgres_server import (
    PostgresServer,
    PostgresSession,
    connection_arguments,
    identifier,
    literal,
)
from ops_pipeline.adapters.databases.streaming import run
from ops_pipeline.adapters.databases.tool_dump import noted
from ops_pipeline.core.backup.records import Contents
from ops_pipeline.errors import OpsError, Permanent, StoreDamaged

ADMIN = "postgres"  # database to stand in while others are made, renamed, dropped
MAX_GLOBALS = 256 * 1024 * 1024
SWAP_ATTEMPTS = 5
_CREATE_ROLE = re.compile(r'CREATE ROLE ("(?:[^"]|"")+"|[^\s";]+);')
_ABOUT_ROLE = re.compile(r'(?:ALTER ROLE|COMMENT ON ROLE|GRANT) ("(?:[^"]|"")+"|[^\s";]+)')
_GRANTED = re.compile(r'GRANT ("(?:[^"]|"")+"|[^\s";]+) TO ("(?:[^"]|"")+"|[^\s";]+)')
_CREATE_DATABASE = re.compile(r'CREATE DATABASE ("(?:[^"]|"")+"|\S+) WITH (.*);', re.DOTALL)
_TABLESPACE = re.compile(r' TABLESPACE = ("(?:[^"]|"")+"|\S+?)(?=;| |$)')
FINISH = "ANALYZE"


class PostgresBeside:
    """A `Beside`: the database `name` on a server, made anew when the dump's own definition of it arrives."""

    def __init__(self, server: PostgresServer, name: str, token: str, seconds: float, *, scratch: bool) -> None:
        """`scratch`: the server is ours alone; else roles that exist already stay as they are."""
        self._server = server
        self._name = name
        self._token = token
        self._seconds = seconds
        self._scratch = scratch

    @property
    def name(self) -> str:
        """The database's name."""
        return self._name

    def make(self, definition: str = "") -> None:
        """An empty database of this name; an earlier one is dropped. `definition` is what stands behind WITH."""
        drop(self._server, self._name)
        how = definition or "TEMPLATE = template0"
        self._server.ask(ADMIN, f"CREATE DATABASE {identifier(self._name)} WITH {how};")
        if self._token:
            self._server.ask(ADMIN, _mark(self._name, f"r{self._token}"))

    def load(self, part: str, chunks: Iterator[bytes]) -> None:
        """Load one part. Raise Permanent with the tool's last words, StoreDamaged when the archive is cut."""
        if part == "globals":
            self._load_globals(chunks)
        elif part == "dump":
            self._load_dump(chunks)
        else:
            raise Permanent(f"data source {self._server.source}: a PostgreSQL backup has no part {part!r}")

    def finish(self) -> None:
        """Statistics, without which the first queries are slow."""
        self._server.ask(self._name, FINISH + ";", seconds=self._seconds)

    def contents(self) -> Contents:
        """What it holds now."""
        return contents_of(self._server, self._name)

    def ask(self, query: str) -> str:
        """Answer of a query, as bare text."""
        return self._server.ask(self._name, query.rstrip().removesuffix(";") + ";")

    def _load_globals(self, chunks: Iterator[bytes]) -> None:
        data = bytearray()
        for chunk in chunks:
            data += chunk
            if len(data) > MAX_GLOBALS:
                raise StoreDamaged("the roles of a server are larger than 256 MiB")
        text = data.decode(errors="surrogateescape")
        if self._scratch:
            self._take_first_role(text)
            lines = [_guarded(line) for line in text.splitlines()]
        else:
            lines = _of_missing_roles(text, self._roles())
        if lines:
            self._server.ask(ADMIN, "\n".join(lines) + "\n")

    def _roles(self) -> set[str]:
        return {str(name) for (name,) in self._server.rows(ADMIN, "SELECT rolname FROM pg_catalog.pg_roles")}

    def _take_first_role(self, text: str) -> None:
        """Let the scratch server's own superuser be called as the server's whose roles these are."""
        line = text.partition("\n")[0]
        if not line.startswith(FIRST_ROLE):
            return
        wanted = str(noted(line.removeprefix(FIRST_ROLE), "the roles"))
        if wanted == self._server.user:
            return
        other = self._server.as_local(self._server.container(), "ops_scratch", self._server.host)
        self._server.ask(ADMIN, "CREATE ROLE ops_scratch LOGIN SUPERUSER;")
        other.ask(ADMIN, f"ALTER ROLE {identifier(self._server.user)} RENAME TO {identifier(wanted)};")
        self._server = self._server.as_local(self._server.container(), wanted, self._server.host)
        self._server.ask(ADMIN, "DROP ROLE ops_scratch;")

    def _load_dump(self, chunks: Iterator[bytes]) -> None:
        walker = ArchiveWalker(f"the archive for {self._name}")
        first = []
        for chunk in chunks:
            first.append(chunk)
            walker.feed(chunk)
            if walker.complete_contents:
                break
        if not walker.complete_contents:
            walker.finish()
        definition, owner = self._definition(walker.entries)
        self.make(definition)
        run(
            self._server.engine,
            self._server.container(),
            [*self._restoring(), *connection_arguments(self._name)],
            chunks=_walked(walker, first, chunks),
            environment=self._server.environment(),
            hang_seconds=self._seconds,
            what="pg_restore",
            check=True,
        )
        self._settings(walker.entries, owner)

    def _restoring(self) -> list[str]:
        command = ["pg_restore", "--exit-on-error", "--no-password"]
        if self._scratch:
            return [*command, "--no-tablespaces"]
        superuser = self._server.ask(ADMIN, "SELECT pg_catalog.current_setting('is_superuser');") == "on"
        return command if superuser else [*command, "--no-owner"]

    def _definition(self, entries: Sequence[Entry]) -> tuple[str, str]:
        for entry in entries:
            match = _CREATE_DATABASE.match(entry.definition) if entry.kind == "DATABASE" else None
            if match:
                how = match[2].strip()
                return (_TABLESPACE.sub("", how) if self._scratch else how), entry.owner
        return "", ""

    def _settings(self, entries: Sequence[Entry], owner: str) -> None:
        """What belongs to the database itself and not into it: owner, grants, settings, comment."""
        statements = []
        if owner and "--no-owner" not in self._restoring():
            statements.append(f"ALTER DATABASE {identifier(self._name)} OWNER TO {identifier(owner)};")
        old = ""
        for entry in entries:
            match = _CREATE_DATABASE.match(entry.definition) if entry.kind == "DATABASE" else None
            old = match[1] if match else old
        for entry in entries:
            if old and entry.kind in {"DATABASE PROPERTIES", "ACL", "COMMENT"}:
                statements.append(_renamed(entry.definition, old, identifier(self._name)))
        if statements:
            self._server.ask(ADMIN, "\n".join(statements))


def contents_of(server: PostgresServer, database: str) -> Contents:
    """What a database holds, at one moment."""
    with PostgresSession(server, database) as session:
        session.do("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;")
        return contents(session)


def drop(server: PostgresServer, name: str) -> None:
    """Drop a database, ending its sessions; no error when there is none."""
    exists = server.ask(ADMIN, f"SELECT 1 FROM pg_catalog.pg_database WHERE datname = {literal(name)};")
    if not exists:
        return
    force = int(server.ask(ADMIN, "SHOW server_version_num;")) >= 130000
    if not force:
        server.ask(ADMIN, f"ALTER DATABASE {identifier(name)} ALLOW_CONNECTIONS false;")
        server.ask(ADMIN, _end_sessions(name))
    server.ask(ADMIN, f"DROP DATABASE IF EXISTS {identifier(name)}{' WITH (FORCE)' if force else ''};")


def marks(server: PostgresServer) -> dict[str, str]:
    """Database → its mark (see SETTING) if a restore made it, and "" for all others."""
    rows = server.rows(
        ADMIN,
        "SELECT d.datname, coalesce((SELECT pg_catalog.substr(v, length('" + SETTING + "=') + 1)"
        " FROM pg_catalog.pg_db_role_setting s, unnest(s.setconfig) v WHERE s.setdatabase = d.oid AND s.setrole = 0"
        f" AND v LIKE '{SETTING}=%'), '') FROM pg_catalog.pg_database d",
    )
    return {str(name): str(mark) for name, mark in rows}


def change_places(server: PostgresServer, live: str, old: tuple[str, str], new: str, mark: str) -> None:
    """Rename `live` to `old` (name, mark) and `new` to `live` (marked `mark`), both or neither.

    One transaction: the first rename locks the database against new connections and waits up to five seconds for the
    old ones to leave, which are ended meanwhile from a second connection. Nothing stays blocked if anybody is killed.
    Raise Permanent when sessions do not end.
    """
    statements = (
        "BEGIN;\nSET LOCAL lock_timeout = '60s';\n"
        f"ALTER DATABASE {identifier(live)} RENAME TO {identifier(old[0])};\n"
        f"{_mark(*old)}\n"
        f"ALTER DATABASE {identifier(new)} RENAME TO {identifier(live)};\n"
        f"{_mark(live, mark)}\n"
        "COMMIT;\n"
    )
    for attempt in range(1, SWAP_ATTEMPTS + 1):
        done = threading.Event()
        ender = threading.Thread(target=_keep_ending, args=(server, live, new, done), daemon=True)
        ender.start()
        try:
            server.ask(ADMIN, statements, seconds=120)
            return
        except Permanent as error:
            if "being accessed by other users" not in error.message or attempt == SWAP_ATTEMPTS:
                raise
        finally:
            done.set()
            ender.join(timeout=60)


def _keep_ending(server: PostgresServer, live: str, new: str, done: threading.Event) -> None:
    while not done.is_set():
        with contextlib.suppress(OpsError):
            server.ask(ADMIN, _end_sessions(live, new), seconds=30)
        time.sleep(0.2)


def _end_sessions(*names: str) -> str:
    listed = ", ".join(literal(name) for name in names)
    return (
        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
        f" WHERE datname IN ({listed}) AND pid <> pg_catalog.pg_backend_pid();"
    )


def _mark(name: str, mark: str) -> str:
    if not mark:
        return f"ALTER DATABASE {identifier(name)} RESET {SETTING};"
    return f"ALTER DATABASE {identifier(name)} SET {SETTING} = {literal(mark)};"


def _walked(walker: ArchiveWalker, first: list[bytes], rest: Iterator[bytes]) -> Iterator[bytes]:
    """The whole archive again, followed to its end: the tool must not take a cut one for whole."""
    yield from first
    first.clear()
    for chunk in rest:
        walker.feed(chunk)
        yield chunk
    walker.finish()


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _guarded(line: str) -> str:
    match = _CREATE_ROLE.fullmatch(line)
    if match is None:
        return line
    name = literal(_unquoted(match[1]))
    return (
        f"DO $ops$ BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {name}) "
        f"THEN {line} END IF; END $ops$;"
    )


def _of_missing_roles(text: str, existing: set[str]) -> list[str]:
    """Only the statements that make roles which do not exist: those that do are the live server's business."""
    lines = text.splitlines()
    named = [match for line in lines if (match := _CREATE_ROLE.fullmatch(line))]
    missing = {_unquoted(match[1]) for match in named} - existing
    found = []
    for line in lines:
        if (granted := _GRANTED.match(line)) is not None:
            wanted = bool({_unquoted(granted[1]), _unquoted(granted[2])} & missing)
        elif (about := _CREATE_ROLE.match(line) or _ABOUT_ROLE.match(line)) is not None:
            wanted = _unquoted(about[1]) in missing
        else:
            wanted = False
        if wanted and line.endswith(";"):
            found.append(line)
    return found


def _renamed(definition: str, old: str, new: str) -> str:
    """The statements about database `old`, for `new`: its name stands once in each, behind one of three words."""
    pattern = re.compile(r"^(.*?\b(?:ALTER DATABASE|ON DATABASE|IN DATABASE) )" + re.escape(old) + r"(?=[\s;])", re.M)
    return pattern.sub(lambda match: match[1] + new, definition)


__all__ = [
    "PostgresBeside",
    "change_places",
    "contents_of",
    "drop",
    "marks",
]
