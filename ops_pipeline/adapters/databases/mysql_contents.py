# ruff: noqa: S608  (names and texts are quoted by `identifier` and `literal`)
"""What a MySQL or MariaDB schema holds, asked inside one session: counts, definitions, hashes of samples, users."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from ops_pipeline.adapters.databases.mysql_programs import (
    OWN_TABLES,
    Program,
    enabled_events,
    events,
    routines,
    triggers,
    views,
)
from ops_pipeline.adapters.databases.mysql_server import MysqlSession, account, identifier, literal
from ops_pipeline.core.backup.records import Contents
from ops_pipeline.errors import Permanent

SAMPLE_ROWS = 1000
WHOLE_ROWS = 5000
SHORT = 300
SCRATCH_USER = "ops_scratch"
_OWN_USERS = ("mariadb.sys", "mysql.sys", "mysql.session", "mysql.infoschema", "PUBLIC", SCRATCH_USER)
_BINARY: tuple[str, ...] = (
    "binary",
    "varbinary",
    "tinyblob",
    "blob",
    "mediumblob",
    "longblob",
    "bit",
    "geometry",
    "point",
)
_BINARY += ("linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geometrycollection", "vector")
_ON_ONE = re.compile(
    r"GRANT .+? ON (?:TABLE |PROCEDURE |FUNCTION |PACKAGE (?:BODY )?)?`((?:[^`]|``)+)`\.`.*", re.DOTALL
)
_MOVING = re.compile(r" AUTO_INCREMENT=\d+")


def contents(session: MysqlSession, schema: str, live: str = "") -> Contents:
    """Everything of a schema as the session's transaction sees it, and all users. Raise Permanent.

    `live`: the schema that the users' grants speak of, when this is a restored copy of it.
    """
    names = tables(session, schema)
    counts = {}
    for name in names:
        counts[name] = int(session.rows(f"SELECT COUNT(*) FROM {identifier(schema)}.{identifier(name)}")[0][0])
    samples = {name: _sample(session, schema, name, counts[name]) for name in names}
    return Contents(counts=counts, objects=definitions(session, schema, live), samples=samples)


def tables(session: MysqlSession, schema: str) -> list[str]:
    """Names of the base tables, without our own."""
    rows = session.rows(
        f"SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {literal(schema)}"
        " AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY 1"
    )
    return [name for (name,) in rows if name not in OWN_TABLES]


def sequences(session: MysqlSession, schema: str) -> list[str]:
    """Names of MariaDB's sequences; MySQL has none."""
    rows = session.rows(
        f"SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {literal(schema)}"
        " AND TABLE_TYPE = 'SEQUENCE' ORDER BY 1"
    )
    return [name for (name,) in rows]


def definitions(session: MysqlSession, schema: str, live: str = "") -> dict[str, str]:
    """Definition, or its hash when it is long, by "kind name". Where counters stand is left out: they move on."""
    found: dict[str, str] = {}
    for name in tables(session, schema):
        create = session.rows(f"SHOW CREATE TABLE {identifier(schema)}.{identifier(name)}")[0][1]
        found[f"table {name}"] = _short(_MOVING.sub("", create, count=1))
    for name in sequences(session, schema):
        create = session.rows(f"SHOW CREATE TABLE {identifier(schema)}.{identifier(name)}")[0][1]
        found[f"sequence {name}"] = _short(create)
    programs: list[Program] = [
        *views(session, schema),
        *triggers(session, schema),
        *routines(session, schema),
        *events(session, schema, enabled_events(session, schema)),
    ]
    for program in programs:
        context = (program.sql_mode, program.charset, program.collation, program.time_zone, program.create)
        found[f"{program.kind} {program.name}"] = _short("\n".join(context))
    for user, text in users(session) if users_readable(session.rows("SHOW GRANTS")) else []:
        # Grants on single tables and routines of other schemas are not this source's. Always hashed: it holds the
        # hash of a password.
        kept = [line for line in text.split(";\n") if granted_on(line) in (None, live or schema)]
        found[f"user {user}"] = f"sha256:{_hash(chr(10).join(kept))}"
    charset = session.rows(
        "SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA"
        f" WHERE SCHEMA_NAME = {literal(schema)}"
    )
    found["database settings"] = " ".join(charset[0]) if charset else ""
    return found


def users(session: MysqlSession) -> list[tuple[str, str]]:
    """(account, statements that make it and its grants), roles first; without the server's own. Needs mysql.*."""
    roles = session.rows(
        "SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = 'mysql' AND TABLE_NAME = 'user'"
        " AND COLUMN_NAME = 'is_role'"
    )[0][0]
    is_role = "is_role = 'Y'" if roles != "0" else "0"
    found = []
    for name, host, role in session.rows(f"SELECT User, Host, {is_role} FROM mysql.user ORDER BY 3 DESC, 1, 2"):
        if name in _OWN_USERS or not name:
            continue
        if role == "1":
            made = f"CREATE ROLE {identifier(name)}"
            grants = session.rows(f"SHOW GRANTS FOR {identifier(name)}")
        else:
            made = session.rows(f"SHOW CREATE USER {account(name, host)}")[0][0]
            grants = session.rows(f"SHOW GRANTS FOR {account(name, host)}")
        lines = [made, *sorted(row[0] for row in grants)]
        found.append((account(name, "" if role == "1" else host), "".join(f"{line};\n" for line in lines)))
    return found


def granted_on(statement: str) -> str | None:
    """Schema of the one table or routine a statement grants something on; None when it is about anything wider."""
    match = _ON_ONE.match(statement)
    return None if match is None else match[1].replace("``", "`")


def users_readable(session_rows: Sequence[Sequence[str]]) -> bool:
    """Given `SHOW GRANTS`, whether all users may be read."""
    text = "\n".join(row[0] for row in session_rows)
    return re.search(r"GRANT (ALL PRIVILEGES|.*\bSELECT\b.*) ON (\*\.\*|`mysql`\.\*)", text) is not None


def _sample(session: MysqlSession, schema: str, table: str, count: int) -> str:
    columns = session.rows(
        "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_KEY FROM information_schema.COLUMNS"
        f" WHERE TABLE_SCHEMA = {literal(schema)} AND TABLE_NAME = {literal(table)} ORDER BY ORDINAL_POSITION"
    )
    if not columns:
        raise Permanent(f"table {table} went away while it was read")
    cells = ", ".join(
        f"IFNULL(HEX({identifier(name)}), 'N')"
        if kind in _BINARY
        else f"IFNULL(HEX(CAST({identifier(name)} AS CHAR CHARACTER SET utf8mb4)), 'N')"
        for name, kind, _ in columns
    )
    row = f"SELECT SHA2(CONCAT_WS(',', {cells}), 256) AS h FROM {identifier(schema)}.{identifier(table)}"
    rows = f"({row})"
    if count > WHOLE_ROWS:
        key = [identifier(name) for name, _, key in columns if key == "PRI"]
        if key:
            up, down = ", ".join(key), ", ".join(f"{column} DESC" for column in key)
            rows = f"(({row} ORDER BY {up} LIMIT {SAMPLE_ROWS}) UNION ALL ({row} ORDER BY {down} LIMIT {SAMPLE_ROWS}))"
        else:
            every = max(count // (2 * SAMPLE_ROWS), 1)
            rows = f"(SELECT h FROM ({row}) AS hashed WHERE CRC32(h) % {every} = 0)"
    answer = session.rows(
        f"SELECT SHA2(IFNULL(GROUP_CONCAT(h ORDER BY h SEPARATOR ''), ''), 256) FROM {rows} AS picked"
    )
    return answer[0][0]


def _short(text: str) -> str:
    return text if len(text) <= SHORT else f"sha256:{_hash(text)}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
