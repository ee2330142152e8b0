"""Summaries of manifests, so that listing a month of sets reads one object instead of hundreds.

`heads/<environment>/listing.json`: rebuildable, sealed by this machine, and each entry counts only as long as the
store still gives the manifest's etag and size. Without the key that sealed it everything is simply read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ops_pipeline.core.backup.records import Manifest, Part
from ops_pipeline.errors import OpsError
from ops_pipeline.ports import ObjectInfo, Vault
from ops_pipeline.services.records import decode, encode

SCHEMA = 1


@dataclass(frozen=True)
class Summary:
    """A manifest without the lists of its blocks, and what it was read from."""

    etag: str
    size: int
    sha256: str
    manifest: Manifest

    def of(self, info: ObjectInfo) -> bool:
        """Whether the stored object is still the one it was made of."""
        return (self.etag, self.size) == (info.etag, info.size)


@dataclass(frozen=True)
class SummaryBook:
    """Summaries by the manifest's key."""

    schema: int = SCHEMA
    entries: Mapping[str, Summary] = field(default_factory=dict)


def cache_key(environment: str) -> str:
    """Key in `vault.state`."""
    return f"heads/{environment}/listing.json"


def without_blocks(manifest: Manifest) -> Manifest:
    """The manifest as listings show it: every stream without its blocks, which are most of its size."""
    return replace(manifest, parts=tuple(_without_blocks(part) for part in manifest.parts))


def _without_blocks(part: Part) -> Part:
    return replace(part, stream=replace(part.stream, blocks=()))


def read_book(vault: Vault, environment: str) -> Mapping[str, Summary]:
    """What is remembered; nothing when it cannot be read or trusted."""
    key = cache_key(environment)
    try:
        blob = vault.state.read(key)
        if blob is None:
            return {}
        book = decode(SummaryBook, vault.sealing.open_own(blob.data, key), key)
    except OpsError:
        return {}
    return book.entries if book.schema == SCHEMA else {}


def write_book(vault: Vault, environment: str, entries: Mapping[str, Summary]) -> None:
    """Remember; no error when that is not possible here."""
    key = cache_key(environment)
    try:
        vault.state.write(key, vault.sealing.seal_own(encode(SummaryBook(SCHEMA, entries)), key))
    except OpsError:
        return  # a machine that may only read, or a store that is away: the next listing reads the manifests again
