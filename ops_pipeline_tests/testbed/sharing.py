"""Which tests stay on one worker when several share the work: those of a file, and those of one long-lived bed."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from xdist.scheduler.loadfile import LoadFileScheduling

ROOT = Path(__file__).parents[2]
BEDS = re.compile(r"\b(whole|guarded): [A-Z]")
"""Fixtures that live as long as a worker and cost it a minute: a control plane with all that is around it."""


class LoadBedScheduling(LoadFileScheduling):
    """As `--dist loadfile`, but files that use the same bed stay together, so that it is started once."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(super()._split_scope(nodeid))


@cache
def scope_of(file: str) -> str:
    """The bed that a test file uses, or the file itself."""
    try:
        found = BEDS.search((ROOT / file).read_text(encoding="utf-8"))
    except OSError:
        return file
    return found[1] if found else file
