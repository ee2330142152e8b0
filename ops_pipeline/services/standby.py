"""The release a roll-back would go to, and whether it is still warm. Looks only; `rollback.py` looks again."""

from __future__ import annotations

from ops_pipeline.core.journal import Journal
from ops_pipeline.core.release import Release
from ops_pipeline.core.rollback_target import choose_target
from ops_pipeline.core.steps import Needs, Probing
from ops_pipeline.errors import BadInput, Problem
from ops_pipeline.services import ledger
from ops_pipeline.services.fleet import fleet_of
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.observation import look
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried


def target_of(platform: Platform, environment: str, service: str, leaving: int) -> int:
    """Number of the release to go back to from live release `leaving`.

    To be named to `roll_back`: what is live may change until the lease is ours, and going back twice would go too far.
    Raise BadInput when `leaving` is not live, or there is nothing to go back to.
    """
    journal = read_journal(platform, environment, service)
    place = f"{environment}/{service}"
    if journal.live is None or journal.live.release != leaving:
        raise BadInput([Problem("roll-back", f"{place} #{leaving} is not live any more")], subject=place)
    spare = _standby(platform, journal)
    if spare is not None and not spare.was_rolled_back and not _in_quarantine(platform, spare.digest):
        return spare.root
    known = retried(
        platform.clock,
        f"read the releases of {place}",
        lambda: ledger.releases(platform.store, environment, service),
    )
    shunned = {digest for digest in {release.digest for release in known} if _in_quarantine(platform, digest)}
    standby = journal.standby.release if journal.standby else None
    target = choose_target(known, leaving, standby, None, shunned=shunned)
    if target.release is None:
        raise BadInput([Problem("roll-back", target.refusal)], subject=place)
    return target.release.number


def standby_fault(platform: Platform, journal: Journal) -> str:
    """Why no standby could take over at once, in words; "" = one is kept and answers on every host.

    Raise StoreDamaged, Unavailable (store); a host that does not answer is a fault.
    """
    spare = journal.standby
    if spare is None:
        return "no standby is kept warm"
    record = _standby(platform, journal)
    if record is not None and record.was_rolled_back:
        return f"standby #{spare.release} was itself rolled back"
    if record is not None and _in_quarantine(platform, record.digest):
        return f"standby #{spare.release} is in quarantine"
    configuration = spare.configuration
    probing = Probing(spare.containers, configuration.port, configuration.health_path)
    fleet = fleet_of(platform, journal.environment)
    world = look(platform, fleet, journal.environment, journal.service, Needs(probes=(probing,)), patience=1)
    fault = world.why_not_ready(spare.containers, configuration.replicas)
    return f"standby #{spare.release} is not healthy ({fault})" if fault else ""


def _standby(platform: Platform, journal: Journal) -> Release | None:
    spare = journal.standby
    if spare is None:
        return None
    return retried(
        platform.clock,
        f"read the release of standby #{spare.release}",
        lambda: ledger.read_release(platform.store, journal.environment, journal.service, spare.timestamp),
    )


def _in_quarantine(platform: Platform, digest: str) -> bool:
    found = retried(platform.clock, "read the quarantine", lambda: ledger.find_quarantine(platform.store, digest))
    return found is not None
