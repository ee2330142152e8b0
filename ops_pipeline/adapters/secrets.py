"""Reads the secrets that the catalogue refers to. Values are returned, never logged, cached or quoted in an error."""

from __future__ import annotations

import os
from pathlib import Path

from ops_pipeline.errors import BadInput, Problem

MAX_BYTES = 64 * 1024


def read_secret(reference: str, root: Path) -> str:
    """Given `env:NAME` or `file:PATH` (relative to `root`), return the value without its last line end.

    Raise BadInput naming the reference when there is none, it is empty, or it is not text.
    """
    kind, _, name = reference.partition(":")
    if kind == "env":
        value = os.environ.get(name)
        if value is None:
            raise _unusable(reference, "this variable is not set")
    elif kind == "file":
        value = _content(reference, root / name)
    else:
        # Not quoted: somebody may have written the secret itself.
        raise _unusable("secret reference", "must be `env:NAME` or `file:PATH`")
    value = value.removesuffix("\n").removesuffix("\r")
    if not value:
        raise _unusable(reference, "is empty")
    return value


def _content(reference: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise _unusable(reference, f"{path}: {getattr(error, 'strerror', None) or 'not a path'}") from None
    if len(data) > MAX_BYTES:
        raise _unusable(reference, f"{path} is larger than {MAX_BYTES // 1024} KiB")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise _unusable(reference, f"{path} is not UTF-8 text") from None  # the cause would quote the bytes


def _unusable(place: str, text: str) -> BadInput:
    return BadInput([Problem(place, text)], subject="secret")
