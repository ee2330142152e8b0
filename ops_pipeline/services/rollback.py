"""Roll back: to the warm standby in one switch, or to any earlier release, started again from its record."""

from __future__ import annotations

from dataclasses import replace

from ops_pipeline.core.image import ImageRef
from ops_pipeline.core.journal import Journal, Placement, free_pool
from ops_pipeline.core.judgement.verdict import Verdict
from ops_pipeline.core.numbering import release_timestamp
from ops_pipeline.core.release import Action, Release
from ops_pipeline.core.rollback_target import Target, choose_target
from ops_pipeline.core.rollout import Rollout
from ops_pipeline.core.steps import Needs, Probing
from ops_pipeline.core.world import World
from ops_pipeline.errors import BadInput, NotFound, Permanent, Problem
from ops_pipeline.ports import Progress
from ops_pipeline.services import ledger
from ops_pipeline.services.at_work import Assignment, at_work, prepare
from ops_pipeline.services.configuration import check_names, read_secrets
from ops_pipeline.services.engine import ReleaseEngine
from ops_pipeline.services.gates import refusals, refuse_if_any
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.quarantine import PREFIX as QUARANTINES
from ops_pipeline.services.retrying import retried

SEEN_SECONDS = 2.0
"""The health of the standby, once asked, is believed for so long."""


def roll_back(
    platform: Platform,
    environment: str,
    service: str,
    *,
    to: int | None = None,
    who: str = "",
    why: str = "",
    run_id: str = "",
    progress: Progress,
    lease_wait_seconds: float = 0.0,
    automatic: bool = False,
    verdict: Verdict | None = None,
    set_id: str = "",
) -> Release:
    """Go back to the previous good release, or to release `to`, and return the new release that records it.

    The standby takes over in one switch when it is what is wanted and is healthy; otherwise containers are started
    from the digest and configuration in that release's manifest. What is left behind stays warm as standby.

    `automatic`: nobody asked for it; releases in quarantine are passed over. `verdict` is what speaks against the
    release that is left: its digest goes into quarantine with the switch, unless the same digest serves again.

    Raise BadInput (nothing to go back to, `to` unknown, never live or live already), NotFound (its image is gone),
    PolicyRefused, and all that `deploy` raises.
    """
    check_names(platform.catalogue, environment, service)
    before = read_journal(platform, environment, service)
    # A wish that cannot be met is refused before anything is touched.
    aim = _target(platform, before, to, automatic=automatic) if before.work is None else None
    wish = "the previous good release" if to is None else f"#{to}"
    assignment = Assignment(environment, service, run_id, f"roll-back to {wish}", lease_wait_seconds)
    with at_work(platform, assignment, progress, prepared=True) as engine:
        engine.settle()
        journal = engine.journal
        _refuse_to_blame_another(journal, verdict)
        same = (journal.live, journal.standby, journal.last_number) == (
            before.live,
            before.standby,
            before.last_number,
        )
        target = aim if aim is not None and same else _target(platform, journal, to, automatic=automatic)
        subject = f"{environment}/{service}: roll-back to #{target.number} ({target.version})"
        asked = platform.clock.monotonic()
        spare, world = _warm_standby(platform, engine, target, progress)
        outcome = refusals(platform, environment, service, target.digest, Action.ROLLBACK, warm=spare is not None)
        refuse_if_any(subject, outcome)
        for warning in outcome.warnings:
            progress(f"warning: {warning}")
        if spare is None:
            prepare(platform, engine.fleet, environment, strict=True, progress=progress)
            _check_image(platform, engine, target)
        secrets = read_secrets(platform, target.configuration.secrets)
        release = _record(platform, journal, target, spare, who, why, run_id)
        release = replace(release, scan_warnings=outcome.warnings, automatic=automatic, set_id=set_id)
        fresh = spare is not None and platform.clock.monotonic() - asked <= SEEN_SECONDS
        return engine.make(release, secrets, because=verdict, seen=world if fresh else None)


def _target(platform: Platform, journal: Journal, to: int | None, *, automatic: bool) -> Release:
    environment, service, store = journal.environment, journal.service, platform.store
    live = journal.live.release if journal.live else None
    standby = journal.standby.release if journal.standby else None

    def near() -> tuple[Release, ...]:
        """What is live and its standby: mostly all one needs to know, at two reads however long the history."""
        places = (journal.live, journal.standby)
        return tuple(ledger.read_release(store, environment, service, one.timestamp) for one in places if one)

    def all_there_are() -> tuple[Release, ...]:
        return ledger.releases(store, environment, service)

    shunned = _in_quarantine(platform) if automatic else frozenset[str]()
    target = Target()
    for known in (near, all_there_are) if to is None and standby is not None else (all_there_are,):
        releases = retried(platform.clock, f"read the releases of {environment}/{service}", known)
        target = choose_target(releases, live, standby, to, shunned=shunned)
        if target.release is not None:
            return target.release
    raise BadInput(
        [Problem("roll-back" if to is None else "to", target.refusal)],
        subject=f"{environment}/{service}",
        hint="`ops releases` lists what there is.",
    )


def _refuse_to_blame_another(journal: Journal, verdict: Verdict | None) -> None:
    """Raise BadInput when something else has become live since the verdict: it speaks against one release only."""
    live = journal.live
    if verdict is not None and live is not None and live.containers != verdict.release:
        place = f"{journal.environment}/{journal.service}"
        text = f"the verdict is on #{verdict.release}, and #{live.release} is live by now"
        raise BadInput([Problem("roll-back", text)], subject=place)


def _in_quarantine(platform: Platform) -> frozenset[str]:
    def listed() -> frozenset[str]:
        keys = (info.key for info in platform.store.list(QUARANTINES))
        return frozenset(f"sha256:{key.removeprefix(QUARANTINES).removesuffix('.json')}" for key in keys)

    return retried(platform.clock, "list the quarantine", listed)


def _warm_standby(
    platform: Platform, engine: ReleaseEngine, target: Release, progress: Progress
) -> tuple[Placement | None, World | None]:
    """The standby when it runs the target and answers on every host, and how that was seen; else None."""
    spare = engine.journal.standby
    if spare is None:
        return None, None
    if spare.release != target.number:
        record = ledger.read_release(platform.store, engine.environment, engine.service, spare.timestamp)
        if record.root != target.number:
            return None, None
    configuration = spare.configuration
    probing = Probing(spare.containers, configuration.port, configuration.health_path)
    # The routing is asked beside it, so that the edges' structure is known when they are to be changed.
    world = engine.look(Needs(routing=True, probes=(probing,), patient=True))
    fault = world.why_not_ready(spare.containers, configuration.replicas)
    if fault:
        progress(f"standby #{spare.release} cannot take over ({fault}); its release is started again")
        return None, None
    return spare, world


def _check_image(platform: Platform, engine: ReleaseEngine, target: Release) -> None:
    """Raise NotFound unless every host has the image or the registry can give it."""
    lacking = []
    for host, runtime in engine.fleet.runtimes.items():
        present = retried(
            platform.clock,
            f"look for the image on {host}",
            lambda runtime=runtime: runtime.has_image(target.image),  # type: ignore[misc]
        )
        if not present:
            lacking.append(host)
    if not lacking:
        return
    image = ImageRef(target.repository, target.digest)
    if not retried(platform.clock, "ask the registry", lambda: platform.registry.exists(image)):
        raise NotFound(
            f"the image of {target.label} ({image.short}) is gone from the registry and from {', '.join(lacking)}",
            hint="Roll back to another release, or build that version again.",
        )


def _record(
    platform: Platform,
    journal: Journal,
    target: Release,
    spare: Placement | None,
    who: str,
    why: str,
    run_id: str,
) -> Release:
    pool = spare.pool if spare is not None else free_pool(journal)
    if pool is None:
        raise Permanent(f"{journal.environment}/{journal.service} has no free pool", hint="Run `ops reconcile`.")
    return replace(
        target,
        number=journal.last_number + 1,
        timestamp=release_timestamp(platform.clock.now(), journal.last_timestamp),
        action=Action.ROLLBACK,
        pool=pool,
        who=who,
        why=why or f"roll-back to #{target.number}",
        run_id=run_id,
        previous=journal.live.release if journal.live else None,
        restores=target.number,
        containers_of=None if spare is None else spare.containers,
        rollout=Rollout(),  # no steps, no verification: only the health gate
        phases=(),
        instances=(),
    )
