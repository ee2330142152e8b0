"""Parts of sets that never came to be: left by a backup that was killed, cleared away after two days."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import groupby

from ops_pipeline.core.backup.records import SetKey
from ops_pipeline.errors import Permanent, StoreDamaged, Unavailable
from ops_pipeline.ports import ObjectInfo, Progress, Vault
from ops_pipeline.services.backup.inflight import InFlight, give_up, in_flight, in_flight_key
from ops_pipeline.services.backup.sets import set_key_of
from ops_pipeline.services.lease import HeldLease
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried

OLD = timedelta(hours=48)
_DEPTH = 6  # sets/<environment>/<yyyy>/<mm>/<dd>/<id>/…


def sweep_orphans(
    platform: Platform, vault: Vault, environment: str, held: HeldLease, progress: Progress
) -> tuple[tuple[str, ...], int, tuple[str, ...]]:
    """Delete parts without a manifest whose newest object and heartbeat are older than 48 h.

    Return ids, bytes and problems. The environment's lock must be held: nobody takes a set meanwhile, and whoever
    was suspended while taking one finds its record given up and never writes the manifest. Raise Unavailable.
    """
    clock, now = platform.clock, platform.clock.now()
    flights = {found.id: (found, etag) for found, etag in in_flight(vault, clock, environment)}
    ids, size, problems = [], 0, []
    prefix = f"sets/{environment}/"
    listed = retried(clock, f"list {prefix}", lambda: list(vault.sets.list(prefix)))
    for key, objects in _without_manifest(listed):
        if not _old(objects, flights.get(key.id), now):
            continue
        held.check()
        if not _given_up(vault, platform, flights.pop(key.id, None)):
            continue
        if retried(clock, f"look at {key.manifest}", lambda key=key: vault.sets.stat(key.manifest)) is not None:  # type: ignore[misc]
            continue
        try:
            for info in objects:
                held.check()
                retried(clock, f"delete {info.key}", lambda info=info: vault.sets.delete(info.key))  # type: ignore[misc]
                size += info.size
        except Unavailable:
            raise
        except Permanent as error:
            problems.append(f"parts of {key.id}, which never came to be, could not be deleted: {error.message}")
            continue
        _forget(platform, vault, environment, key.id)
        ids.append(key.id)
        progress(f"parts of {key.id}, which never came to be, are gone")
    with_parts = {key.id for key, _ in _by_set(listed)}
    for set_id, (found, etag) in flights.items():
        if set_id not in with_parts and now - found.beat_at > OLD and _given_up(vault, platform, (found, etag)):
            _forget(platform, vault, environment, set_id)
    return tuple(ids), size, tuple(problems)


def _old(objects: list[ObjectInfo], flight: tuple[InFlight, str] | None, now: datetime) -> bool:
    moments = [info.modified for info in objects] + ([flight[0].beat_at] if flight else [])
    return now - max(moments) > OLD


def _given_up(vault: Vault, platform: Platform, flight: tuple[InFlight, str] | None) -> bool:
    return flight is None or give_up(vault, platform.clock, *flight, "nothing was heard of it for two days")


def _forget(platform: Platform, vault: Vault, environment: str, set_id: str) -> None:
    key = in_flight_key(environment, set_id)
    retried(platform.clock, f"delete {key}", lambda: vault.state.delete(key))


def _without_manifest(listed: list[ObjectInfo]) -> Iterator[tuple[SetKey, list[ObjectInfo]]]:
    for key, objects in _by_set(listed):
        if not any(info.key == key.manifest for info in objects):
            yield key, objects


def _by_set(listed: list[ObjectInfo]) -> Iterator[tuple[SetKey, list[ObjectInfo]]]:
    """Objects by the set they lie in; what lies elsewhere is nobody's to sweep."""
    for place, found in groupby(listed, key=lambda info: info.key.split("/")[:_DEPTH]):
        objects = list(found)
        if len(place) < _DEPTH or any(info.key.count("/") < _DEPTH for info in objects):
            continue
        try:
            yield set_key_of("/".join([*place, "manifest.json"])), objects
        except StoreDamaged:
            continue
