"""What the ledger tells beside a run: how its canary stands, and why it was taken back."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console

from ops_pipeline.cli.evidence import one_line, show_verdict
from ops_pipeline.cli.project import Project
from ops_pipeline.core.judgement.verdict import Verdict
from ops_pipeline.core.release import Release
from ops_pipeline.errors import OpsError
from ops_pipeline.services.judged import Judged

LOOK_SECONDS = 1.0
RECENT = 5
"""A run's release is among the newest of its service."""


class Standing:
    """One line about the canary of a run that is being followed, read from the ledger beside it, once a second.

    Where the ledger cannot be read from here the line stays empty: the run is followed all the same.
    """

    def __init__(
        self, project: Project, environment: str, service: str, *, every_seconds: float = LOOK_SECONDS
    ) -> None:
        self.text = ""
        self._project, self._environment, self._service = project, environment, service
        self._every = every_seconds
        self._ended = threading.Event()

    def __enter__(self) -> Standing:
        """Begin to look, unless it is not known at what."""
        if self._environment and self._service:
            # A thread, because a ledger far away may take seconds to answer, and the run's own lines should not wait.
            threading.Thread(target=self._look, name="standing", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Look no more."""
        self._ended.set()

    def now(self) -> str:
        """Look once. Raise OpsError when the ledger cannot be read."""
        from ops_pipeline.services.judged import judged

        found = judged(self._project.platform, self._environment, self._service)
        return "" if found is None or found.weight is None else standing_words(found)

    def _look(self) -> None:
        while not self._ended.wait(self._every):
            try:
                self.text = self.now()
            except (OpsError, OSError):
                self.text = ""
                return


def standing_words(found: Judged) -> str:
    """How a release that is judged stands: its share or its watch, what it waits for, and the verdict so far."""
    if found.weight is not None:
        words = f"#{found.release} has {found.weight} % of the users"
    elif found.left_seconds is None:
        words = f"#{found.release} is watched for good"
    else:
        words = f"#{found.release} is watched for {max(1, round(found.left_seconds / 60))} min more"
    if found.parked:
        words += f", {found.parked}"
    if found.waits:
        words += ", waits for a person (ops resume, ops abort)"
    if found.verdict is None:
        return f"{words}; no verdict yet"
    return f"{words}: {found.verdict.outcome}, {one_line(found.verdict)}"


@dataclass(frozen=True)
class TakenBack:
    """A release that was judged bad, and the verdict on it."""

    release: Release
    verdict: Verdict | None


def taken_back(project: Project, run_id: str, environment: str = "", service: str = "") -> TakenBack | None:
    """The release a run made and lost again, with its verdict; None when this machine cannot read the ledger."""
    from ops_pipeline.services.ledger import newest_first
    from ops_pipeline.services.verdicts import read_verdict

    try:
        platform = project.platform
        environments = [environment] if environment else platform.catalogue.environments
        services = [service] if service else platform.catalogue.services
        for place, name in itertools.product(environments, services):
            for release in itertools.islice(newest_first(platform.store, place, name), RECENT):
                if release.run_id == run_id:
                    return TakenBack(release, read_verdict(platform, place, name, release.number))
    except (OpsError, OSError):
        return None
    return None


def show_taken_back(console: Console, project: Project, found: TakenBack, link: str) -> None:
    """Print why a release was taken back, and where to look."""
    release, verdict = found.release, found.verdict
    if verdict is not None:
        now = project.platform.clock.now()
        seconds = max(60.0, (now - verdict.since).total_seconds())
        graph = verdict.link or project.platform.metrics.link(
            release.environment, release.service, release.number, seconds
        )
        show_verdict(console, release.label, verdict, now, link=graph)
    places = (
        ("run", link),
        ("again", f"ops verdict {release.service} {release.environment} --release {release.number}"),
        ("logs", f"ops logs {release.service} {release.environment} --release {release.number} (while they last)"),
        ("quarantine", f"ops quarantine list; when it was not the image: ops quarantine lift {release.digest[7:19]}"),
    )
    for title, where in places:
        if where:
            console.print(f"  {title}: {where}", markup=False)
