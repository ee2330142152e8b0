"""`make down`: stop and remove what the demo started, say what is kept; `make purge` removes that as well."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from deploy.setup import docker_cli, engine, inventory, processes
from deploy.setup.commands import ROOT, STATE, say
from deploy.setup.inventory import Thing
from deploy.setup.venv import VENV

LABEL = "ops.demo"
CHECKOUT = hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
"""Tells this checkout's demo from another checkout's."""

KEPT_VOLUMES = ("registry",)
"""The ledger names images by digest: what it names stays in the registry."""

PROJECT = "com.docker.compose.project"
IMAGE_LABEL = "ops.stack-image"


def control_plane() -> list[int]:
    """Processes of this folder's control planes: those the pid files name, and runs, which live on their own."""
    recorded: list[int] = []
    for pattern in ("run/*.pid", "demo/*/.ops/run/*.pid", "demo/*.pid"):
        for path in STATE.glob(pattern):
            word = path.read_text(encoding="utf-8").split()[:1]
            if word and word[0].isdigit():
                recorded.append(int(word[0]))
    above = {os.getpid()}
    pid: int | None = os.getpid()
    while pid and pid > 1:
        pid = processes.parent(pid)
        above.add(pid or 0)
    runs = [pid for pid in processes.all_pids() if _below_state(processes.environment(pid).get("DAGSTER_HOME", ""))]
    return sorted({pid for pid in (*recorded, *runs) if pid not in above and _is_ours(pid)})


def _below_state(folder: str) -> bool:
    return bool(folder) and Path(folder).is_relative_to(STATE)


def _is_ours(pid: int) -> bool:
    """A Python of our virtual environment; never a shell that merely has our variables."""
    try:
        folder = Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return False
    return any((folder / word).is_relative_to(VENV / "bin") for word in processes.command(pid).split()[:2])


def demo_things() -> list[Thing]:
    """What this checkout's demo has in the engine: labelled, connected to what is, or of the same compose project."""
    found = inventory.everything(IMAGE_LABEL)
    ours = [each for each in found if each.kind != "image" and each.labels.get(LABEL) == CHECKOUT]
    names = {each.name for each in ours if each.kind == "network"}
    ours += [each for each in found if each.kind == "container" and each not in ours and names & set(each.networks)]
    used = {name for each in ours for name in each.volumes}
    ours += [each for each in found if each.kind == "volume" and each not in ours and each.name in used]
    projects = {each.labels[PROJECT] for each in ours if PROJECT in each.labels}
    ours += [
        each for each in found if each.kind != "image" and each not in ours and each.labels.get(PROJECT) in projects
    ]
    return ours


def _is_kept(each: Thing) -> bool:
    return each.kind == "volume" and each.labels.get("com.docker.compose.volume") in KEPT_VOLUMES


def down(*, purge: bool = False) -> None:
    """Stop processes, remove containers, networks and volumes, stop the engine if it was started here."""
    left = control_plane()
    processes.end(left, grace=20)
    say("down", f"{len(left)} processes of the control plane stopped")
    if engine.answers() is not None:
        everything = demo_things()
        going = [each for each in everything if purge or not _is_kept(each)]
        inventory.remove(going)
        for kind in ("container", "network", "volume"):
            names = sorted(each.name for each in going if each.kind == kind)
            say("down", f"{len(names)} {kind}s removed" + (f": {', '.join(names)}" if names else ""))
        if purge:
            images = inventory.images(IMAGE_LABEL)
            inventory.remove(images)
            say("down", f"{len(images)} stack images removed")
        else:
            _tell_kept(everything)
    elif docker_cli.docker() is not None:
        say("down", "no Docker Engine answers, so there is nothing to remove from it")
    say("down", engine.stop_if_ours())
    if purge:
        for folder in (VENV, STATE):
            shutil.rmtree(folder, ignore_errors=True)
        say("down", ".venv and .ops removed; packages that apt-get installed stay")


def _tell_kept(everything: list[Thing]) -> None:
    volumes = [each.name for each in everything if _is_kept(each)]
    images = len(inventory.images(IMAGE_LABEL))
    lines = [
        "  .ops               ledger, Dagster history, logs, the demo's own project",
        "  .venv              the virtual environment",
        f"  images             {images} stack images, the base image, what was built of the application, build cache",
    ]
    if volumes:
        lines.append(f"  volume             {', '.join(volumes)}: the images the ledger names")
    lines.append("remove .ops, .venv, the stack's images and that volume too:  make purge")
    say("down", "kept, so that the next `make demo` is quick:\n" + "\n".join(lines))
