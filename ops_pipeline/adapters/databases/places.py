"""Names of what restores make beside a live database."""

from __future__ import annotations

import hashlib
import re

from ops_pipeline.errors import BadInput, Problem

NAME_BYTES = 63
"""Longest name every engine takes (PostgreSQL: 63 bytes, MySQL: 64 characters)."""
_TOKEN = re.compile(r"[a-z0-9]{4,12}")


def place(database: str, kind: str, token: str) -> str:
    """Name of what a restore makes: `<database>_r_<token>` beside, `<database>_h_<token>` as a hold.

    A name too long for the engine is cut and marked with a hash, so that it stays this database's own.
    Raise BadInput when `token` is none.
    """
    if not _TOKEN.fullmatch(token):
        raise BadInput([Problem("token", f"{token!r} is not 4 to 12 characters of a-z and 0-9")], subject="restore")
    tail = f"_{kind}_{token}"
    data = database.encode()
    if len(data) + len(tail) <= NAME_BYTES:
        return database + tail
    mark = hashlib.sha256(data).hexdigest()[:8]
    return data[: NAME_BYTES - len(tail) - len(mark)].decode(errors="ignore") + mark + tail
