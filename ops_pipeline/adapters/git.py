"""Asks git where the source of an image stands."""

from __future__ import annotations

from pathlib import Path

from ops_pipeline.adapters.process import CommandError, run
from ops_pipeline.core.version import Revision

_TIMEOUT_SECONDS = 20.0


def revision(folder: Path) -> Revision:
    """Return the revision of a folder inside a git work tree; an empty one without git or a first commit.

    Only changes below the folder make it dirty (untracked files that git does not ignore count: they are built in).
    """
    try:
        commit = _git(folder, "rev-parse", "HEAD")
    except CommandError:
        return Revision()
    try:
        described = _git(folder, "describe", "--tags", "--long", "--match", "v*")
    except CommandError:
        described = ""  # no such tag
    try:
        dirty = bool(_git(folder, "status", "--porcelain", "--untracked-files=normal", "--", "."))
    except CommandError:
        dirty = True  # cannot tell: do not claim it is what was committed
    return Revision(commit, described, dirty)


def _git(folder: Path, *words: str) -> str:
    # GIT_OPTIONAL_LOCKS: `status` must not fight with a person's own git over the index.
    environment = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    done = run(["git", "-C", str(folder), *words], timeout=_TIMEOUT_SECONDS, env=environment)
    return done.stdout.decode("utf-8", "replace").strip()
