"""Which folder the catalogue's relative paths start from."""

from __future__ import annotations

import os
from pathlib import Path

ROOT_VARIABLE = "OPS_PROJECT_ROOT"


def project_root(catalogue: Path) -> Path:
    """Given the catalogue's path, return the project folder, absolute.

    OPS_PROJECT_ROOT if set; else the nearest folder above that holds `.git` or `pyproject.toml`; else the parent of
    `deploy/`, or the catalogue's own folder.
    """
    chosen = os.environ.get(ROOT_VARIABLE)
    if chosen:
        return Path(chosen).absolute()
    folder = catalogue.absolute().parent
    for candidate in (folder, *folder.parents):
        if (candidate / ".git").exists() or (candidate / "pyproject.toml").is_file():
            return candidate
    return folder.parent if folder.name == "deploy" else folder
