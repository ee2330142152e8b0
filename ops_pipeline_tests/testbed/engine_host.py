"""First process of a machine that exists only as namespaces: it runs `dockerd` and collects what is orphaned.

Started by `engines.py` in network, mount and process namespaces of its own; when it ends, every process of the machine
ends, and with them its mounts, bridges and packet filter rules. Told what to do by lines of JSON on standard input and
answers each with one line; the end of its input is the end of the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

CLONE_NEWNET = 0x40000000
OUTER_NETWORK = "OPS_OUTER_NETWORK"
"""Variable with the number of an open file: the network namespace the test itself lives in."""


class Machine:
    """`root` is the machine's folder: Docker's data, its socket and its log."""

    def __init__(self, root: Path, cgroup: str) -> None:
        self.root = root
        self.cgroup = cgroup
        self.dockerd: subprocess.Popen[bytes] | None = None

    def network(self, address: str, gateway: str) -> None:
        for command in (
            "link set lo up",
            f"address add {address}/30 dev eth0",
            "link set eth0 up",
            f"route add default via {gateway}",
        ):
            subprocess.run(["ip", *command.split()], check=True)

    def forward(self, port: int) -> None:
        """Make a loopback port of the outer network, the image registry's, answer here too."""
        import socket

        listener = socket.create_server(("127.0.0.1", port))
        outer = int(os.environ[OUTER_NETWORK])

        def serve() -> None:
            # A network namespace belongs to a thread: this one connects outside, the listener stays inside.
            if ctypes.CDLL(None, use_errno=True).setns(outer, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            asyncio.run(_forward(listener, port))

        threading.Thread(target=serve, daemon=True).start()

    def start(self) -> None:
        """Start `dockerd`. Without its files in /run it would meet the engine of the machine outside."""
        with (self.root / "dockerd.log").open("ab") as log:
            self.dockerd = subprocess.Popen(
                [
                    "dockerd",
                    f"--data-root={self.root}/data",
                    "--exec-root=/run/ops-docker",
                    "--pidfile=/run/ops-docker.pid",
                    f"--host=unix://{self.root}/docker.sock",
                    f"--cgroup-parent={self.cgroup}",
                    "--live-restore",
                    "--log-level=warn",
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                close_fds=True,
            )

    def kill(self) -> None:
        """SIGKILL `dockerd`; containers live on."""
        if self.dockerd is not None:
            self.dockerd.kill()
            deadline = time.monotonic() + 10
            while Path(f"/proc/{self.dockerd.pid}").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            Path("/run/ops-docker.pid").unlink(missing_ok=True)


async def _forward(listener: Any, port: int) -> None:
    at_work: set[Any] = set()  # asyncio itself keeps no hold on them

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 18):
                writer.write(data)
                await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        at_work.add(asyncio.current_task())
        writers = [writer]
        try:
            outer_reader, outer_writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(outer_writer)
            both = [
                asyncio.ensure_future(copy(reader, outer_writer)),
                asyncio.ensure_future(copy(outer_reader, writer)),
            ]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for each in both:
                each.cancel()
        except OSError:
            return
        finally:
            for opened in writers:
                opened.close()
            at_work.discard(asyncio.current_task())

    server = await asyncio.start_server(serve, sock=listener)
    await server.serve_forever()


def _collect() -> None:
    """Wait for the dead: whatever loses its parent becomes a child of the first process."""
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.05)


def main(root: str, cgroup: str) -> None:
    """Do as told until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is for the test, which ends us in order
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"], check=True)
    machine = Machine(Path(root), cgroup)
    print("up", flush=True)
    collecting = False
    for line in sys.stdin:
        order: dict[str, Any] = json.loads(line)
        getattr(machine, order.pop("do"))(**order)
        if machine.dockerd is not None and not collecting:
            collecting = True
            threading.Thread(target=_collect, daemon=True).start()
        print("done", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
