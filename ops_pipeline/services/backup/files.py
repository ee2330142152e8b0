"""Files of a backup: taking, listing, restoring and comparing them. The words other use cases know."""

from __future__ import annotations

from collections.abc import Iterator

from ops_pipeline.core.backup.media import MediaReference, media_key
from ops_pipeline.core.backup.records import Part
from ops_pipeline.errors import Permanent
from ops_pipeline.ports import Clock, Vault
from ops_pipeline.services.backup.file_comparing import compare_files
from ops_pipeline.services.backup.file_restoring import restore_files
from ops_pipeline.services.backup.file_taking import back_up_files
from ops_pipeline.services.backup.listed_files import listed_files, read_references_of

__all__ = [
    "MediaReference",
    "back_up_files",
    "compare_files",
    "listed_files",
    "media_key",
    "references",
    "restore_files",
]


def references(vault: Vault, part: Part, *, clock: Clock | None = None) -> Iterator[MediaReference]:
    """Every media object a file part needs; an object may come more than once. No identity is needed.

    Raise StoreDamaged naming the list, Permanent when the part is no part of files.
    """
    if part.files is None:
        raise Permanent(f"{part.source} {part.name} is no list of files")
    return read_references_of(vault, clock, part.files.references.key, part.files.references)
