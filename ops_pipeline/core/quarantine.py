"""A digest nobody may deploy or go back to until a person lifts it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ops_pipeline.core.judgement.verdict import Verdict


@dataclass(frozen=True)
class Quarantine:
    """Record stored in `quarantine/<digest hex>.json`."""

    digest: str
    reason: str
    who: str
    at: datetime
    environment: str = ""  # where it went bad
    service: str = ""
    release: int = 0
    evidence: Verdict | None = None
