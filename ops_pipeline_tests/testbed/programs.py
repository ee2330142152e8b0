"""Stand-in programs: small scripts that act out what a real one may do."""

from __future__ import annotations

import sys
from pathlib import Path


def write_program(folder: Path, name: str, body: str) -> Path:
    """Write an executable Python script and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{body}\n")
    program.chmod(0o755)
    return program
