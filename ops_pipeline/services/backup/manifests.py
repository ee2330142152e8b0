"""Manifests as they lie in the store: canonical JSON, signed, refused when anything about them is not as written.

What is signed is the canonical JSON of the manifest alone; what is stored is
`{"manifest": …, "signature": {"key": …, "signature": …}}`, canonical too. Reading one needs no identity.
"""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ops_pipeline.core.backup.canonical import difference, plain, strict_json, written
from ops_pipeline.core.backup.records import SCHEMA, Manifest, SetKey
from ops_pipeline.errors import BadInput, Problem, StoreDamaged
from ops_pipeline.ports import Sealing

MOST_BYTES = 256 * 1024 * 1024
_HINT = "Restore the object from a copy of the store, or use another set; nothing was changed."
_MANIFEST: TypeAdapter[Manifest] = TypeAdapter(Manifest)


def encode_manifest(sealing: Sealing, manifest: Manifest, *, most_bytes: int = MOST_BYTES) -> bytes:
    """Given a manifest, return what is stored. Raise BadInput naming a value that no manifest can hold."""
    try:
        content = plain(manifest)
        data = written({"manifest": content, "signature": dict(sealing.sign(written(content)))})
    except ValueError as error:
        raise BadInput([Problem(f"manifest of set {manifest.id}", str(error))], subject="backup set") from None
    if len(data) > most_bytes:
        raise BadInput(
            [Problem(f"manifest of set {manifest.id}", f"is larger than {most_bytes} bytes")], subject="backup set"
        )
    return data


def decode_manifest(sealing: Sealing, data: bytes, key: str, *, most_bytes: int = MOST_BYTES) -> Manifest:
    """Given what is stored under `key`, return the manifest: signed by a trusted key, and of the set `key` names.

    Raise StoreDamaged naming `key` and the field: unknown schema, a field too many or too few, another signer, a
    changed byte, a manifest that was moved here from another set.
    """
    if len(data) > most_bytes:
        raise _damaged(key, f"it is larger than {most_bytes} bytes")
    try:
        stored = strict_json(data)
    except ValueError as error:
        raise _damaged(key, str(error)) from None
    if not isinstance(stored, dict) or set(stored) != {"manifest", "signature"}:
        raise _damaged(key, "it must have exactly the fields manifest and signature")
    content, signature = stored["manifest"], stored["signature"]
    if not isinstance(content, dict) or not isinstance(signature, dict):
        raise _damaged(key, "manifest and signature must be objects")
    signed = written(content)
    sealing.check_signature(signed, signature, key)
    manifest = _record(content, signed, key)
    _belongs(manifest, key)
    return manifest


def manifest_hash(data: bytes) -> str:
    """SHA-256 (hex) of a manifest as stored: what the next set's `previous` names."""
    return hashlib.sha256(data).hexdigest()


def _record(content: dict[str, Any], signed: bytes, key: str) -> Manifest:
    schema = content.get("schema")
    if schema != SCHEMA:
        raise _damaged(key, f"schema: {schema!r} is not known here (known: {SCHEMA})")
    try:
        manifest = _MANIFEST.validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _damaged(key, f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None
    # Validation forgives what it does not know or can convert; writing it again does not.
    known = plain(manifest)
    if written(known) != signed:
        raise _damaged(key, difference(known, content) or "it is written differently")
    return manifest


def _belongs(manifest: Manifest, key: str) -> None:
    """Every key of a set follows from its environment, id and time, so nothing signed can stand in another place."""
    place = SetKey(manifest.environment, manifest.id, manifest.started_at)
    if key != place.manifest:
        raise _damaged(key, f"id: it is the manifest of {place.manifest}")
    for part in manifest.parts:
        if part.stream.key not in place.parts(part.source, part.name):
            raise _damaged(key, f"parts: {part.source} {part.name} lies in another place, {part.stream.key}")
        if part.files and not part.files.references.key.startswith(place.prefix):
            raise _damaged(key, f"parts: {part.source} {part.name} has its references in another set")


def _damaged(key: str, text: str) -> StoreDamaged:
    return StoreDamaged(f"stored object {key} is damaged: {text}", hint=_HINT)
