"""Which vault the catalogue asks for: a directory with three folders, or three containers in Azure Blob."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ops_pipeline.catalogue.backup_model import AzureBackups, Backups
from ops_pipeline.errors import Permanent
from ops_pipeline.ports import BlobStore, ObjectStore, Sealing, Vault

Secret = Callable[[str], str]


def open_vault(backups: Backups, root: Path, secret: Secret) -> Vault:
    """Given the catalogue's `backups`, the project folder and a reader of secret references, return the vault.

    Stores touch neither disk nor network until they are used. Raise BadInput (keys, secrets), Permanent when the
    settings name no store.
    """
    azure = backups.store.azure
    if azure is not None:
        return _azure_vault(azure, False, backups, root, secret)
    return _directory_vault(backups, root, secret)


def open_prune_vault(backups: Backups, root: Path, secret: Secret) -> Vault:
    """`open_vault` with the credentials that may delete (`prune`, `prune_media`), where the catalogue names any."""
    azure = backups.store.azure
    if azure is not None:
        return _azure_vault(azure, True, backups, root, secret)
    return _directory_vault(backups, root, secret)


def _directory_vault(backups: Backups, root: Path, secret: Secret) -> Vault:
    from ops_pipeline.adapters.directory_store import DirectoryStore
    from ops_pipeline.adapters.object_directory import ObjectDirectory

    directory = backups.store.directory
    if directory is None:
        raise Permanent(
            "the catalogue names no place for backups", hint="Give backups.store.directory or backups.store.azure."
        )
    folder = root / directory
    return Vault(
        sets=ObjectDirectory(folder / "sets"),
        # Objects that a power cut brings back are found again as garbage; a manifest must not outlive its parts.
        media=ObjectDirectory(folder / "media", durable_deletes=False),
        state=DirectoryStore(folder / "state"),
        sealing=_sealing(backups, root, secret),
    )


def _azure_vault(azure: AzureBackups, pruning: bool, backups: Backups, root: Path, secret: Secret) -> Vault:
    from ops_pipeline.adapters.azure_store import open_azure_store
    from ops_pipeline.adapters.object_azure import open_azure_objects

    sets = azure.prune if pruning and azure.prune is not None else azure.sets
    media = azure.prune_media if pruning and azure.prune_media is not None else azure.media
    stored: ObjectStore = open_azure_objects(sets, secret, workers=backups.workers)
    files: ObjectStore = open_azure_objects(media, secret, workers=backups.workers)
    state: BlobStore = open_azure_store(azure.state, secret)
    return Vault(sets=stored, media=files, state=state, sealing=_sealing(backups, root, secret))


def _sealing(backups: Backups, root: Path, secret: Secret) -> Sealing:
    from ops_pipeline.adapters.sealing import open_sealing

    return open_sealing(backups, root, secret)
