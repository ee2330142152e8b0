"""What an image is: an immutable digest, plus what its configuration says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class ImageRef:
    """An image in a registry, identified by digest. Tags are labels only and have no place here."""

    repository: str  # "127.0.0.1:5000/storefront/api"
    digest: str  # "sha256:…", of the manifest as the registry serves it

    def __str__(self) -> str:
        return f"{self.repository}@{self.digest}"

    @property
    def short(self) -> str:
        """First twelve hexadecimal digits, as people read them."""
        return self.digest.removeprefix("sha256:")[:12]


@dataclass(frozen=True)
class ImageConfig:
    """What the image itself declares, as far as `image_hygiene` and deploys need it."""

    size_bytes: int
    user: str  # "" means root
    healthcheck: tuple[str, ...]  # () when the image has none
    labels: Mapping[str, str] = field(default_factory=dict)
    exposed_ports: tuple[str, ...] = ()
    platform: str = ""


@dataclass(frozen=True)
class Image:
    """The ledger's record of one built image (`images/<service>/<digest hex>.json`)."""

    service: str
    ref: ImageRef
    version: str  # SemVer with the commit as build metadata: "1.4.0+3f2a1bc"
    commit: str
    inputs_hash: str  # sha256 over context, Dockerfile, arguments and base digests; equal hash = nothing to build
    built_at: datetime
    config: ImageConfig
    run_id: str = ""
    previous: str = ""  # digest of the image that was the newest when this one was built; "" for the first
