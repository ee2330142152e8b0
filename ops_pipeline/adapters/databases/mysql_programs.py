# ruff: noqa: S608  (names and texts are quoted by `identifier` and `literal`)
"""What a MySQL or MariaDB schema holds besides tables, as statements that make it again in any schema.

Triggers are put together from the server's parts instead of the text somebody once typed: that may name its schema,
and would reach into the live one when it is restored beside. Events may be made switched off, so that nothing runs
in a schema that is not live; PLACE remembers which of them were on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ops_pipeline.adapters.databases.mysql_server import MysqlSession, identifier, literal
from ops_pipeline.adapters.databases.tool_dump import noted

PLACE = "__ops_place"
"""Table in a schema that a restore made: rows (what, name): ("token", token), and of what was live ("enabled", event)
and ("grant", statement about a routine of the live schema)."""
JOURNAL = "__ops_journal"
"""Table with the scripts of an exchange of schemas under way."""
OWN_TABLES = (PLACE, JOURNAL)
MARK = "-- ops_pipeline: "
_END = "$ops$"
_ENABLED = re.compile(r"(ON COMPLETION (?:NOT )?PRESERVE) ENABLE\b")


@dataclass(frozen=True)
class Program:
    """A trigger, event, procedure, function or view. `create` names no schema."""

    kind: str
    name: str
    create: str
    sql_mode: str = ""
    charset: str = ""
    collation: str = ""
    time_zone: str = ""
    enabled: bool = False  # an event that runs
    columns: tuple[str, ...] = ()  # of a view

    def drop(self, schema: str) -> str:
        """Statement."""
        return f"DROP {self.kind.upper()} IF EXISTS {identifier(schema)}.{identifier(self.name)};\n"

    def make(self, *, off: bool = False) -> str:
        """Statements for the schema in use; an event is switched off with `off`."""
        create = _ENABLED.sub(r"\1 DISABLE", self.create, count=1) if off and self.kind == "event" else self.create
        before = [f"SET SESSION sql_mode = {literal(self.sql_mode)}"]
        before += [f"SET SESSION character_set_client = {self.charset}"] if self.charset else []
        before += [f"SET SESSION collation_connection = {self.collation}"] if self.collation else []
        before += [f"SET SESSION time_zone = {literal(self.time_zone)}"] if self.time_zone else []
        # Only what it was made under counts for it; the next one sets its own again.
        after = ["SET NAMES utf8mb4", "SET SESSION time_zone = '+00:00'", "SET SESSION sql_mode = ''"]
        lines = [*before, create, *after]
        return f"DELIMITER {_END}\n" + "".join(f"{line}\n{_END}\n" for line in lines) + "DELIMITER ;\n"

    def placeholder(self) -> str:
        """For a view: one of the same columns that needs nothing, so that views may be made in any order."""
        columns = ", ".join(f"1 AS {identifier(column)}" for column in self.columns)
        return f"CREATE OR REPLACE VIEW {identifier(self.name)} AS SELECT {columns};\n"


def triggers(session: MysqlSession, schema: str) -> list[Program]:
    """In the order in which they fire."""
    rows = session.rows(
        "SELECT TRIGGER_NAME, ACTION_TIMING, EVENT_MANIPULATION, EVENT_OBJECT_TABLE, ACTION_STATEMENT, DEFINER,"
        " SQL_MODE, CHARACTER_SET_CLIENT, COLLATION_CONNECTION FROM information_schema.TRIGGERS"
        f" WHERE TRIGGER_SCHEMA = {literal(schema)}"
        " ORDER BY EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER"
    )
    return [
        Program(
            "trigger",
            name,
            f"CREATE DEFINER = {_definer(definer)} TRIGGER {identifier(name)} {timing} {event} ON {identifier(table)}"
            f" FOR EACH ROW {action}",
            mode,
            charset,
            collation,
        )
        for name, timing, event, table, action, definer, mode, charset, collation in rows
    ]


def events(session: MysqlSession, schema: str, enabled: Iterable[str] = ()) -> list[Program]:
    """`enabled` are those that count as switched on although they are not now."""
    on, found = set(enabled), []
    names = [
        row[0]
        for row in session.rows(
            f"SELECT EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {literal(schema)} ORDER BY 1"
        )
    ]
    for name in names:
        _, mode, zone, create, charset, collation, *_ = session.rows(
            f"SHOW CREATE EVENT {identifier(schema)}.{identifier(name)}"
        )[0]
        if name in on:
            create = re.sub(r"(ON COMPLETION (?:NOT )?PRESERVE) DISABLE(?! ON)", r"\1 ENABLE", create, count=1)
        runs = _ENABLED.search(create) is not None
        found.append(Program("event", name, create, mode, charset, collation, zone, enabled=runs))
    return found


def routines(session: MysqlSession, schema: str) -> list[Program]:
    """Procedures and functions."""
    found = []
    for name, kind in session.rows(
        "SELECT ROUTINE_NAME, ROUTINE_TYPE FROM information_schema.ROUTINES"
        f" WHERE ROUTINE_SCHEMA = {literal(schema)} AND ROUTINE_TYPE IN ('PROCEDURE', 'FUNCTION') ORDER BY 2, 1"
    ):
        _, mode, create, charset, collation, *_ = session.rows(
            f"SHOW CREATE {kind} {identifier(schema)}.{identifier(name)}"
        )[0]
        found.append(Program(kind.lower(), name, create, mode, charset, collation))
    return found


def views(session: MysqlSession, schema: str) -> list[Program]:
    """Views, read with their schema in use, so that they name none."""
    session.rows(f"USE {identifier(schema)}")
    columns: dict[str, list[str]] = {}
    for table, column in session.rows(
        "SELECT c.TABLE_NAME, c.COLUMN_NAME FROM information_schema.COLUMNS c JOIN information_schema.VIEWS v"
        " ON v.TABLE_SCHEMA = c.TABLE_SCHEMA AND v.TABLE_NAME = c.TABLE_NAME"
        f" WHERE c.TABLE_SCHEMA = {literal(schema)} ORDER BY c.TABLE_NAME, c.ORDINAL_POSITION"
    ):
        columns.setdefault(table, []).append(column)
    found = []
    for (name,) in session.rows(
        f"SELECT TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA = {literal(schema)} ORDER BY 1"
    ):
        _, create, charset, collation = session.rows(f"SHOW CREATE VIEW {identifier(name)}")[0]
        create = create.replace("CREATE ", "CREATE OR REPLACE ", 1)
        found.append(Program("view", name, create, "", charset, collation, columns=tuple(columns.get(name, ()))))
    return found


def enabled_events(session: MysqlSession, schema: str) -> list[str]:
    """Names PLACE remembers as switched on."""
    if not has_table(session, schema, PLACE):
        return []
    return [row[0] for row in session.rows(f"SELECT name FROM {identifier(schema)}.{PLACE} WHERE what = 'enabled'")]


def routine_grants(session: MysqlSession, schema: str) -> list[str]:
    """Grants on single routines: they go when a routine is dropped."""
    rows = session.rows(
        "SELECT User, Host, Routine_name, Routine_type, Proc_priv FROM mysql.procs_priv"
        f" WHERE Db = {literal(schema)} AND Routine_type IN ('PROCEDURE', 'FUNCTION') ORDER BY 1, 2, 3, 4"
    )
    found = []
    for user, host, name, kind, rights in rows:
        words = [right.strip() for right in rights.upper().split(",") if right.strip()]
        option = " WITH GRANT OPTION" if "GRANT" in words else ""
        right = ", ".join(word for word in words if word != "GRANT") or "USAGE"
        who = f"{identifier(user)}@{identifier(host)}" if host else identifier(user)
        found.append(f"GRANT {right} ON {kind} {identifier(schema)}.{identifier(name)} TO {who}{option}")
    return found


def kept_grants(session: MysqlSession, schema: str) -> list[str]:
    """Grants PLACE remembers from when this schema was live."""
    return [row[0] for row in session.rows(f"SELECT name FROM {identifier(schema)}.{PLACE} WHERE what = 'grant'")]


def has_table(session: MysqlSession, schema: str, table: str) -> bool:
    """Whether there is such a table."""
    return bool(
        session.rows(
            f"SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = {literal(schema)}"
            f" AND TABLE_NAME = {literal(table)}"
        )
    )


def as_text(programs: Sequence[Program], end: str) -> bytes:
    """Triggers and events as one script, each behind a line that names it; `end` is its last line."""
    pieces = []
    for program in programs:
        about = {"kind": program.kind, "name": program.name, "enabled": program.enabled}
        pieces.append(f"{MARK}{json.dumps(about)}\n{program.make()}")
    return ("".join(pieces) + end + "\n").encode(errors="surrogateescape")


def switched_off(text: str) -> tuple[str, list[str]]:
    """A script of `as_text` with its events switched off, and the names of those that were on."""
    pieces, names = re.split(rf"(?m)^(?={re.escape(MARK)}\{{)", text), []
    for index, piece in enumerate(pieces):
        if not piece.startswith(MARK + "{"):
            continue
        about = noted(piece.partition("\n")[0].removeprefix(MARK), "triggers and events")
        if about["kind"] == "event" and about["enabled"]:
            pieces[index] = _ENABLED.sub(r"\1 DISABLE", piece, count=1)
            names.append(str(about["name"]))
    return "".join(pieces), names


def _definer(text: str) -> str:
    user, _, host = text.rpartition("@")
    return f"{identifier(user)}@{identifier(host)}" if user else identifier(host)
