"""Scans images with Trivy. Whatever goes wrong is «could not scan», never a clean report."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from ops_pipeline.adapters.process import CommandError, CommandTimedOut, run
from ops_pipeline.adapters.registry import (
    DOCKER_HUB,
    DOCKER_HUB_CREDENTIALS,
    Credentials,
    environment_credentials,
    split_repository,
)
from ops_pipeline.adapters.trivy_database import NOTHING_DOWNLOADED, ReadyDatabase, TrivyDatabase, find_trivy, locked
from ops_pipeline.catalogue.model import ScanSettings
from ops_pipeline.core.image import ImageRef
from ops_pipeline.core.scan import SEVERITIES, DatabaseInfo, Finding, ScanReport
from ops_pipeline.errors import Unavailable
from ops_pipeline.ports import Progress, Scanner

TIMEOUT_SECONDS = 600.0
_SCHEMA = 2
_TITLE_LENGTH = 300
_LAST_WORDS = 600
_MARGIN_SECONDS = 2.0  # Trivy ends by itself at its time-out, and is killed when it does not


class TrivyScanner(Scanner):
    """Reads images straight from the registry, by digest. `timeout` in seconds is for one run of Trivy.

    `settings` is the catalogue's `scan`, its paths relative to `root`. `trivy` names the program (default: beside
    this Python, else on PATH). `insecure` allows plain HTTP to a registry that is not on loopback; `offline` never
    looks for a newer database. `now` gives the report its date. Trivy reads Docker's own credentials by itself;
    `credentials` gives others, which come first.
    """

    def __init__(
        self,
        settings: ScanSettings,
        root: Path,
        *,
        trivy: str | None = None,
        insecure: bool = False,
        offline: bool = False,
        timeout: float = TIMEOUT_SECONDS,
        credentials: Callable[[], Credentials | None] = environment_credentials,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = TrivyDatabase(
            root / settings.cache_directory,
            mirror=settings.database_mirror,
            sample=root / settings.sample_database if settings.sample_database else None,
            trivy=trivy,
            insecure=insecure,
            offline=offline,
        )
        self._configured = trivy
        self._insecure = insecure
        self._timeout = timeout
        self._credentials = credentials
        self._now = now

    def scan(self, image: ImageRef, progress: Progress) -> ScanReport:
        """Vulnerabilities and secrets of exactly this digest. Raise Unavailable («could not scan …»)."""
        database = self._database.ensure(progress)
        output = self._run(
            image,
            database,
            progress,
            "--format=json",
            "--scanners=vuln,secret",
            "--image-config-scanners=secret",
            "--list-all-pkgs",
        )
        return parse_report(output, image, scanned_at=self._now(), database=database.info)

    def sbom(self, image: ImageRef, progress: Progress) -> bytes:
        """CycloneDX JSON document of exactly this digest. Raise Unavailable."""
        # Same cache as the scan: the layers it has just analysed are not read again.
        return parse_sbom(self._run(image, self._database.ensure(progress), progress, "--format=cyclonedx"), image)

    @cached_property
    def _trivy(self) -> str:
        return find_trivy(self._configured)

    def _run(self, image: ImageRef, database: ReadyDatabase, progress: Progress, *options: str) -> bytes:
        argv = [
            self._trivy,
            "image",
            "--image-src=remote",
            f"--cache-dir={database.cache}",
            "--quiet",
            "--no-progress",
            "--skip-db-update",
            "--offline-scan",
            *NOTHING_DOWNLOADED,
            f"--timeout={self._timeout:.0f}s",
            *(["--insecure"] if self._insecure else []),
            *options,
            str(image),
        ]
        with locked(database.cache, self._timeout, progress), self._login(image) as login:
            try:
                # Run in the cache folder, without the surroundings' TRIVY_… variables: a .trivyignore or trivy.yaml
                # lying about must not hide findings. What may pass is the policy's decision, by waivers with an end.
                done = run(
                    argv, timeout=self._timeout + _MARGIN_SECONDS, cwd=str(database.cache), env={**_neutral(), **login}
                )
            except CommandTimedOut as error:
                raise Unavailable(f"could not scan {image}: Trivy did not end within {self._timeout:g} s") from error
            except CommandError as error:
                raise Unavailable(
                    f"could not scan {image}: {_last_words(error)}",
                    hint="Is the registry up, and does it have this digest? A damaged cache can be removed: "
                    f"{database.cache.name} in scan.cache_directory of the catalogue.",
                ) from error
        return done.stdout

    @contextlib.contextmanager
    def _login(self, image: ImageRef) -> Iterator[dict[str, str]]:
        """Environment that lets Trivy log in, through a Docker configuration of its own while it runs.

        TRIVY_PASSWORD would not do: Trivy splits it at blanks and commas.
        """
        credentials = self._credentials()
        if credentials is None:
            yield {}
            return
        host = split_repository(image.repository)[0]
        token = base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()
        with tempfile.TemporaryDirectory(prefix="ops-scan-") as folder:  # mode 0700
            key = DOCKER_HUB_CREDENTIALS if host == DOCKER_HUB else host
            (Path(folder) / "config.json").write_text(json.dumps({"auths": {key: {"auth": token}}}))
            yield {"DOCKER_CONFIG": folder}


def parse_report(output: bytes, image: ImageRef, *, scanned_at: datetime, database: DatabaseInfo) -> ScanReport:
    """Given Trivy's JSON about `image`, return the report.

    Strict: raise Unavailable when it is not a complete report about exactly this digest.
    """
    document = _document(output, image)
    try:
        if document["SchemaVersion"] != _SCHEMA:
            raise ValueError(f"its report has version {document['SchemaVersion']}, this program reads {_SCHEMA}")
        metadata: dict[str, Any] = document["Metadata"]
        _check_subject(document, metadata, image)
        findings: list[Finding] = []
        packages = 0
        for result in document.get("Results") or ():
            packages += len(result.get("Packages") or ())
            findings += [_vulnerability(result, entry) for entry in result.get("Vulnerabilities") or ()]
            findings += [_secret(result, entry) for entry in result.get("Secrets") or ()]
        notes = _notes(metadata, packages)
        scanner = f"trivy {document['Trivy']['Version']}"
    except (KeyError, TypeError, AttributeError) as error:
        raise Unavailable(f"could not scan {image}: Trivy's report is incomplete ({error!r})") from error
    except ValueError as error:
        raise Unavailable(f"could not scan {image}: {error}") from error
    return ScanReport(image.digest, scanner, scanned_at, database, tuple(dict.fromkeys(findings)), notes=notes)


def parse_sbom(output: bytes, image: ImageRef) -> bytes:
    """Check that `output` is a CycloneDX document about `image` and return it. Raise Unavailable."""
    document = _document(output, image)
    subject = json.dumps((document.get("metadata") or {}).get("component") or {})
    if document.get("bomFormat") != "CycloneDX" or not isinstance(document.get("components"), list):
        raise Unavailable(f"could not list the contents of {image}: Trivy did not write a CycloneDX document")
    if image.digest not in subject:
        raise Unavailable(f"could not list the contents of {image}: Trivy's document is about another image")
    return output


def _document(output: bytes, image: ImageRef) -> dict[str, Any]:
    try:
        document = json.loads(output)
    except ValueError as error:
        start = output[:80].decode("utf-8", "replace")
        raise Unavailable(f"could not scan {image}: Trivy's output is not JSON ({start!r})") from error
    if not isinstance(document, dict):
        raise Unavailable(f"could not scan {image}: Trivy's output is not a report")
    return document


def _check_subject(document: Mapping[str, Any], metadata: Mapping[str, Any], image: ImageRef) -> None:
    digests = [str(entry).rpartition("@")[2] for entry in metadata["RepoDigests"]]
    if document["ArtifactName"] != str(image) or image.digest not in digests:
        raise ValueError(f"Trivy's report is about {document['ArtifactName']} {' '.join(digests)}".rstrip())
    if document["ArtifactType"] != "container_image":
        raise ValueError(f"Trivy's report is about a {document['ArtifactType']}, not an image")


def _vulnerability(result: Mapping[str, Any], entry: Mapping[str, Any]) -> Finding:
    return Finding(
        kind="vulnerability",
        id=_text(entry, "VulnerabilityID"),
        severity=_severity(entry),
        package=_text(entry, "PkgName"),
        installed=str(entry.get("InstalledVersion", "")),
        fixed=str(entry.get("FixedVersion", "")),
        title=str(entry.get("Title", ""))[:_TITLE_LENGTH],
        target=str(entry.get("PkgPath") or result["Target"]),
        url=str(entry.get("PrimaryURL", "")),
    )


def _secret(result: Mapping[str, Any], entry: Mapping[str, Any]) -> Finding:
    # Trivy's `Match` and `Code` show the lines around the secret: they are left out on purpose.
    return Finding(
        kind="secret",
        id=_text(entry, "RuleID"),
        severity=_severity(entry),
        package=str(result["Target"]),
        title=str(entry.get("Title", ""))[:_TITLE_LENGTH],
        target=f"line {entry['StartLine']}" if entry.get("StartLine") else "",
    )


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry[name]
    if not isinstance(value, str) or not value:
        raise ValueError(f"Trivy's report has a finding without {name}")
    return value


def _severity(entry: Mapping[str, Any]) -> str:
    severity = str(entry.get("Severity") or "UNKNOWN")
    if severity not in SEVERITIES:
        raise ValueError(f"Trivy's report has a finding of unknown severity {severity!r}")
    return severity


def _notes(metadata: Mapping[str, Any], packages: int) -> tuple[str, ...]:
    notes: list[str] = []
    system = metadata.get("OS") or {}
    if system.get("EOSL"):
        name = f"{system.get('Family', '')} {system.get('Name', '')}".strip()
        notes.append(f"{name} is no longer supported by its makers: its vulnerabilities may be missing here")
    if not packages:
        notes.append("the scanner recognised no packages in this image: vulnerabilities of what is in it stay unseen")
    return tuple(notes)


def _last_words(error: CommandError) -> str:
    lines = [line for line in error.stderr_tail.splitlines() if line.strip()]
    fatal = next((number for number, line in enumerate(lines) if "FATAL" in line), max(0, len(lines) - 3))
    # Trivy puts the cause last, after the chain of what it led to, on lines of its own.
    words = " ".join(" ".join(lines[fatal:]).split()) or error.message
    shown = words if len(words) <= _LAST_WORDS else f"{words[: _LAST_WORDS // 4]} … {words[-3 * _LAST_WORDS // 4 :]}"
    return f"Trivy ended with code {error.returncode}: {shown}" if error.returncode is not None else shown


def _neutral() -> dict[str, str]:
    return {name: "" for name in os.environ if name.startswith("TRIVY_")}
