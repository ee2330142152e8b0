"""The courier's image and volumes that are gone after the test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from deploy.setup import stack_images
from ops_pipeline_tests.testbed import testbed_id
from ops_pipeline_tests.testbed.azurite import docker

ENGINE = "unix:///var/run/docker.sock"


def courier_image() -> str:
    """The courier's image in its present state, built if it is missing; its name."""
    stack_images.ensure(("courier",))
    return stack_images.tag(stack_images.image("courier"))


@contextmanager
def volume() -> Iterator[str]:
    """A new volume's name."""
    name = f"ops-testbed-files-{uuid.uuid4().hex[:12]}"
    docker("volume", "create", "--label", f"ops.testbed={testbed_id()}", name)
    try:
        yield name
    finally:
        docker("volume", "rm", "--force", name)
