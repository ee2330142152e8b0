"""What people are told about a release that is being made: a function of the journal."""

from __future__ import annotations

from ops_pipeline.core.alert import Alert
from ops_pipeline.core.journal import Journal, Work, weight
from ops_pipeline.core.shifting import BLIND

CRITICAL, WARNING, INFO = "critical", "warning", "info"


def standing(journal: Journal) -> dict[str, Alert]:
    """Alerts that hold as long as the journal says what it says, by name."""
    work = journal.work
    if work is None or work.undo:
        return {}
    found: list[Alert] = []
    share, name = weight(journal), f"{work.release.label} ({work.release.version})"
    if work.parked == BLIND:
        text = "It goes on by itself when measurements are back. Look at Prometheus and at the edges' exporters."
        found.append(_alert(work, "JudgementBlind", WARNING, f"{name} cannot be measured; everybody gets stable", text))
    elif work.parked:
        text = "It goes on by itself when stable has traffic enough for a verdict, or when somebody says `ops resume`."
        found.append(
            _alert(work, "CanaryWithoutVerdict", WARNING, f"{name} got no verdict; everybody gets stable", text)
        )
    if work.incident:
        text = f"#{work.release.number} and the release before it are both bad, so neither is rolled back."
        found.append(
            _alert(work, "EnvironmentIncident", CRITICAL, f"{name} and stable are both bad at {share} %", text)
        )
    if work.paused:
        text = "It passed. `ops resume` sends it more users, `ops abort` takes it away."
        found.append(_alert(work, "CanaryWaits", INFO, f"{name} waits at {share} % for a person", text))
    return {alert.name: alert for alert in found}


def news(before: Journal, after: Journal) -> tuple[Alert, ...]:
    """Alerts about what has just happened between two documents."""
    old, new = before.work, after.work
    if old is None or new is None or old.undo or not new.undo:
        return ()
    name = f"{new.release.label} ({new.release.version})"
    if new.blame is not None:
        text = f"{new.undo}. `ops quarantine list` shows the digest and the evidence."
        return (_alert(new, "ReleaseRolledBack", CRITICAL, f"{name} was rolled back: {new.undo}", text),)
    if old.held_since is not None:
        text = "Nothing speaks against the release. Deploy it again when there is enough to judge it by."
        return (_alert(new, "CanaryWithdrawn", WARNING, f"{name} was taken away: {new.undo}", text),)
    return ()


def _alert(work: Work, name: str, severity: str, summary: str, description: str) -> Alert:
    release = work.release
    return Alert(name, release.environment, release.service, release.number, severity, summary, description)
