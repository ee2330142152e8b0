"""Written, backed up, drilled, destroyed, restored by date, undone, killed in the middle: on real components."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from ops_pipeline.core.backup.records import Trigger
from ops_pipeline.errors import PolicyRefused
from ops_pipeline.services.backup.drill import drill
from ops_pipeline.services.backup.integrity import check_set
from ops_pipeline.services.backup.restore import (
    plan_restore,
    refuse_while_switching,
    release_restore_hold,
    restore,
    restore_holds,
    resume_restore,
    undo_restore,
    unfinished_restore,
)
from ops_pipeline.services.backup.restore_journal import Stage
from ops_pipeline.services.backup.sets import find_set
from ops_pipeline.services.backup.take import take_backup
from ops_pipeline_tests.fakes.platform import quiet
from ops_pipeline_tests.services.restore_bed import AheadClock, lay_out, open_platform
from ops_pipeline_tests.testbed.databases import Database, running

SCHEMA = """
CREATE TABLE house (id serial PRIMARY KEY, name text UNIQUE NOT NULL);
CREATE TABLE photo (house integer REFERENCES house ON DELETE CASCADE, file text CHECK (file <> ''));
CREATE VIEW cheap AS SELECT name FROM house WHERE id < 10;
INSERT INTO house (name) SELECT 'Häuschen ' || n FROM generate_series(1, 500) n;
INSERT INTO photo SELECT id, id || '.jpg' FROM house;
"""
DESTROYED = "DROP VIEW cheap; DROP TABLE photo; DELETE FROM house WHERE id > 3; CREATE TABLE stray (x integer);"
LOOK = (
    "SELECT md5(string_agg(h::text, '|' ORDER BY id)) FROM house h;"
    "SELECT last_value FROM house_id_seq;"
    "SELECT string_agg(relname || ' ' || relkind::text, ',' ORDER BY relname) FROM pg_class"
    " WHERE relnamespace = 'public'::regnamespace;"
)


def write_photos(folder: Path) -> None:
    (folder / "2026").mkdir()
    for number in range(40):
        (folder / "2026" / f"{number}.jpg").write_bytes(os.urandom(3000 + number))
    (folder / "2026" / "newest").symlink_to("39.jpg")
    (folder / "2026" / "0.jpg").chmod(0o600)


def photos(folder: Path) -> Mapping[str, object]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        if path.is_file() and not path.is_symlink()
        else str(path.readlink())
        if path.is_symlink()
        else path.stat().st_mode
        for path in sorted(folder.rglob("*"))
        if not path.name.startswith(".ops-")
    }


def look(server: Database, root: Path) -> tuple[str, Mapping[str, object]]:
    return server.client(LOOK, "shop"), photos(root / "photos")


def leftovers(server: Database, root: Path) -> list[str]:
    databases = server.client("SELECT datname FROM pg_database WHERE NOT datistemplate", "postgres").split()
    beside = [path.name for path in root.iterdir() if path.name.startswith((".ops-", "photos."))]
    inside = [path.name for path in (root / "photos").iterdir() if path.name.startswith(".ops-hold")]
    return sorted({*databases} - {"postgres", "shop"}) + beside + inside


@pytest.mark.real
def test_destroyed_restored_by_date_undone_killed_and_resumed(tmp_path: Path) -> None:
    with running("postgres") as server:
        server.client("CREATE DATABASE shop")
        server.client(SCHEMA, "shop")
        lay_out(tmp_path, server.name)
        write_photos(tmp_path / "photos")
        good = look(server, tmp_path)
        platform = open_platform(tmp_path)
        manifest = take_backup(platform, "prod", trigger=Trigger.MANUAL, progress=quiet)
        assert not check_set(platform, "prod", manifest.id, progress=quiet).problems

        result = drill(platform, "prod", run_id="run-1", progress=quiet)
        assert not result.problems and set(result.sources) == {"listings", "photos"}
        assert find_set(platform, "prod", manifest.id).state.drilled_at == result.at
        assert look(server, tmp_path) == good and not leftovers(server, tmp_path)

        server.client(DESTROYED, "shop")
        shutil.rmtree(tmp_path / "photos" / "2026")
        (tmp_path / "photos" / "after.jpg").write_bytes(b"written after the backup")
        bad = look(server, tmp_path)
        assert bad != good

        # By date, and undone.
        plan = plan_restore(platform, "prod", date=f"{platform.clock.now():%Y-%m-%d}")
        assert plan.set_id == manifest.id
        outcome = restore(platform, plan, confirm=lambda words: True, progress=quiet)
        assert outcome.stage is Stage.HELD and look(server, tmp_path) == good
        assert [hold.token for hold in restore_holds(platform, "prod")] == [plan.token]
        undo_restore(platform, "prod", plan.token, progress=quiet)
        assert look(server, tmp_path) == bad
        release_restore_hold(platform, "prod", plan.token, progress=quiet)
        assert not leftovers(server, tmp_path)

        # Killed when the first of the two was swapped; resumed by another process, later.
        died = subprocess.run(
            [sys.executable, "-m", "ops_pipeline_tests.services.restore_bed", str(tmp_path), "listings"],
            timeout=300,
            check=False,
        )
        assert died.returncode == -signal.SIGKILL
        now = look(server, tmp_path)
        assert (now[0], now[1]) == (good[0], bad[1]), "of two moments, and the journal knows"
        with pytest.raises(PolicyRefused, match="two moments"):
            refuse_while_switching(platform.vault(), platform.clock, "prod")
        later = open_platform(tmp_path, "second:1", ahead_seconds=200)
        assert isinstance(later.clock, AheadClock)
        outcome = resume_restore(later, "prod", confirm=lambda words: True, progress=quiet)
        assert outcome.stage is Stage.HELD and look(server, tmp_path) == good
        assert unfinished_restore(later, "prod") is None
        release_restore_hold(later, "prod", outcome.token, progress=quiet)
        assert look(server, tmp_path) == good and not leftovers(server, tmp_path)
