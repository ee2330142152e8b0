"""Reading Trivy's answers, recorded and broken, and what happens when it fails: always «could not scan»."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ops_pipeline.adapters.registry import Credentials
from ops_pipeline.adapters.trivy import TrivyScanner, parse_report, parse_sbom
from ops_pipeline.catalogue.model import ScanSettings
from ops_pipeline.core.image import ImageRef
from ops_pipeline.core.scan import DatabaseInfo
from ops_pipeline.errors import Unavailable
from ops_pipeline_tests.testbed.programs import write_program

GOLDEN = Path(__file__).parents[1] / "golden"
SAMPLE = Path(__file__).parents[2] / "deploy" / "sample-vulnerabilities"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DATABASE = DatabaseInfo(NOW, True, "sample")
RECORDED = (GOLDEN / "trivy_report.json").read_bytes()
IMAGE = ImageRef(*json.loads(RECORDED)["ArtifactName"].split("@"))


def parse(output: bytes, image: ImageRef = IMAGE) -> Any:
    return parse_report(output, image, scanned_at=NOW, database=DATABASE)


def test_the_recorded_report_is_read() -> None:
    report = parse(RECORDED)
    assert report.digest == IMAGE.digest
    assert report.scanner == "trivy 0.76.0"
    assert report.database is DATABASE
    assert report.counts() == {"CRITICAL": 2, "HIGH": 1, "MEDIUM": 2, "LOW": 0, "UNKNOWN": 0, "SECRETS": 1}
    found = {finding.id: finding for finding in report.findings}
    requests = found["CVE-2018-18074"]
    assert (requests.package, requests.installed, requests.fixed) == ("requests", "2.19.1", "2.20.0")
    assert requests.target.endswith("requests-2.19.1.dist-info/METADATA")
    assert requests.url.endswith("cve-2018-18074")
    assert found["CVE-2023-45853"].fixed == ""
    assert (found["aws-access-key-id"].kind, found["aws-access-key-id"].package) == ("secret", "/srv/settings.py")
    assert report.notes == ()


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    document = copy.deepcopy(json.loads(RECORDED))
    change(document)
    return json.dumps(document).encode()


BROKEN: dict[str, bytes] = {
    "nothing": b"",
    "garbage": b"\x00\xffnot json",
    "cut off": RECORDED[: len(RECORDED) // 2],
    "an empty object": b"{}",
    "a list": b"[]",
    "null": b"null",
    "another version": changed(lambda d: d.update(SchemaVersion=3)),
    "another image": changed(lambda d: d.update(ArtifactName="127.0.0.1:5000/other@sha256:" + "0" * 64)),
    "another digest": changed(lambda d: d["Metadata"].update(RepoDigests=["127.0.0.1:5000/a@sha256:" + "0" * 64])),
    "no digests": changed(lambda d: d["Metadata"].pop("RepoDigests")),
    "empty digests": changed(lambda d: d["Metadata"].update(RepoDigests=[])),
    "a file system": changed(lambda d: d.update(ArtifactType="filesystem")),
    "no metadata": changed(lambda d: d.pop("Metadata")),
    "no Trivy version": changed(lambda d: d.pop("Trivy")),
    "results of another shape": changed(lambda d: d.update(Results="none")),
    "a finding without id": changed(lambda d: d["Results"][0]["Vulnerabilities"][0].pop("VulnerabilityID")),
    "a finding with an empty id": changed(lambda d: d["Results"][0]["Vulnerabilities"][0].update(VulnerabilityID="")),
    "a finding without package": changed(lambda d: d["Results"][1]["Vulnerabilities"][0].pop("PkgName")),
    "an unknown severity": changed(lambda d: d["Results"][0]["Vulnerabilities"][0].update(Severity="AWFUL")),
    "a secret without rule": changed(lambda d: d["Results"][2]["Secrets"][0].pop("RuleID")),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_report_is_never_a_clean_one(name: str) -> None:
    with pytest.raises(Unavailable, match=r"could not scan 127\.0\.0\.1:5000/shop/api@sha256:"):
        parse(BROKEN[name])


def test_what_trivy_cannot_see_is_noted() -> None:
    ended = parse(changed(lambda d: d["Metadata"]["OS"].update(EOSL=True)))
    assert "debian 12.15 is no longer supported" in ended.notes[0]
    empty = parse(changed(lambda d: d.pop("Results")))
    assert "no packages" in empty.notes[0]


def test_a_finding_without_severity_is_unknown_not_dropped() -> None:
    report = parse(changed(lambda d: d["Results"][0]["Vulnerabilities"][0].pop("Severity")))
    assert report.counts()["UNKNOWN"] == 1


def test_the_recorded_bill_of_materials_is_accepted_and_others_are_not() -> None:
    recorded = (GOLDEN / "trivy_sbom.json").read_bytes()
    assert parse_sbom(recorded, IMAGE) == recorded
    for broken in (b"", b"{}", RECORDED, recorded.replace(IMAGE.digest.encode(), b"sha256:" + b"0" * 64)):
        with pytest.raises(Unavailable, match="could not"):
            parse_sbom(broken, IMAGE)


# ------------------------------------------------------------------------------------------- stand-in programs

FAILURES = {
    "crash": (
        "sys.stderr.write('FATAL\\tdatabase error: damaged\\n'); sys.exit(1)",
        "code 1: FATAL database error: damaged",
    ),
    "killed": ("os.kill(os.getpid(), 9)", "code -9"),
    "garbage": ("print('panic: runtime error')", "is not JSON"),
    "silence": ("", "is not JSON"),
    "success without a report": ("print('{}')", "incomplete"),
    "hangs": ("time.sleep(60)", "did not end within 1 s"),
    "report of another image": (
        f"print(open({str(GOLDEN / 'trivy_report.json')!r}).read().replace({IMAGE.digest!r}, 'sha256:' + '0' * 64))",
        "is about 127.0.0.1:5000/shop/api@sha256:0000",
    ),
}


def scanner(folder: Path, body: str, timeout: float = 20) -> TrivyScanner:
    program = write_program(folder / "bin", "trivy", body)
    settings = ScanSettings(cache_directory="cache", sample_database=str(SAMPLE))
    return TrivyScanner(settings, folder, trivy=str(program), offline=True, timeout=timeout, credentials=lambda: None)


@pytest.mark.parametrize("name", FAILURES)
def test_a_failing_trivy_could_not_scan(name: str, tmp_path: Path) -> None:
    body, words = FAILURES[name]
    broken = scanner(tmp_path, body, timeout=1 if name == "hangs" else 20)
    with pytest.raises(Unavailable, match="could not scan") as caught:
        broken.scan(IMAGE, lambda line: None)
    assert words in caught.value.message
    with pytest.raises(Unavailable):
        broken.sbom(IMAGE, lambda line: None)


def test_a_missing_trivy_could_not_scan(tmp_path: Path) -> None:
    settings = ScanSettings(cache_directory="cache", sample_database=str(SAMPLE))
    missing = TrivyScanner(settings, tmp_path, trivy=str(tmp_path / "nowhere"), offline=True)
    with pytest.raises(Unavailable, match="could not scan: there is no Trivy program") as caught:
        missing.scan(IMAGE, lambda line: None)
    assert "Install" in caught.value.hint


def test_trivy_is_told_to_stay_offline_and_cannot_be_told_to_look_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither variables nor files lying about may switch checks off, and credentials do not stay behind."""
    monkeypatch.setenv("TRIVY_SEVERITY", "LOW")
    monkeypatch.setenv("TRIVY_IGNORE_UNFIXED", "true")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "work" / ".trivyignore").write_text("CVE-2018-18074\n")
    seen = tmp_path / "seen.json"
    body = (
        "login = json.load(open(os.environ['DOCKER_CONFIG'] + '/config.json'))\n"
        f"json.dump([sys.argv[1:], dict(os.environ), os.getcwd(), login], open({str(seen)!r}, 'w'))\n"
        f"print(open({str(GOLDEN / 'trivy_report.json')!r}).read())"
    )
    with_login = scanner(tmp_path, body)
    with_login._credentials = lambda: Credentials("builder", "hunter 22,33")
    assert with_login.scan(IMAGE, lambda line: None).findings
    argv, environment, folder, login = json.loads(seen.read_text())
    assert {"--skip-db-update", "--offline-scan", "--skip-java-db-update", "--skip-version-check"} <= set(argv)
    assert "--disable-telemetry" in argv
    assert argv[-1] == str(IMAGE)
    assert "hunter" not in " ".join([*argv, *environment.values()])
    token = login["auths"]["127.0.0.1:5000"]["auth"]
    assert base64.b64decode(token) == b"builder:hunter 22,33"
    assert not Path(environment["DOCKER_CONFIG"]).exists(), "gone when the scan is over"
    assert not environment["TRIVY_SEVERITY"]
    assert not environment["TRIVY_IGNORE_UNFIXED"]
    assert not list(Path(folder).glob(".trivyignore"))
