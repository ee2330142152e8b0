"""Walking a tree and reading its files, as they are at that moment."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ops_pipeline.adapters.trees.places import Folders, explained, split
from ops_pipeline.core.backup.file_entry import Changed, FileEntry, Piece
from ops_pipeline.core.backup.patterns import Patterns

PIECE_BYTES = 8 * 1024 * 1024
MOST_HOLES = 50_000
OWN_NAME = re.compile(rb"\.ops-(restore|hold|state)-[a-z0-9]{4,12}(\.new)?")
"""Names at the top of a tree that belong to restores."""

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo"}
_HOST_XATTRS = (b"security.selinux", b"security.ima", b"security.evm", b"trusted.overlay.")


def walk(root: int, excluded: Patterns) -> Iterator[FileEntry]:
    """Entries of all names below the directory `root` (a descriptor), as `FileTree.walk`. Raise TreeError."""
    first: dict[tuple[int, int], bytes] = {}
    with Folders(root) as folders:
        yield replace(_entry(os.fstat(root), b"", root, b""), xattrs=_xattrs(root))
        try:
            stack = [(b"", iter(_names(root)))]
        except OSError as error:
            raise explained("list", b"", error) from error
        while stack:
            prefix, names = stack[-1]
            following = next(names, None)
            if following is None:
                stack.pop()
                continue
            _, name, descend = following
            path = prefix + name
            if excluded.fits(path) or (not prefix and OWN_NAME.fullmatch(name)):
                continue
            try:
                if descend:
                    stack.append((path + b"/", iter(_names(folders.fd(path)))))
                    continue
                found = _found(folders, path, first)
            except OSError as error:
                if error.errno in _GONE:
                    continue  # vanished, or became something else, since its directory was listed
                raise explained("look at", path, error) from error
            if found is not None:
                yield found


def _names(directory: int) -> list[tuple[bytes, bytes, bool]]:
    # Sorted as whole paths are: what is below "a" ("a/…") comes after "a-b", because "-" is less than "/". So each
    # directory stands here twice: as itself, and as the place of what is below it.
    names = []
    with os.scandir(directory) as listing:
        for each in listing:
            name = os.fsencode(each.name)
            names.append((name, name, False))
            if each.is_dir(follow_symlinks=False):
                names.append((name + b"/", name, True))
    names.sort()
    return names


def _found(folders: Folders, path: bytes, first: dict[tuple[int, int], bytes]) -> FileEntry | None:
    parent, name = split(path)
    directory = folders.fd(parent)
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if status.st_mode & 0o170000 not in _KINDS:
        return None
    entry = _entry(status, path, directory, name)
    if status.st_nlink > 1 and entry.kind != "directory":
        key = (status.st_dev, status.st_ino)
        earlier = first.setdefault(key, path)
        if earlier != path:
            return FileEntry(
                path, "hardlink", 0, 0, 0, link=earlier, inode=status.st_ino, device=status.st_dev,
            )  # fmt: skip
    return entry


def _entry(status: os.stat_result, path: bytes, directory: int, name: bytes) -> FileEntry:
    """The entry of a name in `directory`; `name` b"" leaves out what needs a name."""
    kind = _KINDS[stat.S_IFMT(status.st_mode)]
    holes: tuple[tuple[int, int], ...] = ()
    if kind == "file" and status.st_blocks * 512 < status.st_size:
        holes = _holes_of(directory, name, status)
    return FileEntry(
        path=path,
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind == "file" else 0,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        inode=status.st_ino,
        device=status.st_dev,
        link=os.readlink(name, dir_fd=directory) if kind == "symlink" else b"",
        holes=holes,
        xattrs=_xattrs(directory, name) if name else (),
        links=1 if kind == "directory" else status.st_nlink,
    )


def _holes_of(directory: int, name: bytes, status: os.stat_result) -> tuple[tuple[int, int], ...]:
    descriptor = os.open(name, _FILE, dir_fd=directory)
    try:
        return _holes(descriptor, status.st_size)
    finally:
        os.close(descriptor)


def _holes(descriptor: int, size: int) -> tuple[tuple[int, int], ...]:
    holes, at = [], 0
    while at < size:
        try:
            data = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                data = size  # nothing but a hole up to the end
            elif error.errno == errno.EINVAL:
                return ()  # this file system knows no holes
            else:
                raise
        data = min(data, size)
        if data > at:
            holes.append((at, data - at))
        if data >= size:
            break
        at = os.lseek(descriptor, data, os.SEEK_HOLE)
    if len(holes) > MOST_HOLES:
        # The small ones are read and kept as the zeros they stand for.
        holes = sorted(sorted(holes, key=lambda hole: hole[1], reverse=True)[:MOST_HOLES])
    return tuple(holes)


def _xattrs(directory: int, name: bytes | None = None) -> tuple[tuple[bytes, bytes], ...]:
    # There is no llistxattrat(2); through /proc the directory is the one we hold open, and the name is not followed.
    at: int | bytes = directory if name is None else b"/proc/self/fd/%d/%s" % (directory, name)
    follow = name is None
    try:
        names = os.listxattr(at, follow_symlinks=follow)
        kept = [raw for raw in map(os.fsencode, names) if not raw.startswith(_HOST_XATTRS)]
        return tuple(sorted((raw, os.getxattr(at, raw, follow_symlinks=follow)) for raw in kept))
    except OSError as error:
        if error.errno in {errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENODATA, errno.ENOENT, errno.ENOTDIR}:
            return ()
        raise


def read(root: int, entries: Sequence[FileEntry]) -> Iterator[Piece]:
    """Contents of files below `root`, as `FileTree.read`. Raise TreeError when one may not or cannot be read."""
    with Folders(root) as folders:
        for index, entry in enumerate(entries):
            try:
                descriptor = _opened(folders, entry.path)
            except OSError as error:
                if error.errno in _GONE or error.errno == errno.ENXIO:
                    yield index, Changed("it is gone"), True
                    continue
                raise explained("read", entry.path, error) from error
            try:
                yield from _pieces(index, entry, descriptor, folders)
            except OSError as error:
                raise explained("read", entry.path, error) from error
            finally:
                os.close(descriptor)


def _opened(folders: Folders, path: bytes) -> int:
    parent, name = split(path)
    return os.open(name, _FILE, dir_fd=folders.fd(parent))


def _pieces(index: int, entry: FileEntry, descriptor: int, folders: Folders) -> Iterator[Piece]:
    before = os.fstat(descriptor)
    if not _same(entry, before):
        yield index, Changed("it changed since it was listed", _now(folders, entry.path)), True
        return
    held = b""
    for start, length in _data(entry):
        at, end = start, start + length
        while at < end:
            piece = os.pread(descriptor, min(end - at, PIECE_BYTES), at)
            if not piece:
                break
            if held:
                yield index, held, False
            held = piece
            at += len(piece)
        if at < end:
            if held:
                yield index, held, False
            yield index, Changed("it was cut while it was read", _now(folders, entry.path)), True
            return
    if _same(entry, os.fstat(descriptor)):
        yield index, held, True
        return
    yield index, held, False
    yield index, Changed("it changed while it was read", _now(folders, entry.path)), True


def _data(entry: FileEntry) -> Iterator[tuple[int, int]]:
    at = 0
    for start, length in entry.holes:
        if start > at:
            yield at, start - at
        at = start + length
    if at < entry.size:
        yield at, entry.size - at


def _same(entry: FileEntry, status: os.stat_result) -> bool:
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_size == entry.size
        and status.st_mtime_ns == entry.mtime_ns
        and (not entry.ctime_ns or status.st_ctime_ns == entry.ctime_ns)
        and (not entry.inode or status.st_ino == entry.inode)
    )


def _now(folders: Folders, path: bytes) -> FileEntry | None:
    """What the name is now, when it is still a file."""
    parent, name = split(path)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        try:
            directory = folders.fd(parent)
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                return _entry(status, path, directory, name)
        except OSError as error:
            if error.errno not in _GONE:
                raise
    return None
