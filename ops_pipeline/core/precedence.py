"""One table that says which gate may stop which kind of work.

Order: quarantine > keep serving > rollback > freeze > approval > image record > scan > restore drill. A gate that
objects either refuses, or warns and lets pass, or has no say, by the kind of work. «Rollback» is the line in the
table: work that goes back to what served before is only warned by the gates below it; starting older containers anew
brings their digest into the environment again, so there the scan refuses as it does for a deploy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Gate(StrEnum):
    """Who may object, strongest first."""

    QUARANTINE = "quarantine"
    KEEP_SERVING = "keep serving"  # the destination is not known to be healthy
    FREEZE = "freeze"
    APPROVAL = "approval"
    IMAGE = "image record"
    SCAN = "scan"
    DRILL = "restore drill"  # asked of what is new only: nobody is kept from going back by the state of backups


class Attempt(StrEnum):
    """Kinds of work a gate is asked about."""

    DEPLOY = "deploy"
    PROMOTE = "promote"
    ROLLBACK_ANEW = "roll-back to containers started anew"
    ROLLBACK_WARM = "roll-back to the warm standby"
    REPAIR = "repair of what is live"


class Effect(StrEnum):
    """What an objection does."""

    REFUSE = "refuse"
    WARN = "warn"
    IGNORE = "ignore"


_R, _W, _I = Effect.REFUSE, Effect.WARN, Effect.IGNORE

TABLE: Mapping[Gate, Mapping[Attempt, Effect]] = {
    gate: dict(zip(Attempt, row, strict=True))
    for gate, row in {
        #                    deploy promote anew warm repair
        Gate.QUARANTINE: (_R, _R, _R, _R, _R),
        Gate.KEEP_SERVING: (_R, _R, _R, _R, _W),
        Gate.FREEZE: (_R, _R, _W, _W, _I),
        Gate.APPROVAL: (_R, _R, _W, _W, _I),
        Gate.IMAGE: (_R, _R, _W, _W, _I),
        Gate.SCAN: (_R, _R, _R, _W, _I),
        Gate.DRILL: (_R, _R, _I, _I, _I),
    }.items()
}


@dataclass(frozen=True)
class Objection:
    """What one gate has against the work, in one sentence."""

    gate: Gate
    reason: str


@dataclass(frozen=True)
class Refusals:
    """Outcome of all gates: `reasons` refuse (strongest gate first), `warnings` are shown and recorded."""

    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether no gate refuses."""
        return not self.reasons


def weigh(attempt: Attempt, objections: Iterable[Objection], warnings: Iterable[str] = ()) -> Refusals:
    """Given what the gates object, return what refuses this kind of work and what only warns."""
    order = list(Gate)
    ranked = sorted(objections, key=lambda objection: order.index(objection.gate))
    effects = [(TABLE[objection.gate][attempt], objection.reason) for objection in ranked]
    return Refusals(
        reasons=tuple(reason for effect, reason in effects if effect is Effect.REFUSE),
        warnings=(*(reason for effect, reason in effects if effect is Effect.WARN), *warnings),
    )
