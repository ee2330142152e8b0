from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops_pipeline.core.scan import SEVERITIES, DatabaseInfo, Finding, ScanPolicy, ScanReport, Waiver
from ops_pipeline.core.scan_policy import by_severity, difference, judge

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64
POLICY = ScanPolicy()
HIGH = Finding("vulnerability", "CVE-2018-18074", "HIGH", "requests", "2.19.1", "2.20.0")
CRITICAL = Finding("vulnerability", "CVE-2020-14343", "CRITICAL", "pyyaml", "5.3", "5.4")
MEDIUM = Finding("vulnerability", "CVE-2024-35195", "MEDIUM", "requests", "2.19.1", "2.32.0")
UNFIXED = Finding("vulnerability", "CVE-2023-45853", "CRITICAL", "zlib1g", "1.2.13")
SECRET = Finding("secret", "aws-access-key-id", "CRITICAL", "/srv/settings.py")
LOW_SECRET = replace(SECRET, severity="LOW")


def report(*findings: Finding, **changes: object) -> ScanReport:
    base = ScanReport(DIGEST, "trivy 0.76.0", NOW, DatabaseInfo(NOW, False, "mirror"), findings)
    return replace(base, **changes)  # type: ignore[arg-type]


def waiver(id_: str = HIGH.id, expires: date = date(2026, 12, 31), package: str = "") -> Waiver:
    return Waiver(id_, "not reachable from outside", "ana@example.org", expires, package)


def test_no_report_is_refused_and_named() -> None:
    verdict = judge(DIGEST, None, POLICY, NOW)
    assert not verdict.allowed
    assert verdict.reasons == (f"no scan report for {DIGEST}",)


def test_a_report_about_another_digest_is_refused() -> None:
    verdict = judge("sha256:" + "b" * 64, report(), POLICY, NOW)
    assert not verdict.allowed
    assert DIGEST in verdict.reasons[0]


@pytest.mark.parametrize(
    ("finding", "policy", "allowed"),
    [
        (HIGH, POLICY, False),
        (CRITICAL, POLICY, False),
        (MEDIUM, POLICY, True),
        (UNFIXED, POLICY, True),
        (UNFIXED, replace(POLICY, only_with_fix=False), False),
        (HIGH, replace(POLICY, severities=("CRITICAL",)), True),
        (MEDIUM, replace(POLICY, severities=SEVERITIES), False),
        (HIGH, replace(POLICY, severities=()), True),
        (SECRET, POLICY, False),
        (LOW_SECRET, POLICY, False),  # a secret is a secret, whatever its rule's severity
        (SECRET, replace(POLICY, block_secrets=False), True),
        (SECRET, replace(POLICY, severities=()), False),
    ],
)
def test_what_blocks(finding: Finding, policy: ScanPolicy, allowed: bool) -> None:
    verdict = judge(DIGEST, report(finding), policy, NOW)
    assert verdict.allowed is allowed
    assert verdict.blocking == (() if allowed else (finding,))
    assert bool(verdict.reasons) is not allowed


def test_reasons_name_findings_with_their_fix_worst_first() -> None:
    (reason,) = judge(DIGEST, report(HIGH, CRITICAL), POLICY, NOW).reasons
    assert reason == (
        "1 CRITICAL, 1 HIGH blocking: CVE-2020-14343 in pyyaml 5.3 (fixed in 5.4), "
        "CVE-2018-18074 in requests 2.19.1 (fixed in 2.20.0)"
    )


def test_many_findings_are_counted_not_listed() -> None:
    many = [replace(HIGH, id=f"CVE-2026-{number:04}") for number in range(40)]
    (reason,) = judge(DIGEST, report(*many), POLICY, NOW).reasons
    assert reason.startswith("40 HIGH blocking: CVE-2026-0000")
    assert reason.endswith("and 35 more")


def test_a_secret_is_named_by_rule_and_file() -> None:
    (reason,) = judge(DIGEST, report(SECRET), POLICY, NOW).reasons
    assert reason == "the image carries secrets: aws-access-key-id in /srv/settings.py"


@pytest.mark.parametrize(
    ("expires", "allowed", "warns"),
    [
        (date(2026, 11, 20), False, ""),
        (date(2026, 11, 21), True, "expires today, on 2026-11-21"),
        (date(2026, 11, 22), True, "expires in 1 day, on 2026-11-22"),
        (date(2026, 11, 28), True, "expires in 7 days, on 2026-11-28"),
        (date(2026, 11, 29), True, ""),
    ],
)
def test_a_waiver_counts_up_to_its_last_day(expires: date, allowed: bool, warns: str) -> None:
    verdict = judge(DIGEST, report(HIGH), replace(POLICY, waivers=(waiver(expires=expires),)), NOW)
    assert verdict.allowed is allowed
    assert verdict.waived == ((HIGH,) if allowed else ())
    assert (warns in " ".join(verdict.warnings)) if warns else not verdict.warnings


def test_an_expired_waiver_says_so_and_who_owned_it() -> None:
    verdict = judge(DIGEST, report(HIGH), replace(POLICY, waivers=(waiver(expires=date(2026, 11, 1)),)), NOW)
    assert (
        "the waiver for CVE-2018-18074 expired on 2026-11-01 (owner ana@example.org: not reachable"
        in (verdict.reasons[-1])
    )


def test_a_valid_waiver_beside_an_expired_one_counts() -> None:
    waivers = (waiver(expires=date(2026, 11, 1)), waiver())
    assert judge(DIGEST, report(HIGH), replace(POLICY, waivers=waivers), NOW).allowed


@pytest.mark.parametrize(
    ("entry", "allowed"),
    [
        (waiver(package="requests"), True),
        (waiver(package="Requests"), True),
        (waiver(package="urllib3"), False),
        (waiver(id_="cve-2018-18074"), True),
        (waiver(id_="CVE-2018-1807"), False),
    ],
)
def test_a_waiver_is_for_its_id_and_package(entry: Waiver, allowed: bool) -> None:
    assert judge(DIGEST, report(HIGH), replace(POLICY, waivers=(entry,)), NOW).allowed is allowed


def test_a_waiver_that_matches_nothing_is_reported() -> None:
    verdict = judge(DIGEST, report(), replace(POLICY, waivers=(waiver(package="requests"),)), NOW)
    assert verdict.allowed
    assert verdict.warnings == (
        "the waiver for CVE-2018-18074 in requests (owner ana@example.org) matches nothing here",
    )


def test_a_secret_can_be_waived_by_rule_and_file() -> None:
    entry = waiver(id_="aws-access-key-id", package="/srv/settings.py")
    assert judge(DIGEST, report(SECRET), replace(POLICY, waivers=(entry,)), NOW).allowed


SAMPLE = DatabaseInfo(NOW, True, "sample")


def test_the_sample_database_is_refused_unless_accepted_and_then_warned_of() -> None:
    refused = judge(DIGEST, report(database=SAMPLE), POLICY, NOW)
    assert not refused.allowed
    assert "SAMPLE database" in refused.reasons[0]
    accepted = judge(DIGEST, report(database=SAMPLE), replace(POLICY, allow_sample_database=True), NOW)
    assert accepted.allowed
    assert "SAMPLE database" in accepted.warnings[0]


@pytest.mark.parametrize(("hours", "allowed"), [(23.9, True), (24, True), (24.1, False)])
def test_ages(hours: float, allowed: bool) -> None:
    then = NOW - timedelta(hours=hours)
    old_report = report(scanned_at=then)
    assert judge(DIGEST, old_report, replace(POLICY, max_report_age_hours=24), NOW).allowed is allowed
    assert judge(DIGEST, old_report, POLICY, NOW).allowed
    old_database = report(database=DatabaseInfo(then, False))
    assert judge(DIGEST, old_database, replace(POLICY, max_database_age_hours=24), NOW).allowed is allowed
    assert judge(DIGEST, old_database, POLICY, NOW).allowed


def test_a_report_from_the_future_is_refused() -> None:
    assert judge(DIGEST, report(scanned_at=NOW + timedelta(minutes=4)), POLICY, NOW).allowed
    verdict = judge(DIGEST, report(scanned_at=NOW + timedelta(hours=1)), POLICY, NOW)
    assert "in the future" in verdict.reasons[0]


def test_all_reasons_are_given_at_once() -> None:
    policy = replace(POLICY, max_report_age_hours=1, max_database_age_hours=1)
    old = NOW - timedelta(hours=5)
    verdict = judge(DIGEST, report(HIGH, SECRET, scanned_at=old, database=DatabaseInfo(old, True)), policy, NOW)
    assert len(verdict.reasons) == 5


def test_notes_of_the_scanner_become_warnings() -> None:
    verdict = judge(DIGEST, report(notes=("debian 9 is no longer supported",)), POLICY, NOW)
    assert verdict.warnings == ("debian 9 is no longer supported",)


# ------------------------------------------------------------------------------------------------- properties

ids = st.sampled_from(["CVE-1", "CVE-2", "CVE-3"])
packages = st.sampled_from(["a", "b"])
findings = st.builds(
    Finding,
    kind=st.sampled_from(["vulnerability", "secret"]),
    id=ids,
    severity=st.sampled_from(SEVERITIES),
    package=packages,
    fixed=st.sampled_from(["", "1.0"]),
)
waivers = st.builds(
    Waiver,
    id=ids,
    reason=st.just("because it is so"),
    owner=st.just("me"),
    expires=st.dates(date(2026, 11, 15), date(2026, 11, 30)),
    package=st.sampled_from(["", "a", "b"]),
)
policies = st.builds(
    ScanPolicy,
    severities=st.lists(st.sampled_from(SEVERITIES), unique=True).map(tuple),
    only_with_fix=st.booleans(),
    block_secrets=st.booleans(),
    waivers=st.lists(waivers, max_size=3).map(tuple),
    allow_sample_database=st.booleans(),
    max_report_age_hours=st.sampled_from([None, 1.0, 100.0]),
)
reports = st.builds(
    report,
    st.one_of(findings),
    scanned_at=st.sampled_from([NOW, NOW - timedelta(hours=50)]),
    database=st.sampled_from([SAMPLE, DatabaseInfo(NOW, False)]),
)
report_lists = st.builds(
    lambda base, more: replace(base, findings=tuple(more)), reports, st.lists(findings, max_size=5)
)


@given(report_lists, policies, findings)
def test_one_more_finding_never_opens_the_gate(before: ScanReport, policy: ScanPolicy, extra: Finding) -> None:
    if not judge(DIGEST, before, policy, NOW).allowed:
        assert not judge(DIGEST, replace(before, findings=(*before.findings, extra)), policy, NOW).allowed


@given(report_lists, policies, waivers)
def test_one_more_waiver_never_closes_the_gate(before: ScanReport, policy: ScanPolicy, extra: Waiver) -> None:
    if judge(DIGEST, before, policy, NOW).allowed:
        assert judge(DIGEST, before, replace(policy, waivers=(*policy.waivers, extra)), NOW).allowed


@given(report_lists, policies, st.integers(0, 400))
def test_time_alone_never_opens_the_gate(before: ScanReport, policy: ScanPolicy, hours: int) -> None:
    if not judge(DIGEST, before, policy, NOW).allowed:
        assert not judge(DIGEST, before, policy, NOW + timedelta(hours=hours)).allowed


@given(report_lists, policies)
def test_the_verdict_always_explains_itself(found: ScanReport, policy: ScanPolicy) -> None:
    verdict = judge(DIGEST, found, policy, NOW)
    assert verdict.allowed is not bool(verdict.reasons)
    assert not set(verdict.waived) & set(verdict.blocking)
    if verdict.blocking:
        assert not verdict.allowed


# ------------------------------------------------------------------------------------------------- difference


def test_new_and_gone() -> None:
    changed = difference(report(HIGH, MEDIUM), report(CRITICAL, MEDIUM, SECRET))
    assert changed.new == (CRITICAL, SECRET) or changed.new == (SECRET, CRITICAL)
    assert changed.gone == (HIGH,)


def test_an_update_that_does_not_help_is_neither_new_nor_gone() -> None:
    changed = difference(report(HIGH), report(replace(HIGH, installed="2.19.0", title="other words")))
    assert (changed.new, changed.gone) == ((), ())


def test_without_a_report_before_nothing_is_new() -> None:
    assert difference(None, report(HIGH)).new == ()


@given(report_lists, report_lists)
def test_difference_mirrors(one: ScanReport, other: ScanReport) -> None:
    there, back = difference(one, other), difference(other, one)
    assert {f.id for f in there.new} == {f.id for f in back.gone}
    assert difference(one, one).new == ()


def test_sorting_puts_the_worst_first() -> None:
    assert by_severity([MEDIUM, HIGH, CRITICAL]) == (CRITICAL, HIGH, MEDIUM)
