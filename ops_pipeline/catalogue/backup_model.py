"""Shape of the catalogue's parts about backups: where sets are kept, what is in them, how long."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ops_pipeline.catalogue.base import AzureStore, Model, Name, SecretReference

Selector = Annotated[
    str,
    Field(
        min_length=1,
        description="Name of the container on its host, or labels that find exactly one: `key=value,key=value`",
    ),
]


class AzureBackups(Model):
    """Backups in Azure Blob Storage: three containers, and credentials that can do no more than needed."""

    sets: AzureStore = Field(description="Write-once: parts and manifests")
    media: AzureStore = Field(description="Write-once: files by content")
    state: AzureStore = Field(description="Mutable: locks, checks, drills, holds")
    prune: AzureStore | None = Field(None, description="`sets` with a credential that may delete; only pruning uses it")
    prune_media: AzureStore | None = Field(None, description="`media` with a credential that may delete")
    immutability_days: int | None = Field(None, ge=1, description="WORM days the account must have; reported if weaker")
    soft_delete_days: int | None = Field(None, ge=1, le=365, description="Soft delete the account must have")


class BackupStoreSettings(Model):
    """Exactly one of `directory` and `azure`."""

    directory: str | None = Field(None, description="Directory, relative to the project folder")
    azure: AzureBackups | None = Field(None, description="Azure Blob Storage")


class Retention(Model):
    """How long sets are kept; age counts from the newest good set, so that a stalled schedule deletes nothing."""

    keep_days: float = Field(30, ge=1, description="Everything younger is kept")
    daily: int = Field(0, ge=0, description="Then the last set of so many more days")
    weekly: int = Field(0, ge=0, description="Then of so many weeks")
    monthly: int = Field(0, ge=0, description="Then of so many months")
    keep_last: int = Field(3, ge=1, description="Never fewer good sets than this")


class AnomalyLimits(Model):
    """A set that differs so much from the ones before it is quarantined and freezes retention."""

    fall: float = Field(0.5, gt=0, lt=1, description="Fraction by which rows or bytes may fall")
    rise: float = Field(10, gt=1, description="Factor by which bytes may rise")
    entropy: float = Field(0.15, gt=0, lt=1, description="Rise of the share of incompressible bytes (ransomware)")
    min_rows: int = Field(100, ge=0, description="Smaller sources are not judged")


class Backups(Model):
    """Where backups are kept, for whom they are sealed, and how they are proven."""

    store: BackupStoreSettings = BackupStoreSettings(directory=".ops/backups")
    recipients: tuple[str, ...] = Field(
        (),
        description="age recipients (age1…): only their identities open a backup. `ops backup keys` makes one",
    )
    recipients_file: str | None = Field(None, description="File with one recipient a line, instead or in addition")
    signing_key: SecretReference = Field(
        "file:.ops/secrets/backup_signing_key", description="Ed25519 key that signs manifests; made when absent"
    )
    trusted_signers: tuple[str, ...] = Field(
        (), description="Public keys (base64) whose manifests count; empty = only the signing key's own"
    )
    identity: SecretReference | None = Field(
        None, description="age identity that opens backups; only where restores and drills run"
    )
    retention: Retention = Retention()
    anomaly: AnomalyLimits = AnomalyLimits()
    read_all_days: float = Field(7, gt=0, description="Every stored byte is read once in so many days")
    workers: int = Field(4, ge=1, le=16, description="Frames in work at once")
    heartbeat_url: SecretReference | None = Field(None, description="Pinged after every good scheduled set")
    courier_image: str = Field("ops-stack/courier:local", description="Image that reads and writes Docker volumes")


class DatabaseSource(Model):
    """What all databases have in common."""

    container: Selector
    host: Name | None = Field(None, description="Host of the environment the container runs on; default the first")
    user: str = Field("", description="User of the database; empty = the engine's own way in (socket, no password)")
    password: SecretReference | None = Field(None, description="Reads the password")
    timeout_seconds: float = Field(3600, gt=0, description="A dump that gives nothing for so long has hung")
    remote: str | None = Field(None, description="host:port of a server elsewhere; `container` then lends its tools")
    questions: dict[str, str] = Field(
        {}, description="name → query of the application whose answer a drill compares with the one at backup time"
    )


class PostgresSource(DatabaseSource):
    """A PostgreSQL database."""

    kind: Literal["postgres"]
    database: str
    user: str = "postgres"


class MysqlSource(DatabaseSource):
    """A MySQL or MariaDB database."""

    kind: Literal["mysql", "mariadb"]
    database: str
    user: str = "root"


class MongodbSource(DatabaseSource):
    """A MongoDB database (or anything that speaks its protocol)."""

    kind: Literal["mongodb"]
    database: str


class RedisSource(DatabaseSource):
    """A Redis server, whole."""

    kind: Literal["redis"]


class VolumeSource(Model):
    """A Docker volume."""

    kind: Literal["volume"]
    volume: str
    host: Name | None = Field(None, description="Host of the environment; default the first")
    exclude: tuple[str, ...] = Field((), description="Patterns of names that are left out, e.g. `cache/*`")


class DirectorySource(Model):
    """A directory on the machine of the control plane."""

    kind: Literal["directory"]
    path: str = Field(description="Absolute, or relative to the project folder")
    exclude: tuple[str, ...] = Field((), description="Patterns of names that are left out, e.g. `cache/*`")


Source = Annotated[
    PostgresSource | MysqlSource | MongodbSource | RedisSource | VolumeSource | DirectorySource,
    Field(discriminator="kind"),
]


class EnvironmentBackup(Model):
    """What is backed up of an environment. Databases are dumped first, files second."""

    sources: dict[Name, Source] = Field(min_length=1, description="Data sources by name")
    scheduled: bool = Field(True, description="Taken by `backup_every_six_hours`")
    fresh_hours: float = Field(7, gt=0, description="Without a good set so young an alert is raised")
    drill_memory_mb: int = Field(1024, ge=64, description="Memory of a scratch server")
