"""What `ops catalogue check` says: everything `load` refuses, plus what the files and this machine lack."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from ops_pipeline.catalogue.backup_findings import backup_references, overlapping_folders
from ops_pipeline.catalogue.consistency import Finding, warnings
from ops_pipeline.catalogue.load import place, problems_of, read
from ops_pipeline.catalogue.model import BuildSettings, Catalogue
from ops_pipeline.catalogue.project import project_root
from ops_pipeline.errors import Problem

_FROM = re.compile(r"(?im)^[ \t]*FROM[ \t]+(?:--platform=\S+[ \t]+)?\S+(?:[ \t]+AS[ \t]+(\S+))?")


@dataclass(frozen=True)
class CheckReport:
    """`problems` make the catalogue unusable; `warnings` may not be meant. `catalogue` is None when it has no shape."""

    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    catalogue: Catalogue | None

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems


def check(path: Path, *, root: Path | None = None, today: date | None = None) -> CheckReport:
    """Given the catalogue's path, say everything wrong with it and what it refers to. Reads no secret; never raises.

    `root` is the project folder (default: `project_root`), `today` the day that waivers are judged by (UTC).
    """
    document, catalogue = read(path)
    warned: list[Finding] = []
    if catalogue is not None:
        folder = root or project_root(path)
        for finding in _files(catalogue, folder):
            document.add(finding.path, finding.text)
        warned += warnings(catalogue, today or datetime.now(UTC).date())
        warned += _secrets(catalogue, folder)
    found = sorted(((document.line(finding.path), finding) for finding in warned), key=lambda pair: pair[0])
    return CheckReport(
        problems=problems_of(path, document),
        warnings=tuple(Problem(place(path, line, finding.path), finding.text) for line, finding in found),
        catalogue=catalogue,
    )


def schema() -> dict[str, Any]:
    """JSON Schema of the catalogue, for editors (`deploy/services.schema.json`)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Catalogue.model_json_schema()}


def _files(catalogue: Catalogue, root: Path) -> Iterator[Finding]:
    for name, service in catalogue.services.items():
        yield from _build(name, service.build, root)
    if catalogue.store.directory is not None and (root / catalogue.store.directory).is_file():
        yield Finding(("store", "directory"), f"{root / catalogue.store.directory} is a file, not a folder")
    backups = catalogue.backups.store.directory
    if backups is not None and (root / backups).is_file():
        yield Finding(("backups", "store", "directory"), f"{root / backups} is a file, not a folder")
    for found in overlapping_folders(catalogue, str(root)):
        yield Finding(*found)
    sample = catalogue.scan.sample_database
    if sample is not None and not (root / sample).is_dir():
        yield Finding(("scan", "sample_database"), f"there is no folder {root / sample}")


def _build(name: str, build: BuildSettings, root: Path) -> Iterator[Finding]:
    where = ("services", name, "build")
    context = root / build.context
    if not context.is_dir():
        yield Finding((*where, "context"), f"there is no folder {context}")
        return
    dockerfile = context / build.dockerfile
    try:
        stages = {str(stage).lower() for stage in _FROM.findall(dockerfile.read_text(encoding="utf-8"))}
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is not text"
        yield Finding((*where, "dockerfile"), f"cannot read {dockerfile}: {reason}")
        return
    if build.target is not None and build.target.lower() not in stages and not build.target.isdigit():
        yield Finding((*where, "target"), f"{dockerfile} has no stage `{build.target}`")
    test = build.test_target
    if test is not None and test.lower() not in stages:
        text = f"{dockerfile} has no stage `{test}`; set `test_target: null` if there are no tests"
        yield Finding((*where, "test_target"), text)


def _secrets(catalogue: Catalogue, root: Path) -> Iterator[Finding]:
    """What would stop a deploy from this machine; a warning, because deploys may be run from another."""
    for path, reference in (*_references(catalogue), *backup_references(catalogue)):
        for text in reference_warnings(root, reference):
            yield Finding(path, text)
    recipients = catalogue.backups.recipients_file
    needed = any(environment.backup is not None for environment in catalogue.environments.values())
    if needed and recipients is not None and not (root / recipients).is_file():
        text = f"there is no file {root / recipients}: no backup can be taken here; `ops backup keys` makes a pair"
        yield Finding(("backups", "recipients_file"), text)


def _references(catalogue: Catalogue) -> Iterator[tuple[tuple[str, ...], str]]:
    if catalogue.store.azure is not None:
        for key in ("connection_string", "sas_url"):
            if reference := getattr(catalogue.store.azure, key):
                yield ("store", "azure", key), reference
    for name, service in catalogue.services.items():
        for secret, reference in service.build.secrets.items():
            yield ("services", name, "build", "secrets", secret), reference
        for secret, reference in service.secrets.items():
            yield ("services", name, "secrets", secret), reference
    for name, environment in catalogue.environments.items():
        for service_name, override in environment.services.items():
            for secret, reference in override.secrets.items():
                yield ("environments", name, "services", service_name, "secrets", secret), reference


def reference_warnings(root: Path, reference: str) -> tuple[str, ...]:
    """What is wrong with a secret reference on this machine, without reading the secret."""
    kind, _, name = reference.partition(":")
    if kind == "env":
        return () if os.environ.get(name) else (f"{reference}: this variable is not set here",)
    path = root / name
    try:
        status = path.stat()
        folder = path.parent.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        return (f"{reference}: {path}: {reason}",)
    if not path.is_file():
        return (f"{reference}: {path} is not a file",)
    if status.st_mode & 0o004 and folder.st_mode & 0o001:
        return (f"{reference}: every user of this machine can read {path}; chmod 600 it",)
    return ()
