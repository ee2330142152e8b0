"""Shape of the catalogue. Every field has a description: it becomes the JSON Schema that editors show.

Reading a file and naming its mistakes is `load.py`; nothing here touches a file.
"""

from __future__ import annotations

from datetime import date
from pathlib import PurePosixPath
from typing import Literal

from pydantic import Field

from ops_pipeline.catalogue.backup_model import Backups, EnvironmentBackup
from ops_pipeline.catalogue.base import AzureStore, Model, Name, SecretReference

Severity = Literal["CRITICAL", "HIGH", "MEDIUM", "LOW", "UNKNOWN"]


class Registry(Model):
    """Where images are pushed and pulled. Credentials come from Docker's own configuration, never from here."""

    address: str = Field(description="host[:port][/prefix], e.g. `127.0.0.1:5000/storefront`")
    insecure: bool = Field(False, description="Plain HTTP; only ever needed for registries that are not on loopback")


class Store(Model):
    """Where the ledger lives. Exactly one of `directory` and `azure`."""

    directory: str | None = Field(None, description="Directory, relative to the project folder")
    azure: AzureStore | None = Field(None, description="Azure Blob Storage")


class Prometheus(Model):
    """The Prometheus that scrapes the edges."""

    url: str = Field("http://127.0.0.1:9090", description="Base URL")
    timeout_seconds: float = Field(5.0, gt=0, le=60)


class WaiverEntry(Model):
    """An accepted risk. Blocks again the day after `expires`."""

    id: str = Field(description="CVE-…, GHSA-… or a secret rule's id")
    reason: str = Field(min_length=10, description="Why the risk is accepted")
    owner: str = Field(min_length=2, description="Who accepted it")
    expires: date = Field(description="Last day on which it counts, YYYY-MM-DD")
    package: str = Field("", description="Only in this package; empty = in any")


class ScanSettings(Model):
    """What the vulnerability gate blocks, for all environments unless one is stricter."""

    severities: tuple[Severity, ...] = Field(("CRITICAL", "HIGH"), description="Severities that block")
    only_with_fix: bool = Field(True, description="Block only findings that a fixed version exists for")
    block_secrets: bool = Field(True, description="Block images that carry secrets")
    waivers: tuple[WaiverEntry, ...] = Field((), description="Accepted risks")
    database_mirror: str | None = Field(None, description="OCI repository of the Trivy database, if not the public one")
    cache_directory: str = Field(".ops/trivy", description="Trivy's cache, relative to the project folder")
    sample_database: str | None = Field(
        None, description="Folder with the small sample database, used only when no real one can be had; demo and tests"
    )


class EnvironmentPolicy(Model):
    """What an environment demands before a digest may enter it."""

    severities: tuple[Severity, ...] | None = Field(None, description="Overrides scan.severities")
    allow_sample_database: bool = Field(False, description="Accept reports made with the sample database")
    max_database_age_hours: float | None = Field(None, gt=0, description="Refuse reports from an older database")
    max_scan_age_hours: float | None = Field(None, gt=0, description="Refuse older reports")
    require_backup_minutes: float | None = Field(
        None, gt=0, description="A deploy needs a good backup set so young; without one it takes one first"
    )
    require_drill_days: float | None = Field(
        None, gt=0, description="A deploy is refused unless a restore drill passed within so many days"
    )


class Host(Model):
    """One Docker host."""

    name: Name = Field(description="Name shown to people")
    docker: str = Field("unix:///var/run/docker.sock", description="Docker endpoint: unix://, tcp:// or ssh://")


class Thresholds(Model):
    """When a release counts as bad."""

    error_rate: float = Field(0.05, gt=0, lt=1, description="Fraction of requests answered 5xx or not at all")
    p95_seconds: float = Field(2.0, gt=0, description="95th percentile of latency")
    crash_rate: float = Field(0.01, gt=0, lt=1, description="Fraction of instance time lost to crashes")


class CanaryStepEntry(Model):
    """One step of a canary."""

    weight: int = Field(ge=1, le=100, description="Percent of users that get the new release")
    min_requests: int = Field(50, ge=0, description="Requests the new release must have served in this step")
    min_seconds: float = Field(10, ge=0, description="Shortest time in this step")
    max_seconds: float = Field(600, gt=0, description="Without a verdict by then, traffic returns to stable")
    pause: bool = Field(False, description="Wait for a person (`ops resume`) before the next step")


class SmokeTestEntry(Model):
    """A request (`path`) or a command that a new release must pass before it counts as live."""

    name: str = Field(min_length=1, description="Shown when it fails")
    path: str = Field("", pattern="^(/.*)?$", description="Asked on every new replica")
    method: Literal["GET", "HEAD", "POST", "PUT", "DELETE"] = "GET"
    status: int = Field(200, ge=100, le=599, description="Expected status")
    contains: str = Field("", description="Text the body must hold")
    command: tuple[str, ...] = Field((), description="Run in a one-shot container of the release's image; must exit 0")
    timeout_seconds: float = Field(10, gt=0, le=600)


class Verification(Model):
    """What a release must pass after the switch and before it counts as live."""

    smoke: tuple[SmokeTestEntry, ...] = Field((), description="Smoke tests, in this order")
    seconds: float = Field(10, ge=0, le=3600, description="Metrics are judged for so long before it counts as live")


StrategyName = Literal["blue_green", "rolling", "canary"]

CANARY_STEPS = (CanaryStepEntry(weight=10), CanaryStepEntry(weight=50), CanaryStepEntry(weight=100))


class ServiceOverride(Model):
    """What differs for one service in one environment."""

    strategy: StrategyName | None = Field(None, description="Overrides the service's own")
    canary: tuple[CanaryStepEntry, ...] | None = Field(None, min_length=1, description="Overrides the service's own")
    thresholds: Thresholds | None = Field(None, description="Overrides the service's own")
    verify: Verification | None = Field(None, description="Overrides the service's own")
    replicas: int | None = Field(None, ge=1, le=32)
    environment: dict[str, str] = Field({}, description="Added to and over the service's own variables")
    secrets: dict[str, SecretReference] = Field({}, description="Added to and over the service's own references")
    volumes: dict[str, str] = Field({}, description="Added to and over the service's own volumes")


class Flag(Model):
    """A feature flag, served to applications in the format of OpenFeature's flagd."""

    on: bool = Field(False, description="Whether it is on for everybody `percent` covers")
    percent: float = Field(
        100, ge=0, le=100, description="Share of users it is on for, by the application's `targetingKey`"
    )
    description: str = Field("", description="One line for people")
    guards: Name | None = Field(
        None, description="Service whose FAIL turns this flag off first, instead of rolling the release back"
    )


class Environment(Model):
    """A list of Docker hosts and a policy."""

    hosts: tuple[Host, ...] = Field(min_length=1, description="Every host runs every service of the environment")
    url: str = Field(description="Where users reach the edge, e.g. http://127.0.0.1:8080")
    network: str | None = Field(None, description="Docker network of the environment; default `ops-<environment>`")
    subnet: str = Field(description="Subnet of that network, e.g. `10.213.0.0/22`; the lower half is ours to assign")
    edge_container: str | None = Field(
        None, description="Name of the edge's container; default `ops-edge-<environment>`"
    )
    flags_volume: str | None = Field(
        None,
        description="Docker volume with the flags on each host, written by the edge; default `ops-flags-<environment>`",
    )
    promote_from: Name | None = Field(None, description="`promote` takes what is live there")
    standby_minutes: float = Field(30, ge=0, description="How long the previous release stays warm after a switch")
    watch_minutes: float | Literal["always"] = Field(
        30, description="How long a release is judged after it went live, or `always`"
    )
    automatic_rollback: bool = Field(True, description="Whether a FAIL rolls back by itself; otherwise it only alerts")
    cooldown_minutes: float = Field(30, ge=0, description="No second automatic roll-back of a service within")
    blind_seconds: float = Field(60, gt=0, description="Without measurements for so long, a canary returns to stable")
    hold_minutes: float = Field(60, gt=0, description="A canary that cannot be judged is taken away after so long")
    policy: EnvironmentPolicy = EnvironmentPolicy()
    flags: dict[Name, Flag] = Field({}, description="Feature flags of this environment")
    services: dict[Name, ServiceOverride] = Field({}, description="What differs here, by service")
    backup: EnvironmentBackup | None = Field(None, description="What is backed up; leave out for nothing")


class BuildSettings(Model):
    """How the image of a service is built."""

    context: str = Field(description="Build context, relative to the project folder")
    dockerfile: str = Field("Dockerfile", description="Relative to the context")
    target: str | None = Field(None, description="Stage that becomes the image; default the last one")
    test_target: str | None = Field("test", description="Stage built first; its failure stops the build. null = none")
    args: dict[str, str] = Field({}, description="Build arguments; never a secret")
    secrets: dict[str, SecretReference] = Field({}, description="BuildKit secrets by id")
    platforms: tuple[str, ...] = Field((), description="Target platforms, e.g. linux/amd64; empty = the engine's own")
    timeout_seconds: float = Field(1800, gt=0)


class Health(Model):
    """How to tell that a replica can serve."""

    path: str = Field("/health/ready", pattern="^/", description="Answers 2xx when ready")
    start_timeout_seconds: float = Field(60, gt=0, description="A new replica must be ready within")


class Route(Model):
    """Which requests belong to the service."""

    path: str = Field("/", pattern="^/", description="Path prefix; the longest one wins")
    host: str = Field("", description="Host name; empty = any")
    strip_prefix: bool = Field(False, description="Remove the prefix before the service sees the request")


class Service(Model):
    """One deployable image."""

    description: str = Field("", description="One line for people")
    owners: tuple[str, ...] = Field((), description="E-mail addresses or `team:name`")
    build: BuildSettings
    port: int = Field(ge=1, le=65535, description="Port the container listens on")
    route: Route = Route()
    health: Health = Health()
    replicas: int = Field(1, ge=1, le=32)
    strategy: StrategyName = Field("blue_green", description="How a new release takes over")
    canary: tuple[CanaryStepEntry, ...] = Field(
        CANARY_STEPS, min_length=1, description="Steps of a canary, weights rising to 100"
    )
    verify: Verification = Verification()
    depends_on: tuple[Name, ...] = Field((), description="Services this one calls; a release set keeps that order")
    flags: str = Field(
        "",
        pattern="^(/.*)?$",
        description="Folder, e.g. `/run/flags`, where the container finds `flags.json`; empty = not",
    )
    drain_seconds: float = Field(30, ge=0, description="How long open connections may finish before a stop")
    stop_grace_seconds: float = Field(10, ge=0, description="Between SIGTERM and SIGKILL")
    request_timeout_seconds: float = Field(60, gt=0, description="The edge answers 504 after this")
    command: tuple[str, ...] = Field((), description="Overrides the image's command")
    environment: dict[str, str] = Field({}, description="Plain variables; never a secret")
    secrets: dict[str, SecretReference] = Field(
        {}, description="NAME → reference. Seen by the container as file /run/secrets/NAME, mode 0400"
    )
    volumes: dict[str, str] = Field(
        {}, description="Docker volume → path, `:ro` behind it = only read. `{environment}` in the name is replaced"
    )
    read_only: bool = Field(True, description="Read-only root file system")
    tmpfs: tuple[str, ...] = Field(("/tmp",), description="Writable scratch paths")  # noqa: S108
    memory_mb: int | None = Field(None, ge=16)
    cpus: float | None = Field(None, gt=0)
    size_budget_mb: int = Field(200, ge=1, description="image_hygiene fails above this")
    thresholds: Thresholds = Thresholds()


class Alertmanager(Model):
    """Where alerts go."""

    url: str = Field("http://127.0.0.1:9093", description="Base URL of Alertmanager; empty = nowhere")
    timeout_seconds: float = Field(5.0, gt=0, le=60)


class FrontDoor(Model):
    """Where people and `ops` reach the Dagster UI."""

    url: str = Field("http://127.0.0.1:3000", description="Address of the front door")


class Catalogue(Model):
    """Services, environments and the components around them."""

    version: Literal[1] = Field(description="Version of this file's format")
    project: Name = Field(description="Name of the application")
    source_url: str = Field("", description="Where the source lives; becomes the OCI label and code links")
    registry: Registry
    store: Store
    prometheus: Prometheus = Prometheus()
    alertmanager: Alertmanager = Alertmanager()
    front_door: FrontDoor = FrontDoor()
    scan: ScanSettings = ScanSettings()
    backups: Backups = Backups()
    environments: dict[Name, Environment] = Field(min_length=1)
    services: dict[Name, Service] = Field(min_length=1)

    def repository(self, service: str) -> str:
        """Repository of a service's image in the registry."""
        return str(PurePosixPath(self.registry.address) / service)

    def network(self, environment: str) -> str:
        """Docker network of an environment."""
        return self.environments[environment].network or f"ops-{environment}"

    def edge_container(self, environment: str) -> str:
        """Name of the edge's container on each host of an environment."""
        return self.environments[environment].edge_container or f"ops-edge-{environment}"

    def flags_volume(self, environment: str) -> str:
        """Docker volume with the flags on each host of an environment."""
        return self.environments[environment].flags_volume or f"ops-flags-{environment}"
