"""The vulnerability gate: (report, policy, now) → verdict, with every reason in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ops_pipeline.core.scan import SEVERITIES, Finding, ScanPolicy, ScanReport, ScanVerdict, Waiver

EXPIRY_WARNING_DAYS = 7
NAMED = 5  # findings named one by one in a sentence; the rest is counted
CLOCK_SKEW = timedelta(minutes=5)


def judge(digest: str, report: ScanReport | None, policy: ScanPolicy, now: datetime) -> ScanVerdict:
    """Return whether `digest` may be deployed under `policy` at `now`.

    A missing report, one about another digest, one too old or from a refused database is never allowed. Waivers
    count up to and including their last day (UTC); one that has expired blocks again and the reason says so.
    """
    if report is None:
        return ScanVerdict(False, (f"no scan report for {digest}",))
    if report.digest != digest:
        return ScanVerdict(False, (f"the scan report is about {report.digest}, not about {digest}",))
    reasons, warnings = _report_trust(report, policy, now)
    warnings += report.notes
    blocking: list[Finding] = []
    waived: list[Finding] = []
    expired: dict[Waiver, None] = {}
    for finding in report.findings:
        if not _blocks(finding, policy):
            continue
        matching = [waiver for waiver in policy.waivers if _covers(waiver, finding)]
        if any(waiver.expires >= now.date() for waiver in matching):
            waived.append(finding)
            continue
        blocking.append(finding)
        expired.update(dict.fromkeys(matching))
    reasons += _blocking_words(blocking)
    reasons += tuple(
        f"the waiver for {_waiver_name(waiver)} expired on {waiver.expires} (owner {waiver.owner}: {waiver.reason})"
        for waiver in expired
    )
    warnings += _waiver_warnings(policy.waivers, report.findings, now)
    return ScanVerdict(not reasons, reasons, warnings, tuple(blocking), tuple(waived))


@dataclass(frozen=True)
class Difference:
    """What changed between two reports. Findings count as the same while kind, id and package are."""

    new: tuple[Finding, ...] = ()
    gone: tuple[Finding, ...] = ()


def difference(before: ScanReport | None, after: ScanReport) -> Difference:
    """Return findings of `after` that `before` had not, and the other way round. No report before: nothing is new."""
    if before is None:
        return Difference()
    old = {_identity(finding): finding for finding in before.findings}
    new = {_identity(finding): finding for finding in after.findings}
    return Difference(
        by_severity(tuple(new[key] for key in new.keys() - old.keys())),
        by_severity(tuple(old[key] for key in old.keys() - new.keys())),
    )


def by_severity(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Sort findings worst first, then by id and package."""
    return tuple(sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), *_identity(finding))))


def _identity(finding: Finding) -> tuple[str, str, str]:
    return (finding.kind, finding.id, finding.package)


def _blocks(finding: Finding, policy: ScanPolicy) -> bool:
    if finding.kind == "secret":
        return policy.block_secrets
    return finding.severity in policy.severities and (bool(finding.fixed) or not policy.only_with_fix)


def _covers(waiver: Waiver, finding: Finding) -> bool:
    # People write `jinja2` where the package calls itself `Jinja2`.
    package = waiver.package.casefold()
    return waiver.id.casefold() == finding.id.casefold() and package in ("", finding.package.casefold())


def _report_trust(report: ScanReport, policy: ScanPolicy, now: datetime) -> tuple[tuple[str, ...], tuple[str, ...]]:
    reasons: list[str] = []
    warnings: list[str] = []
    if report.scanned_at > now + CLOCK_SKEW:
        reasons.append(f"the scan report is dated {report.scanned_at:%Y-%m-%d %H:%M} UTC, in the future: check clocks")
    if report.database.sample:
        if policy.allow_sample_database:
            warnings.append("scanned with the SAMPLE database: it knows only a few vulnerabilities")
        else:
            reasons.append("scanned with the SAMPLE database, which this environment does not accept")
    age = _hours(now, report.database.updated_at)
    if policy.max_database_age_hours is not None and age > policy.max_database_age_hours:
        reasons.append(
            f"the vulnerability database of the scan is {age:.0f} h old, more than the allowed "
            f"{policy.max_database_age_hours:g} h: scan again with a fresh one"
        )
    age = _hours(now, report.scanned_at)
    if policy.max_report_age_hours is not None and age > policy.max_report_age_hours:
        reasons.append(
            f"the scan report has expired: it is {age:.0f} h old, more than the allowed "
            f"{policy.max_report_age_hours:g} h: scan again"
        )
    return tuple(reasons), tuple(warnings)


def _hours(now: datetime, then: datetime) -> float:
    return (now - then).total_seconds() / 3600


def _blocking_words(blocking: Sequence[Finding]) -> tuple[str, ...]:
    reasons: list[str] = []
    vulnerabilities = by_severity([finding for finding in blocking if finding.kind != "secret"])
    if vulnerabilities:
        counts = ", ".join(
            f"{count} {severity}"
            for severity in SEVERITIES
            if (count := sum(finding.severity == severity for finding in vulnerabilities))
        )
        named = ", ".join(
            f"{finding.id} in {finding.package} {finding.installed}".rstrip()
            + (f" (fixed in {finding.fixed})" if finding.fixed else " (no fix yet)")
            for finding in vulnerabilities[:NAMED]
        )
        reasons.append(f"{counts} blocking: {named}{_and_more(len(vulnerabilities))}")
    secrets = [finding for finding in blocking if finding.kind == "secret"]
    if secrets:
        named = ", ".join(f"{finding.id} in {finding.package}" for finding in secrets[:NAMED])
        reasons.append(f"the image carries secrets: {named}{_and_more(len(secrets))}")
    return tuple(reasons)


def _and_more(count: int) -> str:
    return f" and {count - NAMED} more" if count > NAMED else ""


def _waiver_name(waiver: Waiver) -> str:
    return f"{waiver.id} in {waiver.package}" if waiver.package else waiver.id


def _waiver_warnings(waivers: Sequence[Waiver], findings: Sequence[Finding], now: datetime) -> tuple[str, ...]:
    warnings: list[str] = []
    for waiver in waivers:
        if not any(_covers(waiver, finding) for finding in findings):
            warnings.append(f"the waiver for {_waiver_name(waiver)} (owner {waiver.owner}) matches nothing here")
            continue
        left = (waiver.expires - now.date()).days
        if 0 <= left <= EXPIRY_WARNING_DAYS:
            when = "today" if left == 0 else f"in {left} day{'s' * (left != 1)}"
            warnings.append(
                f"the waiver for {_waiver_name(waiver)} expires {when}, on {waiver.expires} (owner {waiver.owner})"
            )
    return tuple(warnings)
