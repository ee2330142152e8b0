"""A live release that is still judged."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ops_pipeline.core.rollout import Rollout


@dataclass(frozen=True)
class Watch:
    """Record stored as `watch/<environment>/<service>.json` from the moment a release is live until it is trusted.

    Written with the pointer to what is live, so that no release goes live unwatched.
    """

    environment: str
    service: str
    release: int
    timestamp: str
    digest: str
    version: str
    containers: int  # release number its containers, and so its series, carry
    stable: int | None  # the same of the release it replaced
    replicas: int  # per host
    rollout: Rollout
    since: datetime
    set_id: str = ""
    attempts: int = 0  # automatic roll-backs tried so far; part of the run key
    asked: bool = False  # the newest try was left to a run
    not_before: datetime | None = None  # no other try before: a run was asked for one, or the last one failed
    turning_off: tuple[str, ...] = ()  # flags that are being turned off instead of rolling back
    alert: str = ""  # name of the alert that stands about it now

    def over(self, now: datetime) -> bool:
        """Whether the release has been watched for long enough."""
        seconds = self.rollout.watch_seconds
        return seconds is not None and now >= self.since + timedelta(seconds=seconds)


@dataclass(frozen=True)
class Due:
    """Record stored as `watch/<environment>/<service>.due` from before an automatic roll-back until a run shows it.

    With it, whoever comes after a killed controller knows that people have not been told yet.
    """

    environment: str
    service: str
    release: int  # the one that is left
    attempt: int
    set_id: str = ""
