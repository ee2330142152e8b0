# ruff: noqa: S608  (names and texts are quoted by `identifier` and `literal`)
"""What a PostgreSQL database holds, asked inside one session: counts, definitions, hashes of samples.

Definitions come from the server's own `pg_get_…def` functions with an empty search path, so that the same object
reads the same wherever it is. Left out: what belongs to an extension, materialised views' rows (a restore refreshes
them), owners that are the server's own, and everything that names no user's object.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from ops_pipeline.adapters.databases.postgres_server import PostgresSession, identifier, literal
from ops_pipeline.core.backup.records import Contents

SAMPLE_ROWS = 1000
WHOLE_ROWS = 5000
"""A table up to so many rows is hashed whole; of a larger one SAMPLE_ROWS at both ends of its key are."""
SAMPLED_OBJECTS = 200
SHORT = 300
BATCH = 40
SETTING = "ops_pipeline.place"
"""Setting of a database a restore made: "r<token>" beside, "h<token>" a hold, "l<token>" live; never listed."""

_USERS = """n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND n.nspname !~ '^pg_(toast_)?temp_'"""


def _not_of_extension(catalogue: str, oid: str = "oid") -> str:
    return (
        f"NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.{catalogue}'::regclass"
        f" AND d.objid = {oid} AND d.deptype = 'e')"
    )


_ROLE = "pg_catalog.pg_get_userbyid({0})::text"


def _acl(column: str, kind: str, owner: str) -> str:
    """Grants as a sorted list, because their order is that of the commands; no grants means the default ones."""
    return (
        "coalesce((SELECT pg_catalog.string_agg(a::text, ', ' ORDER BY a::text)"
        f" FROM unnest(coalesce({column}, pg_catalog.acldefault('{kind}', {owner}))) AS a), '')"
    )


_RELATIONS = f"""
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE {_USERS} AND c.relpersistence <> 't' AND {_not_of_extension("pg_class", "c.oid")}
"""
_NAME = "format('%I.%I', n.nspname, c.relname)"

DEFINITIONS: Mapping[str, str] = {
    "schema": f"""
        SELECT format('%I', n.nspname), {_ROLE.format("n.nspowner")}, {_acl("n.nspacl", "n", "n.nspowner")}
        FROM pg_catalog.pg_namespace n WHERE {_USERS} AND {_not_of_extension("pg_namespace", "n.oid")}""",
    "table": f"""
        SELECT {_NAME}, c.relkind, c.relpersistence, {_ROLE.format("c.relowner")},
               {_acl("c.relacl", "r", "c.relowner")},
               c.relrowsecurity, c.relforcerowsecurity, c.relreplident, c.reloptions,
               pg_catalog.pg_get_expr(c.relpartbound, c.oid), pg_catalog.pg_get_partkeydef(c.oid),
               (SELECT json_agg(i.inhparent::regclass::text ORDER BY i.inhseqno)
                FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid),
               (SELECT json_agg(json_build_array(a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
                       a.attnotnull, a.attidentity, a.attgenerated, a.attstorage, a.attislocal,
                       -- `pg_attver` is the server's own note, which pg_dump leaves out as well.
                       (SELECT json_agg(o ORDER BY o) FROM unnest(a.attoptions) o WHERE o !~ '^pg_attver='),
                       {_acl("a.attacl", "c", "c.relowner")}, 
                       CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::regcollation::text END,
                       pg_catalog.pg_get_expr(e.adbin, e.adrelid)) ORDER BY a.attnum)
                FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
                LEFT JOIN pg_catalog.pg_attrdef e ON e.adrelid = a.attrelid AND e.adnum = a.attnum
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
        {_RELATIONS} AND c.relkind IN ('r', 'p', 'f', 'c')""",
    "view": f"""
        SELECT {_NAME}, c.relkind, {_ROLE.format("c.relowner")},
               {_acl("c.relacl", "r", "c.relowner")}, c.reloptions, c.relispopulated,
               pg_catalog.pg_get_viewdef(c.oid)
        {_RELATIONS} AND c.relkind IN ('v', 'm')""",
    "rule": f"""
        SELECT format('%I on %s', r.rulename, {_NAME}), pg_catalog.pg_get_ruledef(r.oid), r.ev_enabled
        FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE {_USERS} AND r.rulename <> '_RETURN'""",
    "index": f"""
        SELECT {_NAME}, pg_catalog.pg_get_indexdef(c.oid), i.indisclustered, i.indisvalid, i.indisreplident,
               i.indisprimary
        FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE {_USERS} AND {_not_of_extension("pg_class", "i.indrelid")}
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_class o WHERE o.oid = i.indrelid AND o.relpersistence = 't')""",
    "constraint": """
        SELECT format('%I on %s', k.conname, CASE WHEN k.conrelid <> 0 THEN k.conrelid::regclass::text
                      ELSE k.contypid::regtype::text END), pg_catalog.pg_get_constraintdef(k.oid), k.convalidated
        FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_namespace n ON n.oid = k.connamespace
        WHERE """
    + _USERS
    + " AND "
    + _not_of_extension("pg_constraint", "k.oid"),
    "sequence": f"""
        SELECT {_NAME}, {_ROLE.format("c.relowner")},
               {_acl("c.relacl", "s", "c.relowner")}, s.seqtypid::regtype, s.seqstart,
               s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle
        FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE {_USERS} AND c.relpersistence <> 't' AND {_not_of_extension("pg_class", "c.oid")}""",
    "trigger": f"""
        SELECT format('%I on %s', t.tgname, {_NAME}), pg_catalog.pg_get_triggerdef(t.oid), t.tgenabled
        FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE {_USERS} AND NOT t.tgisinternal""",
    "event trigger": f"""
        SELECT format('%I', e.evtname), e.evtevent, e.evtfoid::regproc, e.evtenabled, e.evttags
        FROM pg_catalog.pg_event_trigger e WHERE {_not_of_extension("pg_event_trigger", "e.oid")}""",
    "routine": f"""
        SELECT p.oid::regprocedure, p.prokind, {_ROLE.format("p.proowner")},
               {_acl("p.proacl", "f", "p.proowner")},
               CASE WHEN p.prokind = 'a' THEN (SELECT to_jsonb(a)::text FROM (SELECT g.aggtransfn::text,
                    g.aggfinalfn::text, g.aggcombinefn::text, g.agginitval, g.aggtranstype::regtype::text
                    FROM pg_catalog.pg_aggregate g WHERE g.aggfnoid = p.oid) a)
                    ELSE pg_catalog.pg_get_functiondef(p.oid) END
        FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        WHERE {_USERS} AND {_not_of_extension("pg_proc", "p.oid")}""",
    "type": f"""
        SELECT format('%I.%I', n.nspname, t.typname), t.typtype, {_ROLE.format("t.typowner")},
               {_acl("t.typacl", "T", "t.typowner")},
               t.typnotnull, t.typdefault, CASE WHEN t.typtype = 'd' THEN
                   pg_catalog.format_type(t.typbasetype, t.typtypmod) END,
               (SELECT json_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum e
                WHERE e.enumtypid = t.oid),
               (SELECT r.rngsubtype::regtype::text FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid)
        FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
        WHERE {_USERS} AND t.typtype IN ('e', 'd', 'r') AND {_not_of_extension("pg_type", "t.oid")}""",
    "extension": """
        SELECT format('%I', x.extname), n.nspname, x.extversion
        FROM pg_catalog.pg_extension x JOIN pg_catalog.pg_namespace n ON n.oid = x.extnamespace""",
    "policy": f"""
        SELECT format('%I on %s', p.polname, {_NAME}), p.polcmd, p.polpermissive,
               (SELECT json_agg(CASE r WHEN 0 THEN 'public' ELSE pg_catalog.pg_get_userbyid(r)::text END
                ORDER BY 1) FROM unnest(p.polroles) r),
               pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)
        FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE {_USERS}""",
    "statistics": f"""
        SELECT format('%I.%I', n.nspname, s.stxname), pg_catalog.pg_get_statisticsobjdef(s.oid)
        FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace WHERE {_USERS}""",
    "default grants": f"""
        SELECT format('%s of %s in %s', d.defaclobjtype, {_ROLE.format("d.defaclrole")},
                      coalesce(d.defaclnamespace::regnamespace::text, '')),
               (SELECT pg_catalog.string_agg(a::text, ', ' ORDER BY a::text)
               FROM unnest(d.defaclacl) AS a)
        FROM pg_catalog.pg_default_acl d""",
    "comment": f"""
        SELECT i.type || ' ' || i.identity, d.description
        FROM pg_catalog.pg_description d, pg_catalog.pg_identify_object(d.classoid, d.objoid, d.objsubid) i
        WHERE (d.classoid, d.objoid, 0) IN (
            SELECT 'pg_catalog.pg_class'::regclass::oid, c.oid, 0 {_RELATIONS}
            UNION ALL SELECT 'pg_catalog.pg_proc'::regclass::oid, p.oid, 0 FROM pg_catalog.pg_proc p
            JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
            WHERE {_USERS} AND {_not_of_extension("pg_proc", "p.oid")})""",
    "role": """
        SELECT format('%I', r.rolname), r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin,
               r.rolreplication, r.rolbypassrls, r.rolconnlimit, r.rolvaliduntil, r.rolconfig,
               (SELECT json_agg(g.rolname ORDER BY g.rolname) FROM pg_catalog.pg_auth_members m
                JOIN pg_catalog.pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid)
        FROM pg_catalog.pg_roles r WHERE r.rolname !~ '^pg_'""",
    "database": f"""
        SELECT 'settings', {_ROLE.format("d.datdba")},
               {_acl("d.datacl", "d", "d.datdba")}, pg_catalog.pg_encoding_to_char(d.encoding),
               d.datcollate, d.datctype, d.datconnlimit, pg_catalog.shobj_description(d.oid, 'pg_database'),
               (SELECT json_agg(json_build_array(coalesce(pg_catalog.pg_get_userbyid(nullif(s.setrole, 0)), ''),
                       (SELECT json_agg(v ORDER BY v) FROM unnest(s.setconfig) v WHERE v NOT LIKE '{SETTING}=%'))
                       ORDER BY s.setrole = 0, pg_catalog.pg_get_userbyid(nullif(s.setrole, 0)))
                FROM pg_catalog.pg_db_role_setting s WHERE s.setdatabase = d.oid
                AND NOT (cardinality(s.setconfig) = 1 AND s.setconfig[1] LIKE '{SETTING}=%'))
        FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()""",
}

_TABLES = f"SELECT n.nspname, c.relname, c.oid::bigint, c.reltuples {_RELATIONS} AND c.relkind = 'r'"
LARGE_OBJECTS = "large objects"


def contents(session: PostgresSession, positions: Mapping[str, str] | None = None) -> Contents:
    """Everything, as the session's transaction sees it; `positions` of sequences if they are known better elsewhere.

    A sequence is read as it stands, outside of any snapshot: so a dump gives the positions it has itself.
    Raise Permanent.
    """
    tables = [(str(schema), str(name), int(oid)) for schema, name, oid, _ in session.rows(_TABLES)]
    counts = _counts(session, tables)
    samples = _samples(session, tables, counts)
    objects = definitions(session)
    for name, position in (_positions(session) if positions is None else positions).items():
        objects[f"sequence position {name}"] = position
    large = int(session.rows("SELECT count(*) FROM pg_catalog.pg_largeobject_metadata")[0][0])
    if large:
        counts[LARGE_OBJECTS] = large
        samples[LARGE_OBJECTS] = _large_sample(session)
    return Contents(counts=counts, objects=objects, samples=samples)


def definitions(session: PostgresSession) -> dict[str, str]:
    """Definition, or its hash when it is long, by "kind name"."""
    found = {}
    for kind, query in DEFINITIONS.items():
        for name, *rest in session.rows(query):
            text = "; ".join("" if part is None else str(part) for part in rest)
            found[f"{kind} {name}"] = text if len(text) <= SHORT else f"sha256:{_hash(text)}"
    return found


def _counts(session: PostgresSession, tables: Sequence[tuple[str, str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for begin in range(0, len(tables), BATCH):
        parts = [
            f"SELECT {literal(_table(schema, name))} AS name, (SELECT count(*) FROM ONLY {_quoted(schema, name)}) AS n"
            for schema, name, _ in tables[begin : begin + BATCH]
        ]
        found.update((str(name), int(count)) for name, count in session.rows(" UNION ALL ".join(parts)))
    return found


def _samples(
    session: PostgresSession, tables: Sequence[tuple[str, str, int]], counts: Mapping[str, int]
) -> dict[str, str]:
    keys = {
        int(oid): [str(column) for column in columns]
        for oid, columns in session.rows(
            "SELECT i.indrelid::bigint, (SELECT json_agg(a.attname ORDER BY k.ordinality)"
            " FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS k(number, ordinality) JOIN pg_catalog.pg_attribute a"
            " ON a.attrelid = i.indrelid AND a.attnum = k.number)"
            " FROM pg_catalog.pg_index i WHERE i.indisprimary AND i.indisvalid"
        )
    }
    found: dict[str, str] = {}
    for begin in range(0, len(tables), BATCH):
        parts = [
            f"SELECT {literal(_table(schema, name))}, ({_sample(schema, name, keys.get(oid), counts)})"
            for schema, name, oid in tables[begin : begin + BATCH]
        ]
        found.update((str(name), str(value)) for name, value in session.rows(" UNION ALL ".join(parts)))
    return found


def _sample(schema: str, name: str, key: Sequence[str] | None, counts: Mapping[str, int]) -> str:
    """A query for one hash: of rows that depend on the content only, not on where a row lies on disk."""
    # A row, not `t` itself: there may be a column of that name.
    row = f"SELECT ROW(t.*)::text AS r FROM ONLY {_quoted(schema, name)} AS t"
    rows = f"({row})"
    if counts[_table(schema, name)] > WHOLE_ROWS:
        if key:
            up = ", ".join(f"t.{identifier(column)}" for column in key)
            down = ", ".join(f"t.{identifier(column)} DESC" for column in key)
            ends = [f"({row} ORDER BY {order} LIMIT {SAMPLE_ROWS})" for order in (up, down)]
            rows = f"({ends[0]} UNION ALL {ends[1]})"
        else:
            every = max(counts[_table(schema, name)] // (2 * SAMPLE_ROWS), 1)
            rows = f"({row} WHERE pg_catalog.hashtextextended(ROW(t.*)::text, 0) % {every} = 0)"
    hashed = "pg_catalog.encode(pg_catalog.sha256(pg_catalog.textsend(rows.r)), 'hex') AS h"
    return (
        "SELECT pg_catalog.encode(pg_catalog.sha256(pg_catalog.textsend(coalesce(pg_catalog.string_agg("
        f"hashed.h, '' ORDER BY hashed.h), ''))), 'hex') FROM (SELECT {hashed} FROM {rows} AS rows) AS hashed"
    )


def _large_sample(session: PostgresSession) -> str:
    found = session.rows(
        "SELECT oid::bigint, pg_catalog.encode(pg_catalog.sha256(pg_catalog.lo_get(oid, 0, 1000000)), 'hex') AS h"
        f" FROM (SELECT oid FROM pg_catalog.pg_largeobject_metadata ORDER BY oid LIMIT {SAMPLED_OBJECTS}) AS sampled"
    )
    return _hash("\n".join(f"{oid} {value}" for oid, value in sorted(found)))


def _positions(session: PostgresSession) -> dict[str, str]:
    named = [
        (str(schema), str(name))
        for schema, name in session.rows(f"SELECT n.nspname, c.relname {_RELATIONS} AND c.relkind = 'S'")
    ]
    found: dict[str, str] = {}
    for begin in range(0, len(named), BATCH):
        parts = [
            f"SELECT {literal(_table(schema, name))}, last_value, is_called FROM {_quoted(schema, name)}"
            for schema, name in named[begin : begin + BATCH]
        ]
        rows = session.rows(" UNION ALL ".join(f"({part})" for part in parts))
        found.update((str(name), position(int(value), bool(called))) for name, value, called in rows)
    return found


def position(value: int, called: bool) -> str:
    """Words for where a sequence stands."""
    return f"{value}" if called else f"{value}, not used"


def table_name(schema: str, name: str) -> str:
    """How a table or sequence is named in contents."""
    return _table(schema, name)


def _table(schema: str, name: str) -> str:
    return f"{schema}.{name}"


def _quoted(schema: str, name: str) -> str:
    return f"{identifier(schema)}.{identifier(name)}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
