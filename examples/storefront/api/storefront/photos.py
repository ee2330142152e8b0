"""Photos on a volume, named by the SHA-256 of their content."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
_LEFTOVER_SECONDS = 3600


class BadPhoto(Exception):
    """What was sent is not an acceptable photo."""


class PhotoTooLarge(Exception):
    """What was sent is larger than allowed."""


class PhotosUnavailable(Exception):
    """The volume cannot take or give the photo (full, read-only, missing)."""


@dataclass(frozen=True)
class Stored:
    """A photo on the volume; `new` is false when the same content was there before."""

    name: str
    size: int
    new: bool


def kind_of(head: bytes) -> str | None:
    """Extension by content, whatever the sender calls it; None for anything that is not a photo we take."""
    if head.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    return None


def _write(descriptor: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _discard(descriptor: int, path: Path) -> None:
    os.close(descriptor)
    path.unlink(missing_ok=True)


class Photos:
    """A directory of photos shared by all replicas. A photo appears whole or not at all."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        # Own threads: name look-ups that hang use the default ones and must not hold up files.
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="photos")

    async def store(self, chunks: AsyncIterator[bytes]) -> Stored:
        """Write what arrives. Raises BadPhoto, PhotoTooLarge, PhotosUnavailable; keeps nothing then."""
        descriptor, temporary = await self._do(self._new_file)
        path = Path(temporary)
        digest, size, head = hashlib.sha256(), 0, b""
        try:
            async for chunk in chunks:
                size += len(chunk)
                if size > self._max_bytes:
                    raise PhotoTooLarge(f"at most {self._max_bytes} bytes")
                if len(head) < 12:
                    head += chunk[:12]
                    if len(head) >= 12 and kind_of(head) is None:
                        raise BadPhoto("not a JPEG, PNG or WebP picture")
                digest.update(chunk)
                await self._do(_write, descriptor, chunk)
            kind = kind_of(head)
            if kind is None:
                raise BadPhoto("not a JPEG, PNG or WebP picture")
            await self._do(os.fsync, descriptor)
            name = f"{digest.hexdigest()}.{kind}"
            new = await self._do(self._place, path, name)
            return Stored(name, size, new)
        finally:
            await self._do(_discard, descriptor, path)

    async def find(self, name: str) -> Path | None:
        """Path of a stored photo. Raises PhotosUnavailable. `name` must be checked by the caller."""
        path = self._directory / name
        return path if await self._do(path.is_file) else None

    async def usable(self) -> bool:
        """Whether the volume takes files now."""
        return await self._do(os.access, self._directory, os.W_OK)

    async def sweep(self) -> int:
        """Remove what killed uploads left behind; returns how many files."""

        def remove() -> int:
            count = 0
            for path in self._directory.glob(".upload-*"):
                with contextlib.suppress(OSError):
                    if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
                        path.unlink()
                        count += 1
            return count

        return await self._do(remove)

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _new_file(self) -> tuple[int, str]:
        return tempfile.mkstemp(prefix=".upload-", dir=self._directory)

    def _place(self, path: Path, name: str) -> bool:
        path.chmod(0o644)
        try:
            os.link(path, self._directory / name)  # atomic, and never replaces
        except FileExistsError:
            return False
        return True

    async def _do(self, work: Callable[..., T], *arguments: object) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        except OSError as error:
            raise PhotosUnavailable(error.strerror) from error
