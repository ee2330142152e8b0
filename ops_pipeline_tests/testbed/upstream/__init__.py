"""The image of the small upstream (see server.py), built once and kept under one tag."""

from __future__ import annotations

import hashlib
from pathlib import Path

import docker

TAG = "ops-testbed-upstream"
FOLDER = Path(__file__).parent


def upstream_image(engine: docker.DockerClient) -> str:
    """Build the upstream image unless this very content is there already; return its name with a content tag."""
    content = b"".join((FOLDER / name).read_bytes() for name in ("Dockerfile", "server.py"))
    name = f"{TAG}:{hashlib.sha256(content).hexdigest()[:12]}"
    try:
        engine.images.get(name)
    except docker.errors.ImageNotFound:
        image, _ = engine.images.build(path=str(FOLDER), tag=name, rm=True, forcerm=True)
        image.tag(TAG, "latest")
    return name
