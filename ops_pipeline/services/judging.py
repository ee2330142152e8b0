"""Judging releases on live measurements: one look covers any number of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ops_pipeline.core.judgement.verdict import Verdict
from ops_pipeline.core.rollout import Rollout
from ops_pipeline.services.platform import Platform


@dataclass(frozen=True)
class Case:
    """One release to judge. `release` and `stable` are the numbers their containers carry."""

    environment: str
    service: str
    release: int
    stable: int | None
    rollout: Rollout
    replicas: int  # per host
    since: datetime  # when it began to get requests


class Judging:
    """Keeps what was counted so far, so that a look costs only what is new. Made anew, it replays to the same end."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def look(self, cases: Sequence[Case]) -> Mapping[Case, Verdict]:
        """Return a verdict for every case, from all scrapes since the last look: at most three queries in all.

        Never raises for lack of data: a source or an engine that does not answer makes BLIND, with the reason.
        Cases that are not asked about any more are forgotten.
        """
        raise AttributeError("being written")
