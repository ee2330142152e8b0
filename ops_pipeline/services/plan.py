"""Plan: what a deploy would do, and why it would be refused. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from ops_pipeline.catalogue.resolve import resolve
from ops_pipeline.core.journal import Journal, free_pool
from ops_pipeline.core.release import Action
from ops_pipeline.core.release_plan import Needs, Probing
from ops_pipeline.errors import BadInput, OpsError
from ops_pipeline.services.configuration import changed_keys, check_names, read_secrets
from ops_pipeline.services.deploy import image_to_deploy
from ops_pipeline.services.fleet import Fleet, fleet_of, on_each
from ops_pipeline.services.gates import refusals
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.lease import read_lease
from ops_pipeline.services.observation import look
from ops_pipeline.services.platform import Platform


@dataclass(frozen=True)
class Plan:
    """What a deploy of `digest` would do. `refusals` empty = it would go ahead; `nothing_to_do` = live already."""

    environment: str
    service: str
    version: str
    digest: str
    live_number: int | None
    live_version: str
    live_digest: str
    changes: tuple[str, ...]  # digest, version and configuration keys that differ from live
    steps: tuple[str, ...]  # in words
    refusals: tuple[str, ...]
    warnings: tuple[str, ...]
    standby: str  # what a roll-back could return to at once, and whether it is healthy
    nothing_to_do: bool


def plan(platform: Platform, environment: str, service: str, digest: str | None = None) -> Plan:
    """Return what `deploy` with the same arguments would do now.

    Raise BadInput (names, digest), NotFound (nothing built), PolicyRefused (unknown digest), StoreDamaged,
    Unavailable (store). Everything else that would stop a deploy is in `refusals`.
    """
    check_names(platform.catalogue, environment, service)
    image = image_to_deploy(platform, service, digest)
    journal, fleet = read_journal(platform, environment, service), fleet_of(platform, environment)
    configuration = resolve(platform.catalogue, environment, service)
    gates = refusals(platform, environment, service, image.ref.digest, Action.DEPLOY)
    stops = list(gates.reasons)
    try:
        read_secrets(platform, configuration.secrets)
    except BadInput as error:
        stops += [str(problem) for problem in error.problems]
    lease = read_lease(platform, environment, service)
    if lease is not None and lease.held(platform.clock.now()):
        stops.append(f"{lease.holder} (run {lease.run_id or 'none'}) is at work: {lease.reason}")
    pulls, faults = _hosts(fleet, str(image.ref))
    stops += faults
    live = journal.live
    live_digest = live.image.partition("@")[2] if live else ""
    changes: list[str] = []
    if live is not None:
        if live_digest != image.ref.digest:
            changes.append(f"digest: {live_digest[:19]} -> {image.ref.digest[:19]}")
        if live.version != image.version:
            changes.append(f"version: {live.version} -> {image.version}")
        changes += changed_keys(live.configuration, configuration)
    nothing = live is not None and not changes and not _live_fault(platform, fleet, journal)
    steps = [] if nothing else _steps(journal, fleet, configuration.replicas, pulls)
    return Plan(
        environment=environment,
        service=service,
        version=image.version,
        digest=image.ref.digest,
        live_number=live.release if live else None,
        live_version=live.version if live else "",
        live_digest=live_digest,
        changes=tuple(changes),
        steps=tuple(steps),
        refusals=tuple(stops),
        warnings=gates.warnings,
        standby=_standby(platform, fleet, journal),
        nothing_to_do=nothing,
    )


def _hosts(fleet: Fleet, image: str) -> tuple[list[str], list[str]]:
    """Hosts that would have to pull, and what is wrong with hosts or edges."""

    def one(host: str) -> tuple[bool, str]:
        try:
            fleet.runtimes[host].check()
            fleet.edges[host].check()
            return not fleet.runtimes[host].has_image(image), ""
        except OpsError as error:
            return False, f"host {host}: {error.message}"

    answers = dict(zip(fleet.hosts, on_each(fleet.hosts, one), strict=True))
    return [host for host, (pull, _) in answers.items() if pull], [fault for _, fault in answers.values() if fault]


def _steps(journal: Journal, fleet: Fleet, replicas: int, pulls: list[str]) -> list[str]:
    number, hosts = journal.last_number + 1, ", ".join(fleet.hosts)
    steps = []
    if journal.work is not None:
        steps.append(f"finish or undo #{journal.work.release.number}, left {journal.work.stage}")
    if pulls:
        steps.append(f"pull the image on {', '.join(pulls)}")
    steps.append(f"start {replicas} x #{number} on {hosts} in pool {free_pool(journal) or 'to be freed'}")
    steps.append("wait until every replica answers its health path")
    steps.append(f"switch to #{number} on {hosts} and check it through the edge")
    if journal.live is not None:
        steps.append(f"keep #{journal.live.release} warm as standby")
    if journal.standby is not None:
        steps.append(f"drain and remove #{journal.standby.release}")
    return steps


def _standby(platform: Platform, fleet: Fleet, journal: Journal) -> str:
    spare = journal.standby
    if spare is None:
        return "no standby: a roll-back would start containers again"
    configuration = spare.configuration
    probing = Probing(spare.containers, configuration.port, configuration.health_path)
    world = look(platform, fleet, journal.environment, journal.service, Needs(probes=(probing,)))
    fault = world.why_not_ready(spare.containers, configuration.replicas)
    return f"#{spare.release} ({spare.version}) " + (f"is not ready: {fault}" if fault else "is warm and healthy")


def _live_fault(platform: Platform, fleet: Fleet, journal: Journal) -> str:
    live = journal.live
    if live is None:
        return ""
    probing = Probing(live.containers, live.configuration.port, live.configuration.health_path)
    world = look(platform, fleet, journal.environment, journal.service, Needs(probes=(probing,), patient=True))
    return world.why_not_ready(live.containers, live.configuration.replicas)
