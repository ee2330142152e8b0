"""What people are told when something needs them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Alert:
    """One alert. Name and labels identify it; the texts may change while it lasts."""

    name: str  # "ReleaseRolledBack", "JudgementBlind", "EnvironmentIncident", ...
    environment: str
    service: str
    release: int
    severity: str  # critical, warning, info
    summary: str  # one sentence
    description: str = ""  # the numbers, and what to do next
    link: str = ""
