"""Everything MariaDB has goes through a backup and comes back the same; a killed exchange of schemas is finished."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ops_pipeline.adapters.databases.container import DatabaseContainer, Engine
from ops_pipeline.adapters.databases.mysql import MysqlSource
from ops_pipeline.adapters.databases.mysql_exchange import exchange
from ops_pipeline.adapters.databases.mysql_server import MysqlServer
from ops_pipeline.core.backup.records import Contents
from ops_pipeline_tests.contracts.test_data_source import Backup, backed_up
from ops_pipeline_tests.testbed import testbed_id
from ops_pipeline_tests.testbed.databases import Database, running

pytestmark = [pytest.mark.real, pytest.mark.thorough]

ENGINE = Engine("unix:///var/run/docker.sock", "local")
EVERYTHING = r"""
create table big(id bigint primary key auto_increment, t varchar(100) not null default 'x', v decimal(12,3), j
    json, ts timestamp default current_timestamp, dt datetime(6), d double, f float, b varbinary(50), bl
    longblob, bt bit(10), e enum('a','b''c'), s set('x','y'), g varchar(200) generated always as (upper(t))
    stored, gv int as (y+1) virtual, y year, tm time(3), p point, key(t(10)), unique key u(v,id), check (v >
    0)) charset utf8mb4;
insert into big(t,v,j,dt,d,f,b,bl,bt,e,s,y,tm,p) select concat('rów ☃ ',seq,'\n),(\'"\\'),seq*1.5,
    concat('{"a":',seq,',"ü":"☃"}'),'2020-01-01 00:00:00.123456',seq/3,seq/3,unhex(lpad(hex(seq),8,'0')),
    repeat(unhex('00ff0a270d'),20),b'1010101',2,3,2020,'10:11:12.5',point(seq,1) from seq_1_to_6000;
create table child(id int auto_increment primary key, big_id bigint, foreign key (big_id) references big(id) on
    delete cascade); insert into child(big_id) values (1),(2);
create table `we``ird "n'a" me`(`col ``q` text, `select` int); insert into `we``ird "n'a" me` values
    ('a\tb\nc\\\0d',1),(null,null);
create table empty_table(i int); create table nopk(i int, t text); insert into nopk select seq, concat('n',seq)
    from seq_1_to_5100;
create table part(i int) partition by range(i) (partition p0 values less than (10), partition p1 values less
    than maxvalue); insert into part values (1),(100);
create sequence sq start with 5 increment by 3 nocache; select nextval(sq);
create view v as select id,t from big where id<10; create view a_first as select v.id from v join child on
    child.id=v.id;
create function fn(a int) returns int deterministic return a+1; 
delimiter //
create procedure pr() begin select 'x;y'; select 1; end//
create trigger shop.tr before insert on shop.child for each row begin set new.big_id = coalesce(new.big_id,1);
    end//
create trigger tr2 before insert on child for each row follows tr set new.id = new.id//
delimiter ;
create event ev on schedule every 1 day on completion preserve comment 'hi' do set @a=1; create event ev_off on
    schedule at '2037-01-01 00:00:00' disable do insert into empty_table values (1);
create role r1; create user u@'%' identified by 'pw'; grant select on shop.* to r1; grant r1 to u@'%'; grant
    execute on procedure shop.pr to u@'%'; grant select (t), update (t) on shop.big to u@'%';
create table isam (i int) engine = MyISAM; insert into isam values (1), (2);
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Database]:
    with running("mariadb") as server:
        server.client("CREATE DATABASE shop CHARACTER SET latin1; CREATE DATABASE other; CREATE TABLE other.t (i INT)")
        server.client(EVERYTHING, "shop")
        server.client("GRANT SELECT ON other.t TO u@'%'")
        yield server


@pytest.fixture(scope="module")
def source(server: Database) -> MysqlSource:
    return MysqlSource("listings", "mariadb", DatabaseContainer(ENGINE, server.name, "listings"), "shop")


@pytest.fixture(scope="module")
def backup(source: MysqlSource) -> Backup:
    return backed_up(source)


def test_all_that_it_has_comes_back_the_same_in_a_scratch_server(source: MysqlSource, backup: Backup) -> None:
    found = backup.contents
    assert found.counts["big"] == 6000
    kinds = {name.partition(" ")[0] for name in found.objects}
    assert kinds == {"table", "view", "trigger", "procedure", "function", "event", "sequence", "user", "database"}
    assert "isam" in backup.arrived["dump"].consistency
    assert any("isam" in warning for warning in source.check())
    with source.scratch(source.image(), {"ops.testbed": testbed_id()}) as place:
        backup.load(place)
        assert place.contents() == found
        assert place.ask("SELECT NEXT VALUE FOR sq") == "8"


@dataclass(frozen=True)
class KilledServer(MysqlServer):
    """Does its `last` script only in part (that share of its statements), and then nothing more: a killed process."""

    last: int = 1
    share: float = 1.0

    def ask(self, sql: str, database: str = "", *, seconds: float = 600.0) -> str:
        if threading.current_thread() is not threading.main_thread():  # who ends the live sessions meanwhile
            return super().ask(sql, database, seconds=seconds)
        object.__setattr__(self, "last", self.last - 1)
        if self.last > 0:
            return super().ask(sql, database, seconds=seconds)
        if self.last == 0:
            statements = sql.split(";\n")
            part = statements[: int(len(statements) * self.share)]
            if part and "DELIMITER" not in ";\n".join(part):
                super().ask(";\n".join(part) + ";\n", database, seconds=seconds)
        raise Killed


class Killed(BaseException):
    """As SIGKILL: nothing of the process goes on."""


def test_an_exchange_killed_between_any_two_steps_is_finished_and_can_be_taken_back(
    server: Database, source: MysqlSource, backup: Backup
) -> None:
    """Scripts of an exchange: prepare, switch, finish, clear away; killed within each."""
    before = source.contents()
    beside = source.beside("kill1")
    backup.load(beside)
    server.client("INSERT INTO child (big_id) VALUES (5)", "shop")
    live = source.contents()
    assert live.counts["child"] == before.counts["child"] + 1
    forward = True
    for last, share in [(1, 0.4), (2, 0.5), (3, 0.0), (4, 0.5)]:
        out, into = ("shop_h_kill1", "shop_r_kill1") if forward else ("shop_r_kill1", "shop_h_kill1")
        killed = KilledServer(ENGINE, lambda: server.name, "root", source="listings", last=last, share=share)
        with pytest.raises(Killed):
            exchange(killed, "shop", out, into, "kill1")
        if (last, share) == (1, 0.4):
            assert source.contents() == live  # nothing was done yet
        (source.swap if forward else source.unswap)("kill1")  # the next process
        assert source.swapped("kill1") is forward
        assert _without_users(source.contents()) == _without_users(backup.contents if forward else live)
        forward = not forward
    source.swap("kill1")
    source.drop_hold("kill1")
    source.drop_beside("kill1")
    assert source.contents() == before
    assert server.client("SHOW DATABASES LIKE 'shop%'").split() == ["shop"]


def _without_users(found: Contents) -> Contents:
    objects = {name: text for name, text in found.objects.items() if not name.startswith("user ")}
    return Contents(found.counts, objects, found.samples)


def test_a_user_without_the_right_to_lock_gets_counts_from_the_stream(server: Database, backup: Backup) -> None:
    server.client(
        "CREATE USER bk@localhost IDENTIFIED BY 'pass';"
        " GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES, EXECUTE ON shop.* TO bk@localhost;"
        " GRANT SELECT ON mysql.proc TO bk@localhost"
    )
    container = DatabaseContainer(ENGINE, server.name, "listings")
    source = MysqlSource("listings", "mariadb", container, "shop", user="bk", password=lambda: "pass")
    warnings = " ".join(source.check())
    assert "RELOAD" in warnings
    assert "mysql.user" in warnings
    mine = backed_up(source)
    assert set(mine.parts) == {"dump", "programs"}
    assert mine.contents.counts == backup.contents.counts
    assert "stream" in mine.arrived["dump"].details["counted"]


def test_a_trigger_that_names_its_schema_stays_in_its_own(
    server: Database, source: MysqlSource, backup: Backup
) -> None:
    server.client("DROP TRIGGER tr", "shop")
    try:
        beside = source.beside("trig1")
        backup.load(beside)
        assert beside.ask("SHOW TRIGGERS LIKE 'child'").count("BEFORE") == 2
        assert server.client("SHOW TRIGGERS LIKE 'child'", "shop").count("BEFORE") == 1
        status = "SELECT STATUS FROM information_schema.EVENTS WHERE EVENT_SCHEMA = 'shop_r_trig1'"
        assert set(server.client(status).split()) == {"DISABLED"}
    finally:
        source.drop_beside("trig1")
