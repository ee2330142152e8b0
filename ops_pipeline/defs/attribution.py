"""Who a run belongs to: the reserved tag `ops/user`, set by the front door and believed by nobody else."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path

USER_TAG = "ops/user"
RESERVED_PREFIX = "ops/"
"""Tags beginning so are set by this project only; what a caller sends under them is thrown away."""

AUTOMATION = "automation"
"""User of runs that a schedule, a sensor or the daemon started."""

USER_HEADER = "X-Ops-User"
SECRET_HEADER = "X-Ops-Front-Door"  # noqa: S105 - the header's name
SECRET_VARIABLE = "OPS_FRONT_DOOR_SECRET_FILE"  # noqa: S105 - names a file
MAX_USER = 120


def read_secret_file(path: str | Path) -> str:
    """The front door's secret; empty, and then nothing matches it, when there is none to read."""
    try:
        return Path(path).read_text().strip() if str(path) else ""
    except OSError:
        return ""


def installation_of(secret: str) -> str:
    """Name of an installation that tells it from all others and gives nothing away; empty without a secret."""
    return hashlib.sha256(b"installation " + secret.encode()).hexdigest()[:12] if secret else ""


def user_of(tags: Mapping[str, str]) -> str:
    """Given a run's tags, return its user."""
    return tags.get(USER_TAG, AUTOMATION)


def clean_user(text: str | None) -> str:
    """Given what the proxy says, return a user name fit for a tag; empty when it says nothing."""
    printable = "".join(character for character in text or "" if character.isprintable())
    return printable.strip()[:MAX_USER]


def same_secret(sent: str | None, expected: str) -> bool:
    """Compare in constant time; an empty secret equals nothing."""
    return bool(sent) and bool(expected) and hmac.compare_digest((sent or "").encode(), expected.encode())


def without_reserved(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags a caller may set."""
    return {key: value for key, value in tags.items() if not key.startswith(RESERVED_PREFIX)}
