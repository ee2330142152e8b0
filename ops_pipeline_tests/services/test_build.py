import subprocess
from pathlib import Path

import pytest

from ops_pipeline.core.image import Image
from ops_pipeline.errors import BadInput, NotFound, Permanent, StoreDamaged, Unavailable
from ops_pipeline.services.build import BuildOutcome, build_image
from ops_pipeline.services.images import find_image, latest_image, list_images
from ops_pipeline_tests.fakes.build_bench import BuildBench, build_bench
from ops_pipeline_tests.testbed.sample_images import FAILING, GOOD


@pytest.fixture
def bench(tmp_path: Path) -> BuildBench:
    return build_bench(tmp_path)


def build(bench: BuildBench, *, force: bool = False) -> BuildOutcome:
    return build_image(bench.platform, "api", progress=bench.progress, run_id="run-1", force=force)


def latest(bench: BuildBench) -> Image | None:
    return latest_image(bench.platform.store, "api")


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


def test_the_first_build_tests_builds_pushes_and_records(bench: BuildBench) -> None:
    outcome = build(bench)
    assert not outcome.skipped
    assert outcome.reason == "there is no image yet"
    image = outcome.image
    assert image.ref.repository == "fake:5000/shop/api"
    assert (image.version, image.run_id, image.previous) == ("0.0.0+unknown", "run-1", "")
    assert latest(bench) == find_image(bench.store, "api", image.ref.digest) == image
    assert [request.target for request in bench.fake_builder.requests] == ["test", None]
    assert [bool(request.tag) for request in bench.fake_builder.requests] == [False, True]
    assert bench.fake_registry.exists(image.ref)
    assert set(bench.store.objects) == {
        f"images/api/{image.ref.digest[7:]}.json",
        f"images/api/inputs/{image.inputs_hash}",
        "images/api/latest",
    }


def test_oci_labels_and_provenance_arguments(bench: BuildBench) -> None:
    git(bench.folder, "init", "--quiet")
    git(bench.folder, "add", ".")
    git(bench.folder, "commit", "--quiet", "-m", "first")
    git(bench.folder, "tag", "v1.4.0")
    image = build(bench).image
    assert image.version == f"1.4.0+{image.commit[:7]}"
    request = bench.fake_builder.requests[-1]
    assert request.tag == f"fake:5000/shop/api:1.4.0-{image.commit[:7]}"
    assert request.args == {"VERSION": image.version}, "only what the Dockerfile declares"
    labels = dict(request.labels)
    prefix = "org.opencontainers.image."
    assert labels[f"{prefix}title"] == "shop/api"
    assert labels[f"{prefix}version"] == image.version
    assert labels[f"{prefix}revision"] == image.commit
    assert labels[f"{prefix}source"] == "https://example.org/shop"
    assert labels[f"{prefix}created"].startswith("2026-11-21T10:00:00")
    assert labels[f"{prefix}base.name"] == "debian:bookworm-slim"
    assert labels["ops.image.inputs"] == image.inputs_hash


def test_nothing_changed_is_skipped_and_says_why(bench: BuildBench) -> None:
    first = build(bench).image
    before = bench.store.objects
    outcome = build(bench)
    assert outcome.skipped
    assert outcome.image == first
    assert "same files, arguments and base image" in outcome.reason
    assert len(bench.fake_builder.requests) == 2
    assert bench.store.objects == before


def test_a_new_commit_of_the_same_content_is_skipped(bench: BuildBench) -> None:
    git(bench.folder, "init", "--quiet")
    git(bench.folder, "add", ".")
    git(bench.folder, "commit", "--quiet", "-m", "first")
    build(bench)
    git(bench.folder, "commit", "--quiet", "--allow-empty", "-m", "second")
    git(bench.folder, "tag", "v2.0.0")
    assert build(bench).skipped


@pytest.mark.parametrize(
    "change",
    [
        lambda bench: (bench.folder / "app.txt").write_text("changed"),
        lambda bench: (bench.folder / "new.txt").write_text("new"),
        lambda bench: (bench.folder / "Dockerfile").write_text(GOOD + "# more\n"),
        lambda bench: bench.configure(build={"args": {"FEATURE": "on"}}),
        lambda bench: bench.configure(build={"target": "base"}),
        lambda bench: bench.configure(build={"platforms": ["linux/amd64"]}),
        lambda bench: bench.configure(build={"secrets": {"token": "env:NPM_TOKEN"}}),
        lambda bench: bench.fake_builder.bases.update({"debian:bookworm-slim": "sha256:" + "c" * 64}),
        lambda bench: bench.configure(registry={"address": "fake:5001/shop"}),
    ],
)
def test_any_change_builds_again(bench: BuildBench, change: object) -> None:
    first = build(bench).image
    change(bench)  # type: ignore[operator]
    outcome = build(bench)
    assert not outcome.skipped
    assert latest(bench) == outcome.image
    assert outcome.image.previous in (first.ref.digest, ""), "what came before is remembered"


def test_a_digest_the_registry_lost_is_built_again(bench: BuildBench) -> None:
    bench.fake_registry.forget(build(bench).image.ref)
    outcome = build(bench)
    assert not outcome.skipped
    assert "registry no longer has" in outcome.reason


def test_force_builds_again(bench: BuildBench) -> None:
    build(bench)
    assert not build(bench, force=True).skipped


def test_going_back_to_earlier_content_finds_its_image_and_makes_it_the_latest(bench: BuildBench) -> None:
    first = build(bench).image
    (bench.folder / "app.txt").write_text("changed")
    second = build(bench).image
    (bench.folder / "app.txt").write_text("hello\n")
    outcome = build(bench)
    assert outcome.skipped
    assert outcome.image == latest(bench) == first
    assert second.previous == first.ref.digest
    assert [image.ref for image in list_images(bench.store, "api")] == [second.ref, first.ref]


def test_secret_values_reach_the_builder_and_nothing_else(bench: BuildBench) -> None:
    bench.configure(build={"secrets": {"token": "env:NPM_TOKEN"}})
    build(bench)
    assert bench.fake_builder.requests[-1].secrets == {"token": "hunter22"}
    seen = " ".join(bench.lines) + repr(bench.store.objects) + repr(bench.fake_builder.requests)
    assert "hunter22" not in seen


def test_a_registry_that_comes_back_costs_only_waiting(bench: BuildBench) -> None:
    bench.fake_registry.down = 2
    assert not build(bench).skipped
    assert bench.clock.slept == [0.5, 1.5]
    assert any("trying again in 0.5 s" in line for line in bench.lines)


def test_no_test_stage_is_said(bench: BuildBench) -> None:
    (bench.folder / "Dockerfile").write_text("FROM debian:bookworm-slim\nCOPY app.txt /\n")
    build(bench)
    assert any("no stage 'test', so no tests run" in line for line in bench.lines)
    assert len(bench.fake_builder.requests) == 1


FAILURES = {
    "unknown service": (lambda bench: None, BadInput, "service web: is not in the catalogue, which has api"),
    "missing context": (lambda bench: bench.configure(build={"context": "gone"}), BadInput, "not a folder"),
    "missing Dockerfile": (
        lambda bench: (bench.folder / "Dockerfile").unlink(),
        BadInput,
        "there is no Dockerfile here",
    ),
    "unknown target": (
        lambda bench: bench.configure(build={"target": "prod"}),
        BadInput,
        "services.api.build.target: the Dockerfile has no stage 'prod': base, test",
    ),
    "base without a name": (
        lambda bench: (bench.folder / "Dockerfile").write_text("ARG B\nFROM $B\n"),
        BadInput,
        "the image name is empty",
    ),
    "base that is nowhere": (lambda bench: bench.fake_builder.bases.clear(), NotFound, "debian:bookworm-slim"),
    "tests that fail": (
        lambda bench: (bench.folder / "Dockerfile").write_text(FAILING),
        Permanent,
        "3 tests failed",
    ),
    "step that fails": (
        lambda bench: (bench.folder / "Dockerfile").write_text("FROM debian:bookworm-slim\nRUN exit 4\n"),
        Permanent,
        "exit code: 4",
    ),
    "secret that is not set": (
        lambda bench: bench.configure(build={"secrets": {"token": "env:NOT_SET"}}),
        BadInput,
        "env:NOT_SET: is not set",
    ),
    "registry down": (
        lambda bench: setattr(bench.fake_registry, "down", 1000),
        Unavailable,
        "in 4 attempts: the registry at fake does not answer",
    ),
    "credentials refused": (
        lambda bench: setattr(bench.fake_registry, "refuses", True),
        Permanent,
        "refused the credentials",
    ),
    "Docker down": (
        lambda bench: setattr(bench.fake_builder, "broken", Unavailable("the Docker Engine does not answer")),
        Unavailable,
        "Docker Engine does not answer",
    ),
    "store damaged": (
        lambda bench: bench.store.write("images/api/latest", b"not a digest"),
        StoreDamaged,
        "images/api/latest is damaged",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_each_failure_is_one_clear_error_and_records_nothing(bench: BuildBench, name: str) -> None:
    first = build(bench).image
    (bench.folder / "app.txt").write_text("changed")
    change, kind, words = FAILURES[name]
    change(bench)  # type: ignore[no-untyped-call]
    before = bench.store.objects
    service = "web" if name == "unknown service" else "api"
    with pytest.raises(kind) as caught:
        build_image(bench.platform, service, progress=bench.progress)
    assert words in caught.value.message
    assert caught.value.exit_code != 0
    assert bench.store.objects == before
    if name != "store damaged":
        assert latest(bench) == first
