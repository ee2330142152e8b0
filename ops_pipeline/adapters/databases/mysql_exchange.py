# ruff: noqa: S608  (names and texts are quoted by `identifier` and `literal`)
"""Two schemas change places on a server that cannot rename a schema.

`into` becomes live, and what was live becomes `out`. All tables move in ONE statement, `RENAME TABLE`, which the
server does whole or not at all, and with them moves the table PLACE: where it lies tells what is live. Before it,
triggers (they forbid the move) and the live views go; after it, views, triggers, routines and events are made again
on both sides. What has to be made is written into a table of `out` first, so that whoever comes after a kill finishes
from there, or takes the beginning back:

    PLACE in `into`, no JOURNAL in `out`     nothing was done; an empty `out` is dropped
    PLACE in `into`, JOURNAL in `out`        begun: the live triggers and views are made again, `out` is dropped
    PLACE in `out`, JOURNAL in `out`         moved: the rest is made, `into` is dropped, then the JOURNAL
    PLACE in `out`, no JOURNAL               done
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence

from ops_pipeline.adapters.databases.mysql_contents import sequences, tables
from ops_pipeline.adapters.databases.mysql_programs import (
    JOURNAL,
    PLACE,
    Program,
    enabled_events,
    events,
    has_table,
    kept_grants,
    routine_grants,
    routines,
    triggers,
    views,
)
from ops_pipeline.adapters.databases.mysql_server import MysqlServer, MysqlSession, identifier, literal
from ops_pipeline.errors import NotFound, OpsError, Permanent

MOVE_SECONDS = 120.0


def place_of(session: MysqlSession, schema: str) -> str | None:
    """Token PLACE in this schema names, or None."""
    if not has_table(session, schema, PLACE):
        return None
    rows = session.rows(f"SELECT name FROM {identifier(schema)}.{PLACE} WHERE what = 'token'")
    return rows[0][0] if rows else None


def exists(session: MysqlSession, schema: str) -> bool:
    """Whether there is such a schema."""
    return bool(session.rows(f"SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {literal(schema)}"))


def settle(server: MysqlServer, live: str, out: str, into: str) -> None:
    """Finish an exchange that was begun and moved its tables; take back one that did not. Raise Permanent."""
    with MysqlSession(server) as session:
        if not has_table(session, out, JOURNAL):
            return
        moved = place_of(session, out) is not None
        scripts = dict(_rows_of_journal(session, out))
        if not moved and tables(session, out):
            raise Permanent(f"{out} has tables although nothing was moved there: nothing was changed")
    if moved:
        server.ask(scripts.get("finish", ""))
        server.ask(f"DROP DATABASE IF EXISTS {identifier(into)};\nDROP TABLE IF EXISTS {identifier(out)}.{JOURNAL};\n")
    else:
        server.ask(scripts.get("back", ""))
        server.ask(f"DROP DATABASE IF EXISTS {identifier(out)};\n")


def exchange(server: MysqlServer, live: str, out: str, into: str, token: str) -> None:
    """Let `into` become live and live become `out`. Live sessions are ended.

    Raise NotFound when `into` is no place of this token, Permanent when sessions do not end; then all is as before.
    """
    settle(server, live, out, into)
    with MysqlSession(server) as session:
        if place_of(session, out) == token:
            return
        if place_of(session, into) != token:
            raise NotFound(f"there is no restored database {into}")
        if exists(session, out):
            if [*tables(session, out), *_programs(session, out)]:
                raise Permanent(f"{out} exists already")
            session.rows(f"DROP DATABASE {identifier(out)}")  # killed before its JOURNAL was written
        server.ask(_prepared(session, live, out, into))
    done = threading.Event()
    ender = threading.Thread(target=_keep_ending, args=(server, live, into, done), daemon=True)
    ender.start()
    try:
        with MysqlSession(server) as session:
            switch = dict(_rows_of_journal(session, out))["switch"]
        server.ask(switch, seconds=MOVE_SECONDS)
    except OpsError:
        settle(server, live, out, into)  # either it moved, or the beginning is taken back
        with MysqlSession(server) as session:
            if place_of(session, out) != token:
                raise
    finally:
        done.set()
        ender.join(timeout=60)
    settle(server, live, out, into)


def _prepared(session: MysqlSession, live: str, out: str, into: str) -> str:
    """Statements that make `out` with its JOURNAL, all of it in one insert."""
    ours = _programs(session, live)
    theirs = _programs(session, into, enabled_events(session, into))
    moves = [(live, name, out) for name in (*tables(session, live), *sequences(session, live))]
    moves += [(into, name, live) for name in (*tables(session, into), *sequences(session, into))]
    moves.append((into, PLACE, out))
    renames = ", ".join(
        f"{identifier(source)}.{identifier(name)} TO {identifier(target)}.{identifier(name)}"
        for source, name, target in moves
    )
    switch = "".join(program.drop(live) for program in ours if program.kind in {"trigger", "view"})
    switch += "".join(program.drop(into) for program in theirs if program.kind == "trigger")
    switch += f"RENAME TABLE {renames};\n"
    remembered = "".join(
        f"INSERT INTO {identifier(out)}.{PLACE} VALUES ('enabled', {literal(program.name)});\n"
        for program in ours
        if program.enabled
    )
    grants = routine_grants(session, live)
    remembered += "".join(
        f"INSERT INTO {identifier(out)}.{PLACE} VALUES ('grant', {literal(grant)});\n" for grant in grants
    )
    there = {f" ON {it.kind.upper()} {identifier(live)}.{identifier(it.name)} TO " for it in theirs}
    again = sorted({*grants, *kept_grants(session, into)})
    granted = "".join(f"{grant};\n" for grant in again if any(routine in grant for routine in there))
    ours_charset, theirs_charset = _charset(session, live), _charset(session, into)
    finish = (
        "".join(program.drop(live) for program in ours)
        + f"ALTER DATABASE {identifier(live)} {theirs_charset};\n"
        + f"DELETE FROM {identifier(out)}.{PLACE} WHERE what <> 'token';\n"
        + remembered
        + _made(out, ours, off=True)
        + _made(live, theirs, off=False)
        + granted
    )
    back = _made(live, [program for program in ours if program.kind in {"trigger", "view"}], off=False)
    rows = ", ".join(
        f"('{what}', {literal(script)})" for what, script in (("switch", switch), ("finish", finish), ("back", back))
    )
    return (
        f"CREATE DATABASE {identifier(out)} {ours_charset};\n"
        f"CREATE TABLE {identifier(out)}.{JOURNAL} (what VARCHAR(20) PRIMARY KEY, script LONGTEXT NOT NULL)"
        " ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;\n"
        f"INSERT INTO {identifier(out)}.{JOURNAL} VALUES {rows};\n"
    )


def _programs(session: MysqlSession, schema: str, enabled: Sequence[str] = ()) -> list[Program]:
    return [
        *views(session, schema),
        *routines(session, schema),
        *triggers(session, schema),
        *events(session, schema, enabled),
    ]


def _made(schema: str, programs: Sequence[Program], *, off: bool) -> str:
    """Statements that make all of them, whatever a run before this one made already."""
    placeholders = "".join(program.placeholder() for program in programs if program.kind == "view")
    rest = "".join(
        (program.drop(schema) if program.kind != "view" else "") + program.make(off=off) for program in programs
    )
    return f"USE {identifier(schema)};\n{placeholders}{rest}" if programs else ""


def _charset(session: MysqlSession, schema: str) -> str:
    row = session.rows(
        "SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA"
        f" WHERE SCHEMA_NAME = {literal(schema)}"
    )[0]
    return f"CHARACTER SET {row[0]} COLLATE {row[1]}"


def _rows_of_journal(session: MysqlSession, schema: str) -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in session.rows(f"SELECT what, script FROM {identifier(schema)}.{JOURNAL}")]


def _keep_ending(server: MysqlServer, live: str, into: str, done: threading.Event) -> None:
    while not done.is_set():
        with contextlib.suppress(OpsError):
            found = server.rows(
                "SELECT ID FROM information_schema.PROCESSLIST"
                f" WHERE DB IN ({literal(live)}, {literal(into)}) AND ID <> CONNECTION_ID()"
            )
            for (number,) in found:
                with contextlib.suppress(OpsError):  # it may have gone by itself
                    server.ask(f"KILL CONNECTION {int(number)};\n")
        time.sleep(0.2)
