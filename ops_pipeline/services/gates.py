"""Gates, read from the ledger afresh whichever path started the work. `core/precedence.py` says which one wins."""

from __future__ import annotations

from ops_pipeline.core.precedence import Attempt, Gate, Objection, Refusals, weigh
from ops_pipeline.core.release import Action
from ops_pipeline.errors import PolicyRefused
from ops_pipeline.services.backup.gate import drill_objections
from ops_pipeline.services.images import find_image
from ops_pipeline.services.ledger import find_quarantine
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried
from ops_pipeline.services.scan_gate import scan_verdict

__all__ = ["attempt_of", "refusals", "refuse_if_any", "scan_verdict"]


def attempt_of(action: Action, *, warm: bool = False) -> Attempt:
    """Kind of work for the table, from a release's action and whether its containers are the warm standby's."""
    if action is Action.ROLLBACK:
        return Attempt.ROLLBACK_WARM if warm else Attempt.ROLLBACK_ANEW
    return Attempt.PROMOTE if action is Action.PROMOTE else Attempt.DEPLOY


def refusals(
    platform: Platform, environment: str, service: str, digest: str, action: Action, *, warm: bool = False
) -> Refusals:
    """What the gates say about bringing `digest` into `environment` now. Raise StoreDamaged, Unavailable."""
    return retried(
        platform.clock,
        "read the gates from the ledger",
        lambda: weigh(attempt_of(action, warm=warm), *_ask(platform, environment, service, digest, action)),
    )


def refuse_if_any(subject: str, outcome: Refusals) -> None:
    """Raise PolicyRefused with every reason when a gate refuses."""
    if not outcome.allowed:
        raise PolicyRefused(subject, outcome.reasons, hint="`ops plan` shows all gates without starting anything.")


def _ask(
    platform: Platform, environment: str, service: str, digest: str, action: Action
) -> tuple[tuple[Objection, ...], tuple[str, ...]]:
    objections: list[Objection] = []
    quarantine = find_quarantine(platform.store, digest)
    if quarantine is not None:
        text = f"{digest[:19]} is in quarantine since {quarantine.at:%Y-%m-%d %H:%M} UTC: {quarantine.reason}"
        objections.append(Objection(Gate.QUARANTINE, text))
    if find_image(platform.store, service, digest) is None:
        objections.append(Objection(Gate.IMAGE, f"the ledger has no image {digest[:19]} of {service}"))
    verdict = scan_verdict(platform, environment, digest)
    if not verdict.allowed:
        reasons = verdict.reasons or ("the scan gate refused without a reason",)
        objections += [Objection(Gate.SCAN, reason) for reason in reasons]
    if action is not Action.ROLLBACK:  # a return asks nothing of the backups, not even whether they answer
        objections += [Objection(Gate.DRILL, reason) for reason in drill_objections(platform, environment)]
    return tuple(objections), verdict.warnings
