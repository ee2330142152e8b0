"""Building and scanning on the real Docker Engine, a real registry and real Trivy with the sample database."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import docker
import pytest

from ops_pipeline.adapters.docker_builder import DockerBuilder
from ops_pipeline.adapters.docker_cli import candidates
from ops_pipeline.adapters.registry import HttpRegistry
from ops_pipeline.adapters.trivy import TrivyScanner
from ops_pipeline.catalogue.model import ScanSettings
from ops_pipeline.core.hygiene import broken_rules
from ops_pipeline.errors import BadInput, OpsError, Permanent, Unavailable
from ops_pipeline.services.build import build_image
from ops_pipeline.services.images import find_sbom, latest_scan
from ops_pipeline.services.scan import make_sbom, scan_image
from ops_pipeline.services.scan_gate import scan_verdict
from ops_pipeline_tests.fakes.build_bench import BuildBench, build_bench
from ops_pipeline_tests.testbed import free_port
from ops_pipeline_tests.testbed.engine_images import forget_images
from ops_pipeline_tests.testbed.programs import write_program
from ops_pipeline_tests.testbed.registry import PASSWORD, USERNAME, RunningRegistry, running_registry
from ops_pipeline_tests.testbed.sample_images import FAILING, GOOD, installed, write_context

pytestmark = pytest.mark.real
SAMPLE = Path(__file__).parents[2] / "deploy" / "sample-vulnerabilities"
VULNERABLE = GOOD.replace("USER 10001", "COPY site-packages /usr/lib/python3/dist-packages/\nUSER 10001")


@pytest.fixture(scope="module")
def trivy_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trivy")


@pytest.fixture
def bench(tmp_path: Path, registry: RunningRegistry, trivy_cache: Path) -> Iterator[BuildBench]:
    address = registry.repository()
    settings = ScanSettings(cache_directory=str(trivy_cache), sample_database=str(SAMPLE))
    made = build_bench(tmp_path, address=address, builder=DockerBuilder(), registry=HttpRegistry())
    # The scanner dates its reports by the bench's clock, or the gate would see them in the future.
    scanner = TrivyScanner(settings, tmp_path, offline=True, now=made.clock.now)
    made = build_bench(tmp_path, address=address, builder=DockerBuilder(), registry=HttpRegistry(), scanner=scanner)
    scanner._now = made.clock.now
    yield made
    forget(address)


def forget(address: str) -> None:
    """Remove what tests tagged."""
    engine = docker.from_env()
    forget_images(engine, f"{address}/")
    engine.close()


def test_from_files_to_a_verdict(bench: BuildBench) -> None:
    outcome = build_image(bench.platform, "api", progress=bench.progress)
    image = outcome.image
    assert HttpRegistry().exists(image.ref)
    assert broken_rules(image.config, 200) == ()
    assert image.config.labels["ops.image.inputs"] == image.inputs_hash
    assert any("RUN echo testing" in line for line in bench.lines), "the log streams"
    again = build_image(bench.platform, "api", progress=bench.progress)
    assert again.skipped and again.image == image

    key = make_sbom(bench.platform, image, progress=bench.progress)
    report = scan_image(bench.platform, "api", image, progress=bench.progress).report
    assert report.sbom_key == key == find_sbom(bench.store, image.ref.digest)
    assert image.ref.digest in json.dumps(json.loads(bench.store.objects[key])["metadata"])
    assert latest_scan(bench.store, image.ref.digest) is not None
    dev, prod = (scan_verdict(bench.platform, name, image.ref.digest) for name in ("dev", "prod"))
    assert dev.allowed and "SAMPLE" in dev.warnings[0]
    assert not prod.allowed and "SAMPLE" in prod.reasons[0]


def test_a_vulnerable_image_is_refused_waived_and_refused_again(bench: BuildBench) -> None:
    first = build_image(bench.platform, "api", progress=bench.progress).image
    scan_image(bench.platform, "api", first, progress=bench.progress)
    write_context(bench.folder, VULNERABLE, installed("requests", "2.19.1"))
    image = build_image(bench.platform, "api", progress=bench.progress).image
    outcome = scan_image(bench.platform, "api", image, progress=bench.progress)
    assert {"CVE-2018-18074", "CVE-2023-32681"} <= {finding.id for finding in outcome.new}
    verdict = scan_verdict(bench.platform, "dev", image.ref.digest)
    assert not verdict.allowed
    assert "CVE-2018-18074 in requests 2.19.1 (fixed in 2.20.0)" in verdict.reasons[0]

    waiver = {"id": "CVE-2018-18074", "reason": "no redirects here", "owner": "ana", "expires": date(2026, 11, 30)}
    bench.configure(scan={"waivers": [waiver]})
    verdict = scan_verdict(bench.platform, "dev", image.ref.digest)
    assert verdict.allowed
    assert [finding.id for finding in verdict.waived] == ["CVE-2018-18074"]
    bench.clock.advance(30 * 86400)
    verdict = scan_verdict(bench.platform, "dev", image.ref.digest)
    assert not verdict.allowed
    assert "expired on 2026-11-30" in verdict.reasons[-1]


def test_a_build_secret_is_usable_and_leaves_no_trace(bench: BuildBench) -> None:
    dockerfile = GOOD.replace(
        "USER 10001",
        f"RUN --mount=type=secret,id=token : {uuid.uuid4().hex} && cat /run/secrets/token\n",  # never from the cache
    )
    write_context(bench.folder, dockerfile)
    bench.configure(build={"secrets": {"token": "env:NPM_TOKEN"}})
    image = build_image(bench.platform, "api", progress=bench.progress).image
    engine = docker.from_env()
    tag = next(line for line in bench.lines if line.startswith("pushing ")).removeprefix("pushing ")
    history = repr(engine.images.get(tag).history()) + repr(engine.images.get(tag).attrs)
    engine.close()
    assert "hunter22" not in history
    assert "hunter22" not in " ".join(bench.lines) + repr(bench.store.objects) + repr(image)
    assert any("***" in line for line in bench.lines), "it was printed, and redacted"


def test_classic_builds_work_where_there_is_no_buildkit(bench: BuildBench, tmp_path: Path) -> None:
    real = candidates()[0]
    body = (
        "if sys.argv[1:] == ['--version']: print('Docker version 28.0.0, build x'); sys.exit()\n"
        "if sys.argv[1:2] == ['buildx']: sys.exit('docker: unknown command: docker buildx')\n"
        "assert os.environ['DOCKER_BUILDKIT'] == '0'\n"
        f"os.execv({real!r}, [{real!r}, *sys.argv[1:]])"
    )
    path = str(write_program(tmp_path / "bin", "docker", body).parent)
    classic = build_bench(
        tmp_path,
        address=bench.platform.catalogue.registry.address,
        builder=DockerBuilder(path=path),
        registry=HttpRegistry(),
    )
    image = build_image(classic.platform, "api", progress=classic.progress).image
    assert broken_rules(image.config, 200) == ()
    write_context(classic.folder, FAILING)
    with pytest.raises(Permanent, match="3 tests failed") as caught:
        build_image(classic.platform, "api", progress=classic.progress)
    assert "RUN echo first words" in caught.value.message
    engine = docker.from_env()
    left = [c.name for c in engine.containers.list(all=True) if "first words" in str(c.attrs.get("Config", {}))]
    engine.close()
    assert not left, "no container of the failed step stays"


def test_pushing_with_credentials_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_registry(login=True) as running:
        address = f"{running.address}/shop"
        bench = build_bench(tmp_path, address=address, builder=DockerBuilder(), registry=HttpRegistry())
        try:
            monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-config"))
            with pytest.raises(Permanent, match="refused the credentials") as caught:
                build_image(bench.platform, "api", progress=bench.progress)
            assert "docker login" in caught.value.hint
            assert not bench.store.objects
            monkeypatch.setenv("OPS_REGISTRY_USERNAME", USERNAME)
            monkeypatch.setenv("OPS_REGISTRY_PASSWORD", PASSWORD)
            image = build_image(bench.platform, "api", progress=bench.progress).image
            settings = ScanSettings(cache_directory="cache", sample_database=str(SAMPLE))
            assert (
                TrivyScanner(settings, tmp_path, offline=True).scan(image.ref, lambda line: None).findings is not None
            )
        finally:
            forget(address)


# ------------------------------------------------------------------------------------------- bad input, for real


def _docker_down(bench: BuildBench) -> None:
    object.__setattr__(bench.platform, "builder", DockerBuilder("unix:///nowhere/docker.sock"))


def _registry_down(bench: BuildBench) -> None:
    bench.configure(registry={"address": f"127.0.0.1:{free_port()}/shop"})


def _no_docker_program(bench: BuildBench) -> None:
    object.__setattr__(bench.platform, "builder", DockerBuilder(path="/nowhere"))


def _dockerfile(text: str) -> Callable[[BuildBench], None]:
    return lambda bench: write_context(bench.folder, text) and None


def _slow(bench: BuildBench) -> None:
    write_context(bench.folder, "FROM debian:bookworm-slim\nRUN echo started; sleep 50\n")
    bench.configure(build={"timeout_seconds": 5})


BUILD_FAILURES: dict[str, tuple[Callable[[BuildBench], object], type[OpsError], tuple[str, ...]]] = {
    "missing Dockerfile": (lambda bench: (bench.folder / "Dockerfile").unlink(), BadInput, ("no Dockerfile here",)),
    "missing context": (lambda bench: shutil.rmtree(bench.folder), BadInput, ("not a folder",)),
    "build that fails": (
        _dockerfile("FROM debian:bookworm-slim\nRUN echo compiling; echo no such header >&2; exit 2\n"),
        Permanent,
        ("failed in step", "RUN echo compiling", "exit code: 2", "  no such header"),
    ),
    "test target that fails": (
        _dockerfile(FAILING),
        Permanent,
        ("build of target test of ", "exit code: 7", "  3 tests failed"),
    ),
    "Dockerfile that cannot be read": (
        _dockerfile("FROM debian:bookworm-slim\nRUNN true\n"),
        Permanent,
        ("unknown instruction: RUNN",),
    ),
    "file that is not there": (
        _dockerfile("FROM debian:bookworm-slim\nCOPY nowhere.txt /\n"),
        Permanent,
        ("COPY nowhere.txt /", "nowhere.txt"),
    ),
    "build that hangs": (_slow, Permanent, ("did not end within 5 s", "RUN echo started")),
    "registry down": (_registry_down, Unavailable, ("could not push", "in 4 attempts", "connection refused")),
    "Docker down": (_docker_down, Unavailable, ("Docker Engine does not answer",)),
    "no docker program": (_no_docker_program, Unavailable, ("no `docker` program on PATH",)),
    "base image that is nowhere": (
        _dockerfile(f"FROM 127.0.0.1:{free_port()}/base:1\n"),
        OpsError,
        ("/base:1 is neither here nor can it be pulled",),
    ),
}


@pytest.mark.parametrize("name", BUILD_FAILURES)
def test_each_bad_build_is_one_clear_error_and_records_nothing(bench: BuildBench, name: str) -> None:
    change, kind, words = BUILD_FAILURES[name]
    change(bench)
    with pytest.raises(kind) as caught:
        build_image(bench.platform, "api", progress=bench.progress)
    for part in words:
        assert part in caught.value.message, caught.value.message
    assert caught.value.exit_code != 0
    assert not bench.store.objects
    forget(bench.platform.catalogue.registry.address)


def _trivy(body: str) -> Callable[[BuildBench, Path], TrivyScanner]:
    def make(bench: BuildBench, cache: Path) -> TrivyScanner:
        program = write_program(bench.folder.parent / "bin", "trivy", body)
        settings = ScanSettings(cache_directory=str(cache), sample_database=str(SAMPLE))
        return TrivyScanner(settings, cache, trivy=str(program), offline=True)

    return make


def _missing_trivy(bench: BuildBench, cache: Path) -> TrivyScanner:
    settings = ScanSettings(cache_directory=str(cache), sample_database=str(SAMPLE))
    return TrivyScanner(settings, cache, trivy=str(cache / "nowhere"), offline=True)


def _no_database(bench: BuildBench, cache: Path) -> TrivyScanner:
    return TrivyScanner(ScanSettings(cache_directory=str(bench.folder.parent / "empty")), cache, offline=True)


def _damaged_database(bench: BuildBench, cache: Path) -> TrivyScanner:
    """Real Trivy, real damage."""
    own = bench.folder.parent / "own"
    settings = ScanSettings(cache_directory=str(own), sample_database=str(SAMPLE))
    scanner = TrivyScanner(settings, own, offline=True)
    scanner._database.ensure(lambda line: None)
    (own / "sample" / "db" / "trivy.db").write_bytes(b"damaged" * 5000)
    return scanner


SCAN_FAILURES: dict[str, tuple[Callable[[BuildBench, Path], TrivyScanner], str]] = {
    "Trivy crash": (_trivy("sys.stderr.write('FATAL out of memory\\n'); sys.exit(2)"), "code 2: FATAL out of memory"),
    "Trivy garbage": (_trivy("print('<html>')"), "is not JSON"),
    "Trivy silent": (_trivy(""), "is not JSON"),
    "Trivy about another image": (_trivy("print('{\"SchemaVersion\": 2}')"), "incomplete"),
    "Trivy missing": (_missing_trivy, "there is no Trivy program"),
    "no database": (_no_database, "there is no vulnerability database"),
    "damaged database": (_damaged_database, "could not scan"),
}


@pytest.mark.parametrize("name", SCAN_FAILURES)
def test_each_bad_scan_could_not_scan_and_records_nothing(bench: BuildBench, trivy_cache: Path, name: str) -> None:
    image = build_image(bench.platform, "api", progress=bench.progress).image
    make, words = SCAN_FAILURES[name]
    object.__setattr__(bench.platform, "scanner", make(bench, trivy_cache))
    before = bench.store.objects
    with pytest.raises(Unavailable, match="could not scan") as caught:
        scan_image(bench.platform, "api", image, progress=bench.progress)
    assert words in caught.value.message, caught.value.message
    assert caught.value.exit_code != 0
    assert bench.store.objects == before
    assert not scan_verdict(bench.platform, "dev", image.ref.digest).allowed
