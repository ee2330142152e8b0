"""The scan part of the gate: the ledger's newest report about a digest, judged by an environment's policy, now."""

from __future__ import annotations

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.core.scan import ScanPolicy, ScanVerdict, Waiver
from ops_pipeline.core.scan_policy import judge
from ops_pipeline.services.images import latest_scan
from ops_pipeline.services.platform import Platform


def scan_verdict(platform: Platform, environment: str, digest: str) -> ScanVerdict:
    """Whether `digest` may enter `environment`, read from the ledger afresh. Raise StoreDamaged, Transient."""
    found = latest_scan(platform.store, digest)
    report = found[1] if found else None
    return judge(digest, report, scan_policy(platform.catalogue, environment), platform.clock.now())


def scan_policy(catalogue: Catalogue, environment: str) -> ScanPolicy:
    """The catalogue's scan settings with the environment's own demands over them."""
    settings, demands = catalogue.scan, catalogue.environments[environment].policy
    return ScanPolicy(
        severities=demands.severities if demands.severities is not None else settings.severities,
        only_with_fix=settings.only_with_fix,
        block_secrets=settings.block_secrets,
        waivers=_waivers(catalogue),
        allow_sample_database=demands.allow_sample_database,
        max_database_age_hours=demands.max_database_age_hours,
        max_report_age_hours=demands.max_scan_age_hours,
    )


def _waivers(catalogue: Catalogue) -> tuple[Waiver, ...]:
    return tuple(
        Waiver(entry.id, entry.reason, entry.owner, entry.expires, entry.package) for entry in catalogue.scan.waivers
    )
