"""Everything PostgreSQL has goes through a backup and comes back the same; a tool that fails leaves no backup."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ops_pipeline.adapters.databases.container import DatabaseContainer, Engine
from ops_pipeline.adapters.databases.postgres import PostgresSource
from ops_pipeline.errors import OpsError, Permanent, StoreDamaged
from ops_pipeline_tests.contracts.test_data_source import backed_up
from ops_pipeline_tests.testbed import testbed_id
from ops_pipeline_tests.testbed.databases import Database, running

pytestmark = [pytest.mark.real, pytest.mark.thorough]

NAME = "sh'op \"x"
EVERYTHING = r"""
create schema "We""ird Schema" authorization app;
create type mood as enum ('sad','ok','happy'); create domain posint as int check (value > 0) not null;
create type comp as (a int, b text); create extension if not exists pgcrypto;
create table big(id bigint generated always as identity primary key, t text not null default 'x', v numeric(12,
    3), j jsonb, arr int[], ts timestamptz default now(), by bytea, g text generated always as (upper(t))
    stored, m mood, c comp, u uuid, iv interval, ip inet, r int4range);
insert into big(t,v,j,arr,by,m,c,u,iv,ip,r) select 'rów '||i, i*1.5, jsonb_build_object('a',i,'ü','☃'), array[i,
    null,i+1], decode(lpad(to_hex(i),8,'0'),'hex'), 'ok', (i,'z')::comp, gen_random_uuid(), '1 day 2 hours',
    '10.0.0.1', '[1,5)' from generate_series(1, 6000) i;
create index on big (lower(t)); create unique index big_u on big(u) where id > 5;
create table child(id serial, big_id bigint references big(id) on delete cascade, p posint, check (id >= 0));
    insert into child(big_id,p) values (1,2),(2,3);
create table "We""ird Schema"."Tab.le"("col ""q" text, "SELECT" int); insert into "We""ird Schema"."Tab.le"
    values (E'a\tb\nc\\', 1);
create table empty_table(); create unlogged table un(i int); insert into un values (1);
create table part(i int, t text) partition by range(i); create table part1 partition of part for values from
    (0) to (10); create table part2 partition of part default; insert into part values (1,'a'),(100,'b');
create view v as select id,t from big where id<10; create materialized view mv as select count(*) n from big;
    create index on mv(n);
create function f(a int) returns int language sql as 'select a+1'; create procedure pr() language plpgsql as $$
    begin perform 1; end $$;
create function trg() returns trigger language plpgsql as $$ begin return new; end $$; create trigger tr before
    insert on child for each row execute function trg(); alter table child disable trigger tr;
create aggregate agg(int) (sfunc=int4pl, stype=int, initcond='0');
create rule ru as on insert to v do instead nothing; create sequence sq start 5 increment 3 cycle maxvalue 100;
    select nextval('sq'); create sequence sq2;
grant select on big to app; grant update(t) on big to app; grant usage on schema public to "we ird"; revoke all
    on function f(int) from public; alter default privileges for role app grant select on tables to "we ird";
alter table child enable row level security; create policy pol on child for select to app using (p > 1);
    comment on table big is 'the big'; comment on column big.t is 'tt';
create statistics st (dependencies) on t, v from big; alter table big replica identity full;
select lo_from_bytea(0, decode(repeat('00ff0a',1000),'hex')); select lo_from_bytea(4000000000, '');
do $$ begin execute format('alter database %I set work_mem=''8MB''', current_database()); execute
    format('grant connect on database %I to app', current_database()); execute
    format('comment on database %I is ''hi "x"''', current_database()); execute
    format('alter role app in database %I set search_path to public', current_database()); execute
    format('alter database %I owner to app', current_database()); end $$;
create foreign data wrapper fdw; create server srv foreign data wrapper fdw; create foreign table ft(i int)
    server srv;
create function et_f() returns event_trigger language plpgsql as $$ begin end $$; create event trigger et on
    ddl_command_start execute function et_f();
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Database]:
    with running("postgres", password="s3cret $word") as server:
        yield server


def at(server: Database, name: str, *, user: str = "postgres", password: str = "") -> PostgresSource:
    container = DatabaseContainer(Engine("unix:///var/run/docker.sock", "local"), server.name, "listings")
    return PostgresSource(
        "listings", container, name, user=user, password=(lambda: password) if password else None, timeout_seconds=120
    )


@pytest.fixture(scope="module")
def everything(server: Database) -> PostgresSource:
    server.client(
        f"""CREATE DATABASE {quoted(NAME)}; CREATE ROLE app LOGIN PASSWORD 's3cret'; CREATE ROLE "we ird";"""
        """ GRANT app TO "we ird"; ALTER ROLE app SET work_mem = '5MB';"""
    )
    run_in(server, NAME, EVERYTHING)
    return at(server, NAME)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def run_in(server: Database, name: str, sql: str) -> str:
    target = "dbname='" + name.replace("'", "\\'") + "'"
    argv = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", target]
    return server.run(*argv, text=sql).decode()


def texts(seed: int, count: int) -> list[str]:
    """Texts of all planes of Unicode, and of what quoting and copying might stumble over."""
    rng = random.Random(seed)
    letters = [chr(c) for c in (9, 10, 13, 34, 36, 39, 44, 46, 92, 8, 27, 127, 0xFE, 0x2603, 0x1F600, 0x10FFFF)]
    words = ["\\.", "\\N", "NULL", "E'\\\\'", "$$", "--", "/*", ""]
    return ["".join(rng.choices(letters + words, k=rng.randrange(9))) for _ in range(count)]


def test_all_that_it_has_comes_back_the_same_beside_and_in_a_scratch_server(
    server: Database, everything: PostgresSource
) -> None:
    values = ", ".join(f"(convert_from(decode('{text.encode().hex()}', 'hex'), 'UTF8'))" for text in texts(1, 300))
    run_in(server, NAME, f"CREATE TABLE words (t text); INSERT INTO words VALUES {values};")
    backup = backed_up(everything)
    found = backup.contents
    assert found.counts["public.words"] == 300
    assert found.counts["public.big"] == 6000
    assert found.counts["large objects"] == 2
    kinds = {name.partition(" ")[0] for name in found.objects}
    assert kinds >= {"table", "view", "index", "constraint", "sequence", "trigger", "routine", "role", "policy"}
    assert "s3cret" not in str(backup.arrived)
    token = "all1"
    try:
        beside = everything.beside(token)
        backup.load(beside)
        assert beside.contents() == found
        # Large objects byte by byte, and a sequence that goes on where it stood.
        assert beside.ask("SELECT sum(length(lo_get(oid))) FROM pg_largeobject_metadata") == "3000"
        assert beside.ask("SELECT nextval('sq')") == "8"
    finally:
        everything.drop_beside(token)
    with everything.scratch(everything.image(), {"ops.testbed": testbed_id()}) as place:
        backup.load(place)
        assert place.contents() == found


def test_a_restore_beside_leaves_the_servers_roles_as_they_are(server: Database, everything: PostgresSource) -> None:
    run_in(server, NAME, "CREATE ROLE passing LOGIN; GRANT SELECT ON big TO passing")
    backup = backed_up(everything)
    run_in(server, NAME, "REVOKE ALL ON big FROM passing; DROP ROLE passing; ALTER ROLE app CONNECTION LIMIT 7")
    try:
        backup.load(everything.beside("role1"))
        roles = server.client(
            "SELECT rolname, rolconnlimit FROM pg_roles WHERE rolname IN ('app', 'passing') ORDER BY 1"
        )
        assert roles.split() == ["app|7", "passing|-1"]
    finally:
        everything.drop_beside("role1")
        server.client("DROP ROLE passing; ALTER ROLE app CONNECTION LIMIT -1")


def test_a_swap_under_load_loses_no_row_and_ends_old_sessions(server: Database) -> None:
    server.client("CREATE DATABASE busy")
    server.client("CREATE TABLE t (i int); INSERT INTO t SELECT generate_series(1, 100)", "busy")
    source = at(server, "busy")
    backup = backed_up(source)
    backup.load(source.beside("busy1"))
    stop, wrote = threading.Event(), []

    def write() -> None:
        number = 1000
        while not stop.is_set():
            number += 1
            try:
                server.client(f"INSERT INTO t VALUES ({number})", "busy")
            except RuntimeError:
                continue
            wrote.append(number)

    sleeper = threading.Thread(target=lambda: server.run("psql", "-U", "postgres", "-d", "busy", "-c",
                                                         "SELECT pg_sleep(300)", check=False))  # fmt: skip
    sleeper.start()
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(write)
        source.swap("busy1")
        stop.set()
        writing.result(timeout=120)
    sleeper.join(timeout=60)
    assert not sleeper.is_alive()
    live = {int(line) for line in server.client("SELECT i FROM t", "busy").split()}
    held = {int(line) for line in server.client("SELECT i FROM t", "busy_h_busy1").split()}
    assert live >= set(range(1, 101))
    assert live | held >= {*range(1, 101), *wrote}
    assert source.holds() == ["busy1"]
    server.client("CREATE DATABASE busy_h_mine1")
    source.drop_hold("mine1")
    assert "busy_h_mine1" in server.client("SELECT datname FROM pg_database").split()


def test_an_ordinary_user_backs_up_what_it_may_and_is_told_what_is_missing(server: Database) -> None:
    server.client("CREATE ROLE small LOGIN PASSWORD 'pa ss''word'; CREATE DATABASE little OWNER small")
    source = at(server, "little", user="small", password="pa ss'word")
    server.client("SET ROLE small; CREATE TABLE t AS SELECT 1 AS i", "little")
    assert any("passwords" in warning for warning in source.check())
    backup = backed_up(source)
    assert b"PASSWORD" not in b"".join(backup.parts["globals"])
    assert backup.contents.counts == {"public.t": 1}
    wrong = at(server, "little", user="small", password="wrong")
    with pytest.raises(OpsError, match="password authentication failed") as refused:
        wrong.version()
    assert "wrong" not in str(refused.value).replace("wrong password", "")


def test_a_dump_whose_server_ends_it_is_no_dump(server: Database, everything: PostgresSource) -> None:
    run_in(server, NAME, "CREATE TABLE filler AS SELECT i, repeat('x', 1000) FROM generate_series(1, 30000) i")
    try:
        with pytest.raises(Permanent, match=r"pg_dump failed|psql failed"), everything.dumps() as dumps:
            _, dump = dumps
            dump.read(1000)
            server.client("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pg_dump'"
                          " OR (application_name = 'ops_pipeline' AND pid <> pg_backend_pid())")  # fmt: skip
            while dump.read(1 << 20):
                pass
    finally:
        run_in(server, NAME, "DROP TABLE filler")
    running_now = server.run("sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '").decode()
    assert "pg_dump -Fc" not in running_now


def test_another_archive_than_a_whole_one_is_refused_before_it_counts(everything: PostgresSource) -> None:
    try:
        beside = everything.beside("bad01")
        for data in (b"", b"PGDMP", b"no archive at all"):
            with pytest.raises(StoreDamaged):
                beside.load("dump", iter([data]))
        with pytest.raises(Permanent, match="no part"):
            beside.load("other", iter([b""]))
    finally:
        everything.drop_beside("bad01")
