"""The `ops` command, thin over the use cases (what it reads) and over Dagster (what it changes)."""

from __future__ import annotations


def main() -> None:
    """Entry point of `ops`."""
    from ops_pipeline.cli.commands import run

    run()
