"""One data source of a set brought to a place beside the live data (or a scratch server), and compared there."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import cast

from ops_pipeline.core.backup.records import FILE_KINDS, Part
from ops_pipeline.errors import StoreDamaged
from ops_pipeline.ports import Beside, DataSource, FileTree, Progress, Vault
from ops_pipeline.services.backup.comparing import Compared, compare_contents, expected_contents, shortened
from ops_pipeline.services.backup.files import compare_files, restore_files
from ops_pipeline.services.backup.meter import Meter
from ops_pipeline.services.backup.streams import read_stream
from ops_pipeline.services.platform import Platform

Alive = Callable[[str], None]
"""Called about once a second while bytes flow; may raise to stop."""


def load_source(
    platform: Platform,
    vault: Vault,
    source: DataSource | FileTree,
    parts: Sequence[Part],
    token: str,
    *,
    only: Sequence[str] = (),
    alive: Alive,
    progress: Progress,
) -> Compared:
    """Restore one source beside the live data, and compare. What an earlier attempt left is replaced or gone on with.

    Raise StoreDamaged naming source and object, PolicyRefused (no identity), Permanent (the tool's last words), and
    what `alive` raises.
    """
    if source.kind in FILE_KINDS:
        tree = cast(FileTree, source)
        return load_tree(platform, vault, tree, parts, token, only=only, alive=alive, progress=progress)
    database = cast(DataSource, source)
    beside = database.beside(token)
    load_database(platform, vault, source.name, beside, parts, alive=alive, progress=progress)
    return compare_contents(source.name, expected_contents(parts), beside.contents())


def load_database(
    platform: Platform,
    vault: Vault,
    name: str,
    beside: Beside,
    parts: Sequence[Part],
    *,
    alive: Alive,
    progress: Progress,
) -> None:
    """Load all parts in the order they were dumped, and bring the place up to speed. Raise as `load_source`."""
    workers = platform.catalogue.backups.workers
    for part in parts:
        label = name if len(parts) == 1 else f"{name} {part.name}"
        meter = Meter(progress, platform.clock, label, part.stream.plain_size, alive)
        try:
            with closing(_chunks(vault, part, workers, meter)) as chunks:
                beside.load(part.name, chunks)
                # A tool that stops reading before the end has not seen all of it.
                for _ in chunks:
                    pass
        except StoreDamaged as error:
            raise StoreDamaged(f"{name}: {error.message}", hint=error.hint) from error
        meter.done()
    alive(f"{name}: finishing")
    beside.finish()


def load_tree(
    platform: Platform,
    vault: Vault,
    tree: FileTree,
    parts: Sequence[Part],
    token: str,
    *,
    only: Sequence[str] = (),
    alive: Alive,
    progress: Progress,
) -> Compared:
    """Restore a tree of files beside the live one and read it back. Raise as `load_source`."""
    workers = platform.catalogue.backups.workers
    found = Compared(0)

    def told(line: str) -> None:
        progress(line)
        alive(line)

    for part in parts:
        try:
            restore_files(vault, part, tree, token, only=only, workers=workers, progress=told)
            differences = compare_files(vault, part, tree, token, only=only, workers=workers, progress=told)
        except StoreDamaged as error:
            raise StoreDamaged(f"{tree.name}: {error.message}", hint=error.hint) from error
        found = found.and_also(Compared(differences.count, shortened(tree.name, differences.problems)))
    return found


def _chunks(vault: Vault, part: Part, workers: int, meter: Meter) -> Generator[bytes, None, None]:
    yield from read_stream(vault.sets, vault.sealing, part.stream, workers=workers, on_bytes=meter)
