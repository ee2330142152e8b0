"""Bulk bytes into a file past the page cache: the disk takes them from one small buffer.

A written page is otherwise copied to fresh memory first, which on a virtual machine is fetched from the host page by
page and costs more than encrypting it, and a backup drives everything else out of the cache. O_DIRECT (open(2)) wants
whole blocks from aligned memory, so the ends of every piece, less than a block each, go through the page cache. No
page of the cache is ever written both ways: a block is bulk only when one piece fills it.

What is written is durable only after a sync, both ways: the disk's own cache and the file's metadata are not.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
import time
from contextlib import suppress

BLOCK_BYTES = 4096
BULK_FROM = 64 * 1024
BUFFER_BYTES = 1024 * 1024
_threads = threading.local()


class BulkFile:
    """The file `path`, which the caller has open for writing as `descriptor`. Safe for threads, except `close`."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._direct: int | None = None  # -1: not possible here

    def write(self, data: bytes, offset: int) -> None:
        """Write every byte at `offset`. The same range may be written again; ranges must not overlap otherwise.

        Raise OSError.
        """
        view = memoryview(data)
        at = -offset % BLOCK_BYTES
        end = at + (len(view) - at) // BLOCK_BYTES * BLOCK_BYTES
        direct = self._opened() if end - at >= BULK_FROM else -1
        if direct < 0:
            write_all(self._descriptor, view, offset)
            begin_writing_out(self._descriptor, offset, len(view))
            return
        write_all(self._descriptor, view[:at], offset)
        buffer = _buffer()
        while at < end:
            size = min(end - at, BUFFER_BYTES)
            buffer[:size] = view[at : at + size]
            try:
                written = os.pwrite(direct, buffer[:size], offset + at)
            except OSError as error:
                if error.errno != errno.EINVAL:  # a disk that wants larger blocks
                    raise
                written = 0
            at += written
            if written != size:
                break  # the page cache takes the rest, or says why it does not fit
        write_all(self._descriptor, view[at:], offset + at)

    def close(self) -> None:
        """Close what `write` opened; the caller's descriptor stays."""
        direct, self._direct = self._direct, -1
        if direct is not None and direct >= 0:
            with suppress(OSError):
                os.close(direct)

    def _opened(self) -> int:
        with self._lock:
            if self._direct is None:
                try:
                    self._direct = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | _direct_flag())
                except OSError:
                    self._direct = -1  # not every file system can (tmpfs before Linux 6.6)
            return self._direct


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write every byte at `offset`, through the page cache. Raise OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def begin_writing_out(descriptor: int, offset: int, size: int) -> None:
    """Have the kernel start writing now what a sync will wait for later.

    POSIX_FADV_DONTNEED does (mm/fadvise.c of Linux), and keeps a backup from driving everything else out of the page
    cache. Without it nothing would be written for up to 30 s, and the sync at the end would have it all to do.
    """
    if size and hasattr(os, "posix_fadvise"):
        with suppress(OSError):  # a hint only: some file systems take none
            os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_DONTNEED)


def stamp(descriptor: int) -> os.stat_result:
    """Set the modification time in nanoseconds (the kernel's own steps are milliseconds); the status after it."""
    now = time.time_ns()
    os.utime(descriptor, ns=(now, now))
    return os.fstat(descriptor)


def _direct_flag() -> int:
    flag: int | None = getattr(os, "O_DIRECT", None)
    if flag is None:
        raise OSError(errno.EINVAL, "this system has no O_DIRECT")
    return flag


def _buffer() -> memoryview:
    """Aligned memory of this thread."""
    found: memoryview | None = getattr(_threads, "buffer", None)
    if found is None:
        found = _threads.buffer = memoryview(mmap.mmap(-1, BUFFER_BYTES))
    return found
