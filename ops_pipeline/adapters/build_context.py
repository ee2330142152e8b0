"""Reads a build context as Docker would send it: honours .dockerignore, hashes content and mode."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from docker.utils.build import exclude_paths

from ops_pipeline.adapters.git import revision
from ops_pipeline.errors import BadInput, Permanent, Problem
from ops_pipeline.ports import BuildSource

_CHUNK = 1 << 20


def read_source(context: str, dockerfile: str) -> BuildSource:
    """Return what a build of `context` with `dockerfile` would see. Raise BadInput for missing paths, Permanent."""
    folder, file = Path(context), Path(dockerfile)
    problems = []
    if not folder.is_dir():
        problems.append(Problem(context, "the build context is not a folder"))
    elif not file.is_file():
        problems.append(Problem(dockerfile, "there is no Dockerfile here"))
    if problems:
        raise BadInput(
            problems, subject="build", hint="Correct build.context or build.dockerfile of the service in the catalogue."
        )
    try:
        text = file.read_text(encoding="utf-8")
        files = {path: _fingerprint(folder / path) for path in _included(folder, file)}
    except (OSError, UnicodeDecodeError) as error:
        raise Permanent(f"cannot read the build context {context}: {error}") from error
    return BuildSource({path: mark for path, mark in files.items() if mark}, text, revision(folder))


def _included(folder: Path, dockerfile: Path) -> list[str]:
    # BuildKit prefers an ignore file beside the Dockerfile, named after it.
    beside = dockerfile.with_name(dockerfile.name + ".dockerignore")
    ignore = beside if beside.is_file() else folder / ".dockerignore"
    patterns: list[str] = []
    if ignore.is_file():
        lines = (line.strip() for line in ignore.read_text(encoding="utf-8-sig").splitlines())
        patterns = [line for line in lines if line and not line.startswith("#")]
    # A Dockerfile outside the context has no path in it; the SDK then falls back to the usual name.
    inside = str(dockerfile.relative_to(folder)) if dockerfile.is_relative_to(folder) else None
    found = (path.replace(os.sep, "/") for path in exclude_paths(str(folder), patterns, inside))
    # Git's own folder changes with every commit; what is committed is there as files anyway.
    return sorted(path for path in found if path != "." and path.partition("/")[0] != ".git")


def _fingerprint(path: Path) -> str:
    """Hash of one entry: content and permissions of a file, target of a link; "" for folders and the rest."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return f"link:{path.readlink()}"
    if not stat.S_ISREG(mode):
        return ""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return f"{mode & 0o777:o}:{digest.hexdigest()}"
