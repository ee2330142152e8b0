"""Whose is it: ids of test runs, and sweeping up what a run left.

A run's id is made of this machine's boot, the process that runs it and the moment that process began, so anybody can
tell later whether the run still goes on. `run_id()` is the value of OPS_TESTBED when `make test` set it, else an id of
this very process. Tests put `new_id()` (the run's id, a dot, something unique) into the label `ops.testbed`, or into
the name, of every container, network and volume they make; everything on a network that carries it counts as well.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

from deploy.setup import inventory, processes
from deploy.setup.inventory import Thing

LABEL = "ops.testbed"
VARIABLE = "OPS_TESTBED"
_ID = re.compile(r"t([0-9a-f]{6})-([0-9a-z]+)-([0-9a-z]+)")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def _base36(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text or "0"


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        # Process ids mean something only inside one process namespace.
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        boot = space = ""
    return hashlib.sha256(f"{socket.gethostname()} {boot} {space}".encode()).hexdigest()[:6]


def own_id() -> str:
    """Id of a run that is this process: lower-case letters, digits and hyphens, about 20 characters."""
    return f"t{_machine()}-{_base36(os.getpid())}-{_base36(processes.start_time(os.getpid()) or 0)}"


def run_id() -> str:
    """Id of the run this process belongs to."""
    return os.environ.get(VARIABLE) or own_id()


def new_id() -> str:
    """Value for the label `ops.testbed` of one fixture."""
    return f"{run_id()}.{uuid.uuid4().hex[:8]}"


def owner(text: str) -> str:
    """The run id in a label's value or a name; empty when there is none."""
    match = _ID.search(text)
    return match[0] if match else ""


def is_over(identity: str) -> bool:
    """Whether this run was on this machine and its process is gone."""
    match = _ID.fullmatch(identity)
    if match is None or match[1] != _machine():
        return False
    began = processes.start_time(int(match[2], 36))
    return began is None or _base36(began) != match[3]


def things() -> dict[Thing, str]:
    """Everything the engine holds that belongs to a test run, with the run's id ("" when the label names none)."""
    found = inventory.everything(LABEL)
    owners = {each: owner(each.labels.get(LABEL, "")) or owner(each.name) for each in found}
    labelled = {each for each in found if LABEL in each.labels or owners[each]}
    by_network = {each.name: owners[each] for each in labelled if each.kind == "network"}
    by_volume: dict[str, str] = {}
    for each in found:
        if each.kind != "container":
            continue
        via = next((name for name in each.networks if name in by_network), None)
        if each not in labelled and via is not None:
            labelled.add(each)
            owners[each] = by_network[via]
        if each in labelled:
            by_volume |= {name: owners[each] for name in each.volumes}
    for each in found:
        if each.kind == "volume" and each not in labelled and each.name in by_volume:
            labelled.add(each)
            owners[each] = by_volume[each.name]
    return {each: owners[each] for each in found if each in labelled}


def folder(identity: str) -> Path:
    """Temporary folder of a run."""
    return Path(tempfile.gettempdir()) / f"ops-{identity}"


def of_run(wanted: Callable[[str], bool]) -> list[int]:
    """Processes that were started with OPS_TESTBED of such a run."""
    return [
        pid
        for pid in processes.all_pids()
        if pid != os.getpid() and wanted(owner(processes.environment(pid).get(VARIABLE, "")))
    ]


def sweep_dead_runs() -> list[str]:
    """Remove what runs left whose process is gone (killed, so that they could not do it). Return what was removed."""
    removed: list[str] = []
    left = of_run(is_over)
    if left:
        removed += [f"process {pid} {processes.command(pid)[:80]}" for pid in left]
        processes.end(left)
    old = [each for each, identity in things().items() if is_over(identity)]
    removed += [str(each) for each in old]
    inventory.remove(old)
    for path in Path(tempfile.gettempdir()).glob("ops-t*-*-*"):
        if is_over(path.name.removeprefix("ops-")):
            removed.append(f"folder {path}")
            shutil.rmtree(path, ignore_errors=True)
    return removed


def remove(found: Iterable[Thing]) -> None:
    """Remove these things from the engine."""
    inventory.remove(found)
