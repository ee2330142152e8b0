"""Quarantine: digests that were bad, kept from every environment until a person lifts it.

Keys: `quarantine/<digest hex>.json`, which every gate reads, and `quarantine-lifted/<digest hex>/<time>.json`, the
records that were lifted, by whom and why.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from ops_pipeline.core.judgement.verdict import Verdict
from ops_pipeline.core.numbering import release_timestamp
from ops_pipeline.core.quarantine import Quarantine
from ops_pipeline.errors import BadInput, Conflict, NotFound, Problem
from ops_pipeline.services.ledger import find_quarantine
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.records import decode, encode
from ops_pipeline.services.retrying import retried

PREFIX = "quarantine/"
LIFTED_PREFIX = "quarantine-lifted/"
DIGITS = 64
SHORTEST = 4
"""Fewest hexadecimal digits that may stand for a digest."""

_NAME = re.compile(rf"(sha256:)?([0-9a-f]{{{SHORTEST},{DIGITS}}})")


@dataclass(frozen=True)
class Lifted:
    """A quarantine that a person ended; kept for good."""

    record: Quarantine
    who: str
    why: str
    at: datetime


def quarantine_key(digest: str) -> str:
    """Store key of a digest's quarantine."""
    return f"{PREFIX}{digest.removeprefix('sha256:')}.json"


def quarantine(
    platform: Platform,
    digest: str,
    reason: str,
    who: str,
    *,
    environment: str = "",
    service: str = "",
    release: int = 0,
    evidence: Verdict | None = None,
) -> None:
    """Keep a digest out from now on. When it is in quarantine already, the first record stays.

    What a person has lifted is not put back for the same release: whoever takes over a journal tells this again.
    Raise StoreDamaged, Unavailable, Permanent.
    """
    now = platform.clock.now()
    record = Quarantine(digest, reason, who, now, environment, service, release, evidence)
    key, data = quarantine_key(digest), encode(record)

    def write() -> None:
        try:
            platform.store.write(key, data, if_absent=True)
        except Conflict:
            return

    told = (environment, service, release)
    if release and any(
        (old.record.environment, old.record.service, old.record.release) == told for old in lifted(platform, digest)
    ):
        return
    retried(platform.clock, f"write {key}", write)


def lift(platform: Platform, digest_or_prefix: str, who: str, why: str) -> Quarantine:
    """End a quarantine and return its record, which moves to the history with who and why.

    `digest_or_prefix`: at least four of the digest's hexadecimal digits, with or without `sha256:`. Raise BadInput (not
    a digest, more than one begins so), NotFound (none does), StoreDamaged, Unavailable.
    """
    record = find(platform, digest_or_prefix)
    key, store = quarantine_key(record.digest), platform.store
    now = platform.clock.now()
    lifted = encode(Lifted(record, who, why, now))
    # The history first: killed in between, the digest is still in quarantine and nothing is lost.
    history = f"{LIFTED_PREFIX}{record.digest.removeprefix('sha256:')}/{release_timestamp(now)}.json"
    retried(platform.clock, f"write {history}", lambda: store.write(history, lifted))
    retried(platform.clock, f"remove {key}", lambda: store.delete(key))
    return record


def find(platform: Platform, digest_or_prefix: str) -> Quarantine:
    """The quarantine of one digest, named as for `lift`, which raises the same. Nothing is changed."""
    start = _start(digest_or_prefix, "quarantine")
    keys = [key for key in _keys(platform) if key.startswith(PREFIX + start)]
    if not keys:
        raise NotFound(
            f"no digest that begins with {start[:12]} is in quarantine", hint="`ops quarantine list` lists them."
        )
    digest = _only([_digest(key) for key in keys], digest_or_prefix, "digests in quarantine")
    record = retried(platform.clock, "read the quarantine", lambda: find_quarantine(platform.store, digest))
    if record is None:
        raise NotFound(f"{digest[:19]} is not in quarantine any more: somebody has just lifted it")
    return record


def find_image_by_digest(platform: Platform, digest_or_prefix: str) -> tuple[str, str]:
    """Service and full digest of the recorded image that a digest, or the beginning of one, means.

    A full digest that no image has is taken as it is, with an empty service: it may be kept out before it is built.
    Raise BadInput (not a digest, more than one begins so), NotFound (none does), Unavailable.
    """
    start = _start(digest_or_prefix, "image")
    found: dict[str, str] = {}
    for service in platform.catalogue.services:
        prefix = f"images/{service}/{start}"
        keys = retried(
            platform.clock,
            f"list {prefix}",
            lambda prefix=prefix: [info.key for info in platform.store.list(prefix)],  # type: ignore[misc]
        )
        found.update({"sha256:" + key.rpartition("/")[2].removesuffix(".json"): service for key in keys})
    if not found and len(start) == DIGITS:
        return "", f"sha256:{start}"
    if not found:
        raise NotFound(f"the ledger has no image whose digest begins with {start[:12]}", hint="Give the whole digest.")
    digest = _only(list(found), digest_or_prefix, "images")
    return found[digest], digest


def quarantined(platform: Platform) -> tuple[Quarantine, ...]:
    """All digests in quarantine, newest first. Raise StoreDamaged, Unavailable."""
    found = []
    for key in _keys(platform):
        record = retried(
            platform.clock,
            f"read {key}",
            lambda key=key: find_quarantine(platform.store, _digest(key)),  # type: ignore[misc]
        )
        if record is not None:  # it may have been lifted since the listing
            found.append(record)
    return tuple(sorted(found, key=lambda record: record.at, reverse=True))


def lifted(platform: Platform, digest: str) -> tuple[Lifted, ...]:
    """Former quarantines of a digest, oldest first. Raise StoreDamaged, Unavailable."""
    prefix = f"{LIFTED_PREFIX}{digest.removeprefix('sha256:')}/"

    def read() -> tuple[Lifted, ...]:
        keys = [info.key for info in platform.store.list(prefix)]
        blobs = ((key, platform.store.read(key)) for key in keys)
        return tuple(decode(Lifted, blob.data, key) for key, blob in blobs if blob is not None)

    return retried(platform.clock, f"list {prefix}", read)


def _keys(platform: Platform) -> list[str]:
    return retried(
        platform.clock,
        "list the quarantine",
        lambda: [info.key for info in platform.store.list(PREFIX) if info.key.endswith(".json")],
    )


def _start(digest_or_prefix: str, subject: str) -> str:
    match = _NAME.fullmatch(digest_or_prefix.strip().lower())
    if match is None:
        text = f"{digest_or_prefix!r} is not a digest: `sha256:` and 64 hexadecimal digits, or the first ones of them"
        raise BadInput([Problem("digest", text)], subject=subject)
    return match[2]


def _only(digests: list[str], name: str, what: str) -> str:
    if len(digests) > 1:
        text = f"{name!r} stands for {len(digests)} {what}: {', '.join(digest[:19] for digest in sorted(digests))}"
        raise BadInput([Problem("digest", text)], subject="quarantine", hint="Give more digits.")
    return digests[0]


def _digest(key: str) -> str:
    return "sha256:" + key.removeprefix(PREFIX).removesuffix(".json")
