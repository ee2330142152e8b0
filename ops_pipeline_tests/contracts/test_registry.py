"""What every Registry answers: held to the fake and to a real registry."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import httpx
import pytest

from ops_pipeline.adapters.registry import Credentials, HttpRegistry
from ops_pipeline.core.image import ImageRef
from ops_pipeline.errors import Permanent, Transient
from ops_pipeline.ports import Registry
from ops_pipeline_tests.fakes.registry import InMemoryRegistry
from ops_pipeline_tests.testbed import free_port
from ops_pipeline_tests.testbed.registry import PASSWORD, USERNAME, RunningRegistry, running_registry


class Put(Protocol):
    def __call__(self, tag: str) -> str: ...


@dataclass
class Bench:
    registry: Registry
    repository: str
    put: Put
    dead: Registry
    dead_repository: str


def put_manifest(address: str, name: str, tag: str, auth: tuple[str, str] | None = None) -> str:
    """Push the smallest of images by hand and return its digest."""
    with httpx.Client(base_url=f"http://{address}/v2/{name}", auth=auth, trust_env=False) as client:
        config = b"{}"
        digest = "sha256:" + hashlib.sha256(config).hexdigest()
        start = client.post("/blobs/uploads/")
        start.raise_for_status()
        url = httpx.URL(start.headers["location"]).copy_merge_params({"digest": digest})
        client.put(url, content=config).raise_for_status()
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        manifest = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 2, "digest": digest},
            "layers": [],
        }
        answer = client.put(f"/manifests/{tag}", content=json.dumps(manifest), headers={"Content-Type": kind})
        answer.raise_for_status()
        return str(answer.headers["docker-content-digest"])


@pytest.fixture(params=["fake", pytest.param("http", marks=pytest.mark.real)])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "fake":
        registry, dead = InMemoryRegistry(), InMemoryRegistry()
        dead.down = 1000

        def put(tag: str) -> str:
            return registry.put("fake/app", tag, "sha256:" + "a" * 64).digest

        yield Bench(registry, "fake/app", put, dead, "fake/app")
        return
    running: RunningRegistry = request.getfixturevalue("registry")
    repository = running.repository()
    name = repository.partition("/")[2]
    nobody = f"127.0.0.1:{free_port()}/app"
    yield Bench(
        HttpRegistry(), repository, lambda tag: put_manifest(running.address, name, tag), HttpRegistry(), nobody
    )


def test_a_tag_leads_to_its_digest(bench: Bench) -> None:
    digest = bench.put("1.0")
    assert bench.registry.digest(bench.repository, "1.0") == digest
    assert bench.registry.exists(ImageRef(bench.repository, digest))


def test_unknown_tags_digests_and_repositories_do_not_exist(bench: Bench) -> None:
    digest = bench.put("1.0")
    assert bench.registry.digest(bench.repository, "2.0") is None
    assert bench.registry.digest(bench.repository + "-other", "1.0") is None
    assert not bench.registry.exists(ImageRef(bench.repository, "sha256:" + "0" * 64))
    assert not bench.registry.exists(ImageRef(bench.repository + "-other", digest))


def test_no_answer_is_transient_and_never_means_absent(bench: Bench) -> None:
    image = ImageRef(bench.dead_repository, "sha256:" + "0" * 64)
    with pytest.raises(Transient, match="does not answer"):
        bench.dead.digest(bench.dead_repository, "1.0")
    with pytest.raises(Transient):
        bench.dead.exists(image)


@pytest.mark.real
def test_credentials_are_used_and_their_refusal_is_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_registry(login=True) as running:
        digest = put_manifest(running.address, "app", "1", (USERNAME, PASSWORD))
        image = ImageRef(f"{running.address}/app", digest)
        monkeypatch.setenv("OPS_REGISTRY_USERNAME", USERNAME)
        monkeypatch.setenv("OPS_REGISTRY_PASSWORD", PASSWORD)
        assert HttpRegistry().exists(image)
        assert not HttpRegistry().exists(replace(image, digest="sha256:" + "0" * 64))
        for wrong in (None, Credentials(USERNAME, "wrong password")):
            with pytest.raises(Permanent, match="refused the credentials") as caught:
                HttpRegistry(credentials=lambda host, wrong=wrong: wrong).exists(image)
            assert "docker login" in caught.value.hint
            assert "wrong password" not in str(caught.value)
