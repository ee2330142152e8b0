"""What the stores in a directory have in common: durable folders, a sync of everything, errors in clear words."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

from ops_pipeline.errors import OpsError, Permanent, Transient

_HINTS = {
    errno.ENOSPC: "The disk is full: free some space.",
    errno.EDQUOT: "The disk quota is used up.",
    errno.EROFS: "The file system is mounted read-only.",
    errno.EACCES: "This user may not access it: check owner and mode.",
    errno.EPERM: "This user may not access it: check owner and mode.",
    errno.ENOTDIR: "Something on that path is a file and ought to be a folder.",
    errno.EEXIST: "Something on that path is a file and ought to be a folder.",
    errno.EISDIR: "It is a folder and ought to be a file.",
    errno.ELOOP: "It is a symbolic link; the store follows none.",
}
_MAY_PASS = {errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT, errno.ESTALE, errno.EMFILE, errno.ENFILE}
_NOT_SUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1  # <fcntl.h>, <linux/fs.h>


def explained(operation: str, path: Path, error: OSError) -> OpsError:
    """Given what the operating system said, return Transient or Permanent naming the path and what to do."""
    place = error.filename if isinstance(error.filename, str) else str(path)
    words = f"store cannot {operation} {place}: {error.strerror or error}"
    if error.errno in _MAY_PASS:
        return Transient(words)
    return Permanent(words, hint=_HINTS.get(error.errno or 0, ""))


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raise OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_everything(folder: Path) -> bool:
    """Make everything on the file system of `folder` durable in one go (syncfs(2)).

    Return False, having done nothing, where there is no such call. Raise OSError (a disk that failed while writing).
    """
    call = _syncfs()
    if call is None:
        return False
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        number = call(descriptor)
    finally:
        os.close(descriptor)
    if number in _NOT_SUPPORTED:
        return False
    if number:
        raise OSError(number, os.strerror(number), str(folder))
    return True


def rename_new(source: str, target: str) -> None:
    """Rename a file; raise FileExistsError when there is a `target` already, which stays as it is. Raise OSError."""
    call = _renameat2()
    number = errno.ENOSYS if call is None else call(source, target)
    if number in _NOT_SUPPORTED:  # an old kernel, or a file system that cannot: link(2) refuses an existing name too
        os.link(source, target, follow_symlinks=False)
        Path(source).unlink()
    elif number:
        raise OSError(number, os.strerror(number), target)


@cache
def _syncfs() -> Callable[[int], int] | None:
    """syncfs(descriptor) -> errno; None where the C library has none."""
    import ctypes

    function = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if function is None:
        return None

    def call(descriptor: int) -> int:
        return ctypes.get_errno() if function(ctypes.c_int(descriptor)) else 0

    return call


@cache
def _renameat2() -> Callable[[str, str], int] | None:
    """renameat2(source, target, RENAME_NOREPLACE) -> errno; None where the C library has none."""
    import ctypes

    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return None

    def call(source: str, target: str) -> int:
        names = [ctypes.c_char_p(os.fsencode(name)) for name in (source, target)]
        failed = function(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(_RENAME_NOREPLACE))
        return ctypes.get_errno() if failed else 0

    return call
