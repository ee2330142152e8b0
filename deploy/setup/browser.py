"""Chromium for the tests that drive the Dagster UI: Debian's package, used through Playwright's `executable_path`."""

from __future__ import annotations

import os
import shutil

from deploy.setup import debian
from deploy.setup.commands import say

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def find() -> str | None:
    """Path of a browser: OPS_CHROMIUM, or the first that is installed."""
    chosen = os.environ.get("OPS_CHROMIUM")
    return chosen or next((path for name in NAMES if (path := shutil.which(name))), None)


def ensure() -> str:
    """Path of a browser, installed first where we may. Raise SetupError with what to run."""
    found = find()
    if found is None:
        debian.install(
            "browser",
            ["chromium", "fonts-dejavu-core"],
            "the browser tests need Chromium",
            otherwise="  install Chromium or Chrome, or set OPS_CHROMIUM to its path",
        )
        found = find()
    say("browser", found or "chromium")
    return found or "chromium"
