"""Telling people what became of a watched release, for as long as it lasts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ops_pipeline.core.alert import Alert
from ops_pipeline.core.judgement.verdict import Verdict
from ops_pipeline.core.watch import Watch
from ops_pipeline.core.watch_decision import Act, Decision, numbers
from ops_pipeline.errors import OpsError, StoreDamaged
from ops_pipeline.ports import Progress
from ops_pipeline.services.alerting import settle, tell
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.watch_record import Handled, Memory, handled, key_of, label_of
from ops_pipeline.services.watches import update_watch

REFRESH_SECONDS = 60.0
"""An alert that stands is told again so often, because Alertmanager forgets what is not repeated."""

STANDING: Mapping[Act, tuple[str, str]] = {
    Act.ALERT: ("RollbackNeedsPerson", "critical"),
    Act.HOLD: ("EnvironmentIncident", "critical"),
    Act.BLIND: ("JudgementBlind", "warning"),
}
"""What needs somebody's attention for as long as it lasts: name and severity of its alert."""


class Telling:
    """Alerts about watched releases, and the lines of progress that go with them. Nothing here fails for an alert."""

    def __init__(self, platform: Platform, memory: Memory, progress: Progress) -> None:
        self._platform = platform
        self._memory = memory
        self._progress = progress

    def say(self, watch: Watch, why: str) -> None:
        """One line of progress about a release."""
        self._progress(f"{label_of(watch)}: {why}")

    def stand(self, watch: Watch, decision: Decision, verdict: Verdict | None) -> Watch:
        """Let the alert that stands about a release be the one the decision asks for, and return its watch.

        Raise Unavailable, StoreDamaged: which alert stands is kept with the watch.
        """
        wanted, _ = STANDING.get(decision.act, ("", ""))
        if decision.act is Act.WAIT:
            return watch  # whoever works on it tells
        if watch.alert != wanted:
            self.settle(watch, decision.why)
        if wanted and (watch.alert != wanted or self._stale(watch)):
            self.say(watch, decision.why)
            self._tell(watch, wanted, decision.why, verdict)
        if watch.alert != wanted:
            watch = replace(watch, alert=wanted)
            update_watch(self._platform, watch)
        return watch

    def settle(self, watch: Watch, why: str) -> None:
        """End the alert that stands about a release, if one does."""
        if watch.alert:
            settle(self._platform, self._about(watch, watch.alert, why), self._progress)

    def flag_off(self, watch: Watch, why: str, verdict: Verdict) -> None:
        """Tell that a flag was turned off in the release's stead."""
        self._tell(watch, "FlagTurnedOff", why, verdict)

    def trouble(self, watch: Watch, error: OpsError) -> Handled:
        """Tell that a release could not be worked on; the next tick tries again."""
        why = f"could not be watched: {error.message}"
        if self._stale(watch):
            self.say(watch, why)
            self._tell(watch, "WatchFailing", why, None)
        return handled(watch, Act.ALERT, why, None)

    def damage(self, error: StoreDamaged) -> Handled:
        """Tell that a record cannot be read: what it is about is not watched."""
        self._progress(error.message)
        alert = Alert("WatchFailing", "", "", 0, "critical", error.message, "See the runbook «The store is damaged».")
        tell(self._platform, alert, self._progress)
        return Handled("", "", 0, Act.ALERT, error.message)

    def left_behind(self, environment: str, service: str, release: int, error: OpsError) -> None:
        """Tell that a member of a set could not follow the others back."""
        text = f"{environment}/{service} #{release} belongs to a release set that is rolled back and could not follow"
        self._progress(f"{text}: {error.message}")
        name, severity = STANDING[Act.ALERT]
        tell(self._platform, Alert(name, environment, service, release, severity, text, error.message), self._progress)

    def rolled_back(self, what: Handled) -> None:
        """Tell that a release was rolled back by itself."""
        verdict = what.verdict
        summary = f"{what.label} was rolled back by itself, as #{what.made}: {what.why}"
        self._progress(summary)
        seconds = 60.0 if verdict is None else max(60.0, (verdict.at - verdict.since).total_seconds())
        alert = Alert(
            "ReleaseRolledBack",
            what.environment,
            what.service,
            what.release,
            "critical",
            summary,
            "The check metrics_verdict of `release` holds the evidence; `ops quarantine list` says what is kept out.",
            self._platform.metrics.link(what.environment, what.service, what.release, seconds),
        )
        tell(self._platform, alert, self._progress)

    def _stale(self, watch: Watch) -> bool:
        told = self._memory.told.get(key_of(watch))
        return told is None or self._platform.clock.monotonic() - told >= REFRESH_SECONDS

    def _tell(self, watch: Watch, name: str, why: str, verdict: Verdict | None) -> None:
        if tell(self._platform, self._about(watch, name, why, verdict), self._progress):
            self._memory.told[key_of(watch)] = self._platform.clock.monotonic()

    def _about(self, watch: Watch, name: str, why: str, verdict: Verdict | None = None) -> Alert:
        severity = next((severity for known, severity in STANDING.values() if known == name), "warning")
        numbered = "" if verdict is None else f"{numbers(verdict)} since {verdict.since:%Y-%m-%d %H:%M:%S} UTC"
        seconds = max(60.0, (self._platform.clock.now() - watch.since).total_seconds())
        return Alert(
            name,
            watch.environment,
            watch.service,
            watch.release,
            severity,
            f"{label_of(watch)} ({watch.version}): {why}",
            numbered,
            self._platform.metrics.link(watch.environment, watch.service, watch.containers, seconds),
        )
