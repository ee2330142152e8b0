"""Registers every command. The order of `ops --help` is `app.ORDER`."""

from __future__ import annotations

from ops_pipeline.cli import (
    actions,
    backup,
    backups,
    catalogue,
    flags,
    plan,
    quarantine,
    reads,
    replay,
    restore,
    serve,
    verdicts,
)
from ops_pipeline.cli.app import app, run

__all__ = [
    "actions",
    "app",
    "backup",
    "backups",
    "catalogue",
    "flags",
    "plan",
    "quarantine",
    "reads",
    "replay",
    "restore",
    "run",
    "serve",
    "verdicts",
]
