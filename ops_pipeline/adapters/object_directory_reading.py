"""Reading a directory of objects: names in the order of keys, and ranges of bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ops_pipeline.adapters.object_directory_writer import object_info
from ops_pipeline.adapters.store_keys import check_key
from ops_pipeline.errors import Permanent
from ops_pipeline.ports import ObjectInfo


def walk(folder: Path, prefix: str, start: str) -> Iterator[ObjectInfo]:
    """What stands below `folder` in the order of keys; `start` is how names in that folder itself must start.

    Memory for one folder at each depth. Raise OSError.
    """
    try:
        with os.scandir(folder) as entries:
            named = [
                (f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name, entry)
                for entry in entries
                if entry.name.startswith(start) and not entry.name.startswith(".")
            ]
    except (FileNotFoundError, NotADirectoryError):
        if not prefix:  # the root itself
            raise
        return
    for name, entry in sorted(named, key=lambda pair: pair[0]):
        if name.endswith("/"):
            yield from walk(folder / entry.name, prefix + name, "")
        elif entry.is_file(follow_symlinks=False):
            # Gone meanwhile, or somebody else's file that no key could name.
            with suppress(FileNotFoundError, Permanent):
                info = object_info(check_key(prefix + name), entry.stat(follow_symlinks=False))
                yield info


def read_range(descriptor: int, offset: int, length: int) -> bytes:
    """Bytes of an open file, fewer only at its end. Raise OSError."""
    pieces = []
    while length > 0 and (piece := os.pread(descriptor, length, offset)):
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
