"""`build_and_scan`: image, bill of materials, report, and the two checks beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.core.scan import Finding
from ops_pipeline.errors import Unavailable
from ops_pipeline_tests.defs.materializing import Workbench, workbench
from ops_pipeline_tests.fakes.platform import Bed, catalogue
from ops_pipeline_tests.testbed.sample_images import write_context

CRITICAL = Finding("vulnerability", "CVE-2026-1", "CRITICAL", "openssl", "3.0.1", "3.0.2")
MEDIUM = Finding("vulnerability", "CVE-2026-2", "MEDIUM", "zlib", "1.2", "1.3")


def strict_prod() -> Catalogue:
    environments = catalogue().model_dump()["environments"]
    environments["prod"]["policy"]["severities"] = ["CRITICAL", "HIGH", "MEDIUM"]
    return catalogue(environments=environments)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    write_context(tmp_path / "x")
    bed = Bed(strict_prod())
    bed.scanner.anything = True
    with workbench(bed, tmp_path) as made:
        yield made


def build_with(bench: Workbench, *findings: Finding) -> dg.ExecuteInProcessResult:
    """Build once, clean; then the scanner learns of the findings, and the unchanged image is scanned again."""
    first = bench.run("build_and_scan", "api", op="image")
    bench.bed.scanner.add(bench.shown(first, "image")["digest"], findings)
    return bench.run("build_and_scan", "api", op="image")


def checks(result: object) -> dict[str, tuple[bool, str]]:
    return {
        evaluation.check_name: (evaluation.passed, evaluation.severity.value)
        for evaluation in result.get_asset_check_evaluations()  # type: ignore[attr-defined]
    }


def test_a_clean_image_passes_and_shows_what_people_look_for(bench: Workbench) -> None:
    result = bench.run("build_and_scan", "api", op="image")
    assert result.success
    image, report = bench.shown(result, "image"), bench.shown(result, "scan_report")
    assert image["digest"] == report["digest"] == bench.shown(result, "sbom")["digest"]
    assert image["version"] and image["size_mb"] > 0
    assert image["manifest"].startswith("http://127.0.0.1:5000/v2/shop/api/manifests/sha256:")
    assert report["critical"] == report["secrets"] == 0
    assert checks(result)["vulnerability_policy"] == (True, "WARN")


def test_the_second_build_finds_nothing_to_do_unless_forced(bench: Workbench) -> None:
    assert bench.shown(bench.run("build_and_scan", "api", op="image"), "image")["built"] is True
    assert bench.shown(bench.run("build_and_scan", "api", op="image"), "image")["built"] is False
    assert bench.shown(bench.run("build_and_scan", "api", {"force": True}, op="image"), "image")["built"] is True


def test_what_no_environment_accepts_fails_the_run_and_says_why(bench: Workbench) -> None:
    result = build_with(bench, CRITICAL)
    assert not result.success
    assert checks(result)["vulnerability_policy"] == (False, "ERROR")
    report = bench.shown(result, "scan_report")
    assert report["critical"] == 1
    assert [row["fixed"] for row in rows(report["findings"])] == ["3.0.2"]
    assert {row["environment"]: row["allowed"] for row in rows(report["verdicts"])} == {"dev": False, "prod": False}


def test_what_only_a_stricter_environment_refuses_is_a_warning(bench: Workbench) -> None:
    result = build_with(bench, MEDIUM)
    assert result.success
    assert checks(result)["vulnerability_policy"] == (False, "WARN")


def test_a_scanner_that_cannot_answer_is_never_clean(bench: Workbench) -> None:
    bench.bed.scanner.broken = Unavailable("could not scan: no database")
    result = bench.run("build_and_scan", "api", op="image")
    words, shown = bench.failure(result)
    assert "could not scan: no database" in words
    assert shown["exit_code"] == 5
    assert "vulnerability_policy" not in checks(result)


def rows(table: object) -> list[dict[str, object]]:
    records = getattr(table, "records", table)
    return [dict(record.data) for record in records]  # type: ignore[attr-defined]
