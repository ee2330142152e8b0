"""What a person may set when launching. Every field has a default, so that choosing a partition is enough."""

from __future__ import annotations

from typing import Literal

import dagster as dg
from pydantic import Field

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.core.image import DIGEST
from ops_pipeline.core.release import Action
from ops_pipeline.errors import BadInput, Problem

MAX_REASON = 500
"""Longest reason, in characters; it is shown in one line of `ops releases`."""


class ReleaseConfig(dg.Config):
    """How to make a release. With nothing changed: deploy the latest image built of the service."""

    action: Literal["auto", "deploy", "promote", "rollback"] = Field(
        default="auto",
        description=(
            "auto: what the job is called, and deploy from the asset page. deploy: run an image built of this service; "
            "promote: run what is live in the environment before this one; rollback: return to an earlier release"
        ),
    )
    digest: str = Field(
        default="", description="deploy only: `sha256:…` of an image in the ledger; empty = the latest one built"
    )
    to: int = Field(default=0, description="rollback only: number of the release to return to; 0 = the previous one")
    force: bool = Field(
        default=False, description="deploy only: make a new release although the same digest and settings are live"
    )
    reason: str = Field(default="", description="Why, in your words; kept in the release's record")
    judged: int = Field(
        default=0,
        description=(
            "rollback only, set by the sensor metric_rollback: number of the live release that was judged bad. "
            "The verdict is read from the ledger; without one there nothing is done"
        ),
    )
    made: int = Field(
        default=0,
        description="rollback only, set by the sensor metric_rollback: number of a roll-back it made, to be shown here",
    )


class ReleaseSetConfig(dg.Config):
    """Services that are released together."""

    environment: str = Field(default="", description="Name of the environment")
    services: list[str] = Field(
        default_factory=list, description="Names of at least two services; their dependencies decide the order"
    )
    reason: str = Field(default="", description="Why, in your words; kept in the releases' records")


class QuarantineConfig(dg.Config):
    """Which digest to let go."""

    digest: str = Field(default="", description="`sha256:…` in quarantine, or the beginning of it")
    reason: str = Field(default="", description="Why it may be deployed again; kept in the history")


class BuildConfig(dg.Config):
    """How to build an image."""

    force: bool = Field(default=False, description="Build even when nothing that goes into the image has changed")


class ReconcileConfig(dg.Config):
    """Where to finish or undo what a stopped run left behind."""

    environment: str = Field(default="", description="Name of the environment; empty = all")
    service: str = Field(default="", description="Name of the service; empty = all")


def check_release(config: ReleaseConfig, catalogue: Catalogue, environment: str, job: str) -> Action:
    """Given what was launched, return the action it means.

    Raise BadInput naming every field that cannot be used as it is; nothing has been touched yet.
    """
    problems: list[Problem] = []
    named = Action(job) if job in set(Action) else None
    action = (named or Action.DEPLOY) if config.action == "auto" else Action(config.action)
    if named is not None and action is not named:
        problems.append(Problem("run config: action", f"this is the job {named}; it does not {action}"))
    if config.digest and not DIGEST.fullmatch(config.digest):
        problems.append(Problem("run config: digest", f"`{config.digest}` is not `sha256:` and 64 hexadecimal digits"))
    if config.digest and action is not Action.DEPLOY:
        problems.append(Problem("run config: digest", f"means nothing for {action}; leave it empty"))
    if config.to < 0:
        problems.append(Problem("run config: to", f"{config.to} is not the number of a release"))
    if config.to and action is not Action.ROLLBACK:
        problems.append(Problem("run config: to", f"means nothing for {action}; leave it 0"))
    for field, number in (("judged", config.judged), ("made", config.made)):
        if number < 0:
            problems.append(Problem(f"run config: {field}", f"{number} is not the number of a release"))
        if number and action is not Action.ROLLBACK:
            problems.append(Problem(f"run config: {field}", f"means nothing for {action}; leave it 0"))
    chosen = [name for name in ("to", "judged", "made") if getattr(config, name) > 0]
    if len(chosen) > 1 and action is Action.ROLLBACK:
        problems.append(
            Problem(f"run config: {chosen[-1]}", f"cannot be used together with {' and '.join(chosen[:-1])}")
        )
    if config.force and action is not Action.DEPLOY:
        problems.append(Problem("run config: force", f"means nothing for {action}; leave it false"))
    if action is Action.PROMOTE and catalogue.environments[environment].promote_from is None:
        problems.append(
            Problem("run config: action", f"{environment} promotes from nowhere (no `promote_from` in the catalogue)")
        )
    problems += _too_long(config.reason)
    if problems:
        raise BadInput(problems, subject="launch")
    return action


def check_release_set(config: ReleaseSetConfig) -> None:
    """Raise BadInput naming every empty field and a reason that is too long; names are checked against the catalogue
    by the use case."""
    problems = _too_long(config.reason)
    if not config.environment:
        problems.append(Problem("run config: environment", "is empty; name the environment"))
    if not config.services:
        problems.append(Problem("run config: services", "is empty; name the services to release together"))
    if problems:
        raise BadInput(problems, subject="launch")


def check_quarantine(config: QuarantineConfig) -> None:
    """Raise BadInput naming every empty field and a reason that is too long."""
    problems = _too_long(config.reason)
    if not config.digest.strip():
        problems.append(Problem("run config: digest", "is empty; `ops quarantine list` shows what is in quarantine"))
    if not config.reason.strip():
        problems.append(Problem("run config: reason", "is empty; whoever finds the record later has to know it"))
    if problems:
        raise BadInput(problems, subject="launch")


def _too_long(reason: str) -> list[Problem]:
    if len(reason) <= MAX_REASON:
        return []
    return [Problem("run config: reason", f"{len(reason)} characters; at most {MAX_REASON} are kept")]


def chosen_targets(config: ReconcileConfig, catalogue: Catalogue) -> list[tuple[str, str]]:
    """(environment, service) pairs a reconcile covers. Raise BadInput naming every unknown name."""
    problems: list[Problem] = []
    if config.environment and config.environment not in catalogue.environments:
        known = ", ".join(catalogue.environments)
        problems.append(
            Problem("run config: environment", f"no environment `{config.environment}` (there are: {known})")
        )
    if config.service and config.service not in catalogue.services:
        known = ", ".join(catalogue.services)
        problems.append(Problem("run config: service", f"no service `{config.service}` (there are: {known})"))
    if problems:
        raise BadInput(problems, subject="launch")
    environments = [config.environment] if config.environment else list(catalogue.environments)
    services = [config.service] if config.service else list(catalogue.services)
    return [(environment, service) for environment in environments for service in services]
