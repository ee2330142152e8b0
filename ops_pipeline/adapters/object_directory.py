"""Objects that are written once, in a directory: plain files at their keys, durable, safe for many processes.

Small objects cost no fsync each: `put` writes a file in the reserved folder and has the kernel start writing it out;
`flush` makes all of them durable with one syncfs(2), renames them to their keys without replacing anything, and makes
the names durable. An object of many blocks is one file there from the start (`object_directory_writer.py`). So a
reader, and a machine that lost power, sees whole objects only, and what a killed writer leaves is no object: it lies
in the reserved folder until a later writer clears it away, 48 hours after its last byte.

Objects never change, so a key is free or taken for good until somebody deletes it; only deletions exclude one another
(flock(2)), so that a conditional one never hits an object that came later. The etag is the modification time, set in
nanoseconds when the object is written, with inode number and size.

Local file systems only, as for `directory_store.py`.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from ops_pipeline.adapters.bulk_writing import BulkFile, stamp
from ops_pipeline.adapters.directory_store import RESERVED
from ops_pipeline.adapters.local_disk import explained, rename_new, sync_everything, sync_folder
from ops_pipeline.adapters.object_directory_reading import read_range, walk
from ops_pipeline.adapters.object_directory_writer import (
    DirectoryWriter,
    object_info,
)
from ops_pipeline.adapters.store_keys import check_key, check_prefix, conflict_words
from ops_pipeline.errors import Conflict, NotFound, Permanent, Transient
from ops_pipeline.ports import ObjectInfo, ObjectStore, ObjectWriter

SWEEP_AFTER_SECONDS = 48 * 3600.0
_SWEEP_EVERY_SECONDS = 3600.0
_FEW = 4
"""So many files or folders are synced one by one: syncfs also waits for what others write to the same disk."""


@dataclass(frozen=True)
class _Waiting:
    """An object that was put and is not yet durable."""

    temporary: str
    info: ObjectInfo


class ObjectDirectory(ObjectStore):
    """An `ObjectStore` in a folder, which the first write creates. Safe for threads and processes.

    With `durable_deletes` every deletion has reached the disk when `delete` returns; without, a power cut may bring
    deleted objects back (whole), and deleting thousands is fast.
    """

    def __init__(self, root: Path, *, durable_deletes: bool = True, lock_timeout_seconds: float = 30.0) -> None:
        self._root = root.absolute()
        self._temporary = self._root / RESERVED / "tmp"
        self._durable_deletes = durable_deletes
        self._lock_timeout = lock_timeout_seconds
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._waiting: dict[str, _Waiting | None] = {}  # None: being written this moment
        self._unsynced: set[Path] = set()
        self._session = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self._number = 0
        self._swept_at: float | None = None

    def begin(self, key: str) -> ObjectWriter:
        """Start an object of many blocks."""
        target = self._path(key)
        with _in_our_words("write", target):
            return DirectoryWriter(key, target, self._new_temporary(), self._rename)

    def put(self, key: str, data: bytes) -> ObjectInfo:
        """Store a whole small object; it shows, durably, after `flush`. See `ObjectStore.put`."""
        target = self._path(key)
        with self._lock, _in_our_words("write", target):
            if key in self._waiting or _status(target) is not None:
                raise Conflict(conflict_words(key, if_absent=True))
            self._waiting[key] = None
        waiting = None
        try:
            with _in_our_words("write", target):
                temporary = self._new_temporary()
                try:
                    waiting = _Waiting(temporary, _write(temporary, key, data))
                except BaseException:
                    _forget(temporary)
                    raise
        finally:
            with self._lock:
                if waiting is None:
                    self._waiting.pop(key, None)
                else:
                    self._waiting[key] = waiting
        return waiting.info

    def flush(self) -> None:
        """Make all that was put durable and visible.

        Raise Conflict, naming the keys, when another writer's objects took their places meanwhile: those stay, ours
        of these keys are dropped, and everything else is stored. When the disk fails while it is synced nothing of
        what was put since the last flush is trusted or stored, and it has to be put again.
        """
        with self._flushing:
            with self._lock:
                batch = {key: waiting for key, waiting in self._waiting.items() if waiting is not None}
            if batch:
                self._sync(batch)
            taken = []
            for key, waiting in sorted(batch.items()):
                with _in_our_words("write", self._path(key)):
                    try:
                        self._unsynced |= self._rename(waiting.temporary, self._path(key))
                    except FileExistsError:
                        taken.append(key)
                        _forget(waiting.temporary)
                    except (FileNotFoundError, NotADirectoryError):
                        self._drop([key])
                        _forget(waiting.temporary)
                        raise
                self._drop([key])
            self._sync_names()
            if taken:
                more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
                raise Conflict(conflict_words(taken[0] + more, if_absent=True))

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object. See `ObjectStore.get`."""
        path = self._path(key)
        if offset < 0 or (length is not None and length < 0):
            raise Permanent(f"stored object {key}: no such range ({offset}, {length})")
        with _in_our_words("read", path):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                raise self._not_found(key) from None
            except NotADirectoryError:
                if self._root.is_dir():
                    raise self._not_found(key) from None
                raise
            try:
                status = os.fstat(descriptor)
                if not S_ISREG(status.st_mode):
                    raise self._not_found(key)
                rest = max(status.st_size - offset, 0)
                return read_range(descriptor, offset, rest if length is None else min(length, rest))
            finally:
                os.close(descriptor)

    def stat(self, key: str) -> ObjectInfo | None:
        """What is known without reading it, or None."""
        path = self._path(key)
        with _in_our_words("read", path):
            try:
                status = _status(path)
            except NotADirectoryError:
                if self._root.is_dir():
                    return None  # a part of the key is an object itself, so this one cannot exist
                raise
            return object_info(key, status) if status is not None and S_ISREG(status.st_mode) else None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects whose key begins so, sorted by key; memory for one folder at each depth."""
        check_prefix(prefix)
        return self._listed(prefix)

    def delete(self, key: str, *, etag: str | None = None) -> None:
        """Remove, and the folders that are empty then. See `ObjectStore.delete`."""
        path = self._path(key)
        with _in_our_words("delete", path):
            if not self._root.exists():
                return
        with _in_our_words("delete", path), self._deleting():
            try:
                status = path.lstat()
            except (FileNotFoundError, NotADirectoryError):
                return
            if not S_ISREG(status.st_mode):
                return
            if etag is not None and object_info(key, status).etag != etag:
                raise Conflict(f"stored object {key} is another one by now; nothing was deleted")
            path.unlink()
            folder = path.parent
            while folder != self._root:
                try:
                    folder.rmdir()
                except OSError:
                    break  # not empty, or a writer's
                folder = folder.parent
            if self._durable_deletes:
                with suppress(FileNotFoundError):
                    sync_folder(folder)

    def sweep(self, age_seconds: float = SWEEP_AFTER_SECONDS) -> int:
        """Clear away what writers left that were killed so long ago; how many files. Raise Permanent.

        Happens by itself before a write, at most once an hour.
        """
        oldest = time.time() - age_seconds
        gone = 0
        with _in_our_words("delete", self._temporary):
            if not self._temporary.is_dir():
                return 0
            for leftover in os.scandir(self._temporary):
                with suppress(FileNotFoundError):
                    ours = leftover.name.startswith(self._session)
                    if not ours and leftover.stat(follow_symlinks=False).st_mtime < oldest:
                        Path(leftover.path).unlink()
                        gone += 1
        return gone

    # ------------------------------------------------------------------------------------------------ inside

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _not_found(self, key: str) -> NotFound:
        return NotFound(f"there is no stored object {key} in {self._root}")

    def _new_temporary(self) -> str:
        """Name of a file nobody has, in a folder that is there. Raise OSError, Permanent."""
        with self._lock:
            self._number += 1
            number, now = self._number, time.monotonic()
            due = self._swept_at is None or now - self._swept_at > _SWEEP_EVERY_SECONDS
            if due:
                # Under the lock: a thread that comes second must not find the folder missing.
                for folder in self._make_folder(self._temporary):
                    sync_folder(folder)
                self._swept_at = now
        if due:
            self.sweep()
        return f"{self._temporary}/{self._session}-{number}"

    def _make_folder(self, folder: Path) -> set[Path]:
        """Create with parents; the folders whose names changed, which are not durable yet."""
        if folder.is_dir():
            return set()
        changed = {folder.parent}
        if folder != self._root:  # whatever stands above the root is not ours to sync
            changed |= self._make_folder(folder.parent)
        folder.mkdir(parents=folder == self._root, exist_ok=True)
        return changed

    def _rename(self, temporary: str, target: Path) -> set[Path]:
        """Rename without replacing; the folders whose names changed. Raise OSError, FileExistsError."""
        changed = {target.parent}
        for _ in range(100):
            try:
                rename_new(temporary, str(target))
                return changed
            except FileNotFoundError:
                # The folder is missing, or was empty and has just been removed by a deletion.
                if not os.path.lexists(temporary):
                    raise
            with suppress(FileNotFoundError):
                changed |= self._make_folder(target.parent)
        raise Transient(f"store cannot write {target}: its folder is removed again and again")

    def _sync(self, batch: Mapping[str, _Waiting]) -> None:
        files = [Path(waiting.temporary) for waiting in batch.values()]
        try:
            if len(files) <= _FEW or not sync_everything(self._temporary):
                for file in files:
                    _sync_file(file)
        except OSError as error:
            # A second sync would say that all is well, although the kernel has dropped what it could not write.
            self._drop(batch)
            for file in files:
                _forget(str(file))
            raise explained("write", self._temporary, error) from error

    def _sync_names(self) -> None:
        with _in_our_words("write", self._root):
            if len(self._unsynced) <= _FEW or not sync_everything(self._root):
                for folder in self._unsynced:
                    with suppress(FileNotFoundError):  # emptied and removed since
                        sync_folder(folder)
            self._unsynced.clear()

    def _drop(self, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                self._waiting.pop(key, None)

    def _listed(self, prefix: str) -> Iterator[ObjectInfo]:
        folder, _, start = prefix.rpartition("/")
        with _in_our_words("list", self._root / folder):
            if self._root.exists():
                yield from walk(self._root / folder, f"{folder}/" if folder else "", start)

    @contextmanager
    def _deleting(self) -> Iterator[None]:
        """Exclude every other deletion, in whatever process or thread."""
        folder = self._root / RESERVED
        self._make_folder(folder)
        descriptor = os.open(folder / "delete.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            deadline = time.monotonic() + self._lock_timeout
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise Transient(
                            f"store {self._root} is busy: another process has been deleting for "
                            f"{self._lock_timeout:g} s",
                            hint="Look for a stopped process (state T); ending it frees the lock.",
                        ) from None
                time.sleep(0.001)
            yield
        finally:
            os.close(descriptor)  # which unlocks


def _write(temporary: str, key: str, data: bytes) -> ObjectInfo:
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    bulk = BulkFile(temporary, descriptor)
    try:
        bulk.write(data, 0)
        return object_info(key, stamp(descriptor))
    finally:
        bulk.close()
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _forget(temporary: str) -> None:
    with suppress(OSError):
        Path(temporary).unlink()


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


@contextmanager
def _in_our_words(operation: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise explained(operation, path, error) from error
