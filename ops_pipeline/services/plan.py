"""Plan: what a deploy would do, and why it would be refused. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from ops_pipeline.catalogue.resolve import resolve, resolve_rollout
from ops_pipeline.core.journal import Journal, free_pool
from ops_pipeline.core.release import Action
from ops_pipeline.core.rollout import CanaryStep, Rollout, Strategy
from ops_pipeline.core.steps import Needs, Probing
from ops_pipeline.errors import BadInput, OpsError
from ops_pipeline.services.backup.gate import backup_preview
from ops_pipeline.services.configuration import changed_keys, check_names, read_secrets
from ops_pipeline.services.deploy import image_to_deploy
from ops_pipeline.services.fleet import Fleet, fleet_of, on_each
from ops_pipeline.services.forecast import Forecast, forecast, strategy_now
from ops_pipeline.services.gates import refusals
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.lease import read_lease
from ops_pipeline.services.ledger import newest_first
from ops_pipeline.services.observation import look
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried

RECENT = 20
"""Releases among which the last automatic roll-back is looked for."""


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
    strategy: str = ""
    standby_ready: bool = False  # before the deploy; the release that is live now becomes the next standby
    traffic_per_second: float | None = None  # requests the service gets now; None = not known
    forecast: tuple[str, ...] = ()  # how long a verdict will take, in sentences
    disk_needed_bytes: int = 0  # on each host that has to pull the image
    disk: str = ""
    notes: tuple[str, ...] = ()  # what holds for the time after: automatic roll-back, its cooldown


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
    backup, faults_of_backup = backup_preview(platform, environment)
    stops += faults_of_backup
    lease = read_lease(platform, environment, service)
    if lease is not None and lease.held(platform.clock.now()):
        stops.append(f"{lease.holder} (run {lease.run_id or 'none'}) is at work: {lease.reason}")
    pulls, faults = _hosts(fleet, str(image.ref))
    stops += faults
    rollout = resolve_rollout(platform.catalogue, environment, service)
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
    steps = [] if nothing else _steps(journal, fleet, configuration.replicas, rollout, pulls)
    if steps and backup:
        steps.insert(0, backup)
    standby, ready = _standby(platform, fleet, journal)
    size = image.config.size_bytes if pulls else 0
    told = Forecast(None, ()) if nothing else forecast(platform, environment, service, rollout, journal)
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
        standby=standby,
        nothing_to_do=nothing,
        strategy=str(strategy_now(rollout, journal)),
        standby_ready=ready,
        traffic_per_second=told.traffic_per_second,
        forecast=told.lines,
        disk_needed_bytes=size,
        disk=_disk(size, pulls),
        notes=_notes(platform, journal, rollout),
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


def _steps(journal: Journal, fleet: Fleet, replicas: int, rollout: Rollout, pulls: list[str]) -> list[str]:
    number, hosts = journal.last_number + 1, ", ".join(fleet.hosts)
    steps = []
    if journal.work is not None:
        steps.append(f"finish or undo #{journal.work.release.number}, left {journal.work.stage}")
    if pulls:
        steps.append(f"pull the image on {', '.join(pulls)}")
    pool = f"pool {free_pool(journal) or 'to be freed'}"
    match strategy_now(rollout, journal):
        case Strategy.ROLLING:
            steps += _rolling(number, hosts, replicas, pool)
        case Strategy.CANARY:
            steps.append(f"start {replicas} x #{number} on {hosts} in {pool}")
            steps.append("wait until every replica answers its health path")
            steps += [line for step in rollout.steps if step.weight < 100 for line in _canary(number, step)]
        case _:
            steps.append(f"start {replicas} x #{number} on {hosts} in {pool}")
            steps.append("wait until every replica answers its health path")
    steps.append(f"switch to #{number} on {hosts} and check it through the edge")
    if rollout.smoke:
        steps.append(f"smoke tests: {', '.join(test.name for test in rollout.smoke)}")
    if rollout.verify_seconds and journal.live is not None:
        steps.append(f"judge what everybody gets for {rollout.verify_seconds:g} s before it counts as live")
    if journal.live is not None:
        steps.append(f"keep #{journal.live.release} warm as standby")
    if journal.standby is not None:
        steps.append(f"drain and remove #{journal.standby.release}")
    return steps


def _rolling(number: int, hosts: str, replicas: int, pool: str) -> list[str]:
    """A rolling release in words: each replica that is ready takes its part of the traffic."""
    shares = [round(100 * (index + 1) / replicas) for index in range(replicas - 1)]
    lines = [f"start #{number} on {hosts} in {pool} one replica after the other, {replicas} in all"]
    if shares:
        lines.append(f"as each of them is ready: {', '.join(f'{share} %' for share in shares)} of the users get it")
    lines.append("a container that exits, or a FAIL, takes all of them away at once")
    return lines


def _canary(number: int, step: CanaryStep) -> list[str]:
    lines = [
        f"{step.weight} % of the users get #{number} until it is judged PASS, for at least {step.min_requests} "
        f"requests and {step.min_seconds:g} s; without a verdict in {step.max_seconds / 60:g} min they return to stable"
    ]
    if step.pause:
        lines.append(f"wait at {step.weight} % for a person: ops resume, ops abort")
    return lines


def _standby(platform: Platform, fleet: Fleet, journal: Journal) -> tuple[str, bool]:
    spare = journal.standby
    if spare is None:
        return "no standby: a roll-back would start containers again", False
    configuration = spare.configuration
    probing = Probing(spare.containers, configuration.port, configuration.health_path)
    world = look(platform, fleet, journal.environment, journal.service, Needs(probes=(probing,)))
    fault = world.why_not_ready(spare.containers, configuration.replicas)
    words = f"is not ready: {fault}" if fault else "is warm and healthy"
    return f"#{spare.release} ({spare.version}) {words}", not fault


def _disk(size: int, pulls: list[str]) -> str:
    if not pulls:
        return "nothing to pull: every host has the image"
    most = f"at most {size / 1_000_000:.0f} MB" if size else "an unknown size"
    return f"{most} to pull on {', '.join(pulls)}, less what they have of its layers"


def _notes(platform: Platform, journal: Journal, rollout: Rollout) -> tuple[str, ...]:
    """What would happen by itself after the release is live."""
    if rollout.watch_seconds == 0:
        return ("not watched once it is live: only a person rolls it back",)
    time = "always" if rollout.watch_seconds is None else f"for {rollout.watch_seconds / 60:g} min after it is live"
    if not rollout.automatic_rollback:
        return (f"judged {time}; a FAIL only alerts, it does not roll back here (automatic_rollback is off)",)
    if journal.live is None:
        return (f"judged {time}; a FAIL only alerts, because there is nothing to go back to",)
    notes = [f"judged {time}; a FAIL rolls it back by itself to #{journal.live.release}"]
    warm = platform.catalogue.environments[journal.environment].standby_minutes * 60.0
    if rollout.watch_seconds is None or warm < rollout.watch_seconds:
        notes.append(
            f"#{journal.live.release} is warm for {warm / 60:g} min only; after that it has to be started again"
        )
    last = _last_automatic(platform, journal.environment, journal.service)
    if last is not None:
        left = rollout.cooldown_seconds - (platform.clock.now() - last).total_seconds()
        if left > 0:
            notes.append(
                f"the service was rolled back by itself at {last:%H:%M} UTC; not again for {left / 60:.0f} min, until "
                "then a FAIL only alerts"
            )
    return tuple(notes)


def _last_automatic(platform: Platform, environment: str, service: str) -> datetime | None:
    """When the service was last rolled back by itself, among its newest releases."""

    def read() -> datetime | None:
        for release in islice(newest_first(platform.store, environment, service), RECENT):
            if release.automatic and release.was_live:
                return release.phases[0].at
        return None

    return retried(platform.clock, f"read the releases of {environment}/{service}", read)


def _live_fault(platform: Platform, fleet: Fleet, journal: Journal) -> str:
    live = journal.live
    if live is None:
        return ""
    probing = Probing(live.containers, live.configuration.port, live.configuration.health_path)
    world = look(platform, fleet, journal.environment, journal.service, Needs(probes=(probing,), patient=True))
    return world.why_not_ready(live.containers, live.configuration.replicas)
