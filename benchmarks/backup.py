"""Backups beside restic, borg, a bare upload and the bare dump: photos and PostgreSQL, all in one run.

`make bench-backup`. OPS_BENCH_SCALE=0.1 takes a tenth of the data (1.5 GB in 3,000 photos, 2 GB of PostgreSQL);
OPS_BENCH_PARTS chooses ("directory,azurite,dump,memory,plan"). Ours runs in a process of its own each time, as `ops`
would, and so do the peers; times are of the whole process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ops_pipeline_tests.testbed.databases import Database, running

SCALE = float(os.environ.get("OPS_BENCH_SCALE", "1"))
PARTS = os.environ.get("OPS_BENCH_PARTS", "directory,dump,azurite,memory,plan").split(",")
PHOTOS = 3000
PHOTO_BYTES = 500_000
DATABASE_BYTES = 2_000_000_000
ENVIRONMENT = "bench"
DATABASE = "shop"


@dataclass(frozen=True)
class Took:
    """One process: seconds and the most memory it held, in bytes; `cpu` seconds with those of its children.

    What the Docker Engine and the database server use for a dump is in no `cpu`.
    """

    seconds: float
    memory: int
    output: str = ""
    cpu: float = 0.0


def timed(argv: Sequence[str], *, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> Took:
    """Run a command and measure it. Raise SystemExit with its words when it fails."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            list(argv), cwd=cwd, stdout=words, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - began
        words.seek(0)
        output = words.read().decode(errors="replace")
    if process.returncode:
        raise SystemExit(f"{' '.join(argv)[:200]}: exit code {process.returncode}: {output[-2000:]}")
    return Took(seconds, usage.ru_maxrss * 1024, output, usage.ru_utime + usage.ru_stime)


def peers() -> None:
    """restic and borg from Debian, when they are missing."""
    if not (shutil.which("restic") and shutil.which("borg")):
        subprocess.run(
            ["apt-get", "-qq", "install", "-y", "--no-install-recommends", "restic", "borgbackup"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def photos(folder: Path) -> int:
    """Files that do not compress, as photos do not. Return their bytes."""
    count, total = max(1, round(PHOTOS * SCALE)), 0
    for number in range(count):
        place = folder / f"{number % 50:02d}" / f"photo-{number:05d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        size = PHOTO_BYTES // 2 + (number * 7919) % PHOTO_BYTES
        place.write_bytes(b"\xff\xd8\xff\xe0" + os.urandom(size))
        total += size + 4
    return total


def fill(database: Database, size: int) -> None:
    """Rows as applications have them: numbers, dates, names, some text, an index."""
    database.client(f"CREATE DATABASE {DATABASE};")
    rows = max(1000, size // 250)
    database.client(
        f"""
        CREATE TABLE listings (id bigserial PRIMARY KEY, owner int, title text, body text, price numeric(10,2),
                               created timestamptz);
        INSERT INTO listings (owner, title, body, price, created)
        SELECT n % 5000, 'Listing ' || n, md5(n::text) || ' ' || md5((n * 7)::text) || ' ' || repeat('a fine thing', 9),
               (n % 100000) / 100.0, timestamptz '2026-01-01' + n * interval '1 second'
        FROM generate_series(1, {rows}) AS n;
        CREATE INDEX ON listings (owner);
        """,
        DATABASE,
    )


class Project:
    """A catalogue with the two data sources, and what runs on it."""

    def __init__(self, root: Path, folder: Path, container: str, store: Mapping[str, object]) -> None:
        self.root = root
        sources: dict[str, object] = {
            "shop": {"kind": "postgres", "container": container, "database": DATABASE},
            "photos": {"kind": "directory", "path": str(folder)},
        }
        catalogue = {
            "version": 1,
            "project": "bench",
            "registry": {"address": "127.0.0.1:5000/bench"},
            "store": {"directory": ".ops/store"},
            "alertmanager": {"url": ""},
            "backups": {
                "store": store,
                "recipients_file": ".ops/secrets/backup_recipient",
                "identity": "file:.ops/secrets/backup_identity",
            },
            "environments": {
                ENVIRONMENT: {
                    "hosts": [{"name": "local"}],
                    "url": "http://127.0.0.1:8099",
                    "subnet": "10.219.0.0/22",
                    "backup": {"sources": sources},
                }
            },
            "services": {"web": {"build": {"context": "web"}, "port": 8080}},
        }
        (root / "deploy").mkdir(parents=True)
        (root / "web").mkdir()
        (root / "deploy" / "services.yaml").write_text(json.dumps(catalogue))

    def do(self, action: str, *arguments: str) -> Took:
        """One action of `benchmarks.backup_actions`, in a process of its own."""
        argv = [sys.executable, "-m", "benchmarks.backup_actions", str(self.root), action, *arguments]
        return timed(argv)


def rate(size: int, took: Took) -> str:
    return f"{size / took.seconds / 1e6:.0f} MB/s"


def line(what: str, ours: Took, other: Took, peer: str, limit: float, *, more_is_better: bool = True) -> bool:
    """Print our speed as a ratio to a peer's. Return whether the limit holds."""
    ratio = other.seconds / ours.seconds
    good = ratio >= limit
    print(
        f"   {what:<34} {ours.seconds:>7.1f} s {peer:>16} {other.seconds:>7.1f} s   {ratio:>5.2f} x  (limit"
        f" {limit:.2g} x){'' if good else '  MISSED'}   CPU {ours.cpu:.1f} and {other.cpu:.1f} s",
        flush=True,
    )
    return good


def dump_command(database: Database, tail: str) -> list[str]:
    dump = f"docker exec {database.name} pg_dump -U postgres -Fc -Z0 {DATABASE}"
    return ["bash", "-c", f"set -o pipefail; {dump} | {tail}"]


def joined(*all_of: Took) -> Took:
    return Took(
        sum(one.seconds for one in all_of), max(one.memory for one in all_of), "", sum(one.cpu for one in all_of)
    )


def beside_directory(work: Path, folder: Path, size: int, database: Database) -> bool:
    """A directory store against restic and borg."""
    restic = {"RESTIC_REPOSITORY": str(work / "restic"), "RESTIC_PASSWORD": "x", "RESTIC_CACHE_DIR": str(work / "rc")}
    borg = {"BORG_PASSPHRASE": "x", "BORG_REPO": str(work / "borg"), "BORG_BASE_DIR": str(work / "bb")}
    project = Project(work / "ours", folder, database.name, {"directory": ".ops/backups"})
    project.do("keys")
    timed(["restic", "init"], environment=restic)
    timed(["borg", "init", "--encryption", "repokey"], environment=borg)

    def restic_run() -> Took:
        return joined(
            timed(dump_command(database, "restic backup --stdin --stdin-filename shop.dump"), environment=restic),
            timed(["restic", "backup", str(folder)], environment=restic),
        )

    def borg_run(name: str) -> Took:
        return joined(
            timed(dump_command(database, f"borg create ::{name}-db -"), environment=borg),
            timed(["borg", "create", f"::{name}", str(folder)], environment=borg),
        )

    os.sync()
    first = project.do("take")
    os.sync()
    restic_first = restic_run()
    os.sync()
    borg_first = borg_run("first")
    good = line("first backup", first, restic_first, "restic", 2)
    good &= line("", first, borg_first, "borg", 2)
    again, restic_again = project.do("take"), restic_run()
    good &= line("unchanged run", again, restic_again, "restic", 1)
    good &= line(
        "full verify", project.do("check"), timed(["restic", "check", "--read-data"], environment=restic), "restic", 1.5
    )
    shutil.rmtree(work / "borg")
    target = work / "restored"
    restic_restore = joined(
        timed(["restic", "restore", "latest", "--path", str(folder), "--target", str(target)], environment=restic),
        timed(["sync", "-f", str(target)]),  # ours returns when what it restored is durable
        timed(["bash", "-c", "restic dump --path /shop.dump latest shop.dump > /dev/null"], environment=restic),
    )
    shutil.rmtree(target)
    ours = project.do("read", str(work / "ours-restored"))
    good &= line("restore: files, dump into null", ours, restic_restore, "restic", 1.5)
    shutil.rmtree(work / "ours-restored", ignore_errors=True)
    print(f"   most memory: taking {first.memory / 1e6:.0f} MB, reading {ours.memory / 1e6:.0f} MB (limit 300 MB)")
    return good and max(first.memory, ours.memory, again.memory) <= 300e6


def beside_dump(work: Path, folder: Path, database: Database) -> bool:
    """The database alone, into a directory, against the dump tool into zstd -3 into nothing."""
    project = Project(work / "dump", folder, database.name, {"directory": ".ops/backups"})
    project.do("keys")
    bare = timed(dump_command(database, "zstd -q -3 > /dev/null"))
    ours = project.do("dump")
    return line("database dump into null", ours, bare, "pg_dump | zstd -3", 1 / 1.1)


def memory_at(work: Path) -> bool:
    """Peak memory of one stream of 1 GB and of 10 GB into nothing."""
    project = Project(work / "memory", work, "nobody", {"directory": ".ops/backups"})
    project.do("keys")
    small, large = (project.do("stream", str(int(size * SCALE))) for size in (1e9, 1e10))
    print(f"   most memory: {small.memory / 1e6:.0f} MB at 1 GB, {large.memory / 1e6:.0f} MB at 10 GB (limit 300 MB)")
    return large.memory <= 300e6


def main() -> None:
    """Print the ratios; fail when one is below its limit."""
    peers()
    good = True
    with (
        tempfile.TemporaryDirectory(prefix="ops-bench-") as name,
        running("postgres", memory="2g", in_memory=False) as db,
    ):
        work = Path(name)
        folder = work / "photos"
        size = photos(folder)
        fill(db, round(DATABASE_BYTES * SCALE))
        real = int(db.client(f"SELECT pg_database_size('{DATABASE}');"))
        print(f"   {size / 1e9:.2f} GB of photos, PostgreSQL of {real / 1e9:.2f} GB", flush=True)
        if "dump" in PARTS:
            good &= beside_dump(work, folder, db)
        if "directory" in PARTS:
            good &= beside_directory(work, folder, size, db)
        if "azurite" in PARTS:
            from benchmarks.backup_azurite import beside_bare_upload

            good &= beside_bare_upload(work, folder, db)
        if "memory" in PARTS:
            good &= memory_at(work)
    if "plan" in PARTS:
        from benchmarks.backup_plans import plans

        good &= plans()
    if not good:
        raise SystemExit("a limit was missed")


if __name__ == "__main__":
    main()
