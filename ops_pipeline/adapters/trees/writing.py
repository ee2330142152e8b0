"""Writing a tree below a directory, so that nothing can ever land outside it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

from ops_pipeline.adapters.trees.places import (
    HOSTILE,
    REFUSED,
    Folders,
    TreeError,
    check_path,
    explained,
    shown,
    split,
    sync_file_system,
    translated,
)
from ops_pipeline.core.backup.file_entry import KINDS, FileEntry

WRITTEN_OUT_FROM = 64 * 1024
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_PERMITTED = {errno.EPERM, errno.EACCES, errno.ENOTSUP}


def write(root: int, entries: Iterator[tuple[FileEntry, Iterator[bytes]]], *, durable: bool = True) -> None:
    """Write below the directory `root` (a descriptor), as `FileTree.write`. Raise TreeError."""
    directories: list[FileEntry] = []
    with Folders(root) as folders:
        for entry, content in entries:
            if entry.path or entry.kind != "directory":
                check_path(entry.path)
            if entry.kind not in KINDS:
                raise TreeError(HOSTILE, f"{shown(entry.path)} is of no kind that can be written: {entry.kind[:20]!r}")
            try:
                _write(folders, entry, content)
            except OSError as error:
                raise explained("write", entry.path, error) from error
            if entry.kind == "directory":
                directories.append(entry)
        for entry in reversed(directories):
            with translated("set the attributes of", entry.path):
                dress(folders.fd(entry.path), entry)
        if durable:
            with translated("make durable", b""):
                sync_file_system(root)


def _write(folders: Folders, entry: FileEntry, content: Iterator[bytes]) -> None:
    parent, name = split(entry.path)
    if entry.kind == "directory":
        if entry.path:
            _make_directory(folders, parent, name)
        return
    directory = folders.fd(parent)
    if entry.kind == "file":
        try:
            descriptor = os.open(name, _NEW, 0o600, dir_fd=directory)
        except FileExistsError:
            _clear(directory, name, entry.path)
            descriptor = os.open(name, _NEW, 0o600, dir_fd=directory)
        try:
            _fill(descriptor, entry, content)
            dress(descriptor, entry)
        finally:
            os.close(descriptor)
        return
    _clear(directory, name, entry.path)
    if entry.kind == "hardlink":
        _link(folders, entry, directory, name)
    elif entry.kind == "symlink":
        os.symlink(entry.link, name, dir_fd=directory)
        _dress_name(directory, name, entry)
    else:
        os.mkfifo(name, 0o600, dir_fd=directory)
        _dress_name(directory, name, entry)


def _make_directory(folders: Folders, parent: bytes, name: bytes) -> None:
    directory = folders.fd(parent)
    try:
        os.mkdir(name, 0o700, dir_fd=directory)
    except FileExistsError:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None


def _clear(directory: int, name: bytes, path: bytes) -> None:
    """Make room for a name an earlier attempt wrote."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError) as error:
        raise TreeError(REFUSED, f"{shown(path)} cannot be replaced: {error.strerror}") from error


def _link(folders: Folders, entry: FileEntry, directory: int, name: bytes) -> None:
    parent, first = split(check_path(entry.link))
    source = folders.fd(parent)
    if stat.S_ISDIR(os.stat(first, dir_fd=source, follow_symlinks=False).st_mode):
        raise TreeError(HOSTILE, f"{shown(entry.path)} claims to be the same file as a directory")
    if entry.path.count(b"/") > 40:  # the first descriptor may have been closed by the second's way down
        source, directory = folders.fd(parent), folders.fd(split(entry.path)[0])
    os.link(first, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)


def _fill(descriptor: int, entry: FileEntry, content: Iterator[bytes]) -> None:
    """Put the content where it belongs, holes left open."""
    room = _regions(entry)
    at, left = next(room, (0, 0))
    for piece in content:
        view = memoryview(piece)
        while view:
            if not left:
                at, left = next(room, (0, 0))
                if not left:
                    raise TreeError(HOSTILE, f"{shown(entry.path)} has more content than its size of {entry.size}")
            written = os.pwrite(descriptor, view[:left], at)
            at, left, view = at + written, left - written, view[written:]
    if left or next(room, None) is not None:
        raise TreeError(HOSTILE, f"{shown(entry.path)} has less content than its size of {entry.size}")
    if entry.holes:
        os.ftruncate(descriptor, entry.size)
    if entry.stored_bytes >= WRITTEN_OUT_FROM and hasattr(os, "posix_fadvise"):
        # Has the kernel begin to write now what the sync at the end would otherwise have to wait for (mm/fadvise.c).
        with suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _regions(entry: FileEntry) -> Iterator[tuple[int, int]]:
    at = 0
    for start, length in entry.holes:
        if start < at or length <= 0 or start + length > entry.size:
            raise TreeError(HOSTILE, f"{shown(entry.path)} has holes that are none")
        if start > at:
            yield at, start - at
        at = start + length
    if at < entry.size:
        yield at, entry.size - at


def dress(descriptor: int, entry: FileEntry) -> None:
    """Owner, mode, extended attributes and time, in the order in which none undoes another."""
    status = os.fstat(descriptor)
    if (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
        _as_far_as_allowed(partial(os.fchown, descriptor, entry.uid, entry.gid))
    os.fchmod(descriptor, entry.mode & 0o7777)
    if entry.xattrs or entry.kind == "directory":
        _set_xattrs(descriptor, entry)
    os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))


def _dress_name(directory: int, name: bytes, entry: FileEntry) -> None:
    """The same for what cannot be opened."""
    _as_far_as_allowed(partial(os.chown, name, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False))
    if entry.kind == "fifo":
        # chmod(2) follows links and fchmodat(2) knows no way not to before Linux 6.6; a fifo we just made in a
        # directory that only we may write to is opened by descriptor instead, which neither follows nor blocks.
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                raise TreeError(HOSTILE, f"{shown(entry.path)} was exchanged while it was written")
            os.fchmod(descriptor, entry.mode & 0o7777)
        finally:
            os.close(descriptor)
    at = b"/proc/self/fd/%d/%s" % (directory, name)
    for attribute, value in entry.xattrs:
        _as_far_as_allowed(partial(os.setxattr, at, attribute, value, follow_symlinks=False))
    os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=directory, follow_symlinks=False)


def _set_xattrs(descriptor: int, entry: FileEntry) -> None:
    wanted = dict(entry.xattrs)
    if entry.kind == "directory":
        # Only the ones that came with the place: a directory above may have handed down its access list.
        for text in os.listxattr(descriptor):
            raw = os.fsencode(text)
            if raw.startswith(b"system.posix_acl_") and raw not in wanted:
                _as_far_as_allowed(partial(os.removexattr, descriptor, raw))
    for attribute, value in wanted.items():
        _as_far_as_allowed(partial(os.setxattr, descriptor, attribute, value))


def _as_far_as_allowed(action: Callable[[], None]) -> None:
    # Without the right to give files away, or on a file system without attributes, what can be restored is; the
    # comparison after a restore names what could not.
    try:
        action()
    except OSError as error:
        if error.errno not in _NOT_PERMITTED:
            raise
