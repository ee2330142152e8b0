"""Registers every command; the order here is the order of `ops --help`."""

from __future__ import annotations

from ops_pipeline.cli import actions, catalogue, reads, serve
from ops_pipeline.cli.app import app, run

__all__ = ["actions", "app", "catalogue", "reads", "run", "serve"]
