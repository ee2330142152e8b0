"""One large object in Azure Blob: Put Block for every block, Put Block List to make it exist."""

from __future__ import annotations

import base64
import threading
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ops_pipeline.adapters.azure_client import WRITE_ID
from ops_pipeline.core.backup.records import FRAME_BYTES
from ops_pipeline.errors import Permanent
from ops_pipeline.ports import ObjectInfo, ObjectWriter

if TYPE_CHECKING:
    from ops_pipeline.adapters.object_azure import AzureObjects

MAX_BLOCKS = 50_000


class AzureWriter(ObjectWriter):
    """An `ObjectWriter` of one blob. Safe for threads, except that `commit` comes after all blocks."""

    def __init__(self, store: AzureObjects, key: str) -> None:
        self._store = store
        self._key = key
        self._write_id = uuid.uuid4().hex
        self._blob = store.blob(key)
        self._lock = threading.Lock()
        self._sizes: dict[int, int] = {}
        self._done: ObjectInfo | None = None
        self._ended = False

    def block(self, index: int, data: bytes) -> None:
        """Store block `index`. See `ObjectWriter.block`."""
        if index < 0 or self._ended:
            raise Permanent(f"stored object {self._key} takes no block {index}: it was committed or given up already")
        if index >= MAX_BLOCKS:
            raise Permanent(
                f"stored object {self._key} needs more than {MAX_BLOCKS:,} blocks, which is all that Azure takes: "
                f"{MAX_BLOCKS * FRAME_BYTES // 2**30} GiB before compression",
                hint="Back it up as several sources (databases, folders), each smaller than that.",
            )
        from azure.core.exceptions import HttpResponseError

        name = self._block_id(index)
        try:
            self._store.in_container(self._key, lambda: self._blob.stage_block(name, data, length=len(data)) and None)
        except HttpResponseError as error:
            raise self._store.refused("write", self._key, error) from None
        with self._lock:
            self._sizes[index] = len(data)

    def commit(self, count: int) -> ObjectInfo:
        """Make the object exist. See `ObjectWriter.commit`."""
        if self._done is not None:
            return self._done
        if self._ended:
            raise Permanent(f"stored object {self._key} was given up already")
        missing = next((index for index in range(count) if index not in self._sizes), None)
        if missing is not None:
            raise Permanent(f"stored object {self._key} cannot be committed: block {missing} of {count} never came")
        from azure.core import MatchConditions
        from azure.storage.blob import BlobBlock

        size = sum(self._sizes[index] for index in range(count))
        blocks = [BlobBlock(self._block_id(index)) for index in range(count)]

        def commit_list() -> ObjectInfo:
            answer = self._blob.commit_block_list(
                blocks, metadata={WRITE_ID: self._write_id}, match_condition=MatchConditions.IfMissing
            )
            return answered(self._key, size, answer)

        info = self._store.written(self._key, self._write_id, commit_list)
        if info.size != size:
            raise Permanent(f"stored object {self._key} has {info.size} bytes where {size} were sent")
        self._done, self._ended = info, True
        return info

    def abort(self) -> None:
        """Forget the blocks: Azure drops what was never committed, and it never shows."""
        self._ended = True

    def _block_id(self, index: int) -> str:
        """Of equal length within the blob, as Azure demands, and of nobody else's."""
        return base64.b64encode(f"{self._write_id}{index:08d}".encode()).decode()


def answered(key: str, size: int, answer: Mapping[str, object]) -> ObjectInfo:
    """What Azure's answer to a write says about the object."""
    return ObjectInfo(key, size, aware(answer.get("last_modified")), str(answer["etag"]))


def aware(moment: object) -> datetime:
    """A time of the SDK as aware UTC."""
    if not isinstance(moment, datetime):
        return datetime.fromtimestamp(0, UTC)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
