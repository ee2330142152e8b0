"""Images, scan reports and SBOMs in the ledger.

Keys: `images/<service>/<digest hex>.json`, `images/<service>/latest` (text: digest),
`images/<service>/inputs/<inputs hash>` (text: digest), `scans/<digest hex>/<timestamp>.json` (the newest counts),
`sboms/<digest hex>.json`. Records come first and pointers last: a pointer never names a record that is not there.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from ops_pipeline.core.image import DIGEST, Image
from ops_pipeline.core.scan import ScanReport
from ops_pipeline.errors import StoreDamaged
from ops_pipeline.ports import BlobStore
from ops_pipeline.services.records import decode, encode


def record_image(store: BlobStore, image: Image) -> str:
    """Store an image's record, then point the service's `latest` at it. Return the record's key."""
    key = image_key(image.service, image.ref.digest)
    store.write(key, encode(image))
    point_at(store, image)
    return key


def point_at(store: BlobStore, image: Image) -> None:
    """Make a recorded image the one its inputs lead to, and the service's latest."""
    digest = image.ref.digest.encode() + b"\n"
    store.write(_inputs_key(image.service, image.inputs_hash), digest)
    store.write(_latest_key(image.service), digest)


def find_image(store: BlobStore, service: str, digest: str) -> Image | None:
    """The record of one image, or None. Raise StoreDamaged when it cannot be trusted."""
    key = image_key(service, digest)
    blob = store.read(key)
    if blob is None:
        return None
    image = decode(Image, blob.data, key)
    if image.ref.digest != digest or image.service != service:
        raise StoreDamaged(f"stored object {key} is damaged: it describes {image.service} {image.ref.digest}")
    return image


def latest_image(store: BlobStore, service: str) -> Image | None:
    """The image built last, or None before the first build. Raise StoreDamaged for a pointer that leads nowhere."""
    return _follow(store, service, _latest_key(service))


def image_of_inputs(store: BlobStore, service: str, inputs_hash: str) -> Image | None:
    """The image built from exactly these inputs, or None."""
    return _follow(store, service, _inputs_key(service, inputs_hash))


def list_images(store: BlobStore, service: str) -> tuple[Image, ...]:
    """All recorded images of a service, newest first."""
    prefix = f"images/{service}/"
    images = [
        decode(Image, blob.data, info.key)
        for info in store.list(prefix)
        if info.key.endswith(".json") and (blob := store.read(info.key)) is not None
    ]
    return tuple(sorted(images, key=lambda image: image.built_at, reverse=True))


def record_scan(store: BlobStore, report: ScanReport) -> str:
    """Store a scan report beside the earlier ones of its digest; from now on it counts. Return its key."""
    key = f"{_scan_prefix(report.digest)}{_stamp(report.scanned_at)}.json"
    store.write(key, encode(report))
    return key


def latest_scan(store: BlobStore, digest: str) -> tuple[str, ScanReport] | None:
    """Key and content of the newest report about a digest, or None.

    Raise StoreDamaged when the newest cannot be trusted: an older one is never taken in its place.
    """
    keys = [info.key for info in store.list(_scan_prefix(digest)) if info.key.endswith(".json")]
    if not keys:
        return None
    blob = store.read(keys[-1])
    if blob is None:  # removed between listing and reading
        return None
    report = decode(ScanReport, blob.data, keys[-1])
    if report.digest != digest:
        raise StoreDamaged(f"stored object {keys[-1]} is damaged: it describes {report.digest}")
    return keys[-1], report


def previous_scan(store: BlobStore, image: Image) -> ScanReport | None:
    """The newest report about the image that came before `image`; None when there is none."""
    if not image.previous:
        return None
    found = latest_scan(store, image.previous)
    return found[1] if found else None


def record_sbom(store: BlobStore, digest: str, document: bytes) -> str:
    """Store the CycloneDX document of a digest and return its key."""
    key = sbom_key(digest)
    store.write(key, document)
    return key


def find_sbom(store: BlobStore, digest: str) -> str:
    """Key of the stored SBOM of a digest, "" when there is none. Raise StoreDamaged when it is not one."""
    key = sbom_key(digest)
    blob = store.read(key)
    if blob is None:
        return ""
    try:
        document = json.loads(blob.data)
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("bomFormat") != "CycloneDX":
        raise StoreDamaged(f"stored object {key} is damaged: not a CycloneDX document")
    return key


def image_key(service: str, digest: str) -> str:
    """Store key of an image's record."""
    return f"images/{service}/{_hex(digest)}.json"


def sbom_key(digest: str) -> str:
    """Store key of a digest's SBOM."""
    return f"sboms/{_hex(digest)}.json"


def _follow(store: BlobStore, service: str, pointer: str) -> Image | None:
    blob = store.read(pointer)
    if blob is None:
        return None
    digest = blob.data.decode("utf-8", "replace").strip()
    image = find_image(store, service, digest) if DIGEST.fullmatch(digest) else None
    if image is None:
        raise StoreDamaged(
            f"stored object {pointer} is damaged: it points at {digest[:80]!r}, which is not a recorded image",
            hint=f"Remove it from the store and build {service} again.",
        )
    return image


def _latest_key(service: str) -> str:
    return f"images/{service}/latest"


def _inputs_key(service: str, inputs_hash: str) -> str:
    return f"images/{service}/inputs/{inputs_hash}"


def _scan_prefix(digest: str) -> str:
    return f"scans/{_hex(digest)}/"


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
