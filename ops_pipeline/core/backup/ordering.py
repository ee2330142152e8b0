"""In which order the data sources of one set are taken.

Applications write a file before the row that names it, and the row before the job or the cache entry that names the
row. The moment of what names is therefore before the moment of what it names: then everything named was there already.
Deletions in between remain possible and are reported where references can be checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from ops_pipeline.core.backup.records import FILE_KINDS, Kind

QUEUES = ("redis",)


class _Source(Protocol):
    @property
    def kind(self) -> Kind:
        """Kind in the catalogue."""


S = TypeVar("S", bound=_Source)


def in_order(sources: Iterable[S]) -> Sequence[S]:
    """Sources in the order to take them: queues and caches, databases, files; each in the order given."""
    return sorted(sources, key=lambda source: rank(source.kind))


def rank(kind: Kind) -> int:
    """Place of a kind: lower ones are taken first."""
    if kind in QUEUES:
        return 0
    return 2 if kind in FILE_KINDS else 1
