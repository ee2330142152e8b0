"""Opening what lies below a directory without ever following a link, and the one error of this package."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator
from types import TracebackType

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
KEPT_OPEN = 48

MISSING, HOSTILE, FULL, REFUSED, TRANSIENT = "missing", "hostile", "full", "refused", "transient"


class TreeError(Exception):
    """What went wrong with a tree: `kind` is one of the words above, `text` one sentence for a person."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text


def shown(path: bytes) -> str:
    """A path for people: printable, bounded."""
    text = path.decode("utf-8", "backslashreplace")
    plain = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return plain if len(plain) <= 200 else f"{plain[:100]}…{plain[-90:]}"


@contextlib.contextmanager
def translated(doing: str, path: bytes) -> Iterator[None]:
    """Raise a TreeError for an OSError inside. `doing` completes «could not …»."""
    try:
        yield
    except OSError as error:
        raise explained(doing, path, error) from error


def explained(doing: str, path: bytes, error: OSError) -> TreeError:
    """The TreeError of an OSError."""
    words = f"could not {doing} {shown(path) or 'the tree'}: {os.strerror(error.errno or 0)}"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return TreeError(FULL, words)
    if error.errno in {errno.ELOOP, errno.ENOTDIR}:
        return TreeError(HOSTILE, f"{words}: a part of that path is no directory any more")
    if error.errno in {errno.ENOENT}:
        return TreeError(MISSING, words)
    if error.errno in {errno.EIO, errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.EMFILE, errno.ENFILE}:
        return TreeError(TRANSIENT, words)
    return TreeError(REFUSED, words)


def split(path: bytes) -> tuple[bytes, bytes]:
    """Directory and name of a relative path; b"" is the tree itself."""
    parent, _, name = path.rpartition(b"/")
    return parent, name


def check_path(path: bytes) -> bytes:
    """Return a relative path whose every part is a name. Raise TreeError (hostile)."""
    if b"\0" in path or any(part in (b"", b".", b"..") or len(part) > 255 for part in path.split(b"/")):
        raise TreeError(HOSTILE, f"not a path below the tree: {shown(path)}")
    return path


class Folders:
    """Directories below a root, opened part by part without following links. The last few stay open.

    A descriptor `fd` gives is good until 48 others were asked for. Not for several threads at once.
    """

    def __init__(self, root: int) -> None:
        """`root` is a descriptor of the tree; it is not closed."""
        self._root = root
        self._open: OrderedDict[bytes, int] = OrderedDict()

    def fd(self, path: bytes) -> int:
        """Descriptor of the directory `path`. Raise OSError (ELOOP, ENOTDIR: something else stands there)."""
        if not path:
            return self._root
        found = self._open.get(path)
        if found is not None:
            self._open.move_to_end(path)
            return found
        parent, name = path, b""
        missing: list[bytes] = []
        while parent and parent not in self._open:
            parent, name = split(parent)
            missing.append(name)
        descriptor = self._open[parent] if parent else self._root
        if parent:
            self._open.move_to_end(parent)
        at = parent
        for part in reversed(missing):
            at = at + b"/" + part if at else part
            descriptor = os.open(part, DIRECTORY, dir_fd=descriptor)
            self._open[at] = descriptor
            if len(self._open) > KEPT_OPEN:
                os.close(self._open.popitem(last=False)[1])
        return descriptor

    def forget(self, path: bytes) -> None:
        """Close what is open at and below `path`."""
        for each in [one for one in self._open if one == path or one.startswith(path + b"/")]:
            os.close(self._open.pop(each))

    def __enter__(self) -> Folders:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._open:
            os.close(self._open.popitem()[1])


_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)


def _renameat2(from_fd: int, name: bytes, to_fd: int, to_name: bytes, flags: int) -> None:
    if _libc.renameat2(from_fd, ctypes.c_char_p(name), to_fd, ctypes.c_char_p(to_name), flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def exchange(from_fd: int, name: bytes, to_fd: int, to_name: bytes) -> None:
    """Exchange two names in one step (renameat2(2)). Raise OSError; EINVAL where the file system cannot."""
    _renameat2(from_fd, name, to_fd, to_name, _RENAME_EXCHANGE)


def move(from_fd: int, name: bytes, to_fd: int, to_name: bytes) -> None:
    """Rename, never replacing. Raise OSError; FileExistsError when the new name is taken."""
    try:
        _renameat2(from_fd, name, to_fd, to_name, _RENAME_NOREPLACE)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOSYS}:
            raise
        if found(to_fd, to_name) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
        os.rename(name, to_name, src_dir_fd=from_fd, dst_dir_fd=to_fd)


def sync_file_system(descriptor: int) -> None:
    """Make all that was written to the file system of `descriptor` durable (syncfs(2)). Raise OSError."""
    if _libc.syncfs(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def found(directory: int, name: bytes) -> os.stat_result | None:
    """lstat(2) of a name, or None."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def remove_tree(directory: int, name: bytes) -> None:
    """Remove a name with all below it, following nothing; no error when there is none. Any depth."""
    status = found(directory, name)
    if status is None:
        return
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=directory)
        return
    # Deep trees: the innermost directory is reached by its path, part by part, so no recursion and few descriptors.
    root = os.open(name, DIRECTORY, dir_fd=directory)
    try:
        with Folders(root) as folders:
            path, pending = b"", [b""]
            while pending:
                path = pending[-1]
                at = folders.fd(path)
                inner = []
                with os.scandir(at) as listing:
                    for entry in listing:
                        raw = os.fsencode(entry.name)
                        if entry.is_dir(follow_symlinks=False):
                            inner.append(path + b"/" + raw if path else raw)
                        else:
                            os.unlink(raw, dir_fd=at)
                if inner:
                    pending.extend(inner)
                    continue
                pending.pop()
                if path:
                    folders.forget(path)
                    parent, last = split(path)
                    os.rmdir(last, dir_fd=folders.fd(parent))
    finally:
        os.close(root)
    os.rmdir(name, dir_fd=directory)
