import json
from datetime import date, timedelta
from pathlib import Path

import pytest

from ops_pipeline.core.image import Image
from ops_pipeline.core.scan import Finding
from ops_pipeline.errors import StoreDamaged, Transient, Unavailable
from ops_pipeline.services.build import build_image
from ops_pipeline.services.images import find_sbom, latest_scan
from ops_pipeline.services.scan import ScanOutcome, make_sbom, scan_image
from ops_pipeline.services.scan_gate import scan_verdict
from ops_pipeline_tests.fakes.build_bench import BuildBench, build_bench

HIGH = Finding("vulnerability", "CVE-2018-18074", "HIGH", "requests", "2.19.1", "2.20.0")
CRITICAL = Finding("vulnerability", "CVE-2020-14343", "CRITICAL", "pyyaml", "5.3", "5.4")


@pytest.fixture
def bench(tmp_path: Path) -> BuildBench:
    return build_bench(tmp_path)


def image(bench: BuildBench, content: str = "hello\n") -> Image:
    (bench.folder / "app.txt").write_text(content)
    return build_image(bench.platform, "api", progress=bench.progress).image


def scan(bench: BuildBench, subject: Image, *findings: Finding) -> ScanOutcome:
    bench.fake_scanner.add(subject.ref.digest, findings)
    return scan_image(bench.platform, "api", subject, progress=bench.progress)


def test_the_report_is_kept_under_its_digest(bench: BuildBench) -> None:
    subject = image(bench)
    outcome = scan(bench, subject, HIGH, CRITICAL)
    assert outcome.report_key.startswith(f"scans/{subject.ref.digest[7:]}/20261121T10")
    assert outcome.report.findings == (CRITICAL, HIGH), "worst first"
    assert latest_scan(bench.store, subject.ref.digest) == (outcome.report_key, outcome.report)
    assert "found 1 CRITICAL, 1 HIGH; a fixed version exists for 2" in bench.lines


def test_new_and_gone_since_the_previous_image(bench: BuildBench) -> None:
    first = image(bench)
    outcome = scan(bench, first, HIGH)
    assert (outcome.compared, outcome.new, outcome.gone) == (False, (), ())
    second = image(bench, "changed")
    outcome = scan(bench, second, CRITICAL)
    assert (outcome.compared, outcome.new, outcome.gone) == (True, (CRITICAL,), (HIGH,))
    again = scan(bench, second, CRITICAL)
    assert again.new == (CRITICAL,), "scanned again, it is still compared with the image before"
    assert "since the previous image: 1 new, 1 gone" in bench.lines


def test_the_sbom_is_kept_and_named_by_later_reports(bench: BuildBench) -> None:
    subject = image(bench)
    key = make_sbom(bench.platform, subject, progress=bench.progress)
    assert key == f"sboms/{subject.ref.digest[7:]}.json" == find_sbom(bench.store, subject.ref.digest)
    assert json.loads(bench.store.objects[key])["bomFormat"] == "CycloneDX"
    assert scan(bench, subject).report.sbom_key == key


def test_the_gate_reads_the_newest_report(bench: BuildBench) -> None:
    subject = image(bench)
    assert scan_verdict(bench.platform, "prod", subject.ref.digest).reasons == (
        f"no scan report for {subject.ref.digest}",
    )
    scan(bench, subject, HIGH)
    refused = scan_verdict(bench.platform, "prod", subject.ref.digest)
    assert not refused.allowed
    assert "CVE-2018-18074 in requests 2.19.1 (fixed in 2.20.0)" in refused.reasons[0]
    scan(bench, subject)
    assert scan_verdict(bench.platform, "prod", subject.ref.digest).allowed


def test_a_new_vulnerability_closes_the_gate_when_scanned_again(bench: BuildBench) -> None:
    subject = image(bench)
    scan(bench, subject)
    assert scan_verdict(bench.platform, "prod", subject.ref.digest).allowed
    scan(bench, subject, CRITICAL)
    assert not scan_verdict(bench.platform, "prod", subject.ref.digest).allowed


def test_environments_differ(bench: BuildBench) -> None:
    subject = image(bench)
    bench.fake_scanner.sample = True
    scan(bench, subject)
    dev = scan_verdict(bench.platform, "dev", subject.ref.digest)
    prod = scan_verdict(bench.platform, "prod", subject.ref.digest)
    assert dev.allowed and "SAMPLE" in dev.warnings[0]
    assert not prod.allowed and "SAMPLE" in prod.reasons[0]
    assert any(line.startswith("WARNING: scanned with the SAMPLE database") for line in bench.lines)


def test_a_report_expires(bench: BuildBench) -> None:
    bench.configure(policy={"max_scan_age_hours": 24, "max_database_age_hours": 48})
    subject = image(bench)
    scan(bench, subject)
    assert scan_verdict(bench.platform, "prod", subject.ref.digest).allowed
    bench.clock.advance(25 * 3600)
    assert "has expired" in scan_verdict(bench.platform, "prod", subject.ref.digest).reasons[0]
    bench.fake_scanner.database_at = bench.clock.now() - timedelta(hours=49)
    scan(bench, subject)
    (reason,) = scan_verdict(bench.platform, "prod", subject.ref.digest).reasons
    assert "database of the scan is 49 h old" in reason


def test_a_waiver_opens_the_gate_until_its_last_day_and_then_says_so(bench: BuildBench) -> None:
    waiver = {"id": HIGH.id, "reason": "only used at build time", "owner": "ana", "expires": date(2026, 11, 22)}
    bench.configure(scan={"waivers": [waiver]})
    subject = image(bench)
    scan(bench, subject, HIGH)
    verdict = scan_verdict(bench.platform, "prod", subject.ref.digest)
    assert verdict.allowed
    assert verdict.waived == (HIGH,)
    assert "expires in 1 day" in verdict.warnings[0]
    bench.clock.advance(2 * 86400)
    verdict = scan_verdict(bench.platform, "prod", subject.ref.digest)
    assert not verdict.allowed
    assert "the waiver for CVE-2018-18074 expired on 2026-11-22 (owner ana" in verdict.reasons[-1]


def test_could_not_scan_changes_nothing(bench: BuildBench) -> None:
    subject = image(bench)
    scan(bench, subject, HIGH)
    before = bench.store.objects
    bench.fake_scanner.broken = Unavailable("could not scan it: Trivy's output is not JSON")
    with pytest.raises(Unavailable, match="could not scan"):
        scan_image(bench.platform, "api", subject, progress=bench.progress)
    with pytest.raises(Unavailable, match="could not scan"):
        make_sbom(bench.platform, subject, progress=bench.progress)
    assert bench.store.objects == before
    assert not scan_verdict(bench.platform, "prod", subject.ref.digest).allowed


def test_a_scanner_that_answers_later_is_asked_again(bench: BuildBench) -> None:
    subject = image(bench)
    bench.fake_scanner.broken = Transient("the registry is starting")
    with pytest.raises(Unavailable, match="in 4 attempts: the registry is starting"):
        scan_image(bench.platform, "api", subject, progress=bench.progress)
    assert bench.clock.slept == [0.5, 1.5, 4.5]


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b'{"digest": "sha256:0"}'])
def test_a_damaged_newest_report_is_never_replaced_by_an_older_one(bench: BuildBench, content: bytes) -> None:
    subject = image(bench)
    scan(bench, subject)
    key = f"scans/{subject.ref.digest[7:]}/99991231T000000.000000Z.json"
    bench.store.write(key, content)
    with pytest.raises(StoreDamaged, match=key):
        scan_verdict(bench.platform, "prod", subject.ref.digest)


def test_a_report_about_another_digest_is_damage(bench: BuildBench) -> None:
    first, second = image(bench), image(bench, "changed")
    key = scan(bench, first).report_key
    report = bench.store.objects[key]
    bench.store.write(f"scans/{second.ref.digest[7:]}/99991231T000000.000000Z.json", report)
    with pytest.raises(StoreDamaged, match="describes"):
        scan_verdict(bench.platform, "prod", second.ref.digest)
