"""What every Scanner does: held to the fake and to Trivy with the sample database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ops_pipeline.catalogue.model import ScanSettings
from ops_pipeline.core.image import ImageRef
from ops_pipeline.core.scan import Finding
from ops_pipeline.errors import Unavailable
from ops_pipeline.ports import BuildRequest, Scanner
from ops_pipeline_tests.fakes.scanner import FakeScanner
from ops_pipeline_tests.testbed.registry import RunningRegistry
from ops_pipeline_tests.testbed.sample_images import GOOD, installed, write_context

SAMPLE = Path(__file__).parents[2] / "deploy" / "sample-vulnerabilities"
# Trivy's own example of a key that is none; put together so that no scanner takes this file for a leak.
FAKE_KEY = "AKIA" + "IOSFODNN7" + "QWERTYU"


@dataclass(frozen=True)
class Bench:
    scanner: Scanner
    good: ImageRef
    bad: ImageRef  # requests 2.19.1, pyyaml 5.3 and a key


@pytest.fixture(scope="module", params=["fake", pytest.param("trivy", marks=pytest.mark.real)])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    if request.param == "fake":
        good, bad = (ImageRef("fake/app", "sha256:" + mark * 64) for mark in "ab")
        scanner = FakeScanner()
        scanner.sample = True
        scanner.add(good.digest)
        vulnerable = Finding("vulnerability", "CVE-2018-18074", "HIGH", "requests", "2.19.1", "2.20.0")
        worse = Finding("vulnerability", "CVE-2020-14343", "CRITICAL", "pyyaml", "5.3", "5.4")
        key = Finding("secret", "aws-access-key-id", "CRITICAL", "/srv/settings.py", target="line 1")
        scanner.add(bad.digest, [vulnerable, worse, key])
        yield Bench(scanner, good, bad)
        return
    import docker

    from ops_pipeline.adapters.docker_builder import DockerBuilder
    from ops_pipeline.adapters.trivy import TrivyScanner

    running: RunningRegistry = request.getfixturevalue("registry")
    folder = tmp_path_factory.mktemp("scanner")
    builder, tags = DockerBuilder(), []

    def image(name: str, dockerfile: str, files: dict[str, str]) -> ImageRef:
        context = write_context(folder / name, dockerfile, files)
        tags.append(tag := f"{running.repository()}:1")
        builder.build(BuildRequest(str(context), str(context / "Dockerfile"), tag, {}), lambda line: None)
        return builder.push(tag, lambda line: None)

    packages = installed("requests", "2.19.1") | installed("PyYAML", "5.3")
    settings = ScanSettings(cache_directory="cache", sample_database=str(SAMPLE))
    yield Bench(
        TrivyScanner(settings, folder, offline=True),
        image("good", GOOD, {}),
        image(
            "bad",
            GOOD + "COPY site-packages /usr/lib/python3/dist-packages/\nCOPY settings.py /srv/\n",
            {**packages, "settings.py": f'AWS_ACCESS_KEY_ID = "{FAKE_KEY}"\n'},
        ),
    )
    engine = docker.from_env()
    for tag in tags:
        engine.images.remove(tag, force=True)
    engine.close()


def quiet(line: str) -> None: ...


def test_a_good_image_has_a_report_about_itself(bench: Bench) -> None:
    report = bench.scanner.scan(bench.good, quiet)
    assert report.digest == bench.good.digest
    assert not [finding for finding in report.findings if finding.severity in ("CRITICAL", "HIGH") and finding.fixed]
    assert report.counts()["SECRETS"] == 0


def test_the_sample_database_is_marked(bench: Bench) -> None:
    database = bench.scanner.scan(bench.good, quiet).database
    assert database.sample
    assert database.source == "sample"


def test_vulnerabilities_come_with_their_fixed_versions(bench: Bench) -> None:
    report = bench.scanner.scan(bench.bad, quiet)
    found = {(finding.id, finding.package.lower()): finding for finding in report.findings}
    requests = found["CVE-2018-18074", "requests"]
    assert (requests.severity, requests.installed, requests.fixed) == ("HIGH", "2.19.1", "2.20.0")
    assert found["CVE-2020-14343", "pyyaml"].severity == "CRITICAL"
    assert report.counts()["HIGH"] >= 1


def test_a_secret_is_found_and_not_repeated(bench: Bench) -> None:
    report = bench.scanner.scan(bench.bad, quiet)
    secret = next(finding for finding in report.findings if finding.kind == "secret")
    assert secret.id == "aws-access-key-id"
    assert secret.package.endswith("srv/settings.py")
    assert FAKE_KEY not in repr(report)


def test_the_bill_of_materials_is_about_the_image(bench: Bench) -> None:
    document = json.loads(bench.scanner.sbom(bench.bad, quiet))
    assert document["bomFormat"] == "CycloneDX"
    assert bench.bad.digest in json.dumps(document["metadata"])


def test_an_image_that_is_not_there_could_not_be_scanned(bench: Bench) -> None:
    absent = ImageRef(bench.good.repository, "sha256:" + "0" * 64)
    with pytest.raises(Unavailable, match="could not scan"):
        bench.scanner.scan(absent, quiet)
    with pytest.raises(Unavailable):
        bench.scanner.sbom(absent, quiet)
