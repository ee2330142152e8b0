"""The control plane's processes: code server, webserver and daemon, kept running until told to stop.

Runs are not among them. Each is a process of its own (`defs/run_launcher.py`), so stopping or restarting anything
here interrupts no deploy.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ops_pipeline.cli.project import Places, write_aside
from ops_pipeline.errors import Unavailable

SOCKET_PATH_LIMIT = 100
"""Unix socket paths end at 107 bytes; beyond this we use a short temporary folder."""

STOP_SECONDS = 15.0
READY_SECONDS = 120.0
RESTARTS_PER_MINUTE = 4
POLL_SECONDS = 0.25
PR_SET_PDEATHSIG = 1
ABSENT = (0, 0)


@dataclass
class Child:
    """One process and when it was started (monotonic seconds, the last few)."""

    name: str
    command: list[str]
    process: subprocess.Popen[bytes]
    starts: list[float] = field(default_factory=list)


class ControlPlane:
    """Starts, watches and stops the three processes.

    `say` receives one line at a time.
    """

    def __init__(self, places: Places, catalogue: Path, say: Callable[[str], None]) -> None:
        self.places = places
        self.catalogue = catalogue
        self.say = say
        self.children: dict[str, Child] = {}
        self.stopping = False

    def run(self) -> None:
        """Run until SIGTERM or SIGINT. Raise Unavailable when it cannot start or a process keeps failing."""
        self.places.prepare()
        with self._claimed(), self._sockets() as (code_socket, ui_socket):
            workspace = self._workspace(code_socket)
            try:
                self._install_signals()
                begun = time.monotonic()
                self._start("code server", self._code_server(code_socket))
                self._start("webserver", self._webserver(ui_socket, workspace, code_socket))
                self._until(lambda: answers(code_socket), "code server")
                self._start("daemon", [sys.executable, "-m", "dagster._daemon", "run", "-w", str(workspace)])
                self._until(lambda: answers(ui_socket), "webserver")
                if not self.stopping:
                    write_aside(self.places.run / "ready", f"{os.getpid()}\n".encode(), 0o644)
                    self.say(f"ready after {time.monotonic() - begun:.1f} s")
                self._watch(code_socket)
            finally:
                (self.places.run / "ready").unlink(missing_ok=True)
                self._stop_all()

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the children."""
        return {
            **os.environ,
            "DAGSTER_HOME": str(self.places.home),
            "OPS_CATALOGUE": str(self.catalogue.absolute()),
            "OPS_FRONT_DOOR_SECRET_FILE": str(self.places.door / "secret"),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "PYTHONUNBUFFERED": "1",
        }

    def memory(self) -> dict[str, int]:
        """Resident memory in bytes by process, where the system tells (Linux)."""
        return {name: resident_bytes(child.process.pid) for name, child in self.children.items()}

    # -------------------------------------------------------------------------------------------- the processes

    def _code_server(self, code_socket: Path) -> list[str]:
        # Serves its own load error, so that a broken catalogue shows in the UI in its own words.
        module = ["-m", "ops_pipeline.definitions", "-a", "defs", "-d", str(Path(__file__).parents[2])]
        options = ["--socket", str(code_socket), "--lazy-load-user-code", "--location-name", "ops_pipeline"]
        return [sys.executable, "-m", "dagster", "api", "grpc", *module, *options, "--log-level", "warning"]

    def _webserver(self, ui_socket: Path, workspace: Path, code_socket: Path) -> list[str]:
        options = ["--socket", str(ui_socket), "--workspace", str(workspace), "--code-socket", str(code_socket)]
        return [sys.executable, "-m", "ops_pipeline.defs.webserver", *options]

    def _workspace(self, code_socket: Path) -> Path:
        path = self.places.run / "workspace.yaml"
        content = f"load_from:\n  - grpc_server: {{socket: '{code_socket}', location_name: ops_pipeline}}\n"
        write_aside(path, content.encode(), 0o644)
        return path

    def _start(self, name: str, command: list[str]) -> None:
        process = subprocess.Popen(  # noqa: S603
            command,
            cwd=self.places.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            # Their own session: Ctrl-C reaches only this process, which stops them in order.
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        known = self.children.get(name)
        self.children[name] = Child(name, command, process, [*(known.starts if known else []), time.monotonic()])
        write_aside(self.places.run / f"{name.replace(' ', '-')}.pid", f"{process.pid}\n".encode(), 0o644)

    def _watch(self, code_socket: Path) -> None:
        seen = fingerprint(self.catalogue)
        while not self.stopping:
            time.sleep(POLL_SECONDS)
            for child in list(self.children.values()):
                if child.process.poll() is not None and not self.stopping:
                    self._restart(child, f"{child.name} ended with code {child.process.returncode}")
            now = fingerprint(self.catalogue)
            if now not in (seen, ABSENT):
                # Runs are processes of their own: replacing the code server disturbs none.
                seen = now
                self.say("the catalogue has changed: loading it again")
                child = self.children["code server"]
                stop(child.process)
                code_socket.unlink(missing_ok=True)
                child.starts.clear()
                self._start(child.name, child.command)

    def _restart(self, child: Child, why: str) -> None:
        recent = [at for at in child.starts if time.monotonic() - at < 60]
        if len(recent) > RESTARTS_PER_MINUTE:
            raise Unavailable(
                f"{why}, {len(recent)} times within a minute", hint="Its last words are above; fix that, start again."
            )
        self.say(f"{why}: starting it again")
        child.starts = recent
        self._start(child.name, child.command)

    def _until(self, ready: Callable[[], bool], name: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not self.stopping and not ready():
            for child in self.children.values():
                if child.process.poll() is not None:
                    raise Unavailable(f"{child.name} ended with code {child.process.returncode} while starting")
            if time.monotonic() > deadline:
                raise Unavailable(f"{name} does not answer after {READY_SECONDS:.0f} s")
            time.sleep(0.05)

    def _stop_all(self) -> None:
        # The daemon first: it must launch nothing while the others go.
        for name in ("daemon", "webserver", "code server"):
            if name in self.children:
                stop(self.children[name].process)
                (self.places.run / f"{name.replace(' ', '-')}.pid").unlink(missing_ok=True)

    # -------------------------------------------------------------------------------------------- surroundings

    def _install_signals(self) -> None:
        def stop_soon(_signal: int, _frame: object) -> None:
            self.stopping = True

        signal.signal(signal.SIGTERM, stop_soon)
        signal.signal(signal.SIGINT, stop_soon)

    @contextmanager
    def _claimed(self) -> Iterator[None]:
        """Only one control plane per project: two daemons would launch everything twice."""
        path = self.places.run / "serve.pid"
        other = running_pid(path)
        if other is not None:
            raise Unavailable(f"the control plane already runs, as process {other}", hint="Stop it: ops serve --stop")
        path.write_text(f"{os.getpid()}\n")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    @contextmanager
    def _sockets(self) -> Iterator[tuple[Path, Path]]:
        ui_socket = self.places.door / "webserver.sock"
        if len(str(ui_socket)) > SOCKET_PATH_LIMIT:
            # Relative to the webserver's working folder, the project's, it is always short enough.
            ui_socket = ui_socket.relative_to(self.places.root)
        with contextlib.ExitStack() as stack:
            code_socket = self.places.run / "code.sock"
            if len(str(code_socket)) > SOCKET_PATH_LIMIT:
                # Dagster makes the path absolute.
                short = stack.enter_context(tempfile.TemporaryDirectory(prefix="ops-"))
                code_socket = Path(short) / "code.sock"
            os.chdir(self.places.root)
            for path in (code_socket, ui_socket):
                path.unlink(missing_ok=True)
            try:
                yield code_socket, ui_socket
            finally:
                for path in (code_socket, ui_socket):
                    path.unlink(missing_ok=True)


def answers(path: Path) -> bool:
    """Whether somebody listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL after a grace; returns when it has ended."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def die_with_parent() -> None:
    """Linux: end this process when its parent is killed, so that nothing is left behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def running_pid(path: Path) -> int | None:
    """Process id in a pid file, if such a process lives and is ours."""
    try:
        pid = int(path.read_text())
        os.kill(pid, 0)
        command = Path(f"/proc/{pid}/cmdline")
        if command.exists() and b"serve" not in command.read_bytes():
            return None
    except (OSError, ValueError):
        return None
    return pid


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def fingerprint(path: Path) -> tuple[int, int]:
    """Changes when the file does; ABSENT while there is none (an editor may be replacing it)."""
    try:
        status = path.stat()
    except OSError:
        return ABSENT
    return (status.st_mtime_ns, status.st_size)
