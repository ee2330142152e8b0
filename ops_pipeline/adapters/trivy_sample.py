"""Writes the repository's small sample of vulnerabilities as a database that Trivy reads."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from yaml import YAMLError, safe_load

from ops_pipeline.adapters import bolt
from ops_pipeline.errors import BadInput, Problem

SOURCE_FILE = "advisories.yaml"
STAMP = "sample.json"
_FORMAT = 2  # raise when what is written from the same source changes
_DEBIAN = "debian 12"
_PIP = "pip::GitHub Security Advisory Pip"
_SEVERITIES = {"UNKNOWN": 0, "LOW": 1, "MEDIUM": 2, "HIGH": 3, "CRITICAL": 4}
_WILL_NOT_FIX = 5  # Trivy's number for this status
_DATA_SOURCES = {
    _DEBIAN: {"ID": "debian", "Name": "Debian Security Tracker (SAMPLE)"},
    _PIP: {"ID": "ghsa", "Name": "GitHub Security Advisory Pip (SAMPLE)"},
}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _PipRange(_Model):
    vulnerable: tuple[str, ...]
    fixed: tuple[str, ...]


class _Vulnerability(_Model):
    id: str
    severity: Literal["UNKNOWN", "LOW", "MEDIUM", "HIGH", "CRITICAL"]
    title: str
    debian: dict[str, str | None] = {}
    pip: dict[str, _PipRange] = {}


class _Source(_Model):
    updated: date
    vulnerabilities: tuple[_Vulnerability, ...]


def write(folder: Path, cache: Path) -> datetime:
    """Make `cache/db` the Trivy database of the sample in `folder`, if it is not already; return its date.

    Raise BadInput naming the file and what is wrong with it.
    """
    file = folder / SOURCE_FILE
    try:
        content = file.read_bytes()
        source = _Source.model_validate(safe_load(content))
    except OSError as error:
        raise BadInput([Problem(str(file), f"cannot be read: {error.strerror}")], subject="sample database") from error
    except YAMLError as error:
        raise BadInput([Problem(str(file), f"is not YAML: {error}")], subject="sample database") from error
    except ValidationError as error:
        problems = [
            Problem(f"{file} {'.'.join(str(part) for part in item['loc'])}", item["msg"])
            for item in error.errors(include_url=False, include_input=False)
        ]
        raise BadInput(problems, subject="sample database") from error
    updated = datetime.combine(source.updated, time(), UTC)
    stamp = json.dumps({"format": _FORMAT, "sha256": hashlib.sha256(content).hexdigest()})
    stamp_file = cache / "db" / STAMP
    if not (stamp_file.is_file() and stamp_file.read_text() == stamp):
        database = cache / "db"
        database.mkdir(parents=True, exist_ok=True)
        stamp_file.unlink(missing_ok=True)
        _replace(database / "trivy.db", bolt.encode(_buckets(source)))
        moment = updated.strftime("%Y-%m-%dT%H:%M:%SZ")
        times = {"NextUpdate": moment, "UpdatedAt": moment, "DownloadedAt": moment}
        _replace(database / "metadata.json", json.dumps({"Version": 2, **times}).encode())
        _replace(stamp_file, stamp.encode())  # last: a half-written database is written again
    return updated


def _buckets(source: _Source) -> bolt.Bucket:
    debian: dict[str, dict[str, bytes]] = {}
    pip: dict[str, dict[str, bytes]] = {}
    details: dict[str, bytes] = {}
    for entry in source.vulnerabilities:
        severity = _SEVERITIES[entry.severity]
        details[entry.id] = _json(
            {
                "Title": entry.title,
                "Severity": entry.severity,
                "VendorSeverity": {"nvd": severity, "ghsa": severity},
            }
        )
        for package, fixed in entry.debian.items():
            debian.setdefault(package, {})[entry.id] = _json(
                {"FixedVersion": fixed} if fixed else {"Status": _WILL_NOT_FIX}
            )
        for package, ranges in entry.pip.items():
            pip.setdefault(package, {})[entry.id] = _json(
                {"VulnerableVersions": ranges.vulnerable, "PatchedVersions": ranges.fixed}
            )
    sources = {bucket: _json(source_) for bucket, source_ in _DATA_SOURCES.items()}
    return {"data-source": sources, "vulnerability": details, _DEBIAN: debian, _PIP: pip}


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _replace(path: Path, data: bytes) -> None:
    scratch = path.with_name(path.name + ".new")
    scratch.write_bytes(data)
    scratch.replace(path)
