"""What every ImageBuilder does: held to the fake and to Docker."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ops_pipeline.core.image import DIGEST, ImageRef
from ops_pipeline.errors import BadInput, NotFound, OpsError, Permanent, Transient
from ops_pipeline.ports import BuildRequest, ImageBuilder, Registry
from ops_pipeline_tests.fakes.builder import FakeBuilder
from ops_pipeline_tests.fakes.registry import InMemoryRegistry
from ops_pipeline_tests.testbed import free_port
from ops_pipeline_tests.testbed.engine_images import forget_images
from ops_pipeline_tests.testbed.sample_images import FAILING, GOOD, write_context


@dataclass
class Bench:
    """A builder, the registry it pushes to, and how to make that registry not answer."""

    builder: ImageBuilder
    registry: Registry
    repository: str
    unreachable: Callable[[], str]  # returns a repository whose registry is down
    lines: list[str] = field(default_factory=list)

    def request(self, context: Path, **changes: object) -> BuildRequest:
        values: dict[str, object] = {
            "context": str(context),
            "dockerfile": str(context / "Dockerfile"),
            "tag": f"{self.repository}:1.0.0",
            "labels": {"org.opencontainers.image.title": "shop/api", "ops.testbed.image": "contract"},
            **changes,
        }
        return BuildRequest(**values)  # type: ignore[arg-type]


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.real)])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "fake":
        registry = InMemoryRegistry()

        def down() -> str:
            registry.down = 1
            return "fake:5000/down"

        yield Bench(FakeBuilder(registry), registry, "fake:5000/shop/api", down)
        return
    import docker

    from ops_pipeline.adapters.docker_builder import DockerBuilder
    from ops_pipeline.adapters.registry import HttpRegistry

    running = request.getfixturevalue("registry")
    repository = running.repository("contract/" + uuid.uuid4().hex[:8])
    dead = f"127.0.0.1:{free_port()}/contract/down"
    yield Bench(DockerBuilder(), HttpRegistry(), repository, lambda: dead)
    engine = docker.from_env()
    forget_images(engine, repository, dead)
    engine.close()


def test_builds_pushes_and_knows_the_digest(bench: Bench, tmp_path: Path) -> None:
    context = write_context(tmp_path)
    image_id = bench.builder.build(bench.request(context), bench.lines.append)
    assert DIGEST.fullmatch(image_id)
    assert bench.lines
    image = bench.builder.push(f"{bench.repository}:1.0.0", bench.lines.append)
    assert image.repository == bench.repository
    assert DIGEST.fullmatch(image.digest)
    assert bench.registry.digest(bench.repository, "1.0.0") == image.digest
    assert bench.registry.exists(image)


def test_inspect_says_what_the_image_declares(bench: Bench, tmp_path: Path) -> None:
    context = write_context(tmp_path)
    image_id = bench.builder.build(bench.request(context), bench.lines.append)
    for reference in (image_id, f"{bench.repository}:1.0.0"):
        config = bench.builder.inspect(reference)
        assert config.user == "10001"
        assert config.healthcheck[-1] == "true"
        assert config.exposed_ports == ("8000/tcp",)
        assert config.labels["org.opencontainers.image.title"] == "shop/api"
        assert config.size_bytes > 1_000_000
        assert config.platform == "linux/amd64"


def test_different_content_is_a_different_image(bench: Bench, tmp_path: Path) -> None:
    first = bench.builder.build(bench.request(write_context(tmp_path / "a")), bench.lines.append)
    other = write_context(tmp_path / "b", files={"app.txt": "changed\n"})
    assert bench.builder.build(bench.request(other), bench.lines.append) != first


def test_a_failing_step_is_named_with_its_last_words(bench: Bench, tmp_path: Path) -> None:
    context = write_context(tmp_path, FAILING)
    with pytest.raises(Permanent) as caught:
        bench.builder.build(bench.request(context, target="test", tag=""), bench.lines.append)
    message = caught.value.message
    assert "RUN echo first words" in message
    assert "exit code: 7" in message or "non-zero code: 7" in message
    assert "first words" in message.splitlines()[-2] + message.splitlines()[-1]
    assert "3 tests failed" in message


def test_an_image_without_a_tag_is_not_kept(bench: Bench, tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    context = write_context(tmp_path, GOOD, {"app.txt": mark})
    image_id = bench.builder.build(bench.request(context, tag=""), bench.lines.append)
    with pytest.raises(NotFound):
        bench.builder.inspect(image_id)


def test_a_test_stage_that_adds_nothing_does_not_cost_the_base_image(bench: Bench, tmp_path: Path) -> None:
    context = write_context(tmp_path, "FROM debian:bookworm-slim AS test\nFROM debian:bookworm-slim\nCOPY app.txt /\n")
    before = bench.builder.base_digests(str(context / "Dockerfile"), {})
    bench.builder.build(bench.request(context, target="test", tag="", labels={}), bench.lines.append)
    assert bench.builder.base_digests(str(context / "Dockerfile"), {}) == before


def test_a_missing_dockerfile_or_context_is_bad_input(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no Dockerfile here"):
        bench.builder.source(str(tmp_path), str(tmp_path / "Dockerfile"))
    with pytest.raises(BadInput, match="not a folder"):
        bench.builder.source(str(tmp_path / "nowhere"), str(tmp_path / "nowhere" / "Dockerfile"))


def test_ignored_files_are_not_part_of_the_source(bench: Bench, tmp_path: Path) -> None:
    files = {".dockerignore": "*.log\n!keep.log\nsecret/\n", "a.log": "1", "keep.log": "2", "secret/key": "3"}
    context = write_context(tmp_path, files=files)
    source = bench.builder.source(str(context), str(context / "Dockerfile"))
    assert {"app.txt", "keep.log"} <= source.files.keys()
    assert not {"a.log", "secret/key"} & source.files.keys()


def test_a_registry_that_is_down_is_transient(bench: Bench, tmp_path: Path) -> None:
    tag = f"{bench.unreachable()}:1"
    bench.builder.build(bench.request(write_context(tmp_path), tag=tag), bench.lines.append)
    with pytest.raises(Transient):
        bench.builder.push(tag, bench.lines.append)


def test_what_is_not_there_is_not_found(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        bench.builder.push(f"{bench.repository}:never-built", bench.lines.append)
    with pytest.raises(NotFound):
        bench.builder.inspect(f"{bench.repository}:never-built")
    with pytest.raises(NotFound):
        bench.builder.inspect(str(ImageRef(bench.repository, "sha256:" + "0" * 64)))


def test_base_images_have_digests(bench: Bench, tmp_path: Path) -> None:
    text = "ARG BASE=debian:bookworm-slim\nFROM ${BASE} AS base\nFROM base\nCOPY --from=base /etc/os-release /\n"
    context = write_context(tmp_path, text)
    digests = bench.builder.base_digests(str(context / "Dockerfile"), {})
    assert list(digests) == ["debian:bookworm-slim"]
    assert DIGEST.fullmatch(digests["debian:bookworm-slim"])


def test_a_base_image_that_cannot_be_had_is_named(bench: Bench, tmp_path: Path) -> None:
    name = f"127.0.0.1:{free_port()}/no/such-base:1"
    context = write_context(tmp_path, f"FROM {name}\n")
    with pytest.raises(OpsError, match="no/such-base"):
        bench.builder.base_digests(str(context / "Dockerfile"), {})
