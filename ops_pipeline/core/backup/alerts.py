"""What people are told about backups: pure constructors, so that whoever fires an alert can also end it."""

from __future__ import annotations

from ops_pipeline.core.alert import Alert

CRITICAL, WARNING = "critical", "warning"
RUNBOOK = "Runbook: docs/runbooks/{}.md."


def failed(environment: str, words: str) -> Alert:
    """A backup that was due was not taken. `words`: the failure's own."""
    summary = f"the backup of {environment} was not taken: {_first(words)}"
    return _alert("BackupFailed", environment, CRITICAL, summary, f"{words}\n{RUNBOOK.format('backup-failed')}")


def stale(environment: str, words: str) -> Alert:
    """There is no good set young enough. `words`: how old the newest good one is, and what is wrong with newer ones."""
    summary = f"{environment} has no fresh backup: {_first(words)}"
    return _alert("BackupStale", environment, CRITICAL, summary, f"{words}\n{RUNBOOK.format('backup-stale')}")


def unwatched(environment: str, words: str) -> Alert:
    """How old the backups are cannot be said: where they are kept does not answer, or cannot be opened."""
    summary = f"how old the backups of {environment} are is unknown: {_first(words)}"
    return _alert("BackupsUnwatched", environment, CRITICAL, summary, f"{words}\n{RUNBOOK.format('backup-stale')}")


def damaged(environment: str, words: str) -> Alert:
    """A stored set is not what was stored. `words`: every problem, each with its source and object."""
    summary = f"a backup of {environment} is damaged: {_first(words)}"
    return _alert("BackupDamaged", environment, CRITICAL, summary, f"{words}\n{RUNBOOK.format('backup-damaged')}")


def quarantined(environment: str, words: str) -> Alert:
    """A set differs too much from the ones before it; retention is frozen. `words`: what differs, in numbers."""
    summary = f"a backup of {environment} looks wrong: {_first(words)}"
    return _alert(
        "BackupQuarantined", environment, CRITICAL, summary, f"{words}\n{RUNBOOK.format('backup-quarantined')}"
    )


def drill_failed(environment: str, words: str) -> Alert:
    """A restore drill did not pass. `words`: what could not be restored or differs."""
    summary = f"the restore drill of {environment} did not pass: {_first(words)}"
    return _alert("RestoreDrillFailed", environment, CRITICAL, summary, f"{words}\n{RUNBOOK.format('drill-failed')}")


def prune_failed(environment: str, words: str) -> Alert:
    """Old sets could not be cleared away. Nothing is lost, but the store grows."""
    summary = f"old backups of {environment} could not be cleared away: {_first(words)}"
    return _alert("BackupPruneFailed", environment, WARNING, summary, f"{words}\n{RUNBOOK.format('retention-frozen')}")


def _alert(name: str, environment: str, severity: str, summary: str, description: str) -> Alert:
    return Alert(name, environment, "", 0, severity, summary, description)


def _first(words: str) -> str:
    return words.strip().partition("\n")[0]
