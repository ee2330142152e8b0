"""What there is to tell about the judgement of a service: which release, what verdict, what followed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ops_pipeline.core.judgement.verdict import Outcome, Verdict
from ops_pipeline.core.release import Action, Release
from ops_pipeline.services import ledger
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried
from ops_pipeline.services.verdicts import read_verdict

T = TypeVar("T")


@dataclass(frozen=True)
class Story:
    """`release` is the one the verdict is on; `back` the roll-back that left it, None while it is live."""

    release: Release | None = None
    verdict: Verdict | None = None
    back: Release | None = None

    @property
    def sentence(self) -> str:
        """All of it in one sentence."""
        release, verdict, back = self.release, self.verdict, self.back
        if release is None:
            return "nothing is live, so there is nothing to judge"
        if verdict is None:
            if release.action is Action.ROLLBACK:
                return f"#{release.number} is a roll-back to #{release.root}; roll-backs are not judged"
            return f"#{release.number} has not been judged yet"
        if back is not None:
            did = "was rolled back by itself" if back.automatic else "was rolled back"
            return f"#{release.number} {did} to #{back.root} (as #{back.number}): {verdict.reason}"
        name = "environment incident" if verdict.incident else verdict.outcome.value
        return f"#{release.number} is judged {name}: {verdict.reason}"

    @property
    def passed(self) -> bool:
        """Whether evidence says that it is good. Absence of evidence never does."""
        return self.verdict is not None and self.verdict.outcome is Outcome.PASS and not self.verdict.incident

    @property
    def failed(self) -> bool:
        """Whether evidence says that it is bad."""
        return self.verdict is not None and self.verdict.outcome is Outcome.FAIL and not self.verdict.incident


def story(platform: Platform, environment: str, service: str) -> Story:
    """What is live and its newest verdict; after a roll-back, the release that was left and what spoke against it.

    Raise StoreDamaged, Unavailable.
    """
    live = read_journal(platform, environment, service).live
    if live is None:
        return Story()
    store = platform.store
    return story_of(platform, _read(platform, lambda: ledger.read_release(store, environment, service, live.timestamp)))


def story_of(platform: Platform, release: Release) -> Story:
    """The same for one release, or for what a roll-back left, whatever is live. Raise StoreDamaged, Unavailable."""
    environment, service, number = release.environment, release.service, release.number
    if release.action is Action.ROLLBACK and release.previous is not None:
        left = release.previous
        verdict = read_verdict(platform, environment, service, left)
        if verdict is None or not (release.automatic or verdict.outcome is Outcome.FAIL):
            return Story(release)
        record = _read(platform, lambda: ledger.find_release(platform.store, environment, service, left))
        return Story(record, verdict, release)
    return Story(release, read_verdict(platform, environment, service, number))


def _read(platform: Platform, action: Callable[[], T]) -> T:
    return retried(platform.clock, "read a release", action)
