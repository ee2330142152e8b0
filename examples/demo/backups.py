"""The acts about backups: write data, back them up, lose all of them, restore them by date, see that all are back."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from deploy.setup.docker_cli import need_docker
from examples.demo.commands import PORTS, DemoFailed, console, go_on, ops, ops_json

ENVIRONMENT = "prod"
LISTINGS, PHOTOS = 120, 6
PAGE = 100
STORED = ("title", "description", "price_cents", "photo", "photo_url", "created_at")
SETTLE_SECONDS = 30.0
"""Sessions end when data are swapped, and caches hold for a few seconds: so long the API may take to show it."""
PNG = b"\x89PNG\r\n\x1a\n"
DESTROY_PHOTOS = "import pathlib; [path.unlink() for path in pathlib.Path('/srv/photos').rglob('*') if path.is_file()]"


@dataclass(frozen=True)
class Shown:
    """What people see: every listing as the API shows it, and the SHA-256 of every photo."""

    listings: dict[str, Any]
    photos: dict[str, str]

    @property
    def words(self) -> str:
        """In one line."""
        return f"{len(self.listings):,} listings and {len(self.photos)} photos"


@dataclass
class Story:
    """The acts about backups, on `prod`, and what they must know of each other."""

    taken: str = ""
    """Id of the backup set."""
    before: Shown = field(default_factory=lambda: Shown({}, {}))

    def write(self) -> None:
        """Listings and photos, through the API."""
        write()
        self.before = shown()
        console.print(f"people see {self.before.words}")

    def back_up(self) -> None:
        """One set of all data, by the job that the schedule starts."""
        ops("backup", ENVIRONMENT, "--why", "demonstration")
        ops("backups", ENVIRONMENT)
        newest = ops_json("backups", ENVIRONMENT)["sets"][0]
        self.taken = newest["id"]
        if newest["quarantined"]:
            console.print("It is kept apart: an earlier demonstration left other data. A person looks, and accepts it")
            ops("backups", "accept", self.taken, "--why", "the demonstration began anew")

    def lose_everything_and_have_it_back(self) -> None:
        """Destroy all data, restore by date, compare. Nobody may write meanwhile."""
        destroy()
        left = shown_once(lambda found: not found.listings)
        console.print(f"people see [bold red]{left.words}[/]")
        if left.listings:
            raise DemoFailed("what was to be destroyed is still there")
        ops("restore", ENVIRONMENT, "--date", f"{datetime.now(UTC):%Y-%m-%d}", "--dry-run")
        ops("restore", ENVIRONMENT, "--date", f"{datetime.now(UTC):%Y-%m-%d}", "--yes")
        after = shown_once(lambda found: found == self.before)
        console.print(f"people see {after.words}")
        if after != self.before:
            raise DemoFailed(f"not all is as it was: {difference(self.before, after)}")
        console.print("[bold green]every listing and every byte of every photo is as it was[/]")

    def drill(self) -> None:
        """The set restored into throw-away servers and compared; then what restores kept may go."""
        ops("drill", ENVIRONMENT, "--set", self.taken)
        ops("backups", "show", self.taken)
        if holds := ops_json("restores", ENVIRONMENT)["holds"]:
            console.print("what the restore replaced was kept; it may go now")
        for hold in holds:
            ops("restores", ENVIRONMENT, "--release", hold["token"], "--yes")
        ops("backups", "prune", ENVIRONMENT, "--dry-run")


def write() -> None:
    """Add listings, some with a photo of their own: the same in every demonstration, and one that is new."""
    chance = random.Random(LISTINGS)  # photos nobody can compress, the same every time
    for number in range(LISTINGS + 1):
        key = f"demonstration {number}" if number else ""
        listing = {
            "title": f"Chair no. {number} ☕ «naïve»",
            "description": "for the demonstration of backups",
            "price_cents": 100 * number,
        }
        if number in range(1, PHOTOS + 1):
            listing["photo"] = ask("POST", "/api/photos", PNG + chance.randbytes(200_000), "image/png")["photo"]
        ask("POST", "/api/listings", json.dumps(listing).encode(), "application/json", key)


def shown() -> Shown:
    """Read everything the way a browser does."""
    listings: dict[str, Any] = {}
    before = ""
    while True:
        answer = ask("GET", f"/api/listings?limit={PAGE}" + (f"&before={before}" if before else ""))
        if answer["degraded"]:
            raise DemoFailed("the API shows an old copy: it has no database")
        page = answer["listings"]
        # What it says besides (new, a bargain) depends on the time and on who looks.
        listings |= {one["id"]: {name: one[name] for name in STORED} for one in page}
        if len(page) < PAGE or page[-1]["id"] == before:
            break
        before = page[-1]["id"]
    photos: dict[str, str] = {}
    for key, one in listings.items():
        if one["photo_url"]:
            photos[key] = hashlib.sha256(read(one["photo_url"])).hexdigest()
    return Shown(listings, photos)


def shown_once(settled: Callable[[Shown], bool]) -> Shown:
    """What people see as soon as it is settled, or after half a minute."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        go_on()
        late = time.monotonic() > deadline
        try:
            found = shown()
            if settled(found) or late:
                return found
        except DemoFailed:
            if late:
                raise
        time.sleep(0.5)


def destroy() -> None:
    """Do what an accident does, past the API."""
    database = container(f"storefront.environment={ENVIRONMENT}", "storefront.data=postgres")
    cache = container(f"storefront.environment={ENVIRONMENT}", "storefront.data=redis")
    api = container(f"ops.environment={ENVIRONMENT}", "ops.service=api")
    run(database, "psql", "-U", "postgres", "-q", "-d", "storefront", "-c", "DELETE FROM listings")
    run(api, "python3", "-c", DESTROY_PHOTOS)
    run(cache, "redis-cli", "FLUSHALL")


def difference(before: Shown, after: Shown) -> str:
    """What is not as it was, for an error."""
    lost = before.listings.keys() - after.listings.keys()
    more = after.listings.keys() - before.listings.keys()
    changed = [
        key for key in before.listings.keys() & after.listings.keys() if before.listings[key] != after.listings[key]
    ]
    photos = [key for key, digest in before.photos.items() if after.photos.get(key) != digest]
    return (
        f"{len(lost)} listings are missing, {len(more)} too many, {len(changed)} changed; "
        f"{len(photos)} photos are missing or changed"
    )


def container(*labels: str) -> str:
    """Id of a running container with these labels. Raise DemoFailed."""
    filters = [word for label in labels for word in ("--filter", f"label={label}")]
    found = docker_output("ps", "--quiet", *filters).split()
    if not found:
        raise DemoFailed(f"no container has the labels {', '.join(labels)}")
    return found[0]


def run(container_id: str, *argv: str) -> None:
    """Run a command in a container, shown as typed."""
    console.print(f"[dim]$[/] [bold]docker exec … {' '.join(argv)[:100]}", markup=True)
    docker_output("exec", container_id, *argv)


def docker_output(*arguments: str) -> str:
    """What docker prints. Raise DemoFailed."""
    done = subprocess.run([need_docker().path, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DemoFailed(f"docker {' '.join(arguments)[:100]}: {done.stderr.strip()}")
    return done.stdout


def ask(method: str, path: str, body: bytes | None = None, kind: str = "", key: str = "") -> Any:
    """One request to prod's API, its answer as data; with the same `key` it adds nothing twice. Raise DemoFailed."""
    return json.loads(_request(method, path, body, kind, key))


def read(path: str) -> bytes:
    """Bytes at a path of prod; nothing when it is not there."""
    try:
        return _request("GET", path, None, "")
    except DemoFailed:
        return b""


def _request(method: str, path: str, body: bytes | None, kind: str, key: str = "") -> bytes:
    headers = ({"Content-Type": kind} if kind else {}) | ({"Idempotency-Key": key} if key else {})
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORTS[ENVIRONMENT]}{path}", data=body, method=method, headers=headers
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bytes(answer.read())
    except (urllib.error.URLError, OSError) as error:
        raise DemoFailed(f"{method} {path}: {error}") from None
