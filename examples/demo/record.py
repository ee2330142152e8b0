"""What the demonstration has shown already, with everything as it is now: `.ops/demo/passed.json`.

An act that passed is not repeated until something it was shown with changes: a version of the project, the catalogue,
the control plane's code, the demonstration's own, or an image of the local stack.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from deploy.setup import stack_images
from examples.demo import project

FILE = project.HOME / "passed.json"
CODE = ("ops_pipeline", "examples/demo", "ops_pipeline_tests/testbed", "requirements.txt", "dagster.yaml")
"""Besides the project and the stack: the control plane, the demonstration, the traffic it makes."""


@dataclass(frozen=True)
class Passed:
    """When an act passed, and how long it took."""

    at: datetime
    seconds: float


class Record:
    """The acts that passed with one state of everything; another state begins an empty record."""

    def __init__(self, file: Path, state: str) -> None:
        """Read it; a file that is missing, damaged or of another state counts as empty."""
        self._file, self._state = file, state
        self._passed: dict[str, Passed] = {}
        self._writing = threading.Lock()
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            if found["state"] == state:
                self._passed = {
                    name: Passed(datetime.fromisoformat(one["at"]), float(one["seconds"]))
                    for name, one in found["passed"].items()
                }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self._passed = {}

    @property
    def passed(self) -> dict[str, Passed]:
        """By the name of the act."""
        return dict(self._passed)

    def note(self, name: str, at: datetime, seconds: float) -> None:
        """This act has passed."""
        with self._writing:
            self._passed[name] = Passed(at, seconds)
            entries = {
                each: {"at": one.at.astimezone(UTC).isoformat(timespec="seconds"), "seconds": round(one.seconds, 1)}
                for each, one in self._passed.items()
            }
            self._file.parent.mkdir(parents=True, exist_ok=True)
            beside = self._file.with_suffix(".new")
            beside.write_text(json.dumps({"state": self._state, "passed": entries}, indent=1), encoding="utf-8")
            beside.replace(self._file)


def state_of_everything() -> str:
    """Changes when anything changes that an act was shown with."""
    parts = [repr(sys.version_info[:3]), project.fingerprint(), *sorted(stack_images.tags().values())]
    return hashlib.sha256("\0".join([*parts, digest_of(project.REPOSITORY, CODE)]).encode()).hexdigest()


def digest_of(root: Path, names: Iterable[str]) -> str:
    """Hash over these files and folders: paths below `root` and content; no byte code."""
    digest = hashlib.sha256()
    for name in names:
        top = root / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
