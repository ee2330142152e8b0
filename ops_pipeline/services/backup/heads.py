"""The newest set of an environment as whoever took it remembers it: shows that the last of the chain was taken away.

`heads/<environment>/newest.json`; the chain of manifests shows every other one. It only ever goes forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ops_pipeline.errors import Conflict, StoreDamaged
from ops_pipeline.ports import Clock, Vault
from ops_pipeline.services.records import decode, encode
from ops_pipeline.services.retrying import retried


@dataclass(frozen=True)
class Head:
    """The newest set and the hash of its manifest."""

    id: str
    manifest_sha256: str
    at: datetime


def head_key(environment: str) -> str:
    """Key in `vault.state`."""
    return f"heads/{environment}/newest.json"


def read_head(vault: Vault, clock: Clock, environment: str) -> Head | None:
    """What is remembered, None when nothing is or when it cannot be read. Raise Unavailable."""
    key = head_key(environment)
    blob = retried(clock, f"read {key}", lambda: vault.state.read(key))
    try:
        return None if blob is None else decode(Head, blob.data, key)
    except StoreDamaged:
        return None


def remember_head(vault: Vault, clock: Clock, environment: str, head: Head) -> None:
    """Remember a new set unless a newer one is known. Raise Unavailable."""
    key = head_key(environment)

    def attempt() -> bool:
        blob = vault.state.read(key)
        try:
            known = None if blob is None else decode(Head, blob.data, key)
        except StoreDamaged:
            known = None
        if known is not None and known.id >= head.id:
            return True
        try:
            if blob is None:
                vault.state.write(key, encode(head), if_absent=True)
            else:
                vault.state.write(key, encode(head), if_match=blob.etag)
        except Conflict:
            return False
        return True

    for _ in range(10):
        if retried(clock, f"write {key}", attempt):
            return
