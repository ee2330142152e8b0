"""A person who has lost data: proves a backup by a drill and restores by date, in the Dagster UI, in a real browser.

OPS_SCREENSHOTS=folder keeps the screenshots.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Page

from ops_pipeline_tests.e2e.test_ui_deploy import page, shot, shots
from ops_pipeline_tests.testbed import databases, ui
from ops_pipeline_tests.testbed.control_plane import ControlPlaneBed, docker, front_door, project, serving

__all__ = ["page", "shots"]
pytestmark = [pytest.mark.real, pytest.mark.browser, pytest.mark.thorough]

BACKUPS = """\
backups:
  recipients_file: .ops/secrets/backup_recipients
  identity: file:.ops/secrets/backup_identity
"""
SOURCES = """\
    backup:
      scheduled: false
      sources:
        cache: {{kind: redis, container: {container}}}
        uploads: {{kind: directory, path: uploads}}
"""
PHOTO = bytes(range(256)) * 400


@pytest.fixture
def cache() -> Iterator[databases.Database]:
    with databases.running("redis") as made:
        made.run("redis-cli", "SET", "greeting", "héllo")
        try:
            yield made
        finally:
            # A restore that was not released, because the test failed, keeps what was live.
            for kind in (("ps", "--all"), ("volume", "ls")):
                left = docker(*kind, "--quiet", "--filter", f"name={made.name}-").split()
                for name in left:
                    docker(*(("volume", "rm") if kind[0] == "volume" else ("rm",)), "--force", name)


@pytest.fixture
def shop(cache: databases.Database) -> Iterator[ControlPlaneBed]:
    """A project with data, its keys and its UI. Its environment `prod` is the engine's; nothing is deployed."""
    with project() as bed:
        text = bed.catalogue.read_text()
        head, _, tail = text.partition("services:\n")
        head = head.replace("unix:///nowhere/docker.sock", "unix:///var/run/docker.sock")
        bed.catalogue.write_text(head + SOURCES.format(container=cache.name) + BACKUPS + "services:\n" + tail)
        (bed.root / "uploads").mkdir()
        (bed.root / "uploads/chair.jpg").write_bytes(PHOTO)
        made = bed.ops("backup", "keys")
        assert made.returncode == 0, made.stderr
        with serving(bed), front_door(bed):
            yield bed


def test_a_drill_and_a_restore_by_date(
    shop: ControlPlaneBed, cache: databases.Database, page: Page, shots: Path
) -> None:
    url = shop.url
    taken = shop.ops("backup", "prod", "--why", "before the accident", timeout=240)
    assert taken.returncode == 0, taken.stderr

    # The set, its parts and its checks.
    ui.open_page(page, f"{url}/assets/backup?view=partitions&partition=prod", "manifest_sha256", "mb_per_second")
    shot(page, shots / "backup.png")

    # A drill, by the button of its asset.
    run = ui.materialize_one(page, url, "restore_drill", "prod")
    ui.wait_for_run(page, url, run, "Success", seconds=240)
    shot(page, shots / "drill-run.png")
    ui.open_page(page, f"{url}/assets/restore_drill?view=partitions&partition=prod", "recovery_seconds", "compared")
    shot(page, shots / "drill.png")
    checks = f"{url}/assets/restore_drill?view=checks&checkDetail=restored_equals_source"
    ui.open_page(page, checks, "restored_equals_source", "comparisons")
    shot(page, shots / "drill-check.png")

    # The accident.
    (shop.root / "uploads/chair.jpg").unlink()
    cache.run("redis-cli", "FLUSHALL")

    # As the launchpad is filled in, nothing happens but words.
    dry = ui.launch_job(page, url, "restore", "prod", screenshot=shots / "restore-launchpad.png")
    ui.wait_for_run(page, url, dry, "Success", seconds=240)
    ui.show_step(page, url, dry, "restore_data")
    ui.expect_words(page, "nothing was changed: this was a dry run")
    shot(page, shots / "restore-dry.png")
    assert not (shop.root / "uploads/chair.jpg").exists()

    today = f"{datetime.now(UTC):%Y-%m-%d}"
    config = f"{{date: '{today}', dry_run: false, confirm: prod}}"
    real = ui.launch_job(page, url, "restore", "prod", config=f"ops: {{restore_data: {{config: {config}}}}}")
    ui.wait_for_run(page, url, real, "Success", seconds=240)
    ui.show_step(page, url, real, "restore_data")
    ui.expect_words(page, "what was live is kept as the hold")
    shot(page, shots / "restore-run.png")
    assert (shop.root / "uploads/chair.jpg").read_bytes() == PHOTO
    assert cache.run("redis-cli", "GET", "greeting").decode().strip() == "héllo"

    # What it replaced was kept, and goes when somebody says so.
    (hold,) = json.loads(shop.ops("restores", "prod", "--json").stdout)["holds"]
    released = shop.ops("restores", "prod", "--release", hold["token"], "--yes", timeout=240)
    assert released.returncode == 0, released.stderr
    assert not docker("volume", "ls", "--quiet", "--filter", f"name={cache.name}-")
