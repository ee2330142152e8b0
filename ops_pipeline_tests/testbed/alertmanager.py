"""A real Alertmanager for tests, in memory, on a free loopback port."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import docker
from docker.models.containers import Container

from deploy.setup import stack_images
from ops_pipeline_tests.testbed import free_port, testbed_id
from ops_pipeline_tests.testbed.prometheus import wait_until_ready


@dataclass(frozen=True)
class RunningAlertmanager:
    """`url` is its base address."""

    url: str
    container: Container


@contextmanager
def alertmanager() -> Iterator[RunningAlertmanager]:
    """Start the stack's Alertmanager; it is removed with its data afterwards."""
    stack_images.ensure(("alertmanager",))
    engine = docker.from_env(timeout=60)
    port = free_port()
    container = engine.containers.create(
        stack_images.tag(stack_images.image("alertmanager")),
        [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", "--log.level=warn"],
        name=f"ops-testbed-alertmanager-{uuid.uuid4().hex[:10]}",
        labels={"ops.testbed": testbed_id()},
        network_mode="host",
        healthcheck={"test": ["NONE"]},
    )
    try:
        container.start()
        wait_until_ready(f"http://127.0.0.1:{port}")
        yield RunningAlertmanager(f"http://127.0.0.1:{port}", container)
    finally:
        container.remove(v=True, force=True)
        engine.close()
