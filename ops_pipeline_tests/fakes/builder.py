"""An ImageBuilder in memory: «runs» a Dockerfile just far enough for use cases and the contract."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from ops_pipeline.adapters.build_context import read_source
from ops_pipeline.core.image import ImageConfig, ImageRef
from ops_pipeline.core.inputs import outline
from ops_pipeline.errors import NotFound, OpsError, Permanent
from ops_pipeline.ports import BuildRequest, BuildSource, ImageBuilder, Progress
from ops_pipeline_tests.fakes.registry import InMemoryRegistry

_EXIT = re.compile(r"exit (?P<code>[1-9]\d*)")


class FakeBuilder(ImageBuilder):
    """`bases` are the images the engine has; `broken` is raised by every build while it is set."""

    def __init__(self, registry: InMemoryRegistry | None = None, bases: Mapping[str, str] | None = None) -> None:
        self.registry = registry or InMemoryRegistry()
        self.bases = dict(bases or {"debian:bookworm-slim": "sha256:" + "b" * 64})
        self.broken: OpsError | None = None
        self.requests: list[BuildRequest] = []
        self.size_bytes = 80_000_000
        self._images: dict[str, ImageConfig] = {}  # by id and by tag
        self._ids: dict[str, str] = {}  # tag → id

    def source(self, context: str, dockerfile: str) -> BuildSource:
        return read_source(context, dockerfile)

    def build(self, request: BuildRequest, progress: Progress) -> str:
        self.requests.append(request)
        if self.broken is not None:
            raise self.broken
        source = self.source(request.context, request.dockerfile)
        config: dict[str, str] = {}
        for line in self._lines_of_target(source.dockerfile, request.target):
            word, _, rest = line.strip().partition(" ")
            progress(line.strip())
            if word == "RUN" and (failure := _EXIT.search(rest)):
                said = re.findall(r"echo ([^;&>]+)", rest)
                raise Permanent(
                    f"the build of {request.tag} failed in step {line}: exit code: {failure['code']}\n"
                    + "\n".join(text.strip() for text in said)
                )
            config[word] = rest
        content = [sorted(source.files.items()), source.dockerfile, dict(request.args), dict(request.labels)]
        image_id = "sha256:" + hashlib.sha256(json.dumps([content, request.target]).encode()).hexdigest()
        health = config.get("HEALTHCHECK", "")
        image = ImageConfig(
            size_bytes=self.size_bytes,
            user=config.get("USER", ""),
            healthcheck=tuple(json.loads(health.removeprefix("CMD "))) if health else (),
            labels=dict(request.labels),
            exposed_ports=(f"{config['EXPOSE']}/tcp",) if "EXPOSE" in config else (),
            platform="linux/amd64",
        )
        if request.tag:
            self._images[request.tag] = self._images[image_id] = image
            self._ids[request.tag] = image_id
        return image_id

    def push(self, tag: str, progress: Progress) -> ImageRef:
        if tag not in self._ids:
            raise NotFound(f"there is no local image {tag} to push")
        repository, _, label = tag.rpartition(":")
        digest = "sha256:" + hashlib.sha256(f"manifest {self._ids[tag]}".encode()).hexdigest()
        progress(f"pushed {tag}")
        return self.registry.put(repository, label, digest)

    def inspect(self, reference: str) -> ImageConfig:
        if reference not in self._images:
            raise NotFound(f"the Docker Engine has no image {reference}")
        return self._images[reference]

    def base_digests(self, dockerfile: str, args: Mapping[str, str]) -> Mapping[str, str]:
        wanted = outline(Path(dockerfile).read_text(), args).bases
        for base in wanted:
            if base not in self.bases:
                raise NotFound(f"image {base} is neither here nor can it be pulled")
        return {base: self.bases[base] for base in wanted}

    @staticmethod
    def _lines_of_target(dockerfile: str, target: str | None) -> list[str]:
        """Lines of the wanted stage (the last one by default) and of the stages under it."""
        stages: list[tuple[str, str, list[str]]] = []  # name, base, lines
        for line in dockerfile.splitlines():
            if line.startswith("FROM "):
                parts = line.split()
                stages.append((parts[3] if len(parts) > 3 else "", parts[1], []))
            elif stages and line.strip() and not line.startswith("#"):
                stages[-1][2].append(line)
        wanted = [stage for stage in stages if stage[0] == target] if target else stages[-1:]
        if not wanted:
            raise Permanent(f"the Dockerfile has no stage {target}")
        name, base, lines = wanted[-1]
        under = (
            FakeBuilder._lines_of_target(dockerfile, base) if base in {stage[0] for stage in stages} - {name} else []
        )
        return under + lines
