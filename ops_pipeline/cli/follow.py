"""Following a run to its end, and saying how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from ops_pipeline.cli.output import escaped
from ops_pipeline.defs.run_events import WAITING, Kind, RunClient, RunEvent, Snapshot
from ops_pipeline.errors import OpsError, PolicyRefused, Transient

POLL_SECONDS = 0.4
PATIENCE_SECONDS = 60.0
"""How long a UI that does not answer (it is being restarted) is asked again."""

ENGINE_WORDS = "Dependencies for step "
"""Begins a line Dagster logs about steps it skips; the failure itself says more."""

CHECK_WORDS = "DagsterAssetCheckFailedError"
"""Stands in the failure of a run that a blocking asset check ended."""

STOPPED_EXIT_CODE = 7
"""The run was stopped by a person; it has undone what it began."""


class RunFailed(OpsError):
    """The run ended badly; its words are the failure's own."""

    def __init__(self, message: str, *, exit_code: int, error: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
        self.error = error
        self.printed = False  # True once it stands in the JSON document a command prints


@dataclass
class Outcome:
    """What a run came to."""

    run_id: str
    status: str = ""
    made: dict[str, Any] = field(default_factory=dict)  # metadata of the last asset materialized
    checks: list[RunEvent] = field(default_factory=list)
    failure: RunEvent | None = None

    def take(self, snapshot: Snapshot) -> None:
        """Add what a look told."""
        self.status = snapshot.status
        for event in snapshot.events:
            if event.kind is Kind.MADE:
                self.made.update(event.metadata)
            elif event.kind is Kind.CHECK:
                self.checks.append(event)
            elif event.kind is Kind.FAILED and self.failure is None:
                self.failure = event

    def raise_if_bad(self) -> None:
        """Raise RunFailed with the failure's words and exit code unless the run succeeded."""
        if self.status == "SUCCESS":
            return
        if self.status == "CANCELED":
            raise RunFailed(f"run {self.run_id} was stopped", exit_code=STOPPED_EXIT_CODE, error="Stopped")
        if self.failure is None:
            hint = f"Its process's last words: workers/{self.run_id}.log in DAGSTER_HOME."
            raise RunFailed(f"run {self.run_id} ended without saying why", exit_code=1, hint=hint)
        if CHECK_WORDS in self.failure.text:
            # Dagster's own words for a blocking check only name it; the check says what is wrong.
            refused = [
                one.text for one in self.checks if not one.passed and one.text.split(":")[0] in self.failure.text
            ]
            words = "refused by a check: " + "; ".join(refused)
            raise RunFailed(words, exit_code=PolicyRefused.exit_code, error=PolicyRefused.__name__)
        metadata = self.failure.metadata
        raise RunFailed(
            self.failure.text.strip(), exit_code=int(metadata.get("exit_code", 1)), error=str(metadata.get("error", ""))
        )


def follow(
    client: RunClient,
    run_id: str,
    console: Console,
    *,
    quiet: bool = False,
    standing: Callable[[], str] = lambda: "",
) -> Outcome:
    """Show progress until the run has ended. KeyboardInterrupt passes: the run goes on by itself.

    With a terminal a spinner shows the run's state, or what `standing` says of it; without one, plain lines only.
    Raise Transient when the UI stays away for a minute.
    """
    outcome, cursor, silent_since = Outcome(run_id), None, time.monotonic()
    with console.status("waiting", spinner="dots") as spinner:
        if quiet or not console.is_terminal:
            spinner.stop()
        while True:
            try:
                snapshot = client.look(run_id, cursor)
            except Transient:
                if time.monotonic() - silent_since > PATIENCE_SECONDS:
                    raise
                time.sleep(POLL_SECONDS)
                continue
            silent_since, cursor = time.monotonic(), snapshot.cursor
            outcome.take(snapshot)
            if not quiet:
                _show(console, snapshot)
                spinner.update(escaped(standing()) or _state(snapshot))
            if snapshot.finished and not snapshot.events:
                return outcome
            if not snapshot.events:
                time.sleep(POLL_SECONDS)


def _show(console: Console, snapshot: Snapshot) -> None:
    for event in snapshot.events:
        stamp = f"[dim]{event.at.astimezone():%H:%M:%S}[/dim]"
        if event.kind is Kind.LOG and not event.text.startswith(ENGINE_WORDS):
            for line in event.text.splitlines():
                console.print(stamp, escaped(line))
        elif event.kind is Kind.CHECK:
            failed = "[yellow]warns[/yellow]" if event.warning else "[red]failed[/red]"
            mark = "[green]passed[/green]" if event.passed else failed
            console.print(stamp, f"check {mark}:", escaped(event.text))


def _state(snapshot: Snapshot) -> str:
    return "in the queue or starting" if snapshot.status in WAITING else snapshot.status.lower()
