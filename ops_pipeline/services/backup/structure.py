"""Whether every object a manifest names is there with its size. Reads no content but the lists of references."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ops_pipeline.core.backup.media import MediaReference, read_references
from ops_pipeline.core.backup.records import Manifest, Part, Reference
from ops_pipeline.errors import NotFound, StoreDamaged
from ops_pipeline.ports import Clock, ObjectStore, Vault
from ops_pipeline.services.retrying import retried

LOOKERS = 8
FEW = 128
"""Up to so many media objects are asked for one by one; more are found by listing all of them once."""


PIECE_BYTES = 4 << 20


@dataclass(frozen=True)
class Shelf:
    """Sizes of objects by key as a listing said, so that several sets are checked with one listing."""

    sizes: Mapping[str, int]


def shelf_of(store: ObjectStore, clock: Clock, prefix: str) -> Shelf:
    """List everything below `prefix` once. Raise Unavailable."""
    return retried(
        clock, f"list {prefix}", lambda: Shelf({info.key: info.size for info in store.list(prefix)}), attempts=4
    )


def structure_problems(
    vault: Vault, clock: Clock, manifest: Manifest, *, sets: Shelf | None = None, media: Shelf | None = None
) -> tuple[str, ...]:
    """One sentence for each object that is missing or has another size, naming source and object.

    With the shelves nothing is asked of the stores but the lists of references. Raise Unavailable.
    """
    problems: list[str] = []
    for part in manifest.parts:
        wanted = [(part.stream.key, part.stream.stored_size)]
        if part.files is not None:
            wanted.append((part.files.references.key, part.files.references.size))
        broken = _missing(vault.sets, clock, wanted, sets)
        if part.files is not None and not any(part.files.references.key in problem for problem in broken):
            try:
                objects = [(one.key, one.size) for one in media_of(vault, clock, part)]
                broken += _missing(vault.media, clock, objects, media)
            except StoreDamaged as error:
                broken.append(error.message)
        problems += [f"{part.source}: {problem}" for problem in broken]
    return tuple(problems)


def media_of(vault: Vault, clock: Clock, part: Part) -> Iterator[MediaReference]:
    """Media objects a file part needs, as the list comes in. Raise StoreDamaged naming the list, Unavailable.

    That the list is the one the manifest names is known at its end only.
    """
    if part.files is None:
        return
    wanted = part.files.references
    try:
        yield from read_references(_pieces(vault, clock, wanted))
    except ValueError as error:
        raise StoreDamaged(f"stored object {wanted.key} is damaged: {error}") from None


def _pieces(vault: Vault, clock: Clock, wanted: Reference) -> Iterator[bytes]:
    """An unsealed object piece by piece; at its end it has the size and the hash it ought to have."""
    seen, offset = hashlib.sha256(), 0
    while offset < wanted.size:
        try:
            data = retried(
                clock,
                f"read {wanted.key}",
                lambda offset=offset: vault.sets.get(wanted.key, offset, PIECE_BYTES),  # type: ignore[misc]
            )
        except NotFound:
            raise StoreDamaged(f"stored object {wanted.key} is missing") from None
        if not data:
            raise StoreDamaged(f"stored object {wanted.key} is damaged: it is cut")
        seen.update(data)
        offset += len(data)
        if offset >= wanted.size and (offset > wanted.size or seen.hexdigest() != wanted.sha256):
            raise StoreDamaged(f"stored object {wanted.key} is damaged: it is not what the manifest names")
        yield data


def _missing(store: ObjectStore, clock: Clock, wanted: Sequence[tuple[str, int]], shelf: Shelf | None) -> list[str]:
    if shelf is None and len(wanted) > FEW:
        shelf = shelf_of(store, clock, wanted[0][0].partition("/")[0] + "/")

    def size_of(key: str) -> int | None:
        if shelf is not None:
            return shelf.sizes.get(key)
        info = retried(clock, f"look at {key}", lambda: store.stat(key))
        return None if info is None else info.size

    keys = [key for key, _ in wanted]
    if shelf is not None or len(keys) <= 1:
        sizes = [size_of(key) for key in keys]
    else:
        with ThreadPoolExecutor(LOOKERS) as pool:
            sizes = list(pool.map(size_of, keys))
    problems = []
    for (key, size), found in zip(wanted, sizes, strict=True):
        if found is None:
            problems.append(f"stored object {key} is missing")
        elif found != size:
            problems.append(f"stored object {key} is damaged: it has {found} bytes and ought to have {size}")
    return problems
