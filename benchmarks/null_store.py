"""An object store that keeps nothing: what comes before it can be measured alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from ops_pipeline.errors import NotFound
from ops_pipeline.ports import ObjectInfo, ObjectStore, ObjectWriter


class NullWriter(ObjectWriter):
    """Counts bytes."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._sizes: dict[int, int] = {}

    def block(self, index: int, data: bytes) -> None:
        self._sizes[index] = len(data)

    def commit(self, count: int) -> ObjectInfo:
        return ObjectInfo(self._key, sum(self._sizes.values()), datetime.now(UTC), "none")

    def abort(self) -> None: ...


class NullStore(ObjectStore):
    """Takes everything, has nothing."""

    def begin(self, key: str) -> ObjectWriter:
        return NullWriter(key)

    def put(self, key: str, data: bytes) -> ObjectInfo:
        return ObjectInfo(key, len(data), datetime.now(UTC), "none")

    def flush(self) -> None: ...

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        raise NotFound(f"{key} was not kept")

    def stat(self, key: str) -> ObjectInfo | None:
        return None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter(())

    def delete(self, key: str, *, etag: str | None = None) -> None: ...
