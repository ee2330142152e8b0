"""Which store the catalogue asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ops_pipeline.adapters.azure_store import open_azure_store
from ops_pipeline.adapters.directory_store import DirectoryStore
from ops_pipeline.catalogue import model
from ops_pipeline.errors import Permanent
from ops_pipeline.ports import BlobStore


def open_store(settings: model.Store, root: Path, secret: Callable[[str], str]) -> BlobStore:
    """Given the catalogue's `store`, the project folder and a reader of secret references, return the store.

    Touches neither disk nor network. Raise Permanent when the settings name no store.
    """
    if settings.azure is not None:
        return open_azure_store(settings.azure, secret)
    if settings.directory is not None:
        return DirectoryStore(root / settings.directory)
    raise Permanent("the catalogue names no store", hint="Give store.directory or store.azure.")
