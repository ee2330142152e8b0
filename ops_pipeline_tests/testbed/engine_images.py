"""Images that tests leave in an engine which others use at the same time."""

from __future__ import annotations

import contextlib

import docker


def forget_images(engine: docker.DockerClient, *prefixes: str) -> None:
    """Remove the tags and digests that begin so. One that somebody else removes meanwhile is nobody's error."""
    # `engine.images.list()` looks at each image after listing them, and fails when one is gone by then.
    for image in engine.api.images():
        for name in [*(image.get("RepoTags") or []), *(image.get("RepoDigests") or [])]:
            if name.startswith(prefixes):
                with contextlib.suppress(docker.errors.APIError):
                    engine.images.remove(name, force=True)
