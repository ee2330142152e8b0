"""Azurite, Microsoft's emulator of Azure Blob, in a container built from `deploy/images/azurite`."""

from __future__ import annotations

import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from deploy.setup import stack_images
from ops_pipeline_tests.testbed import testbed_id

# Azurite's published development account: the same on every machine, and no secret.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True)
class Azurite:
    """A running Azurite. `container` is the Docker container's name."""

    container: str
    port: int

    @property
    def connection_string(self) -> str:
        return (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
            f"BlobEndpoint=http://127.0.0.1:{self.port}/{ACCOUNT};"
        )

    def pause(self) -> None:
        docker("pause", self.container)

    def resume(self) -> None:
        docker("unpause", self.container)


def docker(*arguments: str) -> str:
    """Run the Docker CLI; raise with its words when it fails."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise RuntimeError(f"docker {' '.join(arguments)}: {done.stderr.strip()[-2000:]}")
    return done.stdout.strip()


def image() -> str:
    """The local stack's Azurite image in its present state, built if it is missing; its name."""
    stack_images.ensure(("azurite",))
    return stack_images.tag(stack_images.image("azurite"))


@contextmanager
def azurite() -> Iterator[Azurite]:
    """Start Azurite on a free loopback port, in memory, and remove it afterwards."""
    name = f"ops-testbed-azurite-{uuid.uuid4().hex[:12]}"
    docker(
        "create", "--name", name, "--label", f"ops.testbed={testbed_id()}", "--publish", "127.0.0.1::10000",
        "--no-healthcheck",
        image(), "--blobHost", "0.0.0.0", "--skipApiVersionCheck", "--disableTelemetry", "--silent",
        "--inMemoryPersistence",
    )  # fmt: skip
    try:
        docker("start", name)
        port = int(docker("port", name, "10000/tcp").splitlines()[0].rpartition(":")[2])
        _wait(name, port)
        yield Azurite(name, port)
    finally:
        docker("rm", "--force", "--volumes", name)


def _wait(name: str, port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{ACCOUNT}?comp=list", timeout=2):
                return
        except urllib.error.HTTPError:
            return  # it answers; that it wants credentials is right
        except OSError as error:
            if time.monotonic() > deadline:
                raise RuntimeError(f"Azurite did not come up: {error}\n{docker('logs', name)}") from error
        time.sleep(0.2)
