"""A BlobStore in memory, held to the same contract as the real ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from ops_pipeline.adapters.store_keys import check_conditions, check_key, check_prefix, conflict_words
from ops_pipeline.errors import Conflict, Permanent
from ops_pipeline.ports import Blob, BlobInfo, BlobStore

Hook = Callable[[str, str], None]
"""Called with the operation (`read`, `write`, `delete`, `list`) and the key; may raise to act a failure out."""


def _nothing(operation: str, key: str) -> None: ...


class InMemoryStore(BlobStore):
    """Safe for threads.

    `before` runs before an operation takes effect (raise `Transient`, `Permanent`… for a store that is down or
    full); `after` runs when it has (raise to act a process killed right after it, or an answer that was lost).
    Both may be replaced at any time.
    """

    def __init__(
        self,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        before: Hook = _nothing,
        after: Hook = _nothing,
    ) -> None:
        self.before = before
        self.after = after
        self._now = now
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[Blob, datetime]] = {}
        self._writes = 0

    @property
    def objects(self) -> dict[str, bytes]:
        """Copy of everything stored, for assertions."""
        with self._lock:
            return {key: blob.data for key, (blob, _) in sorted(self._objects.items())}

    def read(self, key: str) -> Blob | None:
        check_key(key)
        self.before("read", key)
        with self._lock:
            blob = self._objects[key][0] if key in self._objects else None
        self.after("read", key)
        return blob

    def write(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        check_key(key)
        check_conditions(if_match, if_absent)
        self.before("write", key)
        with self._lock:
            self._refuse_folders(key)
            current = self._objects[key][0].etag if key in self._objects else None
            if (if_absent and current is not None) or (if_match is not None and current != if_match):
                raise Conflict(conflict_words(key, if_absent=if_absent))
            self._writes += 1
            etag = f'"{self._writes:x}"'
            self._objects[key] = (Blob(bytes(data), etag), self._now())
        self.after("write", key)
        return etag

    def delete(self, key: str) -> None:
        check_key(key)
        self.before("delete", key)
        with self._lock:
            self._objects.pop(key, None)
        self.after("delete", key)

    def list(self, prefix: str) -> Iterator[BlobInfo]:
        check_prefix(prefix)
        self.before("list", prefix)
        with self._lock:
            found = [
                BlobInfo(key, len(blob.data), modified)
                for key, (blob, modified) in sorted(self._objects.items())
                if key.startswith(prefix)
            ]
        self.after("list", prefix)
        return iter(found)

    def _refuse_folders(self, key: str) -> None:
        # A directory cannot hold a file and a folder of one name; refuse here what would break there.
        parents = {key[:i] for i, character in enumerate(key) if character == "/"}
        if any(other in parents or other.startswith(f"{key}/") for other in self._objects):
            raise Permanent(f"store key {key} is a folder of another key, or lies inside one")
