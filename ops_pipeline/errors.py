"""Errors a person or a retry loop can act on.

Adapters translate what their SDK raises into one of these; nothing else crosses an adapter. Only `Transient`
is ever retried, and only by `services/retrying.py`. Each class carries the process exit code of `ops`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class OpsError(Exception):
    """Base of all errors of this project.

    `message` is one clear sentence for a person; `hint` says what to do next (may be empty).
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class Transient(OpsError):
    """The outside component did not answer or answered «later»: trying again may help."""

    exit_code = 5


class Permanent(OpsError):
    """Trying again without a change will not help."""


class NotFound(Permanent):
    """The named thing (image, release, container, blob) does not exist."""


class Unavailable(Permanent):
    """A needed component is missing or stays out of reach after the bounded retries."""

    exit_code = 5


@dataclass(frozen=True)
class Problem:
    """One thing wrong with what a person wrote.

    `place` says where: `deploy/services.yaml:12 services.api.port`, `--to`, `run config: digest`.
    """

    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


class BadInput(Permanent):
    """What a person wrote cannot be used; names *every* problem with its place."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem], *, subject: str = "input", hint: str = "") -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(f"{subject}: {count}\n{lines}", hint=hint)


class PolicyRefused(Permanent):
    """A gate said no. `reasons` holds one sentence per gate that refused."""

    exit_code = 3

    def __init__(self, subject: str, reasons: Sequence[str], *, hint: str = "") -> None:
        self.reasons = tuple(reasons)
        super().__init__(f"{subject} refused: " + "; ".join(self.reasons), hint=hint)


class LeaseHeld(Permanent):
    """Somebody else works on the same environment and service; the message names holder, run and since when."""

    exit_code = 4


class StaleGeneration(Permanent):
    """A newer holder of the lease has taken over: this controller must not act any more."""

    exit_code = 4


class Conflict(Permanent):
    """A conditional write found something else than expected; nothing was written."""


class StoreDamaged(Permanent):
    """A stored object cannot be trusted (unreadable, wrong shape, wrong hash). The message names its key."""


class DeployFailed(Permanent):
    """A release did not come up or did not verify; traffic is where it was before."""


class RolledBack(DeployFailed):
    """A release was judged bad on what users got; traffic is back where it was and the digest is in quarantine."""

    exit_code = 6
