"""Scan reports, waivers and policy: the words of the vulnerability gate."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime

SEVERITIES = ("CRITICAL", "HIGH", "MEDIUM", "LOW", "UNKNOWN")


@dataclass(frozen=True)
class Finding:
    """One vulnerability or secret in an image."""

    kind: str  # "vulnerability" | "secret"
    id: str  # CVE-…, GHSA-…, or the secret rule's id
    severity: str  # one of SEVERITIES
    package: str  # package name; for a secret the file's path
    installed: str = ""
    fixed: str = ""  # "" = no fixed version known
    title: str = ""
    target: str = ""  # layer or file Trivy names
    url: str = ""


@dataclass(frozen=True)
class DatabaseInfo:
    """Which vulnerability database a report rests on."""

    updated_at: datetime
    sample: bool  # True: the repository's small sample, never good enough for production
    source: str = ""  # mirror or "sample"


@dataclass(frozen=True)
class ScanReport:
    """A scanner's answer about one digest (`scans/<digest hex>/<timestamp>.json`; the newest one counts)."""

    digest: str
    scanner: str  # "trivy 0.76.0"
    scanned_at: datetime
    database: DatabaseInfo
    findings: tuple[Finding, ...]
    sbom_key: str = ""  # store key of the CycloneDX document
    notes: tuple[str, ...] = ()  # what the scanner could not see, one sentence each; becomes warnings of the verdict

    def counts(self) -> dict[str, int]:
        """Vulnerabilities by severity, every severity present, plus `SECRETS`."""
        counts = dict.fromkeys(SEVERITIES, 0)
        for finding in self.findings:
            if finding.kind == "vulnerability":
                counts[finding.severity] += 1
        counts["SECRETS"] = sum(finding.kind == "secret" for finding in self.findings)
        return counts


@dataclass(frozen=True)
class Waiver:
    """A risk accepted by a named person until a date. After `expires` (inclusive) it blocks again, and says so."""

    id: str
    reason: str
    owner: str
    expires: date
    package: str = ""  # "" = whatever package carries the id


@dataclass(frozen=True)
class ScanPolicy:
    """What blocks an image from an environment."""

    severities: tuple[str, ...] = ("CRITICAL", "HIGH")
    only_with_fix: bool = True
    block_secrets: bool = True
    waivers: tuple[Waiver, ...] = ()
    allow_sample_database: bool = False
    max_database_age_hours: float | None = None
    max_report_age_hours: float | None = None


@dataclass(frozen=True)
class ScanVerdict:
    """Whether a digest may be deployed, with every reason in words. `allowed` is False without a report."""

    allowed: bool
    reasons: tuple[str, ...] = ()  # why not (empty when allowed)
    warnings: tuple[str, ...] = ()  # sample database, waivers about to expire, …
    blocking: tuple[Finding, ...] = ()
    waived: tuple[Finding, ...] = field(default=())
