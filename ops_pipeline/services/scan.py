"""Scans an image and keeps the report, bound to its digest, in the ledger."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ops_pipeline.core.image import Image
from ops_pipeline.core.scan import Finding, ScanReport
from ops_pipeline.core.scan_policy import by_severity, difference
from ops_pipeline.errors import Unavailable
from ops_pipeline.ports import Progress
from ops_pipeline.services.images import find_sbom, previous_scan, record_sbom, record_scan
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried


@dataclass(frozen=True)
class ScanOutcome:
    """The report, where it is kept, and what changed since the previous image of the service."""

    report: ScanReport
    report_key: str
    new: tuple[Finding, ...] = ()
    gone: tuple[Finding, ...] = ()
    compared: bool = False  # False: there was no report about a previous image


def scan_image(platform: Platform, service: str, image: Image, *, progress: Progress) -> ScanOutcome:
    """Scan exactly `image.ref` and record the report.

    Raise Unavailable («could not scan …») when the scanner or its database is missing or broken: nothing is recorded
    then, and the gates refuse as before.
    """
    progress(f"scanning {service} {image.version} ({image.ref.short}) for vulnerabilities and secrets")
    what = f"scan {image.ref}"
    report = retried(platform.clock, what, lambda: platform.scanner.scan(image.ref, progress), progress=progress)
    if report.digest != image.ref.digest:
        raise Unavailable(f"could not scan {image.ref}: the report is about {report.digest}")
    report = replace(
        report, findings=by_severity(report.findings), sbom_key=find_sbom(platform.store, image.ref.digest)
    )
    before = previous_scan(platform.store, image)
    key = record_scan(platform.store, report)
    changed = difference(before, report)
    progress(_summary(report))
    if before is not None:
        progress(f"since the previous image: {len(changed.new)} new, {len(changed.gone)} gone")
    if report.database.sample:
        progress("WARNING: scanned with the SAMPLE database, which knows only a few vulnerabilities")
    return ScanOutcome(report, key, changed.new, changed.gone, before is not None)


def make_sbom(platform: Platform, image: Image, *, progress: Progress) -> str:
    """Record the CycloneDX bill of materials of `image.ref` and return its store key. Raise Unavailable."""
    progress(f"listing what {image.service} {image.version} ({image.ref.short}) is made of")
    what = f"list the contents of {image.ref}"
    document = retried(platform.clock, what, lambda: platform.scanner.sbom(image.ref, progress), progress=progress)
    return record_sbom(platform.store, image.ref.digest, document)


def _summary(report: ScanReport) -> str:
    counts = report.counts()
    found = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    fixable = sum(bool(finding.fixed) for finding in report.findings)
    return f"found {found}; a fixed version exists for {fixable}" if found else "found nothing known to be wrong"
