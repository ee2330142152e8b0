"""Signs of life that others can wait for: a record in the vault, and an outside service that alerts when none comes.

`heartbeats/<environment>.json`: a monitor that reads the store needs nothing else of this project. The outside ping
(`backups.heartbeat_url`) is a secret reference, because whoever knows such an address can silence the alarm.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ops_pipeline.core.backup.records import Manifest, SetKey, Trigger
from ops_pipeline.errors import OpsError
from ops_pipeline.ports import Clock, Progress, Vault
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.records import decode, encode
from ops_pipeline.services.retrying import retried


@dataclass(frozen=True)
class Heartbeat:
    """`at`: when a good set last came to be here. Another is due within `fresh_hours` of it."""

    environment: str
    at: datetime
    set_id: str
    begun_at: datetime
    key: str  # of its manifest
    controller: str
    fresh_hours: float


def heartbeat_key(environment: str) -> str:
    """Key in `vault.state`."""
    return f"heartbeats/{environment}.json"


def read_heartbeat(vault: Vault, clock: Clock, environment: str) -> Heartbeat | None:
    """The last sign of life, None when there is none. Raise StoreDamaged, Unavailable."""
    key = heartbeat_key(environment)
    blob = retried(clock, f"read {key}", lambda: vault.state.read(key))
    return None if blob is None else decode(Heartbeat, blob.data, key)


def beat(platform: Platform, vault: Vault, environment: str, manifest: Manifest, progress: Progress) -> None:
    """Give a sign of life after a good set; the outside ping after a scheduled one. No error whatever happens."""
    settings = platform.catalogue.environments[environment].backup
    record = Heartbeat(
        environment,
        platform.clock.now(),
        manifest.id,
        manifest.started_at,
        SetKey(environment, manifest.id, manifest.started_at).manifest,
        platform.controller,
        settings.fresh_hours if settings is not None else 0.0,
    )
    key = heartbeat_key(environment)
    try:
        retried(platform.clock, f"write {key}", lambda: vault.state.write(key, encode(record)))
    except OpsError as error:
        progress(f"the sign of life in the store could not be written: {error.message}")
    reference = platform.catalogue.backups.heartbeat_url
    if reference is None or manifest.trigger is not Trigger.SCHEDULE:
        return
    try:
        url = platform.secret(reference).strip()
        retried(platform.clock, "send the sign of life", lambda: platform.ping(url), attempts=2)
    except OpsError as error:
        progress(f"the outside sign of life could not be sent: {error.message}")
