"""The store in a directory: durable, atomic, safe for many processes, readable with `ls` and `cat`.

An object is a plain file at its key. A write goes to a temporary file, is fsynced, takes its place by rename(2), and
the folder is fsynced: a reader, and a machine that lost power, sees the old object or the new one. Conditions are
checked and the rename done under flock(2) on one of 256 lock files, so exactly one of several writers wins; the
kernel frees a lock when its holder dies, so a killed process blocks nobody.

The etag must differ after *every* write, also one of equal content (A → B → A would otherwise go unnoticed). The
modification time serves: under the lock it is set to be later than that of every earlier write under that lock, of
deleted objects too, however the clock stands; the inode number is added for files put back from a copy.

Local file systems only. On NFS flock and rename are atomic only with a lock daemon and NFSv4, and timestamps may be
coarser; teams that share a ledger between machines use Azure Blob.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from ops_pipeline.adapters.local_disk import explained, sync_folder
from ops_pipeline.adapters.store_keys import check_conditions, check_key, check_prefix, conflict_words
from ops_pipeline.errors import Conflict, Permanent, Transient
from ops_pipeline.ports import Blob, BlobInfo, BlobStore

RESERVED = ".store"
"""Folder inside the store for locks and unfinished writes; no key can name it, because parts never start with a dot."""

_STRIPES = 256
_SWEEP_AFTER_SECONDS = 24 * 3600.0
_SWEEP_EVERY_SECONDS = 3600.0


class DirectoryStore(BlobStore):
    """A `BlobStore` in a folder, which the first write creates.

    `lock_timeout_seconds` bounds the wait for other writers; they hold a lock for a rename, so milliseconds.
    """

    def __init__(self, root: Path, *, lock_timeout_seconds: float = 30.0) -> None:
        self._root = root.absolute()
        self._lock_timeout = lock_timeout_seconds
        self._swept_at: float | None = None

    def read(self, key: str) -> Blob | None:
        """The object, or None. Raise Permanent naming the path when it cannot be read."""
        path = self._path(key)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            if self._root.is_dir():
                return None  # a part of the key is an object itself, so this one cannot exist
            raise Permanent(f"store {self._root} is not a folder") from None
        except OSError as error:
            raise explained("read", path, error) from error
        try:
            with open(descriptor, "rb") as file:  # noqa: PTH123 - of a descriptor, opened without following links
                # Files are replaced, never changed: status and content of one descriptor belong together.
                return Blob(file.read(), _etag(os.fstat(file.fileno())))
        except IsADirectoryError:
            return None
        except OSError as error:
            raise explained("read", path, error) from error

    def write(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        """Store durably and return the new etag. See `BlobStore.write`."""
        path = self._path(key)
        check_conditions(if_match, if_absent)
        temporary = self._root / RESERVED / "tmp" / f"{os.getpid()}-{uuid.uuid4().hex}"
        try:
            self._make_folder(temporary.parent)
            self._sweep()
            try:
                _write_durably(temporary, data)
                self._make_folder(path.parent)
                with self._locked(key) as stripe:
                    current = _status(path)
                    if current is not None and stat.S_ISDIR(current.st_mode):
                        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
                    found = None if current is None else _etag(current)
                    if (if_absent and found is not None) or (if_match is not None and found != if_match):
                        raise Conflict(conflict_words(key, if_absent=if_absent))
                    etag = _stamp(temporary, stripe, current)
                    temporary.rename(path)
                    sync_folder(path.parent)
                    return etag
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise explained("write", path, error) from error

    def delete(self, key: str) -> None:
        """Remove durably; no error when there is none."""
        path = self._path(key)
        if not self._root.exists():
            return
        try:
            with self._locked(key):
                try:
                    path.unlink()
                except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                    return
                sync_folder(path.parent)
        except OSError as error:
            raise explained("delete", path, error) from error

    def list(self, prefix: str) -> Iterator[BlobInfo]:
        """Objects whose key starts with `prefix`, sorted by key."""
        check_prefix(prefix)
        folder, _, start = prefix.rpartition("/")
        found: list[BlobInfo] = []
        try:
            if self._root.exists():
                _collect(self._root / folder, f"{folder}/" if folder else "", start, found)
        except OSError as error:
            raise explained("list", self._root / folder, error) from error
        return iter(sorted(found, key=lambda info: info.key))

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    @contextmanager
    def _locked(self, key: str) -> Iterator[int]:
        """Exclude every other writer of `key`, in whatever process or thread; yields the lock file's descriptor."""
        folder = self._root / RESERVED / "locks"
        self._make_folder(folder)
        # A fixed number of files, never removed: removing a lock file that somebody waits for breaks the lock.
        stripe = hashlib.sha256(key.encode()).digest()[0] % _STRIPES
        descriptor = os.open(folder / f"{stripe:02x}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            self._wait_for(descriptor, key)
            yield descriptor
        finally:
            os.close(descriptor)  # which unlocks

    def _wait_for(self, descriptor: int, key: str) -> None:
        deadline = time.monotonic() + self._lock_timeout
        pause = 0.0005
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Transient(
                        f"store {self._root} is busy: another process has locked {key} for {self._lock_timeout:g} s",
                        hint="Look for a stopped process (state T); ending it frees the lock.",
                    ) from None
            time.sleep(pause)
            pause = min(pause * 1.5, 0.02)

    def _make_folder(self, folder: Path) -> None:
        """Create with parents, each durably."""
        if folder.is_dir():
            return
        if folder != self._root.parent:  # whatever stands above the root is not ours to fsync
            self._make_folder(folder.parent)
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)

    def _sweep(self) -> None:
        """Remove what writers killed long ago left behind; at most once an hour and process."""
        now = time.monotonic()
        if self._swept_at is not None and now - self._swept_at < _SWEEP_EVERY_SECONDS:
            return
        self._swept_at = now
        oldest = time.time() - _SWEEP_AFTER_SECONDS
        for leftover in (self._root / RESERVED / "tmp").iterdir():
            with suppress(FileNotFoundError):
                if leftover.stat().st_mtime < oldest:
                    leftover.unlink()


def _collect(folder: Path, prefix: str, start: str, found: list[BlobInfo]) -> None:
    """Add to `found` what stands below `folder`; `start` is how names in that folder itself must start."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    except NotADirectoryError:
        if not prefix:  # the root itself
            raise
        return
    for entry in entries:
        if entry.name.startswith(".") or not entry.name.startswith(start):
            continue
        key = f"{prefix}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            _collect(Path(entry.path), f"{key}/", "", found)
        elif entry.is_file(follow_symlinks=False):
            # Gone meanwhile, or somebody else's file that no key could name.
            with suppress(FileNotFoundError, Permanent):
                status = entry.stat(follow_symlinks=False)
                found.append(BlobInfo(check_key(key), status.st_size, datetime.fromtimestamp(status.st_mtime, UTC)))


def _write_durably(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor, opened exclusively
        file.write(data)
        file.flush()
        _set_modified(descriptor, time.time_ns())
        os.fsync(descriptor)


def _set_modified(target: int | Path, nanoseconds: int) -> None:
    os.utime(target, ns=(nanoseconds, nanoseconds))


def _stamp(temporary: Path, stripe: int, current: os.stat_result | None) -> str:
    """Make the temporary file later than everything written before under this lock; return its etag."""
    last = 0
    with suppress(ValueError):  # empty, or zeroes after a power cut
        last = int(os.pread(stripe, 32, 0))
    if current is not None:
        last = max(last, current.st_mtime_ns)
    status = temporary.stat()
    # Usually it is later already. If not (clock set back, a race), take the smallest step the file system keeps.
    step = 1
    while status.st_mtime_ns <= last:
        _set_modified(temporary, last + step)
        status = temporary.stat()
        step *= 10
    os.pwrite(stripe, b"%032d" % status.st_mtime_ns, 0)
    return _etag(status)


def _etag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_ino:x}-{status.st_size:x}"


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None
