"""Reads mongodump's archive format as it streams by: proves that every collection in it is whole, and counts.

The format is described in common/archive/spec.md of MongoDB's tools:

    archive  magic number, header, a description of each collection, terminator (0xFFFFFFFF), then blocks
    block    header {db, collection, EOF, CRC}, documents unless EOF, terminator

All are BSON documents, whose first four bytes are their length. The description has indexes and options as JSON. A
collection is whole when its EOF came with the CRC-64 (ECMA, as in XZ) of all its documents. An archive is whole when
every collection that was described is, and nothing follows.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ops_pipeline.adapters.databases.mongo_bson import BsonError, decode
from ops_pipeline.core.backup.records import Contents
from ops_pipeline.errors import StoreDamaged

MAGIC = bytes.fromhex("6de29981")
TERMINATOR = b"\xff\xff\xff\xff"
MAX_DOCUMENT = 64 * 1024 * 1024
SAMPLED = 2000
"""Documents of each collection that are compared: those with the lowest CRC-32, so that their order does not matter."""


@dataclass
class Namespace:
    """One collection of an archive: what was described, and what came."""

    database: str
    collection: str
    kind: str = ""  # "view", "timeseries" or ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    documents: int = 0
    crc: int = 0
    whole: bool = False
    sample: list[tuple[int, bytes]] = field(default_factory=list, repr=False)


class ArchiveWalker:
    """Follows one archive. Give it every byte in order by `feed`, then `finish`.

    Raise StoreDamaged as soon as something cannot be; the message begins with `what`.
    """

    def __init__(self, what: str) -> None:
        """`what` names the archive in messages."""
        from fastcrc import crc64

        self._crc: Callable[[bytes, int], int] = crc64.xz
        self._what = what
        self.header: Mapping[str, Any] = {}
        self.namespaces: dict[tuple[str, str], Namespace] = {}
        self._rest = b""
        self._expect: Callable[[bytes], None] = self._magic
        self._in_block: Namespace | None = None
        self._between = False  # at a place where the archive may end

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        data = self._rest + data if self._rest else data
        end, at = len(data), 0
        if self._expect == self._magic:
            if end < 4:
                self._rest = data
                return
            self._magic(data[:4])
            at = 4
        begin = at  # of documents whose CRC is not counted yet
        while end - at >= 4:
            size = int.from_bytes(data[at : at + 4], "little")
            if size == 0xFFFFFFFF:
                self._count(data, begin, at)
                self._terminator()
                at += 4
                begin = at
                continue
            if not 5 <= size <= MAX_DOCUMENT:
                raise self._wrong(f"a document of {size} bytes")
            if end - at < size:
                break
            document = data[at : at + size]
            if document[-1]:
                raise self._wrong("a document has no end")
            at += size
            self._between = False
            if self._in_block is not None:
                self._document(self._in_block, document)
            else:
                self._expect(document)
                begin = at
        self._count(data, begin, at)
        self._rest = data[at:]

    def finish(self) -> None:
        """The archive ended here. Raise StoreDamaged unless it may."""
        if self._rest or not self._between:
            raise self._wrong("it is cut off inside a block")
        missing = [f"{each.database}.{each.collection}" for each in self.namespaces.values() if not each.whole]
        if missing:
            raise self._wrong(f"it is cut off: {len(missing)} collections have no end, the first is {missing[0]}")

    def contents(self, database: str, prefix: str = "") -> Contents:
        """What the collections of `database` hold whose name begins with `prefix`, named without it."""
        counts, objects, samples = {}, {}, {}
        for each in sorted(self.namespaces.values(), key=lambda one: one.collection):
            if each.database != database or not each.collection.startswith(prefix):
                continue
            name = each.collection.removeprefix(prefix)
            if each.kind != "view":
                counts[name] = each.documents
            options = {key: value for key, value in each.metadata.get("options", {}).items() if key != "uuid"}
            objects[f"{each.kind or 'collection'} {name}"] = _canonical(options)
            for index in each.metadata.get("indexes") or []:
                kept = {key: value for key, value in index.items() if key not in {"ns", "v", "background"}}
                # The order of an index's fields matters, that of its options does not.
                objects[f"index {name} {index.get('name')}"] = _canonical(
                    {**kept, "key": list(index.get("key", {}).items())}
                )
            if each.documents:
                digests = (digest for _, digest in sorted((-crc, digest) for crc, digest in each.sample))
                samples[name] = hashlib.sha256(b"".join(digests)).hexdigest()
        return Contents(counts, objects, samples)

    def _magic(self, data: bytes) -> None:
        if data != MAGIC:
            raise self._wrong("it does not begin as an archive of mongodump")
        self._expect = self._header

    def _header(self, document: bytes) -> None:
        self.header = self._decoded(document)
        if self.header.get("version") != "0.1":
            raise self._wrong(f"its format {self.header.get('version')!r} is not known")
        self._expect = self._description

    def _description(self, document: bytes) -> None:
        found = self._decoded(document)
        try:
            metadata = json.loads(found.get("metadata") or "{}")
            each = Namespace(str(found["db"]), str(found["collection"]), str(found.get("type", "")), metadata)
        except (KeyError, ValueError) as error:
            raise self._wrong("the description of a collection cannot be read") from error
        # A view has no documents, and the collection of a time series has them under another name.
        each.whole = each.kind == "view"
        self.namespaces[each.database, each.collection] = each

    def _block(self, document: bytes) -> None:
        found = self._decoded(document)
        try:
            each = self.namespaces[str(found["db"]), str(found["collection"])]
            ended, crc = bool(found["EOF"]), int(found["CRC"]) & 0xFFFFFFFFFFFFFFFF
        except (KeyError, ValueError, TypeError) as error:
            raise self._wrong("a block belongs to no collection of it") from error
        name = f"{each.database}.{each.collection}"
        if each.whole and each.kind != "view":
            raise self._wrong(f"a block of {name} comes after its end")
        if ended:
            if crc != each.crc:
                raise self._wrong(f"the checksum of {name} is wrong")
            each.whole = True
            self._expect = self._nothing
        else:
            self._in_block = each

    def _nothing(self, document: bytes) -> None:
        raise self._wrong(f"{len(document)} bytes where a block should end")

    def _terminator(self) -> None:
        if self._in_block is None and self._expect not in (self._description, self._nothing):
            raise self._wrong("a terminator where a header should be")
        self._in_block = None
        self._expect = self._block
        self._between = True

    def _document(self, each: Namespace, document: bytes) -> None:
        each.documents += 1
        crc = zlib.crc32(document)
        if len(each.sample) < SAMPLED:
            heapq.heappush(each.sample, (-crc, hashlib.sha256(document).digest()))
        elif crc < -each.sample[0][0]:
            heapq.heapreplace(each.sample, (-crc, hashlib.sha256(document).digest()))

    def _count(self, data: bytes, begin: int, end: int) -> None:
        if self._in_block is not None and end > begin:
            self._in_block.crc = self._crc(data[begin:end], self._in_block.crc)

    def _decoded(self, document: bytes) -> Mapping[str, Any]:
        try:
            return decode(document)
        except BsonError as error:
            raise self._wrong(f"a header cannot be read: {error}") from error

    def _wrong(self, text: str) -> StoreDamaged:
        return StoreDamaged(f"{self._what} is damaged: {text}")


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
