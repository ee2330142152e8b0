"""Storing contents in `vault.media`, each once, under names that nobody is about to clear away.

A name that `media_gc` has condemned is never used again for a content that is stored now: it gets the set's id behind
it. So whoever clears away may be suspended for hours in the middle of it and still takes nothing from a set.
"""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from ops_pipeline.core.backup.file_list import StoredPiece
from ops_pipeline.core.backup.media import MediaReference, media_key
from ops_pipeline.core.backup.records import FRAME_BYTES, SetKey
from ops_pipeline.errors import Conflict, NotFound, StoreDamaged
from ops_pipeline.ports import Clock, Vault
from ops_pipeline.services.backup.streams import seal_object, write_stream
from ops_pipeline.services.retrying import retried

RECENT = 100_000
_PROBE = 4096
_WORTH = 0.92
_PACKED = (
    b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"PK\x03\x04", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh",
    b"7z\xbc\xaf", b"OggS", b"ID3", b"\x1aE\xdf\xa3", b"wOF2", b"fLaC", b"Rar!",
)  # fmt: skip


def worth_compressing(beginning: bytes) -> bool:
    """Whether a content looks as if it could become smaller: by what it is, never by its name."""
    if len(beginning) < 128:
        return True
    if beginning.startswith(_PACKED) or beginning[4:8] == b"ftyp" or beginning[8:12] == b"WEBP":
        return False
    middle = len(beginning) // 2
    sample = beginning[:_PROBE] + beginning[middle : middle + _PROBE]
    return len(zlib.compress(sample, 1)) < _WORTH * len(sample)


class MediaWriter:
    """Stores contents for one set. Safe for threads, except `flush`, which one thread calls."""

    def __init__(
        self, vault: Vault, clock: Clock, key: SetKey, condemned: frozenset[str], listed: frozenset[int] | None
    ) -> None:
        """`condemned` names are not reused; `listed` are the objects that exist (see `short`), None = not asked."""
        self._vault = vault
        self._clock = clock
        self._key = key
        self._condemned = condemned
        self._listed = listed
        self._lock = threading.Lock()
        self._recent: OrderedDict[str, Future[MediaReference]] = OrderedDict()
        self._waiting: dict[str, MediaReference] = {}
        self._doubtful = False
        self.corrections: dict[str, MediaReference] = {}
        self.new_objects = 0
        self.new_bytes = 0

    def usable(self, piece: StoredPiece) -> bool:
        """Whether an object of which only the cache knows may be counted on."""
        address = piece.reference.address
        return self._listed is not None and short(address) in self._listed and address not in self._condemned

    def know(self, pieces: Iterable[StoredPiece]) -> None:
        """These objects can be counted on: whoever has their content again needs to ask nobody."""
        for piece in pieces:
            done: Future[MediaReference] = Future()
            done.set_result(piece.reference)
            with self._lock:
                self._recent.setdefault(_content(piece.reference.address), done)

    def store(self, plain: bytes, plain_sha256: str) -> StoredPiece:
        """Store a content that is in memory. Raise Permanent, Unavailable."""
        address = self._address(plain_sha256)
        reference = self._once(address, lambda: self._put(address, plain))
        return StoredPiece(reference, plain_sha256, len(plain))

    def has(self, plain_sha256: str, plain_size: int) -> StoredPiece | None:
        """The object of a content when it is stored already."""
        address = self._address(plain_sha256)
        with self._lock:
            known = self._recent.get(_content(address))
        if known is not None:
            return StoredPiece(known.result(), plain_sha256, plain_size)
        key = media_key(address)
        if self._listed is not None and short(address) not in self._listed:
            return None
        if retried(self._clock, f"look at {key}", lambda: self._vault.media.stat(key)) is None:
            return None
        return StoredPiece(self._once(address, lambda: self._learn(address)), plain_sha256, plain_size)

    def stream(
        self, name: str, read: Callable[[int], bytes], expected_sha256: str, beginning: bytes
    ) -> tuple[MediaReference, str, int]:
        """Store what `read` gives; return the object, the content's hash and its size.

        `expected_sha256` "" = under the name `name` whatever it is; otherwise under the content's address, and
        `read` must raise before its end when it is another content.
        """
        address = self._address(expected_sha256) if expected_sha256 else self._vault.sealing.address(name)
        key = media_key(address)
        try:
            made = write_stream(
                self._vault.media, self._vault.sealing, key, key, read,
                compress=worth_compressing(beginning), workers=2,
            )  # fmt: skip
        except Conflict:
            if not expected_sha256:
                raise
            return self._once(address, lambda: self._learn(address)), expected_sha256, -1
        reference = MediaReference(address, made.stored_size, made.stored_sha256)
        with self._lock:
            self._count(reference)
        if expected_sha256:
            self._once(address, lambda: reference)
        return reference, made.plain_sha256, made.plain_size

    def flush(self) -> None:
        """Return when all that was stored is durable. `corrections` then says which objects are another writer's."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        if not waiting:
            return
        self._doubtful = False
        if not self._flushed() or self._doubtful:
            for address, reference in waiting.items():
                found = self._learn(address)
                if found != reference:
                    self.corrections[address] = found
                    done: Future[MediaReference] = Future()
                    done.set_result(found)
                    with self._lock:
                        self._recent[_content(address)] = done

    def _flushed(self) -> bool:
        """Flush; False when another writer was quicker with some of it."""
        try:
            retried(self._clock, "make the media durable", self._vault.media.flush)
        except Conflict:
            return False
        return True

    def _address(self, plain_sha256: str) -> str:
        address = self._vault.sealing.address(plain_sha256)
        return f"{address}-{self._key.id.lower()}" if address in self._condemned else address

    def _once(self, address: str, make: Callable[[], MediaReference]) -> MediaReference:
        """The reference of an address, made by whoever asks first."""
        content = _content(address)
        with self._lock:
            known = self._recent.get(content)
            if known is None:
                mine: Future[MediaReference] = Future()
                self._recent[content] = mine
                while len(self._recent) > RECENT and next(iter(self._recent.values())).done():
                    self._recent.popitem(last=False)
        if known is not None:
            return known.result()
        try:
            reference = make()
        except BaseException as error:
            with self._lock:
                self._recent.pop(content, None)
            mine.set_exception(error)
            raise
        mine.set_result(reference)
        return reference

    def _put(self, address: str, plain: bytes) -> MediaReference:
        key = media_key(address)
        if self._listed is not None and short(address) in self._listed:
            return self._learn(address)
        stored = seal_object(self._vault.sealing, key, plain, compress=worth_compressing(plain))
        reference = MediaReference(address, len(stored), hashlib.sha256(stored).hexdigest())
        try:
            retried(self._clock, f"store {key}", lambda: self._vault.media.put(key, stored))
        except Conflict:
            try:
                return self._learn(address)
            except NotFound:
                # Put a moment ago by another set that is taken through the same store, and not flushed yet.
                if not self._flushed():
                    self._doubtful = True
                return self._learn(address)
        with self._lock:
            self._waiting[address] = reference
            self._count(reference)
        return reference

    def _count(self, reference: MediaReference) -> None:
        self.new_objects += 1
        self.new_bytes += reference.size

    def _learn(self, address: str) -> MediaReference:
        """Size and hash of an object that another set stored: it is read, which also tells that it can be."""
        key, digest, size = media_key(address), hashlib.sha256(), 0
        while True:
            piece = retried(
                self._clock,
                f"read {key}",
                lambda at=size: self._vault.media.get(key, at, FRAME_BYTES),  # type: ignore[misc]
            )
            digest.update(piece)
            size += len(piece)
            if len(piece) < FRAME_BYTES:
                break
        if not size:
            raise StoreDamaged(f"stored object {key} is damaged: it is empty")
        return MediaReference(address, size, digest.hexdigest())


def _content(address: str) -> str:
    """Keyed name of a content, whatever name its object has."""
    return address[:64]


def short(address: str) -> int:
    """An address in few bytes, for large sets of them: 15 hex digits and whether something follows the 64th."""
    return int(address[:15], 16) * 2 + (len(address) > 64)


__all__ = ["RECENT", "MediaWriter", "short", "worth_compressing"]
