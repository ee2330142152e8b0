"""All data sources of one set: databases one after the other, files beside the last of them.

An application writes a file before the row that names it. So files may be read as soon as no row can come into any
dump any more: when the dumps before are done, and the last one's moment is past (`Dump.stands`), however long it
streams. A dump waits mostly for its own tool, which uses one processor; files use what is left.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from ops_pipeline.core.backup.ordering import in_order
from ops_pipeline.core.backup.records import FILE_KINDS, Part
from ops_pipeline.ports import DataSource, FileTree
from ops_pipeline.services.backup.aside import Aside, Check
from ops_pipeline.services.backup.dumping import Dumper

T = TypeVar("T", bound=str)


class MakeDumper(Protocol):
    """Makes what takes sources: `check` is called often and may raise, `workers` threads seal and store."""

    def __call__(self, check: Check, workers: int) -> Dumper:
        """A `Dumper`."""


def take_all(make: MakeDumper, sources: Sequence[DataSource | FileTree], workers: int) -> tuple[Part, ...]:
    """Parts of all sources, databases first, each source's in their order.

    When one fails, the other is ended, and nothing goes on when this raises. Raise as `Dumper.take`.
    """
    ordered = in_order(sources)
    databases = [source for source in ordered if source.kind not in FILE_KINDS]
    trees = [source for source in ordered if source.kind in FILE_KINDS]
    attempts: dict[str, int] = {}

    def files(check: Check) -> tuple[Part, ...]:
        # Attempts are counted over all that is begun here: no object is ever written twice.
        taking = make(check, workers)
        return tuple(part for tree in trees for part in taking.take(tree, attempts=attempts))

    with Aside(files, "files") as aside:
        # Memory: two streams at once, so the dump has fewer frames under way.
        taking = make(aside.check, max(workers // 2, 1) if trees else workers)
        parts: list[Part] = []
        for number, source in enumerate(databases, 1):
            last = bool(trees) and number == len(databases)
            parts += taking.take(source, aside=aside if last else None)
        return (*parts, *aside.result())


def one_at_a_time(action: Callable[[T], None]) -> Callable[[T], None]:
    """`action` for several threads."""
    lock = threading.Lock()

    def locked(words: T) -> None:
        with lock:
            action(words)

    return locked
