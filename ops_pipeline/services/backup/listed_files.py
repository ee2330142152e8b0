"""Reading back what a file part says: its list (sealed) and its references (not)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from ops_pipeline.core.backup.file_list import ListedFile, ListError, read_list
from ops_pipeline.core.backup.media import MediaReference, read_references
from ops_pipeline.core.backup.records import FRAME_BYTES, Part, Reference
from ops_pipeline.errors import BadInput, NotFound, Permanent, Problem, StoreDamaged
from ops_pipeline.ports import Clock, Vault
from ops_pipeline.services.backup.streams import read_stream
from ops_pipeline.services.retrying import retried

T = TypeVar("T")
_HINT = "Nothing was deleted. Restore the object from a copy of the store, or remove the set it belongs to."


def listed_files(vault: Vault, part: Part, *, workers: int = 2) -> Iterator[ListedFile]:
    """The files of a part, by path. Needs an identity.

    Raise StoreDamaged, PolicyRefused; BadInput for a list that would lead out of the tree or cannot be one.
    """
    if part.files is None:
        raise Permanent(f"{part.source} {part.name} is no list of files")
    chunks = read_stream(vault.sets, vault.sealing, part.stream, workers=workers)
    try:
        yield from read_list(chunks, entries=part.files.entries, plain_size=part.files.plain_size)
    except ListError as error:
        raise BadInput(
            [Problem(part.stream.key, str(error))],
            subject=f"list of files of {part.source}",
            hint="Nothing was written. Such a list was not made by a backup: do not trust this set.",
        ) from None


def read_references_of(
    vault: Vault, clock: Clock | None, key: str, wanted: Reference | None
) -> Iterator[MediaReference]:
    """A reference list, in little memory; `wanted` is what its manifest says. Raise StoreDamaged naming it."""
    digest, size = hashlib.sha256(), 0

    def chunks() -> Iterator[bytes]:
        nonlocal size
        while True:
            piece = patiently(clock, f"read {key}", lambda at=size: vault.sets.get(key, at, FRAME_BYTES))  # type: ignore[misc]
            digest.update(piece)
            size += len(piece)
            yield piece
            if len(piece) < FRAME_BYTES:
                return

    try:
        yield from read_references(chunks())
    except NotFound:
        raise missing(key) from None
    except ValueError as error:
        raise StoreDamaged(f"stored object {key} is damaged: {error}", hint=_HINT) from None
    if wanted is not None and (size != wanted.size or digest.hexdigest() != wanted.sha256):
        raise StoreDamaged(f"stored object {key} is damaged: it is not what its manifest names", hint=_HINT)


def patiently(clock: Clock | None, what: str, action: Callable[[], T]) -> T:
    """With a clock to wait by, `retried`; without one, once (stores try again by themselves)."""
    return action() if clock is None else retried(clock, what, action)


def missing(key: str) -> StoreDamaged:
    """The error of an object that ought to be there."""
    return StoreDamaged(f"stored object {key} is missing", hint=_HINT)
