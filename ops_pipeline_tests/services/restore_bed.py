"""A project folder with a real PostgreSQL, a directory of files and a vault in a directory, opened from any process.

As a program (`python -m … <folder> <source>`): restores the newest good set and is killed by SIGKILL as soon as
`source` was swapped.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from ops_pipeline.adapters.backup_keys import make_identity, write_secret_file
from ops_pipeline.adapters.clock import SystemClock
from ops_pipeline.adapters.data_sources import open_sources
from ops_pipeline.adapters.secrets import read_secret
from ops_pipeline.adapters.vaults import open_vault
from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.ports import Clock
from ops_pipeline.services.backup.restore import plan_restore, restore
from ops_pipeline.services.platform import Platform
from ops_pipeline_tests.fakes.platform import Bed, catalogue

QUESTION = "SELECT count(*) FROM house"


class AheadClock(Clock):
    """The real clock of a machine that is so many seconds later: what a dead one held has run out there."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._real = SystemClock()
        self._ahead = timedelta(seconds=seconds)

    def now(self) -> datetime:
        return self._real.now() + self._ahead

    def monotonic(self) -> float:
        return self._real.monotonic()

    def sleep(self, seconds: float) -> None:
        self._real.sleep(seconds)


def postgres(container: str) -> dict[str, Any]:
    """The PostgreSQL of the project, as the catalogue describes it."""
    return {"kind": "postgres", "container": container, "database": "shop", "questions": {"houses": QUESTION}}


def lay_out(
    root: Path, container: str, more: Mapping[str, Any] | None = None, store: Mapping[str, Any] | None = None
) -> None:
    """Write keys and settings of a project whose data are in `container`, in `photos` and in what `more` describes.

    `store` is where its backups are; default a directory of the project's.
    """
    identity = make_identity(datetime.now(UTC))
    write_secret_file(root / "identity", identity.text)
    (root / "photos").mkdir()
    document = catalogue().model_dump(mode="json", exclude_none=True, warnings=False)
    document["environments"]["prod"]["backup"] = {
        "sources": {
            "listings": postgres(container),
            "photos": {"kind": "directory", "path": "photos"},
            **(more or {}),
        },
        "drill_memory_mb": 256,
    }
    document["backups"] = {
        "store": dict(store or {"directory": "backups"}),
        "recipients": [identity.recipient],
        "identity": "file:identity",
        "signing_key": "file:signing_key",
        "workers": 2,
    }
    (root / "catalogue.json").write_text(json.dumps(document))


def open_platform(root: Path, controller: str = "test:1", ahead_seconds: float = 0.0) -> Platform:
    """Databases, files and vault are real; services and their engine are in memory."""
    book = Catalogue.model_validate(json.loads((root / "catalogue.json").read_text()))
    secret = partial(read_secret, root=root)
    return replace(
        Bed(book).platform(controller),
        root=root,
        clock=AheadClock(ahead_seconds),
        secret=secret,
        vault=lambda: open_vault(book.backups, root, secret),
        sources=lambda environment: open_sources(book, environment, root, secret),
    )


def restore_and_die(root: Path, source: str) -> None:
    """Restore the newest good set; never returns from the swap."""
    platform = open_platform(root, "doomed:1")

    def watch(line: str) -> None:
        if line == f"{source}: the restored data are live":
            os.kill(os.getpid(), signal.SIGKILL)

    restore(platform, plan_restore(platform, "prod"), confirm=lambda words: True, progress=watch)


if __name__ == "__main__":
    restore_and_die(Path(sys.argv[1]), sys.argv[2])
