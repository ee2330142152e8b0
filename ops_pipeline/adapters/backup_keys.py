"""The keys of backups: the Ed25519 key that signs manifests, and age identities that open what is sealed.

Both are small text files of standard formats (PEM PKCS #8; `age-keygen`), mode 0600, so that openssl and age read
them when this project is not at hand.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ops_pipeline.errors import BadInput, Permanent, Problem

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from pyrage.x25519 import Identity, Recipient

_IDENTITY_MARK = "AGE-SECRET-KEY-1"


@dataclass(frozen=True)
class NewIdentity:
    """A fresh age identity. `text` is the whole file, as age-keygen writes it; keep it away from production."""

    recipient: str
    text: str = field(repr=False)


def make_identity(now: datetime) -> NewIdentity:
    """A new age identity with its recipient (public key)."""
    from pyrage import x25519

    identity = x25519.Identity.generate()
    recipient = str(identity.to_public())
    created = now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return NewIdentity(recipient, f"# created: {created}\n# public key: {recipient}\n{identity}\n")


def write_secret_file(path: Path, text: str) -> bool:
    """Write `text` to `path`, mode 0600, durably, whole or not at all; parents are made with mode 0700.

    Return whether it was written: a file that exists already, or that another process made meanwhile, is left as it
    is. Raise Permanent naming the path.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - of a descriptor, mode 0600
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            # A hard link, unlike a rename, never replaces: of two processes exactly one makes the key.
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise Permanent(f"cannot write the key file {path}: {error.strerror or error}") from error
    return True


def ensure_signing_key(reference: str, root: Path, secret: Callable[[str], str]) -> Ed25519PrivateKey:
    """The key that `reference` names; one is made when it is a file that does not exist.

    Raise BadInput naming the reference when it is unusable, Permanent when none can be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    kind, _, name = reference.partition(":")
    if kind == "file" and not os.path.lexists(root / name):
        made = Ed25519PrivateKey.generate()
        pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_secret_file(root / name, pem.decode("ascii"))
    return read_signing_key(reference, secret)


def read_signing_key(reference: str, secret: Callable[[str], str]) -> Ed25519PrivateKey:
    """The key that `reference` names. Raise BadInput naming the reference, never quoting what stands there."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(secret(reference).encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInput(
            [Problem(f"backups.signing_key {reference}", "must be an Ed25519 private key in PEM, without a password")],
            subject="key",
            hint="`openssl genpkey -algorithm ed25519` makes one; an absent file is made by the first backup.",
        ) from None
    return key


def public_key(key: Ed25519PrivateKey) -> str:
    """Its public key, base64 of the raw 32 bytes: what `backups.trusted_signers` lists."""
    return base64.b64encode(key.public_key().public_bytes_raw()).decode("ascii")


def parse_recipients(texts: Sequence[str]) -> tuple[Recipient, ...]:
    """Given age recipients (age1…), return them parsed, without repetitions. Raise BadInput naming every bad one."""
    from pyrage import RecipientError, x25519

    found: dict[str, Recipient] = {}
    problems: list[Problem] = []
    for text in texts:
        try:
            found[text] = x25519.Recipient.from_str(text)
        except (RecipientError, ValueError):
            # A secret key pasted here by mistake must not come back in an error.
            shown = "an identity (AGE-SECRET-KEY-…) stands there" if text.upper().startswith("AGE-SECRET") else text
            problems.append(Problem("backups.recipients", f"{shown[:100]}: not an age recipient (age1…)"))
    if problems:
        raise BadInput(problems, subject="keys of backups", hint="`ops backup keys` makes a pair.")
    return tuple(found.values())


def parse_identities(text: str, place: str) -> tuple[Identity, ...]:
    """Given an age identity file, return its identities. Raise BadInput naming `place`, never quoting the text."""
    from pyrage import IdentityError, x25519

    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    try:
        found = tuple(x25519.Identity.from_str(line) for line in lines)
    except (IdentityError, ValueError):
        found = ()
    if not found:
        raise BadInput(
            [Problem(place, f"must be an age identity file (lines that begin with {_IDENTITY_MARK})")],
            subject="keys of backups",
        ) from None
    return found


def recipient_of(identity: Identity) -> str:
    """The public key that belongs to an identity."""
    return str(identity.to_public())
