"""Alerts of the jobs about backups. Failing to alert is said in the run and never fails it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ops_pipeline.core.alert import Alert
from ops_pipeline.errors import BadInput, LeaseHeld, OpsError

if TYPE_CHECKING:
    from ops_pipeline.ports import Progress
    from ops_pipeline.services.platform import Platform

CALM: tuple[type[OpsError], ...] = (BadInput, LeaseHeld)
"""What was launched wrongly, and what somebody else is doing already: the run says so, nobody is called."""


class Findings:
    """What the work within found wrong without failing."""

    def __init__(self) -> None:
        self.problems: tuple[str, ...] = ()

    def found(self, problems: Sequence[str]) -> None:
        """Take note; no problem at all is good news."""
        self.problems = tuple(problems)


@contextmanager
def alerting(
    platform: Platform,
    alert: Callable[[str, str], Alert],
    environment: str,
    progress: Progress,
    *,
    fire: bool = True,
    settle_after: bool = True,
    calm: tuple[type[OpsError], ...] = CALM,
) -> Iterator[Findings]:
    """Within, a failure or a problem found fires the alert of this environment, and success ends it.

    With `fire` false nobody is told (somebody is looking), but success still ends the alert, unless `settle_after` is
    false.
    """
    from ops_pipeline.services.alerting import settle, tell

    findings = Findings()
    try:
        yield findings
    except BaseException as error:
        # A termination ends the work too, and nobody may be looking.
        if fire and not isinstance(error, calm):
            tell(platform, alert(environment, str(error) or type(error).__name__), progress)
        raise
    if not findings.problems:
        if settle_after:
            settle(platform, alert(environment, "over"), progress)
    elif fire:
        tell(platform, alert(environment, "\n".join(findings.problems)), progress)
