"""The FileTree port for a directory on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ops_pipeline.adapters.trees.mounts import mounted_somewhere
from ops_pipeline.adapters.trees.places import DIRECTORY, FULL, HOSTILE, MISSING, TRANSIENT, TreeError, translated
from ops_pipeline.adapters.trees.reading import read, walk
from ops_pipeline.adapters.trees.swapping import Places, begun
from ops_pipeline.adapters.trees.writing import write
from ops_pipeline.core.backup.patterns import Patterns
from ops_pipeline.core.backup.records import Kind
from ops_pipeline.errors import NotFound, OpsError, Permanent, Transient
from ops_pipeline.ports import FileEntry, Piece


def as_ops_error(name: str, kind: str, text: str) -> OpsError:
    """The project's error for a TreeError of the source `name`."""
    words = f"files {name}: {text}"
    if kind == MISSING:
        return NotFound(words)
    if kind == FULL:
        return Permanent(words, hint="Free some space there and start again; what is already there is kept.")
    if kind == HOSTILE:
        return Permanent(words, hint="Nothing was written outside the tree.")
    if kind == TRANSIENT:
        return Transient(words)
    return Permanent(words, hint="See that this user may read and write there, or leave those names out.")


class DirectoryTree:
    """A directory; contacts nothing before the first call. Safe to share by threads.

    `inside`: whether a swap exchanges the names in the directory instead of the directory itself; None = whenever
    the directory is mounted somewhere (a container that has it mounted would go on seeing the old one).
    """

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        exclude: Sequence[str] = (),
        kind: Kind = "directory",
        inside: bool | None = None,
    ) -> None:
        self._name = name
        self._kind = kind
        self._path = path
        self._excluded = Patterns(exclude)
        self._inside = inside

    @property
    def name(self) -> str:
        """Name in the catalogue."""
        return self._name

    @property
    def kind(self) -> Kind:
        """ "directory", or "volume" when it is the place of one."""
        return self._kind

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._path

    def check(self) -> Sequence[str]:
        """Warnings. Raise NotFound, Permanent when it is no readable directory."""
        with self._live():
            pass
        if os.geteuid() != 0:
            return (
                f"files {self._name}: this process is not root, so owners are recorded but can be restored only by "
                "root, and files it may not read will fail the backup",
            )
        return ()

    def walk(self) -> Iterator[FileEntry]:
        """See `FileTree.walk`. Raise NotFound, Permanent (a directory that may not be read), Transient."""
        with self._live() as root:
            yield from walk(root, self._excluded)

    def read(self, entries: Sequence[FileEntry]) -> Iterator[Piece]:
        """See `FileTree.read`."""
        with self._live() as root:
            yield from read(root, entries)

    def beside(self, token: str) -> None:
        """See `FileTree.beside`. The directory itself may be missing, its parent may not."""
        with self._places(token) as places:
            places.make_beside(token)

    def write(self, token: str, entries: Iterator[tuple[FileEntry, Iterator[bytes]]], *, durable: bool = True) -> None:
        """See `FileTree.write`."""
        with self._beside(token) as root:
            write(root, entries, durable=durable)

    def walk_beside(self, token: str) -> Iterator[FileEntry]:
        """See `FileTree.walk_beside`."""
        with self._beside(token) as root:
            yield from walk(root, Patterns(()))

    def read_beside(self, token: str, entries: Sequence[FileEntry]) -> Iterator[Piece]:
        """See `FileTree.read_beside`."""
        with self._beside(token) as root:
            yield from read(root, entries)

    def swap(self, token: str) -> None:
        """See `FileTree.swap`."""
        with self._places(token) as places:
            places.swap(token)

    def swapped(self, token: str) -> bool:
        """See `FileTree.swapped`."""
        with self._places(token) as places:
            return places.swapped(token)

    def unswap(self, token: str) -> None:
        """See `FileTree.unswap`."""
        with self._places(token) as places:
            places.unswap(token)

    def drop_beside(self, token: str) -> None:
        """See `FileTree.drop_beside`."""
        with self._places(token) as places:
            places.drop_beside(token)

    def holds(self) -> Sequence[str]:
        """See `FileTree.holds`."""
        with self._translated():
            root = os.path.realpath(os.fsencode(self._path))
            tokens: set[str] = set()
            for inside in (True, False):
                if self._inside in (None, inside) and (not inside or self._path.is_dir()):
                    places = Places(root, inside=inside)
                    tokens |= set(places.holds())
                    places.close()
            return sorted(tokens)

    def drop_hold(self, token: str) -> None:
        """See `FileTree.drop_hold`."""
        with self._places(token) as places:
            places.drop_hold(token)

    # ------------------------------------------------------------------------------------------------ inside

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except TreeError as error:
            raise as_ops_error(self._name, error.kind, f"{self._path}: {error.text}") from error
        except OSError as error:
            raise as_ops_error(self._name, "refused", f"{self._path}: {error.strerror or error}") from error

    @contextmanager
    def _places(self, token: str) -> Iterator[Places]:
        with self._translated():
            # Links on the way to the tree are the operator's; from here on none is followed.
            root = os.path.realpath(os.fsencode(self._path))
            inside = begun(root, token) if self._inside is None else self._inside
            places = Places(root, inside=mounted_somewhere(root) if inside is None else inside)
            try:
                yield places
            finally:
                places.close()

    @contextmanager
    def _live(self) -> Iterator[int]:
        with self._translated():
            root = os.path.realpath(os.fsencode(self._path))
            with translated("open", root):
                descriptor = os.open(root, DIRECTORY)
            try:
                yield descriptor
            finally:
                os.close(descriptor)

    @contextmanager
    def _beside(self, token: str) -> Iterator[int]:
        with self._places(token) as places:
            descriptor = places.beside(token)
            try:
                yield descriptor
            finally:
                os.close(descriptor)
