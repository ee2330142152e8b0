"""Roll back: to the warm standby in one switch, or to any earlier release, started again from its record."""

from __future__ import annotations

from dataclasses import replace

from ops_pipeline.core.image import ImageRef
from ops_pipeline.core.journal import Journal, Placement, free_pool
from ops_pipeline.core.numbering import release_timestamp
from ops_pipeline.core.release import Action, Release
from ops_pipeline.core.release_plan import Needs, Probing
from ops_pipeline.core.rollback_target import choose_target
from ops_pipeline.errors import BadInput, NotFound, Permanent, Problem
from ops_pipeline.ports import Progress
from ops_pipeline.services import ledger
from ops_pipeline.services.configuration import check_names, read_secrets
from ops_pipeline.services.engine import Assignment, ReleaseEngine, at_work
from ops_pipeline.services.gates import refusals, refuse_if_any
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried


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
) -> Release:
    """Go back to the previous good release, or to release `to`, and return the new release that records it.

    The standby takes over in one switch when it is what is wanted and is healthy; otherwise containers are started
    from the digest and configuration in that release's manifest. What is left behind stays warm as standby.

    Raise BadInput (nothing to go back to, `to` unknown, never live or live already), NotFound (its image is gone),
    PolicyRefused, and all that `deploy` raises.
    """
    check_names(platform.catalogue, environment, service)
    before = read_journal(platform, environment, service)
    if before.work is None:
        _target(platform, before, to)  # a wish that cannot be met is refused before anything is touched
    wish = "the previous good release" if to is None else f"#{to}"
    assignment = Assignment(environment, service, run_id, f"roll-back to {wish}", lease_wait_seconds)
    with at_work(platform, assignment, progress) as engine:
        engine.settle()
        target = _target(platform, engine.journal, to)
        subject = f"{environment}/{service}: roll-back to #{target.number} ({target.version})"
        spare = _warm_standby(platform, engine, target, progress)
        outcome = refusals(platform, environment, service, target.digest, Action.ROLLBACK, warm=spare is not None)
        refuse_if_any(subject, outcome)
        for warning in outcome.warnings:
            progress(f"warning: {warning}")
        if spare is None:
            _check_image(platform, engine, target)
        secrets = read_secrets(platform, target.configuration.secrets)
        release = _record(platform, engine.journal, target, spare, who, why, run_id)
        return engine.make(replace(release, scan_warnings=outcome.warnings), secrets)


def _target(platform: Platform, journal: Journal, to: int | None) -> Release:
    known = retried(
        platform.clock,
        f"read the releases of {journal.environment}/{journal.service}",
        lambda: ledger.releases(platform.store, journal.environment, journal.service),
    )
    live = journal.live.release if journal.live else None
    standby = journal.standby.release if journal.standby else None
    target = choose_target(known, live, standby, to)
    if target.release is None:
        raise BadInput(
            [Problem("roll-back" if to is None else "to", target.refusal)],
            subject=f"{journal.environment}/{journal.service}",
            hint="`ops releases` lists what there is.",
        )
    return target.release


def _warm_standby(platform: Platform, engine: ReleaseEngine, target: Release, progress: Progress) -> Placement | None:
    """The standby when it runs the target and answers on every host, else None."""
    spare = engine.journal.standby
    if spare is None:
        return None
    record = ledger.read_release(platform.store, engine.environment, engine.service, spare.timestamp)
    if record.root != target.number:
        return None
    configuration = spare.configuration
    probing = Probing(spare.containers, configuration.port, configuration.health_path)
    world = engine.look(Needs(probes=(probing,), patient=True))
    fault = world.why_not_ready(spare.containers, configuration.replicas)
    if fault:
        progress(f"standby #{spare.release} cannot take over ({fault}); its release is started again")
        return None
    return spare


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
        phases=(),
        instances=(),
    )
