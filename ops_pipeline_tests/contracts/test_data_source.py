"""One suite for every implementation of the DataSource port: the one in memory and the real engines.

An engine joins by a `Stage`: how rows get into it and out again, and one question about them. Rows are texts in named
collections (tables, collections, or whatever the engine has).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import pytest

from ops_pipeline.core.backup.records import Arrived, Contents
from ops_pipeline.errors import NotFound, OpsError
from ops_pipeline.ports import Beside, DataSource
from ops_pipeline_tests.fakes.data_source import FakeDatabase
from ops_pipeline_tests.testbed import testbed_id

ROWS = {"house": ["villa", "hut ☃", "tab\there, quote ' and \\", ""], "empty": []}


class Stage(Protocol):
    """What the suite needs around a source."""

    source: DataSource

    def write(self, rows: Mapping[str, Sequence[str]]) -> None:
        """Let the live database hold exactly these."""

    def add(self, collection: str, row: str) -> None:
        """One row more in a collection that exists."""

    def rows(self) -> Mapping[str, list[str]]:
        """What the live database holds, sorted."""

    def counted(self, collection: str) -> str:
        """What a collection is called in `Contents`."""

    def question(self, collection: str) -> str:
        """A query whose answer is how many rows a collection has."""


class MemoryStage:
    def __init__(self) -> None:
        self.database = FakeDatabase(tables={})
        self.source = self.database

    def write(self, rows: Mapping[str, Sequence[str]]) -> None:
        self.database.live.tables = {name: list(texts) for name, texts in rows.items()}

    def add(self, collection: str, row: str) -> None:
        self.database.live.tables[collection].append(row)

    def rows(self) -> Mapping[str, list[str]]:
        return {name: sorted(texts) for name, texts in self.database.live.tables.items()}

    def counted(self, collection: str) -> str:
        return collection

    def question(self, collection: str) -> str:
        return f"count {collection}"


class PostgresStage:
    def __init__(self, stack: ExitStack) -> None:
        from ops_pipeline.adapters.databases.container import DatabaseContainer, Engine
        from ops_pipeline.adapters.databases.postgres import PostgresSource
        from ops_pipeline_tests.testbed.databases import running

        self.server = stack.enter_context(running("postgres"))
        self.server.client("CREATE DATABASE shop")
        container = DatabaseContainer(Engine("unix:///var/run/docker.sock", "local"), self.server.name, "listings")
        self.source = PostgresSource("listings", container, "shop", timeout_seconds=120)

    def write(self, rows: Mapping[str, Sequence[str]]) -> None:
        old = self.server.client("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
                                 " AND relkind = 'r'", "shop").split()  # fmt: skip
        sql = "".join(f"DROP TABLE {name};" for name in old)
        for name, texts in rows.items():
            sql += f"CREATE TABLE {name} (id serial PRIMARY KEY, t text);"
            sql += "".join(_postgres_insert(name, text) for text in texts)
        self.server.client(sql, "shop")

    def add(self, collection: str, row: str) -> None:
        self.server.client(_postgres_insert(collection, row), "shop")

    def rows(self) -> Mapping[str, list[str]]:
        names = self.server.client("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
                                   " AND relkind = 'r'", "shop").split()  # fmt: skip
        found = {}
        for name in names:
            lines = self.server.client(f"SELECT encode(convert_to(t, 'UTF8'), 'hex') || '.' FROM {name}", "shop")
            found[name] = sorted(bytes.fromhex(line.rstrip(".")).decode() for line in lines.split())
        return found

    def counted(self, collection: str) -> str:
        return f"public.{collection}"

    def question(self, collection: str) -> str:
        return f"SELECT count(*) FROM {collection}"


def _postgres_insert(name: str, text: str) -> str:
    return f"INSERT INTO {name}(t) VALUES (convert_from(decode('{text.encode().hex()}', 'hex'), 'UTF8'));"


class MariadbStage:
    def __init__(self, stack: ExitStack) -> None:
        from ops_pipeline.adapters.databases.container import DatabaseContainer, Engine
        from ops_pipeline.adapters.databases.mysql import MysqlSource
        from ops_pipeline_tests.testbed.databases import running

        self.server = stack.enter_context(running("mariadb", password="s3cret $word"))
        self.server.client("CREATE DATABASE shop CHARACTER SET utf8mb4")
        container = DatabaseContainer(Engine("unix:///var/run/docker.sock", "local"), self.server.name, "listings")
        self.source = MysqlSource(
            "listings", "mariadb", container, "shop", password=lambda: "s3cret $word", timeout_seconds=120
        )

    def write(self, rows: Mapping[str, Sequence[str]]) -> None:
        sql = "".join(f"DROP TABLE {name};" for name in self._tables())
        for name, texts in rows.items():
            sql += f"CREATE TABLE {name} (id INT AUTO_INCREMENT PRIMARY KEY, t TEXT);"
            sql += "".join(_mariadb_insert(name, text) for text in texts)
        self.server.client(sql, "shop")

    def add(self, collection: str, row: str) -> None:
        self.server.client(_mariadb_insert(collection, row), "shop")

    def rows(self) -> Mapping[str, list[str]]:
        found = {}
        for name in self._tables():
            lines = self.server.client(f"SELECT CONCAT(HEX(t), '.') FROM {name}", "shop")
            found[name] = sorted(bytes.fromhex(line.rstrip(".")).decode() for line in lines.split())
        return found

    def counted(self, collection: str) -> str:
        return collection

    def question(self, collection: str) -> str:
        return f"SELECT COUNT(*) FROM {collection}"

    def _tables(self) -> list[str]:
        return self.server.client("SHOW TABLES", "shop").split()


def _mariadb_insert(name: str, text: str) -> str:
    return f"INSERT INTO {name}(t) VALUES (CONVERT(X'{text.encode().hex()}' USING utf8mb4));"


class RedisStage:
    """A collection is a database of the server, its rows are keys; "empty" is a kind of keys there are none of."""

    _numbers: Mapping[str, int] = MappingProxyType({"house": 1, "log": 2})

    def __init__(self, stack: ExitStack) -> None:
        from ops_pipeline.adapters.databases.container import DatabaseContainer, Engine
        from ops_pipeline.adapters.databases.redis import RedisSource
        from ops_pipeline_tests.testbed.databases import running

        command = ["redis-server", "--dir", "/data", "--repl-diskless-sync-delay", "0"]
        self.server = stack.enter_context(running("redis", password="s3cret-word", command=command))
        container = DatabaseContainer(Engine("unix:///var/run/docker.sock", "local"), self.server.name, "listings")
        self.source = RedisSource("listings", container, password=lambda: "s3cret-word", timeout_seconds=120)
        self._written = 0

    def write(self, rows: Mapping[str, Sequence[str]]) -> None:
        self._written = 0
        lines = ["FLUSHALL"]
        for name, texts in rows.items():
            lines += [f"SELECT {self._numbers[name]}", *map(self._set, texts)] if texts else []
        self.server.client("\n".join(lines) + "\n")

    def add(self, collection: str, row: str) -> None:
        self.server.client(self._set(row) + "\n", str(self._numbers[collection]))

    def rows(self) -> Mapping[str, list[str]]:
        script = (
            "local found = {} for _, key in ipairs(redis.call('KEYS', '*')) do"
            " found[#found + 1] = redis.call('GET', key):gsub('.', function(c) return ('%02x'):format(c:byte()) end)"
            " .. '.' end return found"
        )
        found: dict[str, list[str]] = {"empty": []}
        for name, number in self._numbers.items():
            lines = self.server.client(f'EVAL "{script}" 0\n', str(number)).split()
            if lines:
                found[name] = sorted(bytes.fromhex(line.rstrip(".")).decode() for line in lines)
        return found

    def counted(self, collection: str) -> str:
        return f"db{self._numbers[collection]}" if collection in self._numbers else "db1 with expiry"

    def question(self, collection: str) -> str:
        return f"db{self._numbers[collection]} DBSIZE"

    def _set(self, text: str) -> str:
        self._written += 1
        quoted = "".join(f"\\x{byte:02x}" for byte in text.encode())
        return f'SET key{self._written} "{quoted}"'


class MongodbStage:
    def __init__(self, stack: ExitStack) -> None:
        from ops_pipeline.adapters.databases.container import DatabaseContainer, Engine
        from ops_pipeline.adapters.databases.mongo_server import MongoServer
        from ops_pipeline.adapters.databases.mongodb import MongodbSource
        from ops_pipeline_tests.testbed.databases import running

        password = "s3cret $word's: \"#"
        self.server = stack.enter_context(running("mongodb", password=password))
        engine = Engine("unix:///var/run/docker.sock", "local")
        container = DatabaseContainer(engine, self.server.name, "listings")
        self.source = MongodbSource(
            "listings", container, "shop", user="admin", password=lambda: password, timeout_seconds=120
        )
        self._session = MongoServer(engine, lambda: self.server.name, "listings", "admin", lambda: password).session()
        stack.callback(self._session.close)
        self._session.ask("shop", {"createUser": "app", "pwd": "app's", "roles": []})

    def write(self, rows: Mapping[str, Sequence[str]]) -> None:
        for name in self._names():
            self._session.ask("shop", {"drop": name})
        for name, texts in rows.items():
            self._session.ask("shop", {"create": name})
            if texts:
                self._session.ask("shop", {"insert": name, "documents": [{"t": text} for text in texts]})

    def add(self, collection: str, row: str) -> None:
        self._session.ask("shop", {"insert": collection, "documents": [{"t": row}]})

    def rows(self) -> Mapping[str, list[str]]:
        return {name: sorted(row["t"] for row in self._session.rows("shop", {"find": name})) for name in self._names()}

    def counted(self, collection: str) -> str:
        return collection

    def question(self, collection: str) -> str:
        return f"db.{collection}.count({{}})"

    def _names(self) -> list[str]:
        from ops_pipeline.adapters.databases.mongo_server import collections

        return [name for name in collections(self._session, "shop") if not name.startswith("ops_")]


REAL: dict[str, Callable[[ExitStack], Stage]] = {
    "postgres": PostgresStage,
    "mariadb": MariadbStage,
    "redis": RedisStage,
    "mongodb": MongodbStage,
}


@pytest.fixture(
    scope="module", params=["memory", *(pytest.param(name, marks=pytest.mark.real) for name in sorted(REAL))]
)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    if request.param == "memory":
        yield MemoryStage()
        return
    with ExitStack() as stack:
        yield REAL[request.param](stack)


@dataclass
class Backup:
    """The parts of one backup, read."""

    parts: dict[str, list[bytes]] = field(default_factory=dict)
    arrived: dict[str, Arrived] = field(default_factory=dict)

    @property
    def contents(self) -> Contents:
        [found] = [one.contents for one in self.arrived.values() if one.contents is not None]
        return found

    def load(self, place: Beside) -> None:
        for name, pieces in self.parts.items():
            place.load(name, iter(pieces))
        place.finish()


def backed_up(source: DataSource, while_reading: Callable[[], None] = lambda: None) -> Backup:
    backup = Backup()
    with source.dumps() as dumps:
        for dump in dumps:
            pieces = []
            while piece := dump.read(65536):
                pieces.append(piece)
                while_reading()
            assert dump.read(10) == b""
            backup.parts[dump.name], backup.arrived[dump.name] = pieces, dump.arrived()
    return backup


@contextmanager
def tidy(stage: Stage, *tokens: str) -> Iterator[None]:
    """Whatever the test made under these tokens goes."""
    try:
        yield
    finally:
        for token in tokens:
            stage.source.drop_beside(token)
            stage.source.drop_hold(token)


def test_a_backup_loaded_beside_equals_the_source_and_takes_its_place_and_gives_it_back(stage: Stage) -> None:
    source = stage.source
    stage.write(ROWS)
    backup = backed_up(source)
    assert {name: backup.contents.counts[stage.counted(name)] for name in ROWS} == {
        name: len(rows) for name, rows in ROWS.items()
    }
    assert backup.contents == source.contents()
    for arrived in backup.arrived.values():
        assert (arrived.exit_code, bool(arrived.marker), bool(arrived.engine)) == (0, True, True)
    stage.add("house", "built later")
    with tidy(stage, "tok1"):
        beside = source.beside("tok1")
        backup.load(beside)
        assert beside.contents() == backup.contents
        assert beside.ask(stage.question("house")) == "4"
        assert "built later" in stage.rows()["house"]
        assert not source.swapped("tok1")
        assert source.holds() == []

        for _ in range(2):
            source.swap("tok1")
            assert source.swapped("tok1")
            assert list(source.holds()) == ["tok1"]
            assert stage.rows() == {name: sorted(rows) for name, rows in ROWS.items()}
        assert source.contents() == backup.contents

        for _ in range(2):
            source.unswap("tok1")
            assert not source.swapped("tok1")
            assert source.holds() == []
            assert "built later" in stage.rows()["house"]

        source.swap("tok1")
        for _ in range(2):
            source.drop_hold("tok1")
            source.drop_beside("tok1")
            assert source.holds() == []
        assert stage.rows() == {name: sorted(rows) for name, rows in ROWS.items()}


def test_a_scratch_server_takes_a_backup_and_is_gone_afterwards(stage: Stage) -> None:
    stage.write(ROWS)
    backup = backed_up(stage.source)
    with stage.source.scratch(stage.source.image(), {"ops.testbed": testbed_id()}) as place:
        backup.load(place)
        assert place.contents() == backup.contents
        assert place.ask(stage.question("house")) == "4"
    with pytest.raises(NotFound), stage.source.scratch("ops-testbed-no-such-image:1", {}):
        raise AssertionError("made of nothing")
    assert stage.rows() == {name: sorted(rows) for name, rows in ROWS.items()}


def test_live_data_are_asked_in_the_moment_of_the_dumps_and_no_question_harms_them(stage: Stage) -> None:
    source, question = stage.source, stage.question("house")
    stage.write(ROWS)
    assert source.ask(question) == "4"
    with source.dumps() as dumps:
        assert source.ask(question) == "4"
        stage.add("house", "built meanwhile")
        # Redis and MongoDB share no snapshot: whoever records answers asks before and after.
        then = "4" if source.kind in ("postgres", "mariadb") else "5"
        assert source.ask(question) == then
        with pytest.raises(OpsError):
            source.ask("nonsense of house")
        for dump in dumps:
            while dump.read(65536):
                continue
            assert dump.arrived().exit_code == 0
            dump.close()
        assert source.ask(question) in (then, "5")
    assert source.ask(question) == "5"
    if source.kind in ("postgres", "mariadb") and not isinstance(stage, MemoryStage):
        with pytest.raises(OpsError):
            source.ask("DELETE FROM house")
        assert source.ask(question) == "5", "a question changes nothing"


def test_a_dump_and_its_counts_are_of_one_moment_while_others_write(stage: Stage) -> None:
    stage.write({"house": [f"house {number} {'x' * 300}" for number in range(1000)], "log": ["begin"]})
    stop, errors, wrote = threading.Event(), [], threading.Event()

    def keep_writing() -> None:
        number = 0
        while not stop.is_set():
            try:
                stage.add("house", f"written meanwhile {number}")
                stage.add("log", f"wrote {number}")
            except Exception as error:
                errors.append(error)
                return
            wrote.set()
            number += 1

    writer = threading.Thread(target=keep_writing)
    if not isinstance(stage, MemoryStage):
        writer.start()
        assert wrote.wait(60)
    try:
        backup = backed_up(stage.source)
    finally:
        stop.set()
        if writer.ident is not None:
            writer.join(timeout=60)
    assert errors == []
    # Of one moment: never a log line without its house, at most one house ahead of the log.
    counts = backup.contents.counts
    ahead = (counts[stage.counted("house")] - 1000) - (counts[stage.counted("log")] - 1)
    assert ahead in (0, 1) or backup.arrived["dump"].consistency != "snapshot"
    with tidy(stage, "tok2"):
        beside = stage.source.beside("tok2")
        backup.load(beside)
        assert beside.contents() == backup.contents


def test_a_cut_or_broken_stream_is_never_loaded_in_silence_and_live_stays(stage: Stage) -> None:
    source = stage.source
    stage.write(ROWS)
    backup = backed_up(source)
    whole = b"".join(backup.parts["dump"])
    with tidy(stage, "tok3"):
        for keep in (len(whole) - 1, len(whole) * 2 // 3):
            beside = source.beside("tok3")
            with pytest.raises(OpsError):
                beside.load("dump", iter([whole[: keep // 2], whole[keep // 2 : keep]]))
        beside = source.beside("tok3")

        def breaking() -> Iterator[bytes]:
            yield whole[: len(whole) // 2]
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            beside.load("dump", breaking())
        assert stage.rows() == {name: sorted(rows) for name, rows in ROWS.items()}
        backup.load(source.beside("tok3"))
        source.swap("tok3")
        assert source.contents() == backup.contents


def test_dumps_that_stand_hold_nothing_that_was_written_after_they_were_opened(stage: Stage) -> None:
    stage.write(ROWS)
    with stage.source.dumps() as dumps:
        stands = all(dump.stands for dump in dumps)
        stage.add("house", "built after")
        arrived = {}
        for dump in dumps:
            while dump.read(65536):
                pass
            arrived[dump.name] = dump.arrived()
    [found] = [one.contents for one in arrived.values() if one.contents is not None]
    assert stands is (stage.source.kind in ("postgres", "mysql", "mariadb"))
    if stands:
        assert found.counts[stage.counted("house")] == len(ROWS["house"])


def test_what_was_not_read_has_not_arrived_and_may_be_closed(stage: Stage) -> None:
    stage.write(ROWS)
    with stage.source.dumps() as dumps:
        for dump in dumps:
            dump.read(10)
            with pytest.raises(OpsError):
                dump.arrived()
            dump.close()
            dump.close()
    assert backed_up(stage.source).contents == stage.source.contents()


def test_a_swap_needs_something_beside_and_a_token(stage: Stage) -> None:
    stage.write(ROWS)
    with pytest.raises(NotFound):
        stage.source.swap("none1")
    stage.source.unswap("none1")
    stage.source.drop_beside("none1")
    stage.source.drop_hold("none1")
    assert not stage.source.swapped("none1")
    assert stage.rows() == {name: sorted(rows) for name, rows in ROWS.items()}


def test_people_see_what_it_is(stage: Stage) -> None:
    stage.write(ROWS)
    assert all(isinstance(warning, str) for warning in stage.source.check())
    assert stage.source.version().split(" ")[1][0].isdigit()
    assert stage.source.image()
    assert stage.source.name == "listings"
