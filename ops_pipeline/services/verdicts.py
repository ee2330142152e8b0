"""Verdicts in the ledger: the newest one of every release, and the decisions people made about a waiting canary."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ops_pipeline.core.judgement.verdict import Verdict
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.records import decode, encode
from ops_pipeline.services.retrying import retried


@dataclass(frozen=True)
class Decision:
    """What a person decided about a canary that waits at a step: go on, or take it away."""

    release: int
    step: int
    go: bool
    who: str
    why: str
    at: datetime


def verdict_key(environment: str, service: str, release: int) -> str:
    """Store key of the newest verdict on a release."""
    return f"verdicts/{environment}/{service}/{release}.json"


def write_verdict(platform: Platform, environment: str, service: str, verdict: Verdict) -> None:
    """Keep a verdict as the newest one of its release. Raise Unavailable, Permanent."""
    key = verdict_key(environment, service, verdict.release)
    data = encode(verdict)
    retried(platform.clock, f"write {key}", lambda: platform.store.write(key, data))


def read_verdict(platform: Platform, environment: str, service: str, release: int) -> Verdict | None:
    """The newest verdict on a release, None when it was never judged. Raise StoreDamaged, Unavailable."""
    key = verdict_key(environment, service, release)
    blob = retried(platform.clock, f"read {key}", lambda: platform.store.read(key))
    return None if blob is None else decode(Verdict, blob.data, key)


def decision_key(environment: str, service: str, release: int) -> str:
    """Store key of the newest decision about a release."""
    return f"decisions/{environment}/{service}/{release}.json"


def decide(platform: Platform, environment: str, service: str, decision: Decision) -> None:
    """Keep a decision; the run that waits for it reads it within a second. Raise Unavailable, Permanent."""
    key = decision_key(environment, service, decision.release)
    data = encode(decision)
    retried(platform.clock, f"write {key}", lambda: platform.store.write(key, data))


def read_decision(platform: Platform, environment: str, service: str, release: int, step: int) -> Decision | None:
    """The decision about a release at a step, None when nobody has decided. Raise StoreDamaged, Unavailable."""
    key = decision_key(environment, service, release)
    blob = retried(platform.clock, f"read {key}", lambda: platform.store.read(key))
    found = None if blob is None else decode(Decision, blob.data, key)
    return found if found is not None and found.step == step else None
