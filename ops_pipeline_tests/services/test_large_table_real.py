"""A table of 5 GB is backed up while rows come in, lost, and restored to what it was when the dump began.

OPS_LARGE_TABLE_BYTES chooses another size.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ops_pipeline.core.backup.records import Trigger
from ops_pipeline.services.backup.restore import plan_restore, release_restore_hold, restore
from ops_pipeline.services.backup.restore_journal import Stage
from ops_pipeline.services.backup.take import take_backup
from ops_pipeline_tests.fakes.platform import quiet
from ops_pipeline_tests.services.restore_bed import lay_out, open_platform
from ops_pipeline_tests.testbed.databases import Database, running

pytestmark = [pytest.mark.real, pytest.mark.thorough, pytest.mark.timeout(2400)]

SIZE = int(float(os.environ.get("OPS_LARGE_TABLE_BYTES", "5e9")))
ROW_BYTES = 1024
SCHEMA = f"""
CREATE TABLE house (id bigint PRIMARY KEY, body text NOT NULL);
INSERT INTO house SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, {SIZE // ROW_BYTES}) n;
"""
LOOK = "SELECT count(*), min(id), max(id), sum(hashtext(body)::bigint), sum(length(body)) FROM house WHERE id > 0"


@contextmanager
def rows_coming_in(server: Database) -> Iterator[None]:
    """Negative ids, one after another, until the body ends."""
    over = threading.Event()

    def write() -> None:
        number = 0
        while not over.wait(0.05):
            number += 1
            server.client(f"INSERT INTO house VALUES (-{number}, 'while the dump runs')", "shop")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()


def test_a_table_of_5_gb_comes_back_as_it_was(tmp_path: Path) -> None:
    with running("postgres", memory="3g", in_memory=False) as server:
        server.client("CREATE DATABASE shop")
        server.client(SCHEMA, "shop")
        assert int(server.client("SELECT pg_table_size('house')", "shop")) >= SIZE * 0.95
        good = server.client(LOOK, "shop")
        lay_out(tmp_path, server.name)
        platform = open_platform(tmp_path)
        with rows_coming_in(server):
            manifest = take_backup(platform, "prod", trigger=Trigger.MANUAL, progress=quiet)
        (dump,) = [part for part in manifest.parts if part.name == "dump"]
        assert dump.stream is not None and dump.stream.plain_size > SIZE * 0.9

        server.client("TRUNCATE house", "shop")
        plan = plan_restore(platform, "prod", date=f"{platform.clock.now():%Y-%m-%d}")
        assert plan.set_id == manifest.id
        assert restore(platform, plan, confirm=lambda words: True, progress=quiet).stage is Stage.HELD
        assert server.client(LOOK, "shop") == good
        release_restore_hold(platform, "prod", plan.token, progress=quiet)
