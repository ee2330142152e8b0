"""`python -m benchmarks.backup_actions PROJECT ACTION …`: one measured action on a project of `benchmarks.backup`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from ops_pipeline.core.backup.records import FILE_KINDS, Trigger
from ops_pipeline.defs.resources import build_platform
from ops_pipeline.services.platform import Platform

ENVIRONMENT = "bench"


def _platform(root: Path) -> Platform:
    return build_platform(root / "deploy" / "services.yaml")


def keys(root: Path) -> None:
    """An identity and its recipient."""
    from ops_pipeline.adapters.backup_keys import make_identity, write_secret_file

    made = make_identity(datetime.now(UTC))
    write_secret_file(root / ".ops/secrets/backup_identity", made.text)
    write_secret_file(root / ".ops/secrets/backup_recipient", made.recipient + "\n")


def take(root: Path, *sources: str) -> None:
    """A whole set, or one of some sources."""
    from ops_pipeline.services.backup.take import take_backup

    manifest = take_backup(
        _platform(root), ENVIRONMENT, trigger=Trigger.MANUAL, reason="measured", sources=sources, progress=_quiet
    )
    print(manifest.stored_size)


def check(root: Path) -> None:
    """Every stored byte of the newest set."""
    from ops_pipeline.services.backup.integrity import check_set
    from ops_pipeline.services.backup.sets import backup_sets

    platform = _platform(root)
    newest = backup_sets(platform, ENVIRONMENT)[0]
    found = check_set(platform, ENVIRONMENT, newest.manifest.id, share=1.0, progress=_quiet)
    assert not found.problems, found.problems


def read(root: Path, target: str) -> None:
    """Files of the newest set beside their directory, its dumps opened into nothing."""
    from ops_pipeline.adapters.file_tree import DirectoryTree
    from ops_pipeline.services.backup.files import restore_files
    from ops_pipeline.services.backup.sets import backup_sets, whole_set
    from ops_pipeline.services.backup.streams import read_stream

    platform = _platform(root)
    vault = platform.vault()
    for part in whole_set(platform, backup_sets(platform, ENVIRONMENT)[0]).manifest.parts:
        if part.kind in FILE_KINDS:
            Path(target).mkdir()
            restore_files(vault, part, DirectoryTree("restored", Path(target)), "bench00", workers=4, progress=_quiet)
        else:
            for _ in read_stream(vault.sets, vault.sealing, part.stream):
                pass


def dump(root: Path) -> None:
    """The database's dump through the adapter and sealing, blocks thrown away."""
    from benchmarks.null_store import NullStore
    from ops_pipeline.services.backup.streams import write_stream

    platform = _platform(root)
    vault = platform.vault()
    (database,) = [source for source in platform.sources(ENVIRONMENT) if source.kind == "postgres"]
    with database.dumps() as dumps:  # type: ignore[union-attr]
        for number, each in enumerate(dumps):
            stream = write_stream(NullStore(), vault.sealing, f"x/{number}", f"x/{number}", each.read)
            each.arrived()  # what was counted in the snapshot beside the dump is part of a backup
            print(each.name, stream.plain_size)


def stream(root: Path, size: str) -> None:
    """So many bytes that half compress, into nothing."""
    import os

    from benchmarks.null_store import NullStore
    from ops_pipeline.services.backup.streams import write_stream

    left, piece = int(size), os.urandom(500_000) + b"a fine thing " * 40_000

    def some(most: int) -> bytes:
        nonlocal left
        part = piece[: min(most, left, len(piece))]
        left -= len(part)
        return part

    write_stream(NullStore(), _platform(root).vault().sealing, "x", "x", some)


ACTIONS: dict[str, Callable[..., None]] = {
    "keys": keys,
    "take": take,
    "check": check,
    "read": read,
    "dump": dump,
    "stream": stream,
}


def main(arguments: Sequence[str]) -> None:
    root, action, *rest = arguments
    ACTIONS[action](Path(root), *rest)


def _quiet(line: str) -> None: ...


if __name__ == "__main__":
    main(sys.argv[1:])
