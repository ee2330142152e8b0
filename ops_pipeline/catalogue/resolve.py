"""How a service runs in an environment: the service's settings with the environment's overrides over them."""

from __future__ import annotations

from collections.abc import Mapping

from ops_pipeline.catalogue.model import Catalogue, Environment, Service
from ops_pipeline.catalogue.wording import did_you_mean
from ops_pipeline.core.judgement.verdict import Thresholds
from ops_pipeline.core.release import ServiceConfiguration
from ops_pipeline.core.rollout import CanaryStep, Rollout, SmokeTest, Strategy
from ops_pipeline.errors import BadInput, Problem

_MEBIBYTE = 1024 * 1024


def resolve(catalogue: Catalogue, environment: str, service: str) -> ServiceConfiguration:
    """Given a catalogue, return how `service` runs in `environment`. Raise BadInput when there is no such one."""
    known: tuple[tuple[str, str, Mapping[str, object]], ...] = (
        ("environment", environment, catalogue.environments),
        ("service", service, catalogue.services),
    )
    problems = [
        Problem(word, f"the catalogue has no {word} `{name}`{did_you_mean(name, names)}")
        for word, name, names in known
        if name not in names
    ]
    if problems:
        raise BadInput(problems, subject="catalogue")
    return resolve_service(environment, catalogue.environments[environment], service, catalogue.services[service])


def resolve_service(environment: str, settings: Environment, service: str, entry: Service) -> ServiceConfiguration:
    """The same for the two entries themselves."""
    override = settings.services.get(service)
    volumes = {**entry.volumes, **(override.volumes if override else {})}
    if entry.flags:  # the edge writes that volume
        volumes[settings.flags_volume or f"ops-flags-{environment}"] = f"{entry.flags.rstrip('/')}:ro"
    return ServiceConfiguration(
        port=entry.port,
        health_path=entry.health.path,
        replicas=(override.replicas if override else None) or entry.replicas,
        environment={**entry.environment, **(override.environment if override else {})},
        secrets={**entry.secrets, **(override.secrets if override else {})},
        volumes={name.replace("{environment}", environment): path for name, path in volumes.items()},
        command=entry.command,
        read_only=entry.read_only,
        tmpfs=entry.tmpfs,
        memory_bytes=None if entry.memory_mb is None else entry.memory_mb * _MEBIBYTE,
        cpus=None if entry.cpus is None else float(entry.cpus),
        # A default of the catalogue may be an int where a stored record gives a float; their hashes would differ.
        start_timeout_seconds=float(entry.health.start_timeout_seconds),
        stop_grace_seconds=float(entry.stop_grace_seconds),
        drain_seconds=float(entry.drain_seconds),
    )


def resolve_rollout(catalogue: Catalogue, environment: str, service: str) -> Rollout:
    """How a release of `service` reaches its users in `environment` and is judged there.

    The names must exist (`resolve` says so when they do not).
    """
    settings, entry = catalogue.environments[environment], catalogue.services[service]
    override = settings.services.get(service)
    verify = (override.verify if override else None) or entry.verify
    limits = (override.thresholds if override else None) or entry.thresholds
    strategy = Strategy((override.strategy if override else None) or entry.strategy)
    steps = (override.canary if override else None) or entry.canary
    return Rollout(
        strategy=strategy,
        steps=tuple(CanaryStep(**step.model_dump()) for step in steps) if strategy is Strategy.CANARY else (),
        thresholds=Thresholds(**limits.model_dump()),
        smoke=tuple(SmokeTest(**test.model_dump()) for test in verify.smoke),
        verify_seconds=float(verify.seconds),
        blind_seconds=float(settings.blind_seconds),
        hold_seconds=settings.hold_minutes * 60.0,
        watch_seconds=None if settings.watch_minutes == "always" else settings.watch_minutes * 60.0,
        automatic_rollback=settings.automatic_rollback,
        cooldown_seconds=settings.cooldown_minutes * 60.0,
        server_timeout_seconds=float(entry.request_timeout_seconds),
    )
