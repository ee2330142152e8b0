"""Registers every command. The order of `ops --help` is `app.ORDER`."""

from __future__ import annotations

from ops_pipeline.cli import actions, catalogue, flags, plan, quarantine, reads, replay, serve, verdicts
from ops_pipeline.cli.app import app, run

__all__ = ["actions", "app", "catalogue", "flags", "plan", "quarantine", "reads", "replay", "run", "serve", "verdicts"]
