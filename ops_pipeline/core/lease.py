"""Lease of one (environment, service): who may act, until when, and with which fencing generation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Lease:
    """Record stored in `leases/<environment>/<service>.json`. `generation` only ever grows."""

    environment: str
    service: str
    generation: int
    holder: str  # "host:pid" of the controller; "" when released
    run_id: str
    reason: str
    since: datetime
    expires_at: datetime
    term_seconds: float = (
        30.0  # how long one renewal lasts; a record that stays unchanged for longer is a dead holder's
    )

    def held(self, now: datetime) -> bool:
        """Whether somebody holds it at `now`."""
        return bool(self.holder) and now < self.expires_at
