"""Releases in the ledger: manifests, the pointer to what is live, quarantine.

Keys: `releases/<environment>/<service>/<timestamp>/manifest.json`, `current/<environment>/<service>` (text),
`quarantine/<digest hex>.json`. Manifests follow the journal: `journal.py` brings its outbox here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ops_pipeline.core.journal import Placement
from ops_pipeline.core.quarantine import Quarantine
from ops_pipeline.core.release import Phase, PhaseTime, Release
from ops_pipeline.errors import Conflict, NotFound, StoreDamaged
from ops_pipeline.ports import BlobStore
from ops_pipeline.services.records import decode, encode

_POINTER = re.compile(r"number: (\d+)\nversion: (\S+)\ndigest: (sha256:[0-9a-f]{64})\ntimestamp: (\S+)\n")


@dataclass(frozen=True)
class Current:
    """Content of `current/<environment>/<service>`."""

    number: int
    version: str
    digest: str
    timestamp: str


def manifest_key(environment: str, service: str, timestamp: str) -> str:
    """Store key of a release's manifest."""
    return f"releases/{environment}/{service}/{timestamp}/manifest.json"


def current_key(environment: str, service: str) -> str:
    """Store key of the pointer to what is live."""
    return f"current/{environment}/{service}"


def releases(store: BlobStore, environment: str, service: str, *, limit: int | None = None) -> tuple[Release, ...]:
    """Releases of a service in an environment, newest first, at most `limit`. Raise StoreDamaged."""
    found: list[Release] = []
    for release in newest_first(store, environment, service):
        if limit is not None and len(found) >= limit:
            break
        found.append(release)
    return tuple(found)


def newest_first(store: BlobStore, environment: str, service: str) -> Iterator[Release]:
    """Releases one by one, newest first, each read when asked for. Raise StoreDamaged."""
    prefix = f"releases/{environment}/{service}/"
    keys = [info.key for info in store.list(prefix) if info.key.endswith("/manifest.json")]
    for key in reversed(keys):
        release = _read(store, key)
        if release is not None:
            yield release


def find_release(store: BlobStore, environment: str, service: str, number: int) -> Release:
    """One release by its number. Raise NotFound, StoreDamaged."""
    for release in newest_first(store, environment, service):
        if release.number == number:
            return release
        if release.number < number:
            break
    raise NotFound(f"{environment}/{service} has no release #{number}", hint="`ops releases` lists them.")


def read_release(store: BlobStore, environment: str, service: str, timestamp: str) -> Release:
    """One release by its timestamp. Raise StoreDamaged, also when it is missing: the journal names it."""
    key = manifest_key(environment, service, timestamp)
    release = _read(store, key)
    if release is None:
        raise StoreDamaged(f"stored object {key} is missing although the journal names it")
    return release


def add_release(store: BlobStore, release: Release) -> None:
    """Write the manifest of a new release unless it is there already."""
    key = manifest_key(release.environment, release.service, release.timestamp)
    try:
        store.write(key, encode(release), if_absent=True)
    except Conflict:
        return  # repeated after an answer got lost, or by whoever took over


def enter_phase(store: BlobStore, release: Release, entry: PhaseTime, changed: Release | None = None) -> None:
    """Bring one phase into a manifest; repeating it changes nothing.

    A release that was rolled back keeps that as its last word: that its containers left later is no news about it.
    `changed` replaces other fields (instances) at the same time.
    """
    key = manifest_key(release.environment, release.service, release.timestamp)
    for _ in range(10):
        blob = store.read(key)
        if blob is None:
            raise StoreDamaged(f"stored object {key} is missing although the journal names it")
        manifest = decode(Release, blob.data, key)
        known = any((old.phase, old.at) == (entry.phase, entry.at) for old in manifest.phases)
        final = entry.phase is Phase.RETIRED and manifest.phase is Phase.ROLLED_BACK
        if known or final:
            return
        instances = changed.instances if changed is not None and changed.instances else manifest.instances
        manifest = replace(manifest, phases=(*manifest.phases, entry), instances=instances)
        try:
            store.write(key, encode(manifest), if_match=blob.etag)
        except Conflict:
            continue
        return
    raise Conflict(f"{key} changes all the time; try again")


def read_current(store: BlobStore, environment: str, service: str) -> Current | None:
    """What the pointer says, or None before the first release. Raise StoreDamaged."""
    key = current_key(environment, service)
    blob = store.read(key)
    if blob is None:
        return None
    match = _POINTER.fullmatch(blob.data.decode(errors="replace"))
    if match is None:
        raise StoreDamaged(
            f"stored object {key} is damaged: not a pointer to a release",
            hint="`ops reconcile` writes it anew from the journal.",
        )
    return Current(int(match[1]), match[2], match[3], match[4])


def point_current(store: BlobStore, environment: str, service: str, live: Placement) -> bool:
    """Make the pointer say what is live, and return whether it said something else. A newer one stays as it is."""
    key = current_key(environment, service)
    digest = live.image.partition("@")[2]
    text = f"number: {live.release}\nversion: {live.version}\ndigest: {digest}\ntimestamp: {live.timestamp}\n"
    for _ in range(10):
        blob = store.read(key)
        if blob is not None and blob.data == text.encode():
            return False
        match = None if blob is None else _POINTER.fullmatch(blob.data.decode(errors="replace"))
        if match is not None and int(match[1]) > live.release:
            return False
        try:
            if blob is None:
                store.write(key, text.encode(), if_absent=True)
            else:
                store.write(key, text.encode(), if_match=blob.etag)
        except Conflict:
            continue
        return True
    raise Conflict(f"{key} changes all the time; try again")


def find_quarantine(store: BlobStore, digest: str) -> Quarantine | None:
    """Why a digest is in quarantine, or None. Raise StoreDamaged: an unreadable record never lets a digest pass."""
    key = f"quarantine/{digest.removeprefix('sha256:')}.json"
    blob = store.read(key)
    return None if blob is None else decode(Quarantine, blob.data, key)


def _read(store: BlobStore, key: str) -> Release | None:
    blob = store.read(key)
    if blob is None:
        return None
    release = decode(Release, blob.data, key)
    if manifest_key(release.environment, release.service, release.timestamp) != key:
        raise StoreDamaged(f"stored object {key} is damaged: it describes {release.label} at {release.timestamp}")
    return release
