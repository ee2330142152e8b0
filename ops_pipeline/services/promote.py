"""Promote: what is live in the environment before this one, the exact digest, through the same gates."""

from __future__ import annotations

from ops_pipeline.core.release import Action, Release
from ops_pipeline.errors import BadInput, PolicyRefused, Problem
from ops_pipeline.ports import Progress
from ops_pipeline.services import ledger
from ops_pipeline.services.configuration import check_names
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried


def promote(
    platform: Platform,
    environment: str,
    service: str,
    *,
    who: str = "",
    why: str = "",
    run_id: str = "",
    progress: Progress,
    lease_wait_seconds: float = 0.0,
) -> Release:
    """Bring to `environment` what is live in the environment its policy promotes from, and return the release.

    Raise BadInput when the environment promotes from nowhere, PolicyRefused when nothing is live there, and whatever
    `deploy` raises.
    """
    check_names(platform.catalogue, environment, service)
    source = platform.catalogue.environments[environment].promote_from
    if source is None:
        raise BadInput(
            [Problem("environment", f"{environment} has no promote_from in the catalogue")],
            hint=f"Set environments.{environment}.promote_from, or deploy a digest directly.",
        )
    current = retried(
        platform.clock,
        f"read what is live in {source}",
        lambda: ledger.read_current(platform.store, source, service),
    )
    if current is None:
        raise PolicyRefused(
            f"promotion of {service} to {environment}",
            [f"nothing is live in {source}"],
            hint=f"Deploy to {source} first.",
        )
    progress(f"promoting {current.version} ({current.digest[7:19]}), live in {source} as #{current.number}")
    return deploy(
        platform,
        environment,
        service,
        digest=current.digest,
        action=Action.PROMOTE,
        who=who,
        why=why or f"live in {source} as #{current.number}",
        run_id=run_id,
        progress=progress,
        lease_wait_seconds=lease_wait_seconds,
    )
