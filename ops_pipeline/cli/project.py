"""The project a command works on: its folder, its catalogue, its ledger."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.catalogue.project import project_root
from ops_pipeline.defs.resources import build_platform, catalogue_path, load_catalogue
from ops_pipeline.services.platform import Platform


@dataclass(frozen=True)
class Places:
    """Where the control plane keeps what it needs on this machine. Everything under `.ops/` is git-ignored."""

    root: Path

    @property
    def home(self) -> Path:
        """DAGSTER_HOME: instance configuration, SQLite storage, logs of steps."""
        chosen = os.environ.get("DAGSTER_HOME")
        return Path(chosen).absolute() if chosen else self.root / ".ops" / "dagster"

    @property
    def run(self) -> Path:
        """Process ids, sockets and the front door's secret; readable by the owner only."""
        return self.root / ".ops" / "run"

    @property
    def door(self) -> Path:
        """What the front door's container mounts: the webserver's socket and the secret."""
        return self.run / "ui"

    @property
    def instance_configuration(self) -> Path:
        """dagster.yaml to use: the project's own, else the one that comes with this package's repository."""
        own = self.root / "dagster.yaml"
        return own if own.exists() else Path(__file__).parents[2] / "dagster.yaml"

    def prepare(self) -> None:
        """Make the folders, DAGSTER_HOME and the front door's secret (once per installation). Safe to call again."""
        self.run.mkdir(parents=True, exist_ok=True)
        self.run.chmod(0o700)
        self.door.mkdir(exist_ok=True)
        # The container's user must pass here; everybody else is kept out by the folder above.
        self.door.chmod(0o755)
        secret = self.door / "secret"
        if not secret.exists() or not secret.read_text().strip():
            write_aside(secret, secrets.token_urlsafe(32).encode(), 0o444)
        self.home.mkdir(parents=True, exist_ok=True)
        wanted = self.instance_configuration.read_bytes()
        target = self.home / "dagster.yaml"
        if not target.exists() or target.read_bytes() != wanted:
            write_aside(target, wanted, 0o644)


def write_aside(path: Path, content: bytes, mode: int) -> None:
    """Write a file in one step: a reader sees the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.chmod(mode)
    temporary.replace(path)


class Project:
    """Catalogue and platform, read when first needed, or given from outside (tests, a program around `ops`)."""

    def use(self, *, catalogue: Catalogue, platform: Platform, places: Places) -> None:
        """Work on these instead of what the environment names."""
        self.__dict__.update(catalogue=catalogue, platform=platform, places=places)

    def forget(self) -> None:
        """Read everything afresh when it is needed next."""
        self.__dict__.clear()

    @cached_property
    def catalogue_path(self) -> Path:
        """The catalogue's file."""
        return catalogue_path()

    @cached_property
    def places(self) -> Places:
        """Where things are kept."""
        return Places(project_root(self.catalogue_path))

    @cached_property
    def catalogue(self) -> Catalogue:
        """The catalogue. Raise BadInput naming every problem."""
        return load_catalogue(self.catalogue_path)

    @cached_property
    def platform(self) -> Platform:
        """Ledger and engines, for the commands that only read. Raise BadInput, Unavailable."""
        return build_platform(self.catalogue_path)
