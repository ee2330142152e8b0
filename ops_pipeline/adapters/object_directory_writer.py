"""One large object in a directory: blocks go straight to their place in one file, nothing is copied.

Blocks differ in size, so where one begins is known once all before it have come. Streams bring blocks nearly in order:
a block that comes early waits in memory (at most as many as the stream has workers), and as soon as its place is
known it is written there, several threads at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from ops_pipeline.adapters.bulk_writing import BulkFile, stamp, write_all
from ops_pipeline.adapters.local_disk import explained, sync_folder
from ops_pipeline.adapters.store_keys import conflict_words
from ops_pipeline.errors import Conflict, Permanent
from ops_pipeline.ports import ObjectInfo, ObjectWriter

_COPY_BYTES = 8 * 1024 * 1024


class DirectoryWriter(ObjectWriter):
    """An `ObjectWriter` on the file `temporary`, which `rename(temporary, target)` gives its place at the end.

    `rename` returns the folders to be synced; it raises FileExistsError when the place is taken. Safe for threads,
    except that `commit` and `abort` come after all blocks.
    """

    def __init__(self, key: str, target: Path, temporary: str, rename: Callable[[str, Path], set[Path]]) -> None:
        self._key = key
        self._target = target
        self._temporary = temporary
        self._rename = rename
        self._unsynced: set[Path] | None = None  # folders, once the object has its name
        self._lock = threading.Lock()
        self._places: dict[int, tuple[int, int]] = {}  # block → offset and size
        self._early: dict[int, bytes] = {}
        self._next = 0  # the first block whose place is not known
        self._end = 0
        self._done: ObjectInfo | None = None
        self._descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._bulk = BulkFile(temporary, self._descriptor)

    def block(self, index: int, data: bytes) -> None:
        """Store block `index`. See `ObjectWriter.block`."""
        if index < 0:
            raise Permanent(f"stored object {self._key}: there is no block {index}")
        ready: list[tuple[int, bytes]] = []
        with self._lock:
            self._check_open()
            known = self._places.get(index)
            if known is not None:  # again
                if known[1] != len(data):
                    self._place(index, len(data))  # behind everything; `commit` brings it in order
                ready.append((self._places[index][0], data))
            else:
                self._early[index] = data
                while self._next in self._early:
                    block = self._early.pop(self._next)
                    ready.append((self._place(self._next, len(block)), block))
                    self._next += 1
        try:
            for offset, block in ready:
                self._bulk.write(block, offset)
        except OSError as error:
            raise explained("write", self._target, error) from error

    def commit(self, count: int) -> ObjectInfo:
        """Make the object exist, durably. See `ObjectWriter.commit`."""
        if self._done is not None:
            return self._done
        self._check_open()
        missing = next((index for index in range(count) if index not in self._places), None)
        if missing is not None:
            raise Permanent(f"stored object {self._key} cannot be committed: block {missing} of {count} never came")
        try:
            if self._unsynced is None:
                self._bring_in_order(count)
                stamp(self._descriptor)
                os.fsync(self._descriptor)
        except OSError as error:
            self.abort()  # after a failed fsync the kernel forgets what it could not write, and says so only once
            raise explained("write", self._target, error) from error
        try:
            if self._unsynced is None:
                self._unsynced = self._rename(self._temporary, self._target)
            for folder in self._unsynced:
                with suppress(FileNotFoundError):  # somebody deleted the object again, and its folder with it
                    sync_folder(folder)
            status = os.fstat(self._descriptor)
        except FileExistsError:
            status = self._same_already()
        except OSError as error:
            raise explained("write", self._target, error) from error
        self._done = object_info(self._key, status)
        self._close()
        return self._done

    def abort(self) -> None:
        """Forget the blocks; what is committed stays."""
        if self._done is None and self._unsynced is None:
            with suppress(OSError):
                Path(self._temporary).unlink()
        self._close()

    def _check_open(self) -> None:
        if self._descriptor < 0:
            raise Permanent(f"stored object {self._key} was committed or given up already")

    def _close(self) -> None:
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
            self._early.clear()
        self._bulk.close()
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)

    def _place(self, index: int, size: int) -> int:
        offset = self._end
        self._places[index] = (offset, size)
        self._end += size
        return offset

    def _bring_in_order(self, count: int) -> None:
        """Make the file hold blocks 0 … count-1 and nothing else; copies only if a block came again in another size."""
        offset = 0
        for index in range(count):
            if self._places[index][0] != offset:
                break
            offset += self._places[index][1]
        else:
            os.ftruncate(self._descriptor, offset)
            return
        ordered = os.open(f"{self._temporary}o", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            target = 0
            for index in range(count):
                source, size = self._places[index]
                while size:
                    data = os.pread(self._descriptor, min(size, _COPY_BYTES), source)
                    write_all(ordered, data, target)
                    source, target, size = source + len(data), target + len(data), size - len(data)
            Path(f"{self._temporary}o").rename(self._temporary)
        except BaseException:
            os.close(ordered)
            with suppress(OSError):
                Path(f"{self._temporary}o").unlink()
            raise
        self._descriptor, ordered = ordered, self._descriptor
        os.close(ordered)

    def _same_already(self) -> os.stat_result:
        """Status of the object that has our place, when it is equal to ours. Raise Conflict. Ours is given up."""
        try:
            found = os.open(self._target, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if not _equal(self._descriptor, found):
                    raise Conflict(conflict_words(self._key, if_absent=True))
                return os.fstat(found)
            finally:
                os.close(found)
        except OSError as error:
            raise explained("write", self._target, error) from error
        finally:
            self.abort()


def object_info(key: str, status: os.stat_result) -> ObjectInfo:
    """What a file's status says about the object of this key."""
    etag = f"{status.st_mtime_ns:x}-{status.st_ino:x}-{status.st_size:x}"
    return ObjectInfo(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC), etag)


def _equal(one: int, other: int) -> bool:
    size = os.fstat(one).st_size
    if size != os.fstat(other).st_size:
        return False
    return all(
        os.pread(one, _COPY_BYTES, offset) == os.pread(other, _COPY_BYTES, offset)
        for offset in range(0, size, _COPY_BYTES)
    )
