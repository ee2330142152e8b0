"""More Docker hosts than one, each a machine of its own as far as Docker can tell.

A host is a set of namespaces (network, mounts, processes) with a `dockerd` inside. Every host has its own loopback,
bridges, packet filter and routing table, so that one subnet serves all hosts of an environment, as it does on real
machines. A pair of virtual Ethernet devices connects it to the test's own network: ports its containers publish are
reached at `host.address`, from this machine only. Its Docker socket is an ordinary file and answers here.

    with engines(3, registry="127.0.0.1:5000") as hosts:
        hosts[0].client.containers.list()
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker

from deploy.setup import testbed

PROGRAM = Path(__file__).with_name("engine_host.py")
CGROUPS = Path("/sys/fs/cgroup")
READY_SECONDS = 60.0


class EngineHost:
    """One Docker host. Make some with `engines()`, which also clears them away."""

    def __init__(self, name: str, root: Path, address: str, gateway: str, registry_port: int) -> None:
        self.name = name
        self.root = root
        self.address = address
        self.gateway = gateway
        self._registry_port = registry_port
        self._link = f"ops{uuid.uuid4().hex[:8]}"
        self.cgroup = f"/ops-{testbed.run_id()}-{self._link}"
        self._process: subprocess.Popen[str] | None = None
        self._client: docker.DockerClient | None = None

    @property
    def docker_url(self) -> str:
        """Endpoint for the catalogue."""
        return f"unix://{self.root}/docker.sock"

    @property
    def client(self) -> docker.DockerClient:
        """The engine; made once."""
        if self._client is None:
            self._client = docker.DockerClient(base_url=self.docker_url, version="auto", timeout=120)
        return self._client

    def boot(self) -> None:
        """Bring the machine up, its engine with it; what ran before and restarts by itself does so."""
        outer = os.open("/proc/self/ns/net", os.O_RDONLY)
        try:
            self._process = subprocess.Popen(
                [
                    "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc",
                    sys.executable, str(PROGRAM), str(self.root), self.cgroup,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=(outer,),
                env={**os.environ, "OPS_OUTER_NETWORK": str(outer)},
            )  # fmt: skip
        finally:
            os.close(outer)
        self._hear("up")
        outside = self._process.pid
        inside = Path(f"/proc/{outside}/task/{outside}/children").read_text().split()[0]
        _ip(f"link add {self._link} type veth peer name eth0 netns {inside}")
        _ip(f"address add {self.gateway}/30 dev {self._link}")
        _ip(f"link set {self._link} up")
        self._tell("network", address=self.address, gateway=self.gateway)
        if self._registry_port:
            self._tell("forward", port=self._registry_port)
        self._tell("start")

    def wait(self) -> None:
        """Until the engine answers."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                self.client.ping()
                return
            except (docker.errors.APIError, OSError) as error:
                if time.monotonic() > deadline:
                    log = (self.root / "dockerd.log").read_text()
                    raise AssertionError(f"no engine on {self.name}: {error}\n{log[-3000:]}") from error
            time.sleep(0.1)

    def kill_engine(self) -> None:
        """SIGKILL the engine; its containers go on."""
        self._tell("kill")

    def start_engine(self) -> None:
        """Start the engine again and wait for it."""
        self._tell("start")
        self.wait()

    def kill(self) -> None:
        """The machine loses its power: every process in it dies at once, the disk stays."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.wait()
            assert process.stdin is not None and process.stdout is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
            process.stdout.read()  # ends when the last process of the machine has
            process.stdout.close()
            # The device goes with the other end of the pair, a little later than the processes.
            _ip(f"link delete {self._link}", check=False)
        self._drop_cgroups()

    def close(self) -> None:
        """The machine is gone, its disk too."""
        if self._client is not None:
            self._client.close()
        self.kill()

    def load(self, image: str) -> None:
        """Copy an image of this machine's engine to the host."""
        source = docker.from_env(timeout=300)
        try:
            self.client.images.load(b"".join(source.images.get(image).save(named=True)))
        finally:
            source.close()

    def _tell(self, do: str, **order: object) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **order}) + "\n")
        self._process.stdin.flush()
        self._hear("done")

    def _hear(self, word: str) -> None:
        assert self._process is not None and self._process.stdout is not None
        heard = self._process.stdout.readline().strip()
        assert heard == word, f"host {self.name}: {heard!r} instead of {word!r}; exit code {self._process.poll()}"

    def _drop_cgroups(self) -> None:
        for top in _cgroups(self.cgroup.lstrip("/")):
            _drop(top)


@contextlib.contextmanager
def engines(count: int, *, registry: str = "", images: tuple[str, ...] = ()) -> Iterator[list[EngineHost]]:
    """Hosts `h1`, `h2`, …, ready, with these images; all of it is gone afterwards, also when the test is killed.

    `registry` is an address on this machine's loopback, "127.0.0.1:5000": the hosts reach it under the same name.
    """
    port = int(registry.partition("/")[0].rpartition(":")[2]) if registry else 0
    for top in _cgroups("ops-t*"):
        if testbed.is_over(testbed.owner(top.name)):
            _drop(top)
    own = testbed.folder(testbed.run_id())
    own.mkdir(exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="engines-", dir=own))
    hosts: list[EngineHost] = []
    try:
        block = _free_block()
        for number in range(count):
            folder = root / f"h{number + 1}"
            folder.mkdir()
            base = 4 * number
            made = EngineHost(f"h{number + 1}", folder, f"{block}.{base + 2}", f"{block}.{base + 1}", port)
            hosts.append(made)
            made.boot()
        for host in hosts:
            host.wait()
        for image in images:
            for host in hosts:
                host.load(image)
        yield hosts
    finally:
        for host in hosts:
            host.close()
        shutil.rmtree(root, ignore_errors=True)
        with contextlib.suppress(OSError):  # others of this run may still use it
            own.rmdir()


def _free_block() -> str:
    """First three parts of a range nobody uses on this machine."""
    used = _ip("-oneline -4 address show")
    while True:
        block = f"10.{random.randint(251, 254)}.{random.randint(0, 254)}"
        if f" {block}." not in used:
            return block


def _cgroups(name: str) -> list[Path]:
    """Control groups of this name, in every hierarchy (version 1) and in the only one (version 2)."""
    return [*CGROUPS.glob(f"*/{name}"), *CGROUPS.glob(name)]


def _drop(top: Path) -> None:
    for folder in [*sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True), top]:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _ip(command: str, *, check: bool = True) -> str:
    done = subprocess.run(["ip", *command.split()], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"ip {command}: {done.stderr}"
    return done.stdout
