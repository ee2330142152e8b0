"""Reading the files of several sets in full, each content once, however many sets name it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ops_pipeline.core.backup.media import MediaReference
from ops_pipeline.core.backup.reading import Window, place_of_address
from ops_pipeline.core.backup.records import Manifest, Part
from ops_pipeline.errors import NotFound, StoreDamaged
from ops_pipeline.ports import Clock, Vault
from ops_pipeline.services.backup.meter import Meter
from ops_pipeline.services.backup.structure import PIECE_BYTES, media_of
from ops_pipeline.services.retrying import retried

GROUP = 256
AT_ONCE = 50_000
"""References held in memory at once, of one list."""


@dataclass
class MediaFindings:
    """What reading found, by list of references: sets of an unchanged source have the same list."""

    bytes_read: int = 0
    problems: dict[str, list[str]] = field(default_factory=dict)
    bytes_by_list: dict[str, int] = field(default_factory=dict)

    def of(self, manifest: Manifest) -> list[str]:
        """What concerns a set, each with its source."""
        return [f"{part.source}: {text}" for part in manifest.parts for text in self.problems.get(_list_of(part), ())]

    def bytes_of(self, manifest: Manifest) -> int:
        """How many bytes of the set's files were read."""
        return sum(self.bytes_by_list.get(_list_of(part), 0) for part in manifest.parts)


def read_media(
    vault: Vault, clock: Clock, manifests: Sequence[Manifest], window: Window, meter: Meter, workers: int
) -> MediaFindings:
    """Read every media object in the window that any of these sets names, and compare it with its hash.

    What is missing or has another size or hash is found for every set that names it. Raise Unavailable.
    """
    found = MediaFindings()
    if window.end == window.begin:
        return found
    lists: dict[str, Part] = {}
    for manifest in manifests:
        for part in manifest.parts:
            if part.files is not None:
                lists.setdefault(_list_of(part), part)
    most = max((part.files.objects for part in lists.values() if part.files is not None), default=0)
    for piece in window.pieces(max(int(most * window.share) // AT_ONCE, 1)):
        _read_piece(vault, clock, lists, piece, meter, workers, found)
    return found


def _read_piece(
    vault: Vault,
    clock: Clock,
    lists: Mapping[str, Part],
    window: Window,
    meter: Meter,
    workers: int,
    found: MediaFindings,
) -> None:
    """What lies in one window, whose references fit into memory."""
    wanted: dict[MediaReference, list[str]] = {}
    for name, part in lists.items():
        try:
            for one in media_of(vault, clock, part):
                if window.has(place_of_address(one.address)):
                    named = wanted.setdefault(one, [])
                    if name not in named:
                        named.append(name)
        except StoreDamaged as error:
            known = found.problems.setdefault(name, [])
            known += [error.message] if error.message not in known else []

    objects = list(wanted)
    with ThreadPoolExecutor(workers) as pool:
        for begin in range(0, len(objects), GROUP):
            group = objects[begin : begin + GROUP]
            problems = pool.map(lambda one: _problem(vault, clock, one, meter), group)
            for one, problem in zip(group, problems, strict=True):
                found.bytes_read += one.size
                for name in wanted[one]:
                    found.bytes_by_list[name] = found.bytes_by_list.get(name, 0) + one.size
                    if problem:
                        found.problems.setdefault(name, []).append(problem)


def _problem(vault: Vault, clock: Clock, one: MediaReference, meter: Meter) -> str:
    """What is wrong with one media object, "" for nothing; in pieces, however large it is."""
    seen, offset = hashlib.sha256(), 0
    while True:
        try:
            data = retried(
                clock,
                f"read {one.key}",
                lambda offset=offset: vault.media.get(one.key, offset, PIECE_BYTES),  # type: ignore[misc]
            )
        except NotFound:
            return f"stored object {one.key} is missing"
        seen.update(data)
        offset += len(data)
        meter(len(data))
        if len(data) < PIECE_BYTES or offset > one.size:
            break
    if offset != one.size:
        return f"stored object {one.key} is damaged: it has {offset} bytes and ought to have {one.size}"
    if seen.hexdigest() != one.sha256:
        return f"stored object {one.key} is damaged: it has another hash than when it was written"
    return ""


def _list_of(part: Part) -> str:
    return part.files.references.sha256 if part.files is not None else ""
