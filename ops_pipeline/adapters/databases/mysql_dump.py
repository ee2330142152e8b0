# ruff: noqa: S608  (names and texts are quoted by `identifier` and `literal`)
"""The streams of a MySQL or MariaDB backup: users (`globals`), tables (`dump`), triggers and events (`programs`).

Counts and hashes are taken in a second session whose snapshot is of the same moment as the dump's: both begin while
a global read lock, held for a blink, keeps writers out. Where the user may not lock, rows are counted in the stream.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from ops_pipeline.adapters.databases.mysql_contents import contents, definitions, users
from ops_pipeline.adapters.databases.mysql_programs import MARK, OWN_TABLES, as_text, events, triggers
from ops_pipeline.adapters.databases.mysql_server import MysqlServer, MysqlSession, literal
from ops_pipeline.adapters.databases.streaming import Tool, run
from ops_pipeline.adapters.databases.tool_dump import Tail, TextDump, ToolDump
from ops_pipeline.core.backup.records import Arrived, Contents
from ops_pipeline.errors import OpsError, Permanent
from ops_pipeline.ports.backup import Dump

END = b"-- Dump completed\n"
USERS_END = "-- ops_pipeline: end of users"
PROGRAMS_END = "-- ops_pipeline: end of triggers and events"
LOCK_SECONDS = 5
BEGIN_SECONDS = 30.0
_BEGUN = re.compile(rb"^-- (Table structure|Temporary|Dumping|Sequence structure|Dump completed)", re.MULTILINE)
_TEXT = re.compile(rb"'(?:[^'\\]+|\\.)*'")
_INSERT = re.compile(rb"INSERT INTO `((?:[^`]|``)+)`[^(]*?VALUES ?")
_TABLE = re.compile(rb"-- Table structure for table `((?:[^`]|``)+)`$")
MAX_LINE = 64 * 1024 * 1024


@contextlib.contextmanager
def dumps(
    server: MysqlServer, source: str, schema: str, hang_seconds: float, engine: str, other_engines: Sequence[str]
) -> Iterator[tuple[Sequence[Dump], MysqlSession | None]]:
    """The streams; the dump of the tables runs already, so that all are of one moment. Raise Permanent.

    With them a session for questions, which sees the same moment and writes nothing; None where there is no lock.
    """
    maria = "MariaDB" in engine
    tool = server.tool("mariadb-dump", "mysqldump")
    command = [tool, "--single-transaction", "--quick", "--routines", "--skip-triggers", "--hex-blob"]
    command += ["--default-character-set=utf8mb4", "--skip-dump-date", "--no-tablespaces", "--max-allowed-packet=1G"]
    command += [] if maria or tool == "mariadb-dump" else ["--set-gtid-purged=OFF"]
    client = run(server.engine, server.container(), [tool, "--version"], check=True).text.strip()
    ignored = [f"--ignore-table={schema}.{name}" for name in OWN_TABLES]
    argv = [command[0], *server.where(), *command[1:], *ignored, schema]
    consistency = "snapshot"
    if other_engines:
        consistency = f"snapshot, but not of tables without transactions: {', '.join(other_engines)}"

    def about(marker: str, found: Contents | None = None, details: dict[str, str] | None = None) -> Arrived:
        return Arrived(engine, client, tuple([*command, schema]), consistency, marker, 0, found, details or {})

    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(MysqlSession(server, schema))
        locked = _lock(lock)
        session = stack.enter_context(MysqlSession(server, schema))
        session.rows("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        session.rows("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        begin = _about_database(session, schema)
        programs = [*triggers(session, schema), *events(session, schema)]
        dumping = Tool(server.engine, server.container(), argv, environment=server.environment(), what=tool,
                       bulk=True, hang_seconds=BEGIN_SECONDS)  # fmt: skip
        stack.callback(dumping.close)
        first = b""
        while not _BEGUN.search(first) and (piece := dumping.read(65536)):
            first += piece
        dumping.hang_seconds = hang_seconds
        if locked:
            # Unlocking ends no transaction: only locks taken by LOCK TABLES would.
            lock.rows("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            lock.rows("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
            lock.rows("UNLOCK TABLES")
        accounts = _users_text(server)
        tail, counter = Tail(f"the dump of {schema}", END), RowCounter()
        tail.feed(first)
        counting = _Counting(session, schema, locked)
        if not locked:
            counter.feed(first)

        def feed(data: bytes) -> None:
            tail.feed(data)
            if not locked:
                counter.feed(data)

        def arrived() -> Arrived:
            found, details = counting.result(hang_seconds), {"database": schema, "counted": "in the dump's own moment"}
            if not locked:
                found = Contents(counter.counts, found.objects, {})
                details["counted"] = "in the stream: the user may not take a global read lock (RELOAD)"
            return about("the last line of the dump", found, details)

        def start() -> Tool:
            counting.start()
            return dumping

        dump = ToolDump("dump", source, start, arrived, feed, tail.finish, begin + first, cause=counting.cause,
                        stands=not other_engines)  # fmt: skip
        parts: list[Dump] = []
        if accounts is not None:
            parts.append(TextDump("globals", source, accounts, about("its own last line")))
        parts.append(dump)
        parts.append(TextDump("programs", source, as_text(programs, PROGRAMS_END), about("its own last line")))
        yield parts, lock if locked else None


class RowCounter:
    """Counts rows in the text of a dump: MariaDB writes one a line, MySQL many; line ends inside texts are escaped."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._line: list[bytes] = []
        self._size = 0
        self._table = ""

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        *lines, rest = data.split(b"\n")
        if lines:
            self._count(b"".join([*self._line, lines[0]]))
            for line in lines[1:]:
                self._count(line)
            self._line, self._size = [], 0
        if self._size < MAX_LINE:  # what goes on so long is one row
            self._line.append(rest)
            self._size += len(rest)

    def _count(self, line: bytes) -> None:
        if self._table and line.startswith(b"("):
            self.counts[self._table] += 1
        elif line.startswith(b"INSERT INTO `") and (match := _INSERT.match(line)) is not None:
            name = _name(match[1])
            rest = line[match.end() :]
            self._table = name if not rest else ""
            self.counts[name] = self.counts.get(name, 0) + (_TEXT.sub(b"", rest).count(b"),(") + 1 if rest else 0)
        elif line.startswith(b"-- Table structure") and (match := _TABLE.match(line)) is not None:
            self._table = ""
            self.counts.setdefault(_name(match[1]), 0)
        elif self._table:
            self._table = ""


class _Counting:
    """Counts in the session, beside the dump."""

    def __init__(self, session: MysqlSession, schema: str, exact: bool) -> None:
        self._session, self._schema, self._exact = session, schema, exact
        self._future: Future[Contents] | None = None

    def start(self) -> None:
        """Begin."""
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="contents")
        self._future = pool.submit(self._take)
        pool.shutdown(wait=False)

    def result(self, seconds: float) -> Contents:
        """What was counted. Raise Permanent."""
        if self._future is None:
            raise Permanent(f"{self._schema} was not counted")
        try:
            return self._future.result(timeout=seconds)
        except TimeoutError as error:
            raise Permanent(f"counting {self._schema} took more than {seconds:g} s") from error

    def cause(self) -> None:
        """Raise why it failed, if it did."""
        if self._future is not None and self._future.done() and (error := self._future.exception()) is not None:
            raise error

    def _take(self) -> Contents:
        if self._exact:
            return contents(self._session, self._schema)
        return Contents({}, definitions(self._session, self._schema), {})


def _lock(session: MysqlSession) -> bool:
    """Whether writers are kept out now."""
    try:
        session.rows(f"SET SESSION lock_wait_timeout = {LOCK_SECONDS}")
        session.rows("FLUSH TABLES WITH READ LOCK")
    except Permanent:
        session.close()
        return False
    return True


def _users_text(server: MysqlServer) -> bytes | None:
    """All users as statements; None when this user may not read them."""
    try:
        with MysqlSession(server) as session:
            found = users(session)
    except OpsError:
        return None
    pieces = [f"{MARK}{json.dumps({'kind': 'user', 'name': name})}\n{text}" for name, text in found]
    return ("".join(pieces) + USERS_END + "\n").encode(errors="surrogateescape")


def _about_database(session: MysqlSession, schema: str) -> bytes:
    rows = session.rows(
        "SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA"
        f" WHERE SCHEMA_NAME = {literal(schema)}"
    )
    if not rows:
        raise Permanent(f"there is no database {schema}")
    return f"{MARK}{json.dumps({'kind': 'database', 'charset': rows[0][0], 'collation': rows[0][1]})}\n".encode()


def _name(quoted: bytes) -> str:
    return quoted.replace(b"``", b"`").decode(errors="surrogateescape")


__all__ = ["END", "PROGRAMS_END", "USERS_END", "RowCounter", "dumps"]
