"""Watches in the ledger: the live releases that are still judged, one at most per (environment, service)."""

from __future__ import annotations

from collections.abc import Callable

from ops_pipeline.core.watch import Due, Watch
from ops_pipeline.errors import Conflict, StoreDamaged
from ops_pipeline.ports import Blob
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.records import decode, encode
from ops_pipeline.services.retrying import retried

PREFIX = "watch/"
DUE = ".due"
ATTEMPTS = 10


def watch_key(environment: str, service: str) -> str:
    """Store key of the watch on what is live."""
    return f"{PREFIX}{environment}/{service}.json"


def write_watch(platform: Platform, watch: Watch) -> None:
    """Watch a release from here on. A watch on it, or on a newer one, stays as it is: this may be repeated late.

    Raise Unavailable.
    """
    key = watch_key(watch.environment, watch.service)

    def write() -> None:
        for _ in range(ATTEMPTS):
            blob = platform.store.read(key)
            known = _readable(blob, key)
            if known is not None and known.release >= watch.release:
                return
            try:
                if blob is None:
                    platform.store.write(key, encode(watch), if_absent=True)
                else:
                    platform.store.write(key, encode(watch), if_match=blob.etag)
            except Conflict:
                continue
            return
        raise Conflict(f"{key} changes all the time; try again")

    retried(platform.clock, f"write {key}", write)


def update_watch(platform: Platform, watch: Watch) -> bool:
    """Keep what has become of the watch on a release, and return whether it is still the one watched.

    Raise StoreDamaged, Unavailable.
    """
    key = watch_key(watch.environment, watch.service)

    def update() -> bool:
        for _ in range(ATTEMPTS):
            blob = platform.store.read(key)
            known = _decoded(blob, key)
            if blob is None or known is None or known.release != watch.release:
                return False
            if known == watch:
                return True
            try:
                platform.store.write(key, encode(watch), if_match=blob.etag)
            except Conflict:
                continue
            return True
        raise Conflict(f"{key} changes all the time; try again")

    return retried(platform.clock, f"write {key}", update)


def read_watch(platform: Platform, environment: str, service: str) -> Watch | None:
    """The watch on what is live, None when it is trusted. Raise StoreDamaged, Unavailable."""
    key = watch_key(environment, service)
    return _decoded(retried(platform.clock, f"read {key}", lambda: platform.store.read(key)), key)


def list_watches(platform: Platform) -> tuple[Watch, ...]:
    """All watches, by environment and service. Raise StoreDamaged, Unavailable."""
    return standing(platform)[0]


def standing(
    platform: Platform, damaged: Callable[[StoreDamaged], None] | None = None
) -> tuple[tuple[Watch, ...], tuple[Due, ...]]:
    """All watches and all roll-backs that no run has shown yet; when there are none this is one listing.

    One that cannot be read is told to `damaged` and left out, so that it does not keep the others from being watched.
    Raise StoreDamaged without it, Unavailable.
    """

    def listed() -> list[str]:
        return [info.key for info in platform.store.list(PREFIX) if info.size]

    watches: list[Watch] = []
    dues: list[Due] = []
    for key in retried(platform.clock, "list the watches", listed):
        blob = retried(platform.clock, f"read {key}", lambda key=key: platform.store.read(key))  # type: ignore[misc]
        if blob is None or not blob.data:
            continue  # it has ended since the listing
        try:
            if key.endswith(DUE):
                dues.append(decode(Due, blob.data, key))
            elif key.endswith(".json"):
                watches.append(decode(Watch, blob.data, key))
        except StoreDamaged as error:
            if damaged is None:
                raise
            damaged(error)
    return tuple(watches), tuple(dues)


def write_due(platform: Platform, due: Due) -> None:
    """Remember that a roll-back has to be shown. Raise Unavailable, Permanent."""
    key, data = _due_key(due), encode(due)
    retried(platform.clock, f"write {key}", lambda: platform.store.write(key, data))


def remove_due(platform: Platform, due: Due) -> None:
    """Forget it: a run has been asked to show it, or there is nothing to show. Raise Unavailable, Permanent."""
    key = _due_key(due)
    retried(platform.clock, f"remove {key}", lambda: platform.store.delete(key))


def remove_watch(platform: Platform, environment: str, service: str, *, up_to: int) -> None:
    """End the watch on release `up_to` or an older one; a newer one stays, also one that begins at this moment.

    An ended watch is an empty object, because only a write can be conditional. Raise Unavailable.
    """
    key = watch_key(environment, service)

    def remove() -> None:
        for _ in range(ATTEMPTS):
            blob = platform.store.read(key)
            known = _readable(blob, key)
            if blob is None or not blob.data or (known is not None and known.release > up_to):
                return
            try:
                platform.store.write(key, b"", if_match=blob.etag)
            except Conflict:
                continue
            return
        raise Conflict(f"{key} changes all the time; try again")

    retried(platform.clock, f"end {key}", remove)


def _readable(blob: Blob | None, key: str) -> Watch | None:
    """The watch, None also when it is damaged: what begins or ends then is newer than whatever it said."""
    try:
        return _decoded(blob, key)
    except StoreDamaged:
        return None


def _decoded(blob: Blob | None, key: str) -> Watch | None:
    return None if blob is None or not blob.data else decode(Watch, blob.data, key)


def _due_key(due: Due) -> str:
    return f"{PREFIX}{due.environment}/{due.service}{DUE}"
