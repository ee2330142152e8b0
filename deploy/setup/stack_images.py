"""Images of the local stack, built from `deploy/images` and tagged by what they are made of.

The tag is a hash of the files and of the base image, so an unchanged image is found and never built twice, and two
checkouts on one engine never overwrite each other's. `ops-stack/<name>:local` names the one built or found last.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from deploy.setup import base_image
from deploy.setup.commands import ROOT, SetupError, execute, output, say
from deploy.setup.docker_cli import need_docker

DEPLOY = ROOT / "deploy"


@dataclass(frozen=True)
class StackImage:
    """One image: build context and Dockerfile below `root`, and the files that go in.

    `serves`: whether it runs as a part of the local stack; the others are started by the control plane itself.
    `target` is the stage to build, empty for the last one; `also` is another name that somebody looks for.
    """

    name: str
    context: str
    dockerfile: str
    inputs: tuple[str, ...]
    serves: bool = True
    root: Path = DEPLOY
    target: str = ""
    also: str = ""

    @property
    def variable(self) -> str:
        """Variable of compose.stack.yml that names this image."""
        return f"OPS_IMAGE_{self.name.upper().replace('-', '_')}"


def _own(name: str, *, serves: bool = True) -> StackImage:
    return StackImage(name, f"images/{name}", f"images/{name}/Dockerfile", (f"images/{name}",), serves)


def _configured(name: str, *inputs: str) -> StackImage:
    return StackImage(name, ".", f"images/{name}/Dockerfile", (f"images/{name}", ".dockerignore", *inputs))


# The slowest first, so that two at a time end soonest.
IMAGES = (
    _own("azurite"),
    _configured("prometheus", "monitoring/prometheus.yml", "monitoring/rules"),
    _own("edge"),
    _own("front-door"),
    _own("courier", serves=False),
    _own("registry"),
    _configured("alertmanager", "monitoring/alertmanager.yml"),
)


def image(name: str) -> StackImage:
    """The image of this name. Raise KeyError."""
    return {each.name: each for each in IMAGES}[name]


@cache
def base_id() -> str:
    """Id of the base image. Raise SetupError when there is none."""
    form = "{{.Id}}"
    found = output([need_docker().path, "image", "inspect", "--format", form, base_image.NAME])
    if not found:
        raise SetupError(f"the base image {base_image.NAME} is missing; run: make setup")
    return found.strip()


def tag(each: StackImage) -> str:
    """Name with which this image, in its present state, is or will be built."""
    digest = hashlib.sha256(base_id().encode())
    for name in each.inputs:
        top = each.root / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                mode = "x" if os.access(path, os.X_OK) else "-"
                digest.update(f"\0{path.relative_to(each.root).as_posix()}\0{mode}\0".encode() + path.read_bytes())
    return f"ops-stack/{each.name}:{digest.hexdigest()[:12]}"


def tags() -> dict[str, str]:
    """Variable of the compose file → tag, for all images."""
    return {each.variable: tag(each) for each in IMAGES}


def ensure(names: tuple[str, ...] = (), *, beside: Sequence[StackImage] = (), workers: int = 2) -> None:
    """Build what is missing, the images of `beside` first. Raise SetupError with the end of the first failed build.

    So many `workers` build at a time: half of a build waits for the network, so one more than there are cores pays.
    """
    wanted = [*beside, *(each for each in IMAGES if not names or each.name in names)]
    missing = [each for each in wanted if not present(each)]
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for done in [pool.submit(_build, each) for each in missing]:
            done.result()
    for each in wanted:
        for name in (f"ops-stack/{each.name}:local", *filter(None, [each.also])):
            output([need_docker().path, "tag", tag(each), name])
    say("images", f"{len(wanted) - len(missing)} of {len(wanted)} images were present, {len(missing)} built")


def present(each: StackImage) -> bool:
    """Whether this image, in its present state, is there."""
    return output([need_docker().path, "image", "inspect", "--format", "{{.Id}}", tag(each)]) is not None


def _build(each: StackImage) -> None:
    cli = need_docker()
    began = time.monotonic()
    argv = [cli.path, "build", *base_image.proxy_arguments(), "--tag", tag(each)]
    argv += ["--label", f"ops.stack-image={each.name}", *(["--target", each.target] if each.target else [])]
    argv += ["--file", str(each.root / each.dockerfile), str(each.root / each.context)]
    execute(argv, log=f"image-{each.name}", timeout=900, env=cli.environment)
    say("images", f"{each.name} built in {time.monotonic() - began:.1f} s")
