"""Sets that are cleared away on purpose, in `vault.state`.

`tombstones/<environment>/<id>.json` is written before the manifest goes and stays: the chain check knows by it that a
set is gone because retention said so. `pruning/<environment>/<id>.json` lies there from before that until all parts
are gone, so that whoever comes after a kill knows what is left to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from ops_pipeline.core.backup.records import SetKey
from ops_pipeline.errors import StoreDamaged
from ops_pipeline.ports import Clock, Vault
from ops_pipeline.services.records import decode, encode
from ops_pipeline.services.retrying import retried


@dataclass(frozen=True)
class Tombstone:
    """One set that goes or is gone. `started_at` tells where it lay; `manifest_sha256` which one it was."""

    environment: str
    id: str
    started_at: datetime
    manifest_sha256: str
    previous: str
    reason: str
    at: datetime
    run_id: str = ""
    by: str = ""

    @property
    def key(self) -> SetKey:
        """Where its objects lay."""
        return SetKey(self.environment, self.id, self.started_at)


def tombstone_key(environment: str, set_id: str) -> str:
    """Key in `vault.state` of what stays."""
    return f"tombstones/{environment}/{set_id}.json"


def pruning_key(environment: str, set_id: str) -> str:
    """Key in `vault.state` of what is being done."""
    return f"pruning/{environment}/{set_id}.json"


def begun(vault: Vault, clock: Clock, environment: str) -> Iterator[Tombstone]:
    """Deletions that were begun and not ended, oldest first; what cannot be read is left out. Raise Unavailable."""
    prefix = f"pruning/{environment}/"
    keys = retried(clock, "list what is being pruned", lambda: [info.key for info in vault.state.list(prefix)])
    for key in keys:
        blob = retried(clock, f"read {key}", lambda key=key: vault.state.read(key))  # type: ignore[misc]
        try:
            if blob is not None:
                yield decode(Tombstone, blob.data, key)
        except StoreDamaged:
            continue


def begin(vault: Vault, clock: Clock, stone: Tombstone) -> None:
    """Say that a set goes now. Raise Unavailable, Permanent."""
    data = encode(stone)
    for key in (pruning_key(stone.environment, stone.id), tombstone_key(stone.environment, stone.id)):
        retried(clock, f"write {key}", lambda key=key: vault.state.write(key, data))  # type: ignore[misc]


def end(vault: Vault, clock: Clock, stone: Tombstone) -> None:
    """Say that nothing of it is left. Raise Unavailable."""
    _delete(vault, clock, pruning_key(stone.environment, stone.id))


def withdraw(vault: Vault, clock: Clock, stone: Tombstone) -> None:
    """Say that it stays after all: its manifest was not deleted. Raise Unavailable."""
    _delete(vault, clock, tombstone_key(stone.environment, stone.id))
    _delete(vault, clock, pruning_key(stone.environment, stone.id))


def _delete(vault: Vault, clock: Clock, key: str) -> None:
    retried(clock, f"delete {key}", lambda: vault.state.delete(key))
