"""Which keys a store takes. One rule for every store, so that a ledger can move from a directory to Azure and back."""

from __future__ import annotations

import re

from ops_pipeline.errors import Permanent

# A segment starts with a letter, digit, '_' or '-' (a leading dot is reserved for the stores themselves: temporary
# files and locks) and does not end with a dot (Azure drops those).
_SEGMENT = re.compile(r"[A-Za-z0-9_-]([A-Za-z0-9._-]*[A-Za-z0-9_-])?")
_PREFIX = re.compile(r"[A-Za-z0-9._/-]*")

MAX_KEY = 512
MAX_SEGMENT = 200


def check_key(key: str) -> str:
    """Return `key` unchanged. Raise Permanent when it is not `segment/segment/…` of plain characters."""
    segments = key.split("/")
    if len(key) > MAX_KEY or any(len(s) > MAX_SEGMENT or not _SEGMENT.fullmatch(s) for s in segments):
        raise Permanent(
            f"not a store key: {key[:80]!r}",
            hint="Keys are parts joined by '/', each of letters, digits, '.', '_' and '-', neither starting nor "
            f"ending with a dot, at most {MAX_SEGMENT} characters a part and {MAX_KEY} in all.",
        )
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix` unchanged. Raise Permanent when no key could ever start with it."""
    segments = prefix.split("/")
    # The last part may be cut anywhere ("releases/prod/ap"), the ones before it are whole.
    whole = all(_SEGMENT.fullmatch(segment) for segment in segments[:-1])
    if len(prefix) > MAX_KEY or not whole or not _PREFIX.fullmatch(segments[-1]) or segments[-1].startswith("."):
        raise Permanent(f"not a prefix of store keys: {prefix[:80]!r}")
    return prefix


def conflict_words(key: str, *, if_absent: bool) -> str:
    """What a Conflict says about `key`."""
    found = "already exists" if if_absent else "has changed since it was read, or is gone"
    return f"stored object {key} {found}; nothing was written"


def check_conditions(if_match: str | None, if_absent: bool) -> None:
    """Raise Permanent when both conditions are given: they contradict one another."""
    if if_absent and if_match is not None:
        raise Permanent("a conditional write takes either if_match or if_absent, not both")
