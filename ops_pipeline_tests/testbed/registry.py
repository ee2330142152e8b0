"""A real image registry, in a container built from `deploy/images/registry`."""

from __future__ import annotations

import hashlib
import io
import tarfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ops_pipeline_tests.testbed import testbed_id

FOLDER = Path(__file__).parents[2] / "deploy" / "images" / "registry"
USERNAME, PASSWORD = "builder", "correct horse battery"
_HTPASSWD = b"builder:$2b$05$Atp.9nuOu48emSaLmCxPyuGjm2pcubJVZQUkVr9BfewwrKov3J4Ja\n"


@dataclass(frozen=True)
class RunningRegistry:
    """Address is "127.0.0.1:port"; `container` is the Docker container's name."""

    address: str
    container: str

    def repository(self, name: str = "") -> str:
        """A repository of its own for a test."""
        return f"{self.address}/{name or 'test-' + uuid.uuid4().hex[:8]}"


@contextmanager
def running_registry(*, login: bool = False) -> Iterator[RunningRegistry]:
    """Start a registry; with `login` it wants USERNAME and PASSWORD. Removed with its volume afterwards."""
    import docker

    engine = docker.from_env(timeout=120)
    container = None
    environment = {"REGISTRY_AUTH": "htpasswd", "REGISTRY_AUTH_HTPASSWD_REALM": "test"} if login else {}
    if login:
        environment["REGISTRY_AUTH_HTPASSWD_PATH"] = "/etc/docker/registry/htpasswd"
    try:
        container = engine.containers.create(
            _image(engine),
            name=f"ops-testbed-registry-{uuid.uuid4().hex[:8]}",
            labels={"ops.testbed": testbed_id()},
            ports={"5000/tcp": ("127.0.0.1", None)},
            environment=environment,
            healthcheck={"test": ["NONE"]},  # an exec every five seconds for as long as the tests last
        )
        if login:
            container.put_archive("/etc/docker/registry", _archive("htpasswd", _HTPASSWD))
        container.start()
        container.reload()
        port = container.attrs["NetworkSettings"]["Ports"]["5000/tcp"][0]["HostPort"]
        _wait(f"http://127.0.0.1:{port}/v2/")
        yield RunningRegistry(f"127.0.0.1:{port}", str(container.name))
    finally:
        if container is not None:
            container.remove(v=True, force=True)
        engine.close()


@pytest.fixture(scope="session")
def registry() -> Iterator[RunningRegistry]:
    """One registry for all tests of the process; take a `repository()` of your own in it."""
    with running_registry() as running:
        yield running


def _image(engine: object) -> str:
    import docker

    assert isinstance(engine, docker.DockerClient)
    content = b"".join(file.name.encode() + file.read_bytes() for file in sorted(FOLDER.iterdir()))
    tag = f"ops-testbed-registry:{hashlib.sha256(content).hexdigest()[:12]}"
    try:
        engine.images.get(tag)
    except docker.errors.ImageNotFound:
        engine.images.build(path=str(FOLDER), tag=tag, rm=True, forcerm=True)
    return tag


def _archive(name: str, content: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(content), 0o644
        archive.addfile(entry, io.BytesIO(content))
    return target.getvalue()


def _wait(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except urllib.error.HTTPError:
            return  # it answers; that it wants a login is right
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)
