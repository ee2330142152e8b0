"""Deploy: gates, plan, and the release engine."""

from __future__ import annotations

import re
from dataclasses import replace

from ops_pipeline.catalogue.resolve import resolve, resolve_rollout
from ops_pipeline.core.image import DIGEST, Image
from ops_pipeline.core.journal import Journal, Placement, free_pool
from ops_pipeline.core.numbering import release_timestamp
from ops_pipeline.core.precedence import Refusals
from ops_pipeline.core.release import Action, Release, ServiceConfiguration
from ops_pipeline.core.steps import Needs, Probing
from ops_pipeline.errors import BadInput, NotFound, Permanent, PolicyRefused, Problem
from ops_pipeline.ports import Progress
from ops_pipeline.services import ledger
from ops_pipeline.services.at_work import Assignment, at_work
from ops_pipeline.services.backup.gate import ensure_fresh
from ops_pipeline.services.configuration import check_names, configuration_hash, read_secrets
from ops_pipeline.services.engine import ReleaseEngine
from ops_pipeline.services.forecast import forecast_lines
from ops_pipeline.services.gates import refusals, refuse_if_any
from ops_pipeline.services.images import find_image, find_sbom, latest_image, latest_scan
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried


def deploy(
    platform: Platform,
    environment: str,
    service: str,
    *,
    digest: str | None = None,
    action: Action = Action.DEPLOY,
    who: str = "",
    why: str = "",
    run_id: str = "",
    progress: Progress,
    lease_wait_seconds: float = 0.0,
    force: bool = False,
    set_id: str = "",
) -> Release:
    """Bring an image (the latest built, or `digest`) live and return its release, or the one that is live already.

    Nothing is done when the same digest with the same configuration is live and healthy; `force` makes a new release
    all the same (a restart without loss, for instance after a secret's value changed). `set_id` is what releases made
    together have in common.

    Where the environment's policy demands it, a backup set is taken first, or a young one reused, and named in the
    release; a repair of what is live already waits for none.

    Raise BadInput (names, digest, secrets), NotFound (nothing built), PolicyRefused (gates, no backup), LeaseHeld,
    Unavailable (host, edge or store away), StoreDamaged, StaleGeneration, RolledBack (judged bad on what users got, in
    quarantine now), DeployFailed (undone, with the reason and last log lines). Whatever is raised, traffic is where it
    was.
    """
    check_names(platform.catalogue, environment, service)
    image = image_to_deploy(platform, service, digest)
    subject = f"{environment}/{service}: {action} of {image.version} ({image.ref.short})"
    refuse_if_any(subject, refusals(platform, environment, service, image.ref.digest, action))
    configuration = resolve(platform.catalogue, environment, service)
    secrets = read_secrets(platform, configuration.secrets)
    retried(
        platform.clock,
        f"read the pointer of {environment}/{service}",
        lambda: ledger.read_current(platform.store, environment, service),
    )
    backup = None
    if force or not _is_same(read_journal(platform, environment, service).live, image, configuration):
        # Before the lease is taken: while data are copied, others may still roll the service back.
        backup = ensure_fresh(platform, environment, run_id=run_id, taken_by=who, progress=progress)
    assignment = Assignment(environment, service, run_id, f"{action} of {image.version}", lease_wait_seconds)
    with at_work(platform, assignment, progress) as engine:
        engine.settle()
        # Waiting and settling take time: what the ledger says now is what counts.
        outcome = refusals(platform, environment, service, image.ref.digest, action)
        refuse_if_any(subject, outcome)
        for warning in outcome.warnings:
            progress(f"warning: {warning}")
        live = engine.journal.live
        if live is not None and not force and _is_live_already(engine, image, configuration):
            progress(f"{environment}/{service}: {image.version} ({image.ref.short}) is already live as #{live.release}")
            return ledger.read_release(platform.store, environment, service, live.timestamp)
        for line in forecast_lines(platform, environment, service, engine.journal):
            progress(f"forecast: {line}")
        release = new_release(platform, engine.journal, image, configuration, action, who, why, run_id, outcome)
        return engine.make(replace(release, set_id=set_id, backup_set=backup.id if backup is not None else ""), secrets)


def image_to_deploy(platform: Platform, service: str, digest: str | None) -> Image:
    """The image a deploy means: the latest one, or the one of a digest.

    Raise BadInput (not a digest), NotFound (nothing built), PolicyRefused (a digest the ledger does not know).
    """
    if digest is None:
        latest = retried(platform.clock, "read the latest image", lambda: latest_image(platform.store, service))
        if latest is None:
            raise NotFound(f"no image of {service} has been built", hint="Build it first: `ops build` or the UI.")
        return latest
    if not re.fullmatch(DIGEST, digest):
        raise BadInput([Problem("digest", f"{digest!r} is not of the form sha256:<64 hexadecimal digits>")])
    image = retried(platform.clock, "read the image", lambda: find_image(platform.store, service, digest))
    if image is None:
        raise PolicyRefused(f"{service} {digest[:19]}", [f"the ledger has no image {digest[:19]} of {service}"])
    return image


def new_release(
    platform: Platform,
    journal: Journal,
    image: Image,
    configuration: ServiceConfiguration,
    action: Action,
    who: str,
    why: str,
    run_id: str,
    outcome: Refusals,
) -> Release:
    """The record of a release that is about to be made, with its number, timestamp and pool. Nothing is written."""
    pool = free_pool(journal)
    if pool is None:  # settled journals always have one; a third release that still leaves means a host is away
        raise Permanent(f"{journal.environment}/{journal.service} has no free pool", hint="Run `ops reconcile`.")
    store, digest = platform.store, image.ref.digest
    scan = retried(platform.clock, "read the scan report", lambda: latest_scan(store, digest))
    return Release(
        environment=journal.environment,
        service=journal.service,
        number=journal.last_number + 1,
        timestamp=release_timestamp(platform.clock.now(), journal.last_timestamp),
        action=action,
        repository=image.ref.repository,
        digest=digest,
        version=image.version,
        commit=image.commit,
        configuration=configuration,
        configuration_hash=configuration_hash(configuration),
        pool=pool,
        who=who,
        why=why,
        run_id=run_id,
        previous=journal.live.release if journal.live else None,
        scan_counts=scan[1].counts() if scan else {},
        scan_report=scan[0] if scan else "",
        scan_warnings=outcome.warnings,
        rollout=resolve_rollout(platform.catalogue, journal.environment, journal.service),
        sbom=retried(platform.clock, "read the SBOM", lambda: find_sbom(store, digest)),
    )


def _is_live_already(engine: ReleaseEngine, image: Image, configuration: ServiceConfiguration) -> bool:
    live = engine.journal.live
    if live is None or not _is_same(live, image, configuration):
        return False
    probing = Probing(live.containers, configuration.port, configuration.health_path)
    world = engine.look(Needs(probes=(probing,), route=True, patient=True))
    return not world.why_not_ready(live.containers, configuration.replicas) and not world.route_faults


def _is_same(live: Placement | None, image: Image, configuration: ServiceConfiguration) -> bool:
    """Whether what is live is this image with this configuration, whatever state it is in."""
    if live is None or live.image != str(image.ref):
        return False
    return configuration_hash(live.configuration) == configuration_hash(configuration)
