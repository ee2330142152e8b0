"""Comparing a tree with the list of a backup: every name, every attribute, every content."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, replace

from ops_pipeline.core.backup.file_list import ListedFile
from ops_pipeline.core.backup.records import FRAME_BYTES, Part
from ops_pipeline.ports import Changed, FileEntry, FileTree, Progress, Vault
from ops_pipeline.services.backup.comparing import Compared
from ops_pipeline.services.backup.file_restoring import Chosen, comparable

MOST = 100
TELL_SECONDS = 1.0
_BATCH_FILES = 256


def compare_files(
    vault: Vault,
    part: Part,
    tree: FileTree,
    token: str = "",
    *,
    only: Sequence[str] = (),
    workers: int = 4,
    progress: Progress | None = None,
) -> Compared:
    """Compare what was restored with `token` ("" = the live tree) with the part's list, or with what `only` means.

    Return how many names were compared and the differences in words, at most 100 and then how many more; none when
    the tree is exactly as it was.
    Raise as `restore_files`.
    """
    chosen = Chosen(vault, part, only)
    comparing = _Comparing(tree, token)
    walked = tree.walk_beside(token) if token else tree.walk()
    live_and_partial = bool(only) and not token
    pool = ThreadPoolExecutor(workers, thread_name_prefix="compare")
    begun: deque[Future[list[str]]] = deque()
    found: list[str] = []
    names, told = 0, time.monotonic()
    try:
        batch: list[tuple[ListedFile, FileEntry]] = []
        size = 0
        for listed, entry in _beside_each_other(chosen.all(), walked):
            names += 1
            if progress and time.monotonic() - told >= TELL_SECONDS:
                told = time.monotonic()
                progress(f"{part.source}: {names:,} of {chosen.count:,} names compared")
            if listed is None or entry is None:
                if listed is not None:
                    found.append(f"{_shown(listed.entry.path)} is missing")
                elif entry is not None and not live_and_partial:
                    found.append(f"{_shown(entry.path)} ought not to be there")
                continue
            found += _differences(listed.entry, entry)
            if listed.entry.kind == "file" == entry.kind and listed.entry.size == entry.size:
                batch.append((listed, entry))
                size += entry.stored_bytes
                if size >= FRAME_BYTES or len(batch) >= _BATCH_FILES:
                    begun.append(pool.submit(comparing.contents, batch))
                    batch, size = [], 0
                    while len(begun) > workers + 1:
                        found += begun.popleft().result()
        begun.append(pool.submit(comparing.contents, batch))
        while begun:
            found += begun.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    if progress:
        progress(f"{part.source}: {names:,} names compared, {len(found):,} differences")
    shown = found if len(found) <= MOST else [*found[:MOST], f"and {len(found) - MOST:,} more"]
    return Compared(names, tuple(shown))


class _Comparing:
    def __init__(self, tree: FileTree, token: str) -> None:
        self._tree, self._token = tree, token

    def contents(self, batch: Sequence[tuple[ListedFile, FileEntry]]) -> list[str]:
        """Differences of contents."""
        found: list[str] = []
        # A file system of another kind may keep fewer holes: then the whole file is read, and what lies in the listed
        # holes must be zeros.
        entries = [entry if entry.holes == listed.entry.holes else replace(entry, holes=()) for listed, entry in batch]
        read = self._tree.read_beside(self._token, entries) if self._token else self._tree.read(entries)
        digest, at, zeros = hashlib.sha256(), 0, True
        for index, piece, last in read:
            listed, entry = batch[index]
            if isinstance(piece, Changed):
                found.append(f"{_shown(entry.path)}: {piece.why}")
            elif entries[index].holes == listed.entry.holes:
                digest.update(piece)
            else:
                for data, is_hole in _regions(piece, at, listed.entry.holes):
                    if not is_hole:
                        digest.update(data)
                    elif data.count(0) != len(data):
                        zeros = False
                at += len(piece)
            if last:
                if not isinstance(piece, Changed) and (digest.hexdigest() != listed.sha256 or not zeros):
                    found.append(f"{_shown(entry.path)} has another content")
                digest, at, zeros = hashlib.sha256(), 0, True
        return found


def _regions(piece: bytes, at: int, holes: Sequence[tuple[int, int]]) -> Iterator[tuple[bytes, bool]]:
    end, position = at + len(piece), at
    for start, length in holes:
        stop = start + length
        if stop <= position or start >= end:
            continue
        if start > position:
            yield piece[position - at : start - at], False
            position = start
        yield piece[position - at : min(stop, end) - at], True
        position = min(stop, end)
    if position < end:
        yield piece[position - at :], False


def _beside_each_other(
    listed: Iterator[ListedFile], walked: Iterator[FileEntry]
) -> Iterator[tuple[ListedFile | None, FileEntry | None]]:
    """Both are sorted by path."""
    one, other = next(listed, None), next(walked, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one.entry.path < other.path):
            yield one, None
            one = next(listed, None)
        elif one is None or other.path < one.entry.path:
            yield None, other
            other = next(walked, None)
        else:
            yield one, other
            one, other = next(listed, None), next(walked, None)


def _differences(wanted: FileEntry, found: FileEntry) -> list[str]:
    a, b = comparable(wanted), comparable(found)
    if a == b:
        return []
    names = [each.name for each in fields(FileEntry) if each.name != "holes"]
    words = []
    for name in names:
        was, now = getattr(a, name), getattr(b, name)
        if was != now:
            words.append(f"{name} was {_value(name, was)}, is {_value(name, now)}")
    return [f"{_shown(wanted.path)}: {'; '.join(words)}"] if words else []


def _value(name: str, value: object) -> str:
    if name == "mode" and isinstance(value, int):
        return f"{value:o}"
    return repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:80]}…"


def _shown(path: bytes) -> str:
    text = path.decode("utf-8", "backslashreplace") or "the tree itself"
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)[:200]
