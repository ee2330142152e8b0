"""The Docker Engine: used when one answers, installed and started where we may, otherwise explained.

What we started is recorded in `.ops/run/engine.json`; only that is ever stopped again.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path

from deploy.setup import debian, docker_cli, processes
from deploy.setup.commands import LOG, RUN, SetupError, execute, output, say, step, tail

RECORD = RUN / "engine.json"
SOCKET = Path("/var/run/docker.sock")
BY_HAND = """\
  Debian or Ubuntu:  sudo apt-get install docker.io iptables && sudo systemctl start docker
                     sudo usermod -aG docker "$USER"   # then log in again
  elsewhere:         install Docker Engine or Docker Desktop, start it
  then check:        docker version"""


def answers() -> str | None:
    """Version of the engine that answers, or None."""
    cli = docker_cli.docker()
    if cli is None:
        return None
    text = output([cli.path, "version", "--format", "{{.Server.Version}}"], timeout=15)
    return text.strip() if text and text.strip() else None


def ensure() -> bool:
    """Make an engine answer. Return whether this call started it. Raise SetupError with what to run."""
    version = answers()
    if version is not None:
        cli = docker_cli.need_docker()
        how = {"buildx": "BuildKit (buildx)", "integrated": "BuildKit", "": "the legacy builder"}[cli.buildkit]
        say("engine", f"Docker Engine {version} answers; {cli.path} {cli.version} builds with {how}")
        return False
    # For an engine of one's own beside another. Never with `--bridge none`: that removes the other one's docker0.
    extra = shlex.split(os.environ.get("OPS_DOCKERD_ARGS", ""))
    if os.environ.get("DOCKER_HOST") and not extra:
        raise SetupError(
            f"DOCKER_HOST is {os.environ['DOCKER_HOST']} and no engine answers there: start it, or unset DOCKER_HOST"
        )
    if SOCKET.is_socket() and not os.access(SOCKET, os.W_OK):
        raise SetupError(
            f"this user may not use the Docker Engine ({SOCKET}), and nothing was changed. Run:\n{BY_HAND}"
        )
    if not debian.can_install():
        raise SetupError(f"no Docker Engine answers, and nothing was changed. Run:\n{BY_HAND}")
    if shutil.which("dockerd") is None or docker_cli.docker() is None:
        # With what is needed next: one call of apt-get takes less time than two.
        compose = [] if docker_cli.compose() else [docker_cli.compose_package()]
        debian.install("engine", ["docker.io", "iptables", *compose], "no Docker Engine answers", otherwise=BY_HAND)
        docker_cli.docker.cache_clear()
        docker_cli.compose.cache_clear()
    RUN.mkdir(parents=True, exist_ok=True)
    with step("engine", "starting the Docker Engine (it was not running)"):
        if Path("/run/systemd/system").is_dir() and not extra:
            execute(["systemctl", "start", "docker"], log="systemctl", timeout=120)
            RECORD.write_text(json.dumps({"how": "systemd"}) + "\n", encoding="utf-8")
            _wait(None)
        else:
            _wait(_start_by_hand(extra))
    say("engine", f"Docker Engine {answers()} answers")
    return True


def _start_by_hand(extra: list[str]) -> int:
    """Start dockerd as nobody's child, so that it and its containers outlive us, and return its process id."""
    LOG.mkdir(parents=True, exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if key not in ("DOCKER_HOST", "OPS_TESTBED")}
    environment["PATH"] = environment.get("PATH", "") + ":/usr/sbin:/sbin"
    script = 'log=$1; shift; setsid "$@" >"$log" 2>&1 </dev/null & echo $!'
    argv = ["sh", "-c", script, "sh", str(LOG / "dockerd.log"), "dockerd", *extra]
    done = subprocess.run(argv, env=environment, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    pid = int(done.stdout)
    record = {"how": "dockerd", "pid": pid, "start": processes.start_time(pid)}
    RECORD.write_text(json.dumps(record) + "\n", encoding="utf-8")
    return pid


def _wait(pid: int | None, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while answers() is None:
        if pid is not None and processes.start_time(pid) is None:
            RECORD.unlink(missing_ok=True)
            raise SetupError(f"dockerd did not start:\n{tail(LOG / 'dockerd.log')}\n{BY_HAND}")
        if time.monotonic() > deadline:
            raise SetupError(f"the Docker Engine was started but does not answer after {seconds:.0f} s\n{BY_HAND}")
        time.sleep(0.3)


def stop_if_ours() -> str:
    """Stop the engine when this clone started it and nobody else's container runs. Return what was done."""
    try:
        record = json.loads(RECORD.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "the Docker Engine was running before and is left as it is"
    cli = docker_cli.docker()
    running = output([cli.path, "ps", "--quiet"]) if cli else None
    if running and running.strip():
        return f"the Docker Engine is left running: {len(running.split())} other containers use it"
    if record["how"] == "systemd":
        execute(["systemctl", "stop", "docker.socket", "docker"], log="systemctl", timeout=120)
    elif processes.start_time(record["pid"]) == record["start"]:
        processes.end([record["pid"]], grace=30)
    RECORD.unlink(missing_ok=True)
    return "the Docker Engine, which we had started, is stopped"
