"""From models to what the UI shows: plottable numbers, tables, links."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import dagster as dg

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.core.hygiene import BrokenRule
from ops_pipeline.core.image import Image, ImageRef
from ops_pipeline.core.release import PhaseTime, Release
from ops_pipeline.core.scan import Finding, ScanVerdict

if TYPE_CHECKING:
    from ops_pipeline.services.build import BuildOutcome
    from ops_pipeline.services.health import HealthReport
    from ops_pipeline.services.platform import Platform
    from ops_pipeline.services.reconcile import ReconcileReport
    from ops_pipeline.services.scan import ScanOutcome

Metadata = dict[str, Any]

MAX_ROWS = 500
"""A table of findings is cut here; the whole report is in the store."""

OWNER = re.compile(r"(team:\w[\w.-]*|[^@\s]+@[^@\s]+\.[^@\s]+)")


def owners(catalogue: Catalogue) -> list[str]:
    """Everybody who owns a service, for assets that all services share; only forms Dagster accepts."""
    named = dict.fromkeys(owner for service in catalogue.services.values() for owner in service.owners)
    return [owner for owner in named if OWNER.fullmatch(owner)]


def manifest_url(catalogue: Catalogue, image: ImageRef) -> str:
    """Where the registry serves the manifest of an image."""
    host, _, path = image.repository.partition("/")
    loopback = host.split(":")[0] in ("127.0.0.1", "localhost")
    scheme = "http" if catalogue.registry.insecure or loopback else "https"
    return f"{scheme}://{host}/v2/{path}/manifests/{image.digest}"


def prometheus_url(catalogue: Catalogue, environment: str, service: str) -> str:
    """A graph of the service's requests by status in the environment, as its edge counted them."""
    expression = (
        f'sum by (code, proxy) (rate(haproxy_backend_http_responses_total{{environment="{environment}",'
        f'proxy=~"{service}_.*"}}[1m]))'
    )
    return f"{catalogue.prometheus.url}/graph?g0.expr={quote(expression)}&g0.tab=0&g0.range_input=1h"


def of_build(catalogue: Catalogue, outcome: BuildOutcome) -> Metadata:
    """What `image` shows."""
    image = outcome.image
    return {
        "digest": image.ref.digest,
        "version": image.version,
        "commit": image.commit,
        "size_mb": round(image.config.size_bytes / 1_000_000, 1),
        "built": not outcome.skipped,
        "reason": outcome.reason,
        "built_at": dg.MetadataValue.timestamp(image.built_at),
        "image": str(image.ref),
        "manifest": dg.MetadataValue.url(manifest_url(catalogue, image.ref)),
        "labels": dg.MetadataValue.json(dict(image.config.labels)),
        **_run(image.run_id, "built_by"),
    }


def of_hygiene(image: Image, broken: Sequence[BrokenRule]) -> Metadata:
    """What `image_hygiene` shows."""
    return {
        "digest": image.ref.digest,
        "size_mb": round(image.config.size_bytes / 1_000_000, 1),
        "user": image.config.user or "root",
        "problems": dg.MetadataValue.md(_bullets(broken) or "none"),
    }


def of_sbom(image: Image, key: str, document: bytes | None) -> Metadata:
    """What `sbom` shows."""
    shown: Metadata = {"digest": image.ref.digest, "version": image.version, "store_key": key}
    if document is not None:
        shown["components"] = len(json.loads(document).get("components", ()))
        shown["size_bytes"] = len(document)
    return shown


def of_scan(catalogue: Catalogue, image: Image, outcome: ScanOutcome, verdicts: Mapping[str, ScanVerdict]) -> Metadata:
    """What `scan_report` shows."""
    report = outcome.report
    shown: Metadata = {}
    if report.database.sample:
        # First of all, so that nobody takes a clean sample for a clean image.
        shown["SAMPLE_DATABASE"] = "Scanned with the small SAMPLE database: clean here does not mean clean."
    return shown | {
        "version": image.version,
        "digest": report.digest,
        **of_verdicts(verdicts),
        **{severity.lower(): count for severity, count in report.counts().items()},
        "new": len(outcome.new),
        "gone": len(outcome.gone),
        "findings": _findings(report.findings),
        "new_since_previous_image": _findings(outcome.new),
        "gone_since_previous_image": _findings(outcome.gone),
        "database_updated_at": dg.MetadataValue.timestamp(report.database.updated_at),
        "scanner": report.scanner,
        "store_key": outcome.report_key,
        "manifest": dg.MetadataValue.url(manifest_url(catalogue, image.ref)),
    }


def of_verdicts(verdicts: Mapping[str, ScanVerdict]) -> Metadata:
    """Verdict of each environment with its reasons."""
    rows = [
        dg.TableRecord(
            {
                "environment": environment,
                "allowed": verdict.allowed,
                "why_not": "; ".join(verdict.reasons),
                "warnings": "; ".join(verdict.warnings),
                "waived": len(verdict.waived),
            }
        )
        for environment, verdict in verdicts.items()
    ]
    blocking = dict.fromkeys(finding for verdict in verdicts.values() for finding in verdict.blocking)
    shown: Metadata = {"verdicts": dg.MetadataValue.table(rows)}
    return {**shown, "blocking": _findings(tuple(blocking))} if blocking else shown


def verdict_sentence(verdicts: Mapping[str, ScanVerdict]) -> str:
    """One sentence about all environments; those that say the same are named together."""
    said: dict[str, list[str]] = {}
    for environment, verdict in verdicts.items():
        words = "allowed" if verdict.allowed else "refused, " + "; ".join(verdict.reasons)
        words += f" ({'; '.join(verdict.warnings)})" if verdict.warnings else ""
        said.setdefault(words, []).append(environment)
    return ". ".join(f"{', '.join(environments)}: {words}" for words, environments in said.items())


def of_release(platform: Platform, release: Release) -> Metadata:
    """What `release` shows."""
    catalogue = platform.catalogue
    image = ImageRef(release.repository, release.digest)
    environment = catalogue.environments[release.environment]
    path = catalogue.services[release.service].route.path
    shown: Metadata = {
        "release": release.number,
        "phase": release.phase.value,
        "version": release.version,
        "url": dg.MetadataValue.url(environment.url.rstrip("/") + path),
        "digest": release.digest,
        "action": release.action.value,
        "who": release.who,
        "why": release.why or "not said",
        "commit": release.commit,
        "pool": release.pool,
        "replicas": len(release.instances),
        **{f"scan_{severity.lower()}": count for severity, count in release.scan_counts.items()},
        "seconds": _seconds(release.phases),
        "phases": _phases(release.phases),
        "instances": dg.MetadataValue.table(
            [
                dg.TableRecord({"host": one.host, "container": one.name, "address": f"{one.address}:{one.port}"})
                for one in release.instances
            ]
        ),
        "manifest": dg.MetadataValue.url(manifest_url(catalogue, image)),
        "prometheus": dg.MetadataValue.url(prometheus_url(catalogue, release.environment, release.service)),
        "ledger": f"releases/{release.environment}/{release.service}/{release.timestamp}/manifest.json",
        **_run(release.run_id, "run"),
    }
    if release.previous is not None:
        shown["standby"] = f"#{release.previous}, kept warm for {environment.standby_minutes:g} minutes"
    if release.backup_set:
        shown["backup_set"] = release.backup_set
    if release.restores is not None:
        shown["restores"] = release.restores
    if release.scan_warnings:
        shown["scan_warnings"] = dg.MetadataValue.md(_bullets(release.scan_warnings))
    return shown


def of_health(report: HealthReport) -> Metadata:
    """What `healthy` shows."""
    return {
        "probes": dg.MetadataValue.table(
            [
                dg.TableRecord({"where": probe.where, "ok": probe.ok, "status": probe.status, "detail": probe.detail})
                for probe in report.probes
            ]
        )
    }


def of_reconcile(reports: Sequence[ReconcileReport]) -> Metadata:
    """What `reconcile` shows."""
    return {
        "services": len(reports),
        "changed": sum(bool(report.actions) for report in reports),
        "actions": dg.MetadataValue.md(
            _bullets(
                f"{report.environment}/{report.service}: {action}" for report in reports for action in report.actions
            )
            or "nothing to do"
        ),
    }


def _findings(findings: Sequence[Finding]) -> dg.TableMetadataValue:
    rows = [
        dg.TableRecord(
            {
                "severity": finding.severity,
                "id": finding.id,
                "package": finding.package,
                "installed": finding.installed,
                "fixed": finding.fixed,
                "kind": finding.kind,
                "title": finding.title,
            }
        )
        for finding in findings[:MAX_ROWS]
    ]
    columns = ("severity", "id", "package", "installed", "fixed", "kind", "title")
    schema = dg.TableSchema(columns=[dg.TableColumn(name=name, type="string") for name in columns])
    return dg.MetadataValue.table(rows, schema=schema)


def _phases(phases: Sequence[PhaseTime]) -> dg.TableMetadataValue:
    columns = ("phase", "at", "seconds", "reason")
    rows = []
    for entered, left in zip(phases, [*phases[1:], None], strict=True):
        seconds = (left.at - entered.at).total_seconds() if left else 0.0
        rows.append(
            dg.TableRecord(
                {
                    "phase": entered.phase.value,
                    "at": _clock(entered.at),
                    "seconds": round(seconds, 3),
                    "reason": entered.reason,
                }
            )
        )
    types = {"seconds": "float"}
    schema = dg.TableSchema(columns=[dg.TableColumn(name=name, type=types.get(name, "string")) for name in columns])
    return dg.MetadataValue.table(rows, schema=schema)


def _seconds(phases: Sequence[PhaseTime]) -> float:
    return round((phases[-1].at - phases[0].at).total_seconds(), 3) if phases else 0.0


def _clock(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"


def _run(run_id: str, name: str) -> Metadata:
    return {name: dg.MetadataValue.dagster_run(run_id)} if run_id else {}


def _bullets(lines: Any) -> str:
    return "\n".join(f"- {line}" for line in lines)
