"""Making the keys of backups, and saying where each of them belongs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ops_pipeline.catalogue.backup_model import Backups
from ops_pipeline.errors import BadInput, Permanent, Problem

IDENTITY = "file:.ops/secrets/backup_identity"
"""Where an identity is made when the catalogue names none."""


@dataclass(frozen=True)
class Keys:
    """Public halves, and where the secret ones lie. `made` names the files that are new."""

    identity: str
    recipient: str
    signing_key: str
    signer: str
    recipients_file: str
    made: tuple[str, ...]
    known: bool  # whether the catalogue has the recipient already


def ensure_keys(backups: Backups, root: Path, now: datetime) -> Keys:
    """Make what is absent and return all of it. Nothing that exists is touched but the file of recipients.

    Raise BadInput when a reference is no file that could be made, Permanent when one cannot be written or read.
    """
    from ops_pipeline.adapters.backup_keys import (
        ensure_signing_key,
        make_identity,
        parse_identities,
        public_key,
        recipient_of,
        write_secret_file,
    )
    from ops_pipeline.adapters.secrets import read_secret

    identity = _file(root, backups.identity or IDENTITY, "backups.identity")
    signing = _file(root, backups.signing_key, "backups.signing_key")
    made = [] if os.path.lexists(signing) else [str(signing)]
    fresh = make_identity(now)
    if write_secret_file(identity, fresh.text):
        made.append(str(identity))
    recipient = recipient_of(parse_identities(_read(identity), f"identity {identity}")[0])
    key = ensure_signing_key(backups.signing_key, root, lambda reference: read_secret(reference, root))
    known = recipient in backups.recipients
    if backups.recipients_file is not None:
        listed = root / backups.recipients_file
        if not listed.exists() or recipient not in listed.read_text(encoding="utf-8").split():
            _append(listed, recipient)
            made.append(str(listed))
        known = True
    return Keys(
        identity=str(identity),
        recipient=recipient,
        signing_key=str(signing),
        signer=public_key(key),
        recipients_file=backups.recipients_file or "",
        made=tuple(made),
        known=known,
    )


def where_they_belong(keys: Keys) -> Sequence[str]:
    """What a person has to do with them, line by line."""

    def state(path: str) -> str:
        return "made now" if path in keys.made else "was there already"

    lines = [
        f"identity     {keys.identity} ({state(keys.identity)})",
        f"recipient    {keys.recipient}",
        f"signing key  {keys.signing_key} ({state(keys.signing_key)})",
        f"signer       {keys.signer}",
        "",
        "What to do with them:",
    ]
    if not keys.known:
        lines.append(f"  1. Put the recipient into `backups.recipients` of the catalogue: {keys.recipient}")
    elif keys.recipients_file:
        lines.append(f"  1. The recipient stands in {keys.recipients_file}; nothing else to do.")
    else:
        lines.append("  1. The catalogue has the recipient; nothing else to do.")
    return [
        *lines,
        "  2. Keep a copy of the identity where a fire or a thief of this machine does not get it: printed in a safe, "
        "or in a password manager. Without it nobody can ever open a backup.",
        "  3. Machines that only take backups need the recipient and the signing key. Take the identity away from "
        "them; leave it, as `backups.identity`, only where restores and drills run.",
        "  4. Machines that only restore need the identity, and the signer in `backups.trusted_signers`; not the "
        "signing key.",
        "  5. Copy the signing key too: after its loss a new one is made, the old signer has to be put into "
        "`backups.trusted_signers`, and all files are stored once more.",
    ]


def _file(root: Path, reference: str, place: str) -> Path:
    kind, _, name = reference.partition(":")
    if kind != "file":
        text = f"`{reference}` is no `file:` reference: make the key where that secret is kept"
        raise BadInput([Problem(place, text)], subject="keys of backups")
    return root / name


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Permanent(f"cannot read {path}: {getattr(error, 'strerror', None) or 'not text'}") from None


def _append(path: Path, line: str) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        gap = "" if not before or before.endswith("\n") else "\n"
        path.write_text(f"{before}{gap}{line}\n", encoding="utf-8")
    except OSError as error:
        raise Permanent(f"cannot write {path}: {error.strerror or error}") from None
