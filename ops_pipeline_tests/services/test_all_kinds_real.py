"""One environment with data of every kind, all real: backed up, drilled, destroyed, restored by date, undone.

And its PostgreSQL and photos once more with the vault in Azure's emulator.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ops_pipeline.adapters.backup_keys import write_secret_file
from ops_pipeline.adapters.databases.container import DatabaseContainer, Engine
from ops_pipeline.adapters.databases.mongo_server import MongoServer, MongoSession
from ops_pipeline.adapters.object_azure import open_azure_objects
from ops_pipeline.adapters.volume_tree import VolumeTree
from ops_pipeline.catalogue.model import AzureStore
from ops_pipeline.core.backup.records import FILE_KINDS, Manifest, Trigger
from ops_pipeline.ports import DataSource, FileEntry, FileTree
from ops_pipeline.services.backup.drill import drill
from ops_pipeline.services.backup.integrity import check_set
from ops_pipeline.services.backup.restore import plan_restore, release_restore_hold, restore, undo_restore
from ops_pipeline.services.backup.restore_journal import Stage
from ops_pipeline.services.backup.sets import find_set
from ops_pipeline.services.backup.take import take_backup
from ops_pipeline.services.platform import Platform
from ops_pipeline_tests.fakes.platform import quiet
from ops_pipeline_tests.services.restore_bed import lay_out, open_platform
from ops_pipeline_tests.services.test_restore_real import DESTROYED, LOOK, SCHEMA, photos, write_photos
from ops_pipeline_tests.testbed import testbed_id
from ops_pipeline_tests.testbed.azurite import azurite
from ops_pipeline_tests.testbed.courier import ENGINE, courier_image, volume
from ops_pipeline_tests.testbed.databases import Database, running
from ops_pipeline_tests.testbed.trees import ROOT, Named, contents, make_live, plain

pytestmark = [pytest.mark.real, pytest.mark.thorough, pytest.mark.timeout(600)]

WORD = "s3cret $word"
KINDS = {"postgres": "", "mariadb": WORD, "redis": "s3cret-word", "mongodb": WORD}
REDIS = ["redis-server", "--dir", "/data", "--bind", "*", "--protected-mode", "no", "--repl-diskless-sync-delay", "0"]
QUESTIONS = {
    "listings": {"houses": "500"},
    "orders": {"orders": "300", "largest": "sha256:"},
    "cache": {"sessions": "120", "front": "sha256:"},
    "reviews": {"good": "40"},
}


@dataclass
class Market:
    """Everything an application keeps."""

    root: Path
    servers: Mapping[str, Database]
    mongo: MongoSession
    assets: VolumeTree

    def platform(self) -> Platform:
        """All as the catalogue says, but that the volume is reached by its courier, as on another machine."""
        opened = open_platform(self.root)

        def sources(environment: str) -> Sequence[DataSource | FileTree]:
            return [self.assets if one.name == "assets" else one for one in opened.sources(environment)]

        return replace(opened, sources=sources)

    def write(self) -> None:
        self.servers["postgres"].client("CREATE DATABASE shop")
        self.servers["postgres"].client(SCHEMA, "shop")
        maria = self.servers["mariadb"]
        maria.client("CREATE DATABASE shop CHARACTER SET utf8mb4")
        maria.client(
            "CREATE TABLE item (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(80), price DECIMAL(9,2), raw BLOB);"
            "CREATE TABLE audit (item INT, at TIMESTAMP(6) NULL, CONSTRAINT f FOREIGN KEY (item) REFERENCES item(id));"
            "INSERT INTO item (name, price, raw)"
            " SELECT CONCAT('Türgriff ☃ ', seq), seq / 4, UNHEX(SHA2(seq, 256)) FROM seq_1_to_300;"
            "INSERT INTO audit SELECT id, '2026-11-21 10:00:00.123456' FROM item WHERE id % 3 = 0;"
            "CREATE VIEW dear AS SELECT name FROM item WHERE price > 70;"
            "CREATE TRIGGER noted AFTER INSERT ON item FOR EACH ROW INSERT INTO audit VALUES (NEW.id, NULL);",
            "shop",
        )
        sessions = "".join(
            f"SET session{number} {number}\nEXPIREAT session{number} 4102444800\n" for number in range(120)
        )
        self.servers["redis"].client(
            f"SELECT 3\n{sessions}SELECT 0\nHSET front title Häuser rows 3\nLPUSH jobs a b c\n"
        )
        self.mongo.ask("shop", {"insert": "review", "documents": [
            {"_id": number, "stars": number % 5, "text": f"schön {number}", "deep": {"list": [number, None, 1.5]}}
            for number in range(200)
        ]})  # fmt: skip
        self.mongo.ask("shop", {"createIndexes": "review", "indexes": [{"key": {"stars": 1}, "name": "by_stars"}]})
        make_live(self.assets, ASSETS)
        write_photos(self.root / "photos")

    def destroy(self) -> None:
        self.servers["postgres"].client(DESTROYED, "shop")
        self.servers["mariadb"].client(
            "DROP TRIGGER noted; DROP VIEW dear; DROP TABLE audit; TRUNCATE item; CREATE TABLE s (x INT);", "shop"
        )
        self.servers["redis"].client("FLUSHALL\nSET stray 1\n")
        self.mongo.ask("shop", {"drop": "review"})
        self.mongo.ask("shop", {"insert": "stray", "documents": [{"x": 1}]})
        make_live(self.assets, [ASSETS[0], _file(b"ransom.txt", b"pay")])
        shutil.rmtree(self.root / "photos" / "2026")
        (self.root / "photos" / "after.jpg").write_bytes(b"written after the backup")

    def look(self) -> dict[str, object]:
        entries = [entry for entry in self.assets.walk() if not entry.path.startswith(b".ops")]
        maria = self.servers["mariadb"]
        tables = maria.client("SHOW TABLES", "shop").split()
        columns = {"item": "id, name, price, HEX(raw)"}
        redis = "".join(f"GET session{number}\nEXPIRETIME session{number}\n" for number in (0, 7, 119))
        return {
            "listings": self.servers["postgres"].client(LOOK, "shop"),
            "orders": [
                tables,
                *(maria.client(f"SELECT {columns.get(name, '*')} FROM {name} ORDER BY 1", "shop") for name in tables),
            ],
            "triggers": maria.client("SHOW TRIGGERS", "shop").split("\t")[:4],
            "cache": self.servers["redis"].client(
                f"KEYS *\nHGETALL front\nLRANGE jobs 0 -1\nSELECT 3\nDBSIZE\n{redis}"
            ),
            "reviews": {
                name: list(self.mongo.rows("shop", {"find": name, "sort": {"_id": 1}})) for name in ("review", "stray")
            },
            "assets": ([plain(entry) for entry in entries], contents(self.assets, entries)),
            "photos": photos(self.root / "photos"),
        }


def _file(path: bytes, data: bytes, mode: int = 0o640) -> Named:
    return FileEntry(path, "file", mode, 33, 33, size=len(data), mtime_ns=1_700_000_000_000_000_001), data


ASSETS: list[Named] = [
    (ROOT, b""),
    (FileEntry(b"css", "directory", 0o2750, 33, 33, mtime_ns=1_700_000_000_000_000_002), b""),
    _file(b"css/a\nb \xff.css", b"body {}" * 999),
    _file(b"css/empty", b"", 0o444),
    (FileEntry(b"latest", "symlink", 0o777, 33, 33, mtime_ns=1, link=b"css/empty"), b""),
]


@contextmanager
def market(root: Path) -> Iterator[Market]:
    """Four servers, started side by side, a volume and a directory."""
    with ExitStack() as stack:
        with ThreadPoolExecutor(len(KINDS)) as pool:
            started = {
                kind: pool.submit(
                    stack.enter_context,
                    running(kind, password=word, command=REDIS if kind == "redis" else ()),
                )
                for kind, word in KINDS.items()
            }
        servers = {kind: future.result() for kind, future in started.items()}
        name = stack.enter_context(volume())
        assets = VolumeTree(
            "assets",
            name,
            docker_url=ENGINE,
            host="local",
            image=courier_image(),
            direct=False,
            labels={"ops.testbed": testbed_id()},
        )
        stack.callback(assets.close)
        for kind, word in KINDS.items():
            if word:
                write_secret_file(root / f"{kind}.password", word)
        lay_out(root, servers["postgres"].name, {
            "orders": {
                "kind": "mariadb", "container": servers["mariadb"].name, "database": "shop",
                "password": "file:mariadb.password",
                "questions": {
                    "orders": "SELECT COUNT(*) FROM item",
                    "largest": "SELECT name FROM item ORDER BY price DESC LIMIT 1",
                },
            },
            "cache": {
                "kind": "redis", "container": servers["redis"].name, "password": "file:redis.password",
                "questions": {"sessions": "db3 DBSIZE", "front": "HGETALL front"},
            },
            "reviews": {
                "kind": "mongodb", "container": servers["mongodb"].name, "database": "shop", "user": "admin",
                "password": "file:mongodb.password", "questions": {"good": 'db.review.count({"stars": 4})'},
            },
            "assets": {"kind": "volume", "volume": name},
        })  # fmt: skip
        engine = Engine(ENGINE, "local")
        container = DatabaseContainer(engine, servers["mongodb"].name, "reviews")
        session = MongoServer(engine, lambda: container.find().id, "reviews", "admin", lambda: WORD).session()
        stack.callback(session.close)
        yield Market(root, servers, session, assets)


def answers(manifest: Manifest) -> dict[str, dict[str, str]]:
    """What the set keeps of the answers, hashes without their digits."""
    found: dict[str, dict[str, str]] = {}
    for part in manifest.parts:
        for name, text in part.arrived.details.items():
            if name.startswith("question "):
                kept = "sha256:" if text.startswith("sha256:") else text
                found.setdefault(part.source, {})[name.removeprefix("question ")] = kept
    return found


def assert_no_holds(platform: Platform) -> None:
    assert {source.name: list(source.holds()) for source in platform.sources("prod")} == {
        source.name: [] for source in platform.sources("prod")
    }


def test_every_kind_of_data_lost_and_restored_by_date_and_undone(tmp_path: Path) -> None:
    with market(tmp_path) as shop:
        shop.write()
        good = shop.look()
        platform = shop.platform()
        manifest = take_backup(platform, "prod", trigger=Trigger.MANUAL, progress=quiet)
        assert answers(manifest) == QUESTIONS
        images = {
            part.source: part.arrived.details["image"] for part in manifest.parts if "image" in part.arrived.details
        }
        assert images.keys() == {part.source for part in manifest.parts if part.kind not in FILE_KINDS}
        assert not check_set(platform, "prod", manifest.id, progress=quiet).problems

        said: list[str] = []
        result = drill(platform, "prod", progress=said.append)
        assert result.problems == () and set(result.sources) == {*images, "assets", "photos"}
        assert not any("is not here" in line for line in said), "in the images the data were dumped from"
        assert find_set(platform, "prod", manifest.id).state.drilled_at == result.at
        assert shop.look() == good

        shop.destroy()
        bad = shop.look()
        assert all(bad[name] != good[name] for name in good)
        plan = plan_restore(platform, "prod", date=f"{platform.clock.now():%Y-%m-%d}")
        assert plan.set_id == manifest.id
        things = {one.source: one.things for one in plan.sources}
        assert things["cache"] == "122 keys in 2 databases" and things["listings"] == "1,000 rows in 2 tables"
        outcome = restore(platform, plan, confirm=lambda words: True, progress=quiet)
        assert outcome.stage is Stage.HELD
        assert shop.look() == good
        assert all(list(source.holds()) == [plan.token] for source in platform.sources("prod"))

        undo_restore(platform, "prod", plan.token, progress=quiet)
        assert shop.look() == bad
        release_restore_hold(platform, "prod", plan.token, progress=quiet)
        assert_no_holds(platform)


@pytest.mark.thorough
def test_the_same_from_a_vault_in_azure(tmp_path: Path) -> None:
    with azurite() as emulator, running("postgres") as server:
        write_secret_file(tmp_path / "account", emulator.connection_string)
        stores = {
            name: {"container": f"{name}-{uuid.uuid4().hex}", "connection_string": "file:account"}
            for name in ("sets", "media", "state")
        }
        for one in stores.values():
            open_azure_objects(AzureStore(**one), lambda _: emulator.connection_string).put("made", b"")
        server.client("CREATE DATABASE shop")
        server.client(SCHEMA, "shop")
        lay_out(tmp_path, server.name, store={"azure": stores})
        write_photos(tmp_path / "photos")
        good = server.client(LOOK, "shop"), photos(tmp_path / "photos")
        platform = open_platform(tmp_path)
        manifest = take_backup(platform, "prod", trigger=Trigger.MANUAL, progress=quiet)
        assert not check_set(platform, "prod", manifest.id, progress=quiet).problems
        server.client(DESTROYED, "shop")
        shutil.rmtree(tmp_path / "photos" / "2026")
        plan = plan_restore(platform, "prod", date=f"{platform.clock.now():%Y-%m-%d}")
        assert restore(platform, plan, confirm=lambda words: True, progress=quiet).stage is Stage.HELD
        assert (server.client(LOOK, "shop"), photos(tmp_path / "photos")) == good
        release_restore_hold(platform, "prod", plan.token, progress=quiet)
        assert_no_holds(platform)
