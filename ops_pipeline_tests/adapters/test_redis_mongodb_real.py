"""Redis and FerretDB for real: every type of value, dumps that fail, exchanges killed between any two steps."""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from ops_pipeline.adapters.databases.container import DatabaseContainer, Engine
from ops_pipeline.adapters.databases.mongo_bson import Raw, encode
from ops_pipeline.adapters.databases.mongo_exchange import MongoExchange
from ops_pipeline.adapters.databases.mongo_server import MongoServer, MongoSession, collections
from ops_pipeline.adapters.databases.mongodb import MongodbSource
from ops_pipeline.adapters.databases.redis import RedisSource
from ops_pipeline.errors import OpsError, Permanent
from ops_pipeline.ports import DataSource
from ops_pipeline_tests.testbed.databases import Database, running

pytestmark = [pytest.mark.real, pytest.mark.thorough]
ENGINE = Engine("unix:///var/run/docker.sock", "local")


class Killed(BaseException):
    """Stands for SIGKILL."""


class MortalEngine(Engine):
    """An engine whose caller dies before the `last`-th call."""

    last = 0
    calls = 0

    @contextlib.contextmanager
    def doing(self, what: str, timeout: float = 30.0) -> Iterator[Any]:
        self.calls += 1
        if self.last and self.calls >= self.last:
            raise Killed
        with super().doing(what, timeout) as client:
            yield client


def taken(source: DataSource) -> tuple[dict[str, bytes], Any]:
    """All parts of one backup, and what it holds."""
    parts, contents = {}, None
    with source.dumps() as dumps:
        for dump in dumps:
            pieces = []
            while piece := dump.read(1 << 20):
                pieces.append(piece)
            parts[dump.name] = b"".join(pieces)
            contents = dump.arrived().contents or contents
    return parts, contents


def restored(source: DataSource, parts: Mapping[str, bytes], token: str) -> Any:
    """Load all parts beside; what it holds then."""
    beside = source.beside(token)
    for name, data in parts.items():
        beside.load(name, iter([data[: len(data) // 2], data[len(data) // 2 :]]))
    beside.finish()
    return beside.contents()


# ---------------------------------------------------------------------------------------------------- Redis

REDIS = ["redis-server", "--dir", "/data", "--repl-diskless-sync-delay", "0"]
EVERY_TYPE = [
    *(f"SET number{i} {i}" for i in range(200)),
    r'SET "name \x00\xff\n\"" "\x00\x01\xfe text \xe2\x98\x83"',
    f"SET long {'long text ' * 2000}",
    'SET empty ""',
    "SETBIT bits 1000 1",
    "PFADD loglog a b c d",
    *(f"RPUSH list {i} {'x' * i}" for i in range(120)),
    *(f"SADD words w{i}" for i in range(300)),
    "SADD numbers 1 2 3 70000",
    *(f"HSET small f{i} v{i}" for i in range(5)),
    *(f"HSET large f{i} {'v' * (i % 90)}" for i in range(300)),
    *(f"ZADD scores {i}.25 m{i % 300}" for i in range(300)),
    "ZADD ends -inf a inf b",
    "GEOADD places 13.4 52.5 berlin",
    *(f"XADD events * kind k{i} n {i}" for i in range(150)),
    "XGROUP CREATE events readers 0",
    "XREADGROUP GROUP readers one COUNT 7 STREAMS events >",
    "SET soon 1 PX 400",
    "SET later 1 EX 90000",
    "EXPIRE small 80000",
    "SELECT 9",
    "SET elsewhere 1",
    "ACL SETUSER app on >secret ~app:* &news +@read (+get ~other:*)",
]
LIBRARY = "#!lua name=mine\nredis.register_function('twice', function(keys, args) return args[1] * 2 end)"


def redis_source(server: Database, engine: Engine = ENGINE, seconds: float = 60) -> RedisSource:
    container = DatabaseContainer(engine, server.name, "cache")
    return RedisSource("cache", container, password=lambda: server.password, timeout_seconds=seconds)


@pytest.fixture(scope="module", params=["snapshots", "append-only file"])
def redis(request: pytest.FixtureRequest) -> Iterator[Database]:
    extra = ["--appendonly", "yes"] if request.param == "append-only file" else ["--repl-diskless-sync", "no"]
    with running("redis", password="s3cret-word", command=[*REDIS, *extra], in_memory=False) as server:
        yield server
        source = redis_source(server)
        for token in ("types", "kills"):
            source.drop_beside(token)
            source.drop_hold(token)


def test_redis_keeps_every_type_through_backup_restore_restart_and_undo(redis: Database) -> None:
    source = redis_source(redis)
    redis.client("FLUSHALL\n" + "\n".join(EVERY_TYPE) + "\n")
    redis.run(
        "redis-cli", "-x", "FUNCTION", "LOAD", "REPLACE", text=LIBRARY, environment={"REDISCLI_AUTH": redis.password}
    )
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            redis.client(f"SET written{number} {number}\nSADD words extra{number}\n")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        parts, contents = taken(source)
    finally:
        stop.set()
        writer.join(60)
    kinds = {name.split(" ")[1] for name in contents.counts if name.startswith("db0 ")}
    assert kinds == {"string", "list", "set", "zset", "hash", "stream", "with"}
    assert contents.counts["db9"] == 1
    assert {"user app", "function library mine"} <= set(contents.objects)
    redis.client("DEL list\nSET number7 changed\nSET after 1\n")
    before = source.contents()
    assert restored(source, parts, "types") == contents
    source.swap("types")
    assert redis.client("GET number7\nEXISTS after list\nFCALL twice 0 21\nGET soon\n").split("\n")[:4] == [
        "7",
        "1",
        "42",
        "",
    ]
    redis.restart()
    assert source.swapped("types") and list(source.holds()) == ["types"]
    assert redis.client("GET number7\nLLEN list\n").split() == ["7", "239"]
    live = source.contents()
    assert {name: live.counts[name] for name in ("db0 hash", "db0 set", "db0 stream", "db9")} == {
        name: contents.counts[name] for name in ("db0 hash", "db0 set", "db0 stream", "db9")
    }
    source.unswap("types")
    undone = source.contents()
    assert (undone.counts, undone.samples) == (before.counts, before.samples)
    source.drop_beside("types")


def test_redis_survives_a_kill_in_swap_and_undo(redis: Database) -> None:
    source, number = redis_source(redis), 0
    redis.client("FLUSHALL\nSET word new\n")
    parts, _ = taken(source)
    redis.client("SET word old\nSET more 1\n")
    restored(source, parts, "kills")
    for step, word in ((RedisSource.swap, "new"), (RedisSource.unswap, "old")):
        for last in (11, 30, 49):
            engine = MortalEngine("unix:///var/run/docker.sock", "local")
            engine.last = last
            with contextlib.suppress(Killed):
                step(redis_source(redis, engine), "kills")
            # Whoever reads gets the one or the other, whole.
            assert redis.client("GET word\n").strip() in ("old", "new")
            number += 1
        step(source, "kills")
        assert redis.client("GET word\nINFO replication\n").split()[0] == word
        assert "role:master" in redis.client("INFO replication\n")
        assert redis.client("SET written 1\n").strip() == "OK"
        redis.client("DEL written\n")
    assert source.holds() == [] and not source.swapped("kills")
    assert redis.client("GET more\n").strip() == "1"
    assert number == 6


def test_a_redis_that_dies_or_refuses_gives_no_dump() -> None:
    with running("redis", password="s3cret-word", command=REDIS) as server:
        for number in range(20):
            server.run("redis-cli", "-x", "SET", f"k{number}", text=os.urandom(1 << 20), environment={
                "REDISCLI_AUTH": server.password})  # fmt: skip
        wrong = RedisSource("cache", DatabaseContainer(ENGINE, server.name, "cache"), password=lambda: "wrong")
        with pytest.raises(OpsError):
            taken(wrong)
        with redis_source(server).dumps() as dumps:
            dump = dumps[1]
            dump.read(4096)
            server.kill()
            with pytest.raises(OpsError):
                while dump.read(65536):
                    continue
            with pytest.raises(OpsError):
                dump.arrived()


# ---------------------------------------------------------------------------------------------------- MongoDB


@dataclass(frozen=True)
class MortalServer(MongoServer):
    """A server whose caller dies before the `last`-th command."""

    last: int = 0
    asked: tuple[list[str], ...] = ([],)

    def session(self) -> MongoSession:
        return MortalSession(self)


class MortalSession(MongoSession):
    def __init__(self, server: MortalServer) -> None:
        self._mortal = server
        super().__init__(server)

    def ask(self, database: str, command: Mapping[str, Any]) -> dict[str, Any]:
        self._mortal.asked[0].append(next(iter(command)))
        if len(self._mortal.asked[0]) >= self._mortal.last:
            raise Killed
        return super().ask(database, command)


EVERY_VALUE = {
    "double": -0.1, "text": "a\0b ☃", "document": {"z": 1, "a": {"": None}}, "list": [1, {"b": []}, "x"],
    "binary": b"\x00\xff", "id": Raw(0x07, bytes(range(12))), "yes": True, "no": False,
    "date": Raw(0x09, struct.pack("<q", -1)), "null": None, "pattern": Raw(0x0B, b"^a.*b$\0i\0"),
    "small": -5, "stamp": Raw(0x11, struct.pack("<II", 3, 7)), "large": 2**40,
}  # fmt: skip


@pytest.fixture(scope="module")
def mongodb_server() -> Iterator[Database]:
    with running("mongodb") as server:
        yield server


@pytest.fixture
def mongodb(mongodb_server: Database) -> Iterator[Database]:
    """The same server for all tests, empty for each."""
    yield mongodb_server
    mongo_server(mongodb_server).ask("shop", {"dropDatabase": 1})


def mongo_source(server: Database) -> MongodbSource:
    return MongodbSource("listings", DatabaseContainer(ENGINE, server.name, "listings"), "shop", timeout_seconds=60)


def mongo_server(server: Database) -> MongoServer:
    return MongoServer(ENGINE, lambda: server.name, "listings")


def documents(session: MongoSession, name: str) -> list[bytes]:
    return sorted(encode(row) for row in session.rows("shop", {"find": name}))


def test_mongodb_keeps_every_value_index_and_option(mongodb: Database) -> None:
    source = mongo_source(mongodb)
    with mongo_server(mongodb).session() as session:
        session.ask("shop", {"insert": "values", "documents": [{"_id": 1, **EVERY_VALUE}, {"_id": "2", "n": None}]})
        session.ask("shop", {"insert": "many", "documents": [{"_id": i, "t": "x" * (i % 50)} for i in range(3000)]})
        session.ask("shop", {"create": "last", "capped": True, "size": 100_000, "max": 10})
        keys = [{"key": {"t": 1, "_id": -1}, "name": "both", "unique": True}]
        session.ask("shop", {"createIndexes": "many", "indexes": keys})
        written = {name: documents(session, name) for name in ("values", "many")}
        parts, contents = taken(source)
        assert contents == source.contents()
        assert contents.counts == {"last": 0, "many": 3000, "values": 2}
        assert '["_id", {"$numberInt": "-1"}]' in contents.objects["index many both"]
        assert "capped" in contents.objects["collection last"]
        session.ask("shop", {"drop": "values"})
        session.ask("shop", {"delete": "many", "deletes": [{"q": {}, "limit": 0}]})
        assert restored(source, parts, "values1") == contents
        source.swap("values1")
        assert {name: documents(session, name) for name in ("values", "many")} == written
        assert source.contents() == contents
        source.drop_hold("values1")
        for name in ("values", "many", "last"):
            session.ask("shop", {"drop": name})


def test_mongodb_survives_a_kill_before_every_command_of_swap_and_undo(mongodb: Database) -> None:
    source = mongo_source(mongodb)
    with mongo_server(mongodb).session() as session:

        def live() -> dict[str, Any]:
            names = [name for name in collections(session, "shop") if not name.startswith("ops_")]
            return {name: next(iter(session.rows("shop", {"find": name})))["w"] for name in sorted(names)}

        for name in ("both", "dropped", "other"):
            session.ask("shop", {"insert": name, "documents": [{"_id": 1, "w": "old"}]})
        parts, _ = taken(source)
        session.ask("shop", {"drop": "dropped"})
        session.ask("shop", {"insert": "made", "documents": [{"_id": 1, "w": "new"}]})
        session.ask("shop", {"update": "both", "updates": [{"q": {}, "u": {"$set": {"w": "new"}}}]})
        new, old = live(), {"both": "old", "dropped": "old", "other": "old"}
        restored(source, parts, "kill1")
        for step, wanted in ((MongoExchange.swap, old), (MongoExchange.unswap, new)):
            last, killed = 1, 0
            while True:
                last += 1
                mortal = MortalServer(ENGINE, lambda: mongodb.name, "listings", last=last, asked=([],))
                try:
                    step(MongoExchange(mortal, "shop"), "kill1")
                    break
                except Killed:
                    killed += 1
                # A document is somewhere, whatever happened: live, held or beside.
                found = collections(session, "shop")
                assert sum("both" in name for name in found) == 2
            assert killed > 4
            assert live() == wanted
            assert source.swapped("kill1") == (wanted == old)
        assert source.holds() == []
        source.drop_beside("kill1")
        assert not [name for name in collections(session, "shop") if "kill1" in name]
        for name in live():
            session.ask("shop", {"drop": name})


def test_what_an_application_writes_between_two_renames_is_kept(mongodb: Database) -> None:
    source = mongo_source(mongodb)
    with mongo_server(mongodb).session() as session:
        session.ask("shop", {"insert": "both", "documents": [{"_id": 1}]})
        parts, _ = taken(source)
        restored(source, parts, "gap1")
        # Killed after the first rename; then the application writes, and MongoDB makes the collection anew.
        mortal = MortalServer(ENGINE, lambda: mongodb.name, "listings", asked=([],), last=1000)
        watched = MongoExchange(mortal, "shop")
        while "ops_h_gap1_both" not in collections(session, "shop"):
            mortal = MortalServer(ENGINE, lambda: mongodb.name, "listings", asked=([],), last=len(mortal.asked[0]) + 2)
            watched = MongoExchange(mortal, "shop")
            with contextlib.suppress(Killed):
                watched.swap("gap1")
        if "both" not in collections(session, "shop"):
            session.ask("shop", {"insert": "both", "documents": [{"_id": 2}]})
            source.swap("gap1")
            assert documents(session, "both") == [encode({"_id": 1})]
            assert documents(session, "ops_h_gap1_both") == [encode({"_id": 1}), encode({"_id": 2})]
        source.drop_hold("gap1")
        session.ask("shop", {"drop": "both"})


def test_a_restore_that_leaves_documents_out_fails_although_the_tool_does_not(mongodb: Database) -> None:
    source = mongo_source(mongodb)
    with mongo_server(mongodb).session() as session:
        session.ask("shop", {"insert": "twice", "documents": [{"_id": 1}, {"_id": 2}]})
        parts, _ = taken(source)
        beside = source.beside("fail1")
        session.ask("shop", {"insert": "ops_r_fail1_twice", "documents": [{"_id": 2}]})
        with pytest.raises(Permanent):
            beside.load("dump", iter([parts["dump"]]))
        source.drop_beside("fail1")
        session.ask("shop", {"drop": "twice"})


def test_a_server_that_dies_gives_no_dump_and_no_user_list_is_taken_for_another() -> None:
    with running("mongodb", password="s3cret") as server:
        source = MongodbSource(
            "listings", DatabaseContainer(ENGINE, server.name, "listings"), "shop", user="admin",
            password=lambda: "s3cret", timeout_seconds=60,
        )  # fmt: skip
        login = MongoServer(ENGINE, lambda: server.name, "listings", "admin", lambda: "s3cret")
        with login.session() as session:
            for number in range(20):
                rows = [{"_id": number, "t": os.urandom(1 << 20)}]
                session.ask("shop", {"insert": "many", "documents": rows})
        wrong = MongodbSource(
            "listings", DatabaseContainer(ENGINE, server.name, "listings"), "shop", user="admin",
            password=lambda: "wrong", timeout_seconds=60,
        )  # fmt: skip
        with pytest.raises(OpsError):
            taken(wrong)
        with pytest.raises(OpsError):
            source.beside("user1").load("globals", iter([b'{"count": 2, "users": []}']))
        with source.dumps() as dumps:
            dump = dumps[1]
            dump.read(4096)
            server.kill()
            with pytest.raises(OpsError):
                while dump.read(65536):
                    continue
