"""Every byte of every sealed object, flipped, cut, swapped or replayed: found, and named by its key.

Twice over: by the hashes of the signed manifest, which need no key, and by the seals alone, as if somebody had made
the hashes fit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ops_pipeline.core.backup.frames import HASH_BYTES, PREFIX_BYTES, SALT_BYTES, TAG_BYTES, parse_header
from ops_pipeline.core.backup.records import Block, StoredStream
from ops_pipeline.errors import StoreDamaged
from ops_pipeline.ports import Sealing
from ops_pipeline.services.backup.manifests import decode_manifest
from ops_pipeline.services.backup.streams import check_stream, open_object, read_object, read_stream, seal_object
from ops_pipeline_tests.fakes.object_store import InMemoryObjectStore
from ops_pipeline_tests.testbed.keys import Keys
from ops_pipeline_tests.testbed.sealed_set import CONTENT, FRAME, SealedSet, seal_set


@dataclass(frozen=True)
class Sets:
    """Two sets of one environment in one store, the second the newer one."""

    store: InMemoryObjectStore
    sealing: Sealing
    older: SealedSet
    newer: SealedSet

    @property
    def stream(self) -> StoredStream:
        """The newer dump of `listings`: five frames, most of them compressed."""
        return self.newer.part("listings", "dump").stream

    @property
    def stored(self) -> bytes:
        return self.store.get(self.stream.key)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    store, sealing = InMemoryObjectStore(), Keys(tmp_path_factory.mktemp("keys")).sealing()
    return Sets(store, sealing, seal_set(store, sealing, number=1), seal_set(store, sealing, number=2))


def holding(key: str, data: bytes) -> InMemoryObjectStore:
    """A store with this one object."""
    store = InMemoryObjectStore(shows_puts=True)
    store.put(key, data)
    return store


def refused_by_hashes(sets: Sets, stream: StoredStream, data: bytes) -> None:
    """Checking without a key and reading with one both name the object."""
    store = holding(stream.key, data)
    with pytest.raises(StoreDamaged, match=stream.key):
        check_stream(store, stream, workers=1)
    with pytest.raises(StoreDamaged, match=stream.key):
        list(read_stream(store, sets.sealing, stream, workers=1))


def refused_by_seals(sets: Sets, stream: StoredStream, data: bytes, blocks: tuple[bytes, ...] = ()) -> None:
    """What has no list of blocks, and what has one that was made to fit, is refused all the same."""
    with pytest.raises(StoreDamaged, match=stream.key):
        open_object(sets.sealing, stream.identity, data, key=stream.key)
    store = holding(stream.key, data)
    with pytest.raises(StoreDamaged, match=stream.key):
        list(read_object(store, sets.sealing, stream.key, stream.identity))
    if blocks:
        with pytest.raises(StoreDamaged, match=stream.key):
            list(read_stream(store, sets.sealing, made_to_fit(stream, blocks), workers=1))


def made_to_fit(stream: StoredStream, blocks: tuple[bytes, ...]) -> StoredStream:
    """The record a forger would write about these blocks."""
    plain = [block.plain_size for block in stream.blocks] + [FRAME] * len(blocks)
    sizes = [plain[0], *sorted(plain[1 : len(blocks)], reverse=True)]
    data = b"".join(blocks)
    return replace(
        stream,
        blocks=tuple(
            Block(len(block), hashlib.sha256(block).hexdigest(), size)
            for block, size in zip(blocks, sizes, strict=True)
        ),
        plain_size=sum(sizes),
        stored_size=len(data),
        stored_sha256=hashlib.sha256(data).hexdigest(),
    )


def cut_into_blocks(stream: StoredStream, data: bytes) -> tuple[bytes, ...]:
    pieces, at = [], 0
    for block in stream.blocks:
        pieces.append(data[at : at + block.size])
        at += block.size
    return tuple(pieces)


def regions(data: bytes, stream: StoredStream) -> dict[str, range]:
    """Every byte of an object by what it means."""
    _, header = parse_header(data)
    salt_end = 16 + (SALT_BYTES * 4) // 3
    found = {
        "magic": range(0, 8),
        "version": range(8, 9),
        "codec": range(9, 10),
        "frame size": range(10, 14),
        "wrapped length": range(14, 16),
        "salt": range(16, salt_end),
        "age file": range(salt_end, header - HASH_BYTES),
        "header hash": range(header - HASH_BYTES, header),
    }
    at = header
    for index, block in enumerate(stream.blocks):
        end = at + block.size - (header if index == 0 else 0)
        found[f"frame {index} codec"] = range(at, at + 1)
        found[f"frame {index} length"] = range(at + 1, at + PREFIX_BYTES)
        found[f"frame {index} ciphertext"] = range(at + PREFIX_BYTES, end - TAG_BYTES)
        found[f"frame {index} tag"] = range(end - TAG_BYTES, end)
        at = end
    assert sum(map(len, found.values())) == len(data)
    return found


def test_every_flipped_byte_of_a_part_is_found_by_hash_and_by_seal(sets: Sets) -> None:
    stream, data = sets.stream, sets.stored
    for name, region in regions(data, stream).items():
        for at in region:
            flipped = data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]
            if at % 5 == 0 or len(region) < 8:  # the hashes take every byte alike
                refused_by_hashes(sets, stream, flipped)
            with pytest.raises(StoreDamaged, match=stream.key):
                open_object(sets.sealing, stream.identity, flipped, key=stream.key)
                pytest.fail(f"{name} at {at} opened")


def test_every_end_cut_off_is_found(sets: Sets) -> None:
    stream, data = sets.stream, sets.stored
    for length in range(len(data)):
        with pytest.raises(StoreDamaged, match=stream.key):
            open_object(sets.sealing, stream.identity, data[:length], key=stream.key)
    for length in (0, 1, 20, len(data) // 2, len(data) - 1):
        refused_by_hashes(sets, stream, data[:length])


Forge = Callable[[tuple[bytes, ...], tuple[bytes, ...]], tuple[bytes, ...]]
FORGERIES: dict[str, Forge] = {
    "two frames have changed places": lambda own, _: (*own[:1], own[2], own[1], *own[3:]),
    "one frame stands twice": lambda own, _: (*own[:2], own[1], *own[2:]),
    "one frame is missing": lambda own, _: (*own[:1], *own[2:]),
    "the last frame is missing": lambda own, _: own[:-1],
    "only the first frame is left": lambda own, _: own[:1],
    "a frame is that of the older set": lambda own, old: (*own[:2], old[2], *own[3:]),
    "the last frame is that of the older set": lambda own, old: (*own[:-1], old[-1]),
    "the older set's frames follow the new header": lambda own, old: (
        own[0][: parse_header(own[0])[1]] + old[0][parse_header(old[0])[1] :],
        *old[1:],
    ),
    "the whole object is the older set's": lambda _, old: old,
    "a byte follows the end": lambda own, _: (*own[:-1], own[-1] + b"\0"),
    "the object follows itself": lambda own, _: (*own, *own),
    "the last frame stands twice": lambda own, _: (*own, own[-1]),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
def test_frames_open_only_where_they_were_sealed(sets: Sets, forge: Forge) -> None:
    old = sets.older.part("listings", "dump").stream
    own_blocks = cut_into_blocks(sets.stream, sets.stored)
    forged = forge(own_blocks, cut_into_blocks(old, sets.store.get(old.key)))
    data = b"".join(forged)
    refused_by_hashes(sets, sets.stream, data)
    refused_by_seals(sets, sets.stream, data, forged)


def test_an_object_of_another_source_is_refused_also_with_its_own_hashes(sets: Sets) -> None:
    cache = sets.newer.part("cache", "dump").stream
    data = sets.store.get(cache.key)
    moved = replace(cache, key=sets.stream.key, identity=sets.stream.identity)
    with pytest.raises(StoreDamaged, match=sets.stream.key):
        list(read_stream(holding(sets.stream.key, data), sets.sealing, moved))


def test_a_header_of_another_object_is_refused_without_any_key(sets: Sets) -> None:
    own, old = sets.stored, sets.store.get(sets.older.part("listings", "dump").stream.key)
    blocks = cut_into_blocks(sets.stream, own)
    swapped = (old[: parse_header(old)[1]] + blocks[0][parse_header(own)[1] :], *blocks[1:])
    forged = made_to_fit(sets.stream, swapped)
    with pytest.raises(StoreDamaged, match="header belongs to another object"):
        check_stream(holding(sets.stream.key, b"".join(swapped)), forged)


def test_hashes_of_the_whole_are_compared_too(sets: Sets) -> None:
    lying = replace(sets.stream, plain_sha256="0" * 64)
    given = []
    with pytest.raises(StoreDamaged, match="content as a whole"):
        given.extend(read_stream(sets.store, sets.sealing, lying))
    assert len(given) < len(lying.blocks), "the last piece is given only when all is well"


def test_a_missing_object_is_damage_and_named(sets: Sets) -> None:
    empty = InMemoryObjectStore()
    for look in (
        lambda: check_stream(empty, sets.stream),
        lambda: list(read_stream(empty, sets.sealing, sets.stream)),
        lambda: list(read_object(empty, sets.sealing, sets.stream.key, sets.stream.identity)),
    ):
        with pytest.raises(StoreDamaged, match=f"{sets.stream.key} is missing"):
            look()


def test_damage_to_one_source_leaves_the_others(sets: Sets) -> None:
    store = InMemoryObjectStore(shows_puts=True)
    for key, data in sets.store.objects.items():
        store.put(key, data if key != sets.stream.key else data[:-1] + bytes([data[-1] ^ 0xFF]))
    store.flush()
    outcome = {}
    for part in sets.newer.manifest.parts:
        try:
            outcome[part.source, part.name] = b"".join(read_stream(store, sets.sealing, part.stream))
        except StoreDamaged as error:
            assert part.stream.key in error.message
    assert outcome == {place: data for place, data in CONTENT.items() if place != ("listings", "dump")}


# ------------------------------------------------------------------------------------------------ media objects


def test_every_flipped_byte_and_cut_of_a_media_object_is_found(sets: Sets) -> None:
    stored = seal_object(sets.sealing, "media/ab/abc", b"photo " * 20, frame_bytes=FRAME)
    for at in range(len(stored)):
        flipped = stored[:at] + bytes([stored[at] ^ 0x80]) + stored[at + 1 :]
        for damaged in (flipped, stored[:at]):
            with pytest.raises(StoreDamaged, match="media/ab/abc"):
                open_object(sets.sealing, "media/ab/abc", damaged)


def test_a_media_object_under_another_address_is_refused(sets: Sets) -> None:
    stored = seal_object(sets.sealing, "media/ab/abc", b"photo")
    with pytest.raises(StoreDamaged, match="media/cd/cde"):
        open_object(sets.sealing, "media/cd/cde", stored)
    store = holding("media/ab/abc", stored)
    for size, sha256 in ((len(stored) + 1, ""), (None, "0" * 64)):
        with pytest.raises(StoreDamaged, match="media/ab/abc"):
            list(
                read_object(store, sets.sealing, "media/ab/abc", "media/ab/abc", stored_size=size, stored_sha256=sha256)
            )


def test_what_another_control_plane_sealed_for_the_same_recipients_is_told_by_its_signature(
    sets: Sets, tmp_path: Path
) -> None:
    # Anybody can seal for a public key, so a seal alone proves nothing about who wrote: the signature does.
    keys = Keys(tmp_path)
    stranger = keys.sealing(recipients=sets.sealing.recipients)
    stored = seal_object(stranger, "media/ab/abc", b"photo")
    assert open_object(sets.sealing, "media/ab/abc", stored) == b"photo"
    forged = seal_set(InMemoryObjectStore(), stranger)
    with pytest.raises(StoreDamaged, match=r"signature\.key"):
        decode_manifest(sets.sealing, forged.stored, forged.key)
