"""Images of the database servers that the tests of backups run for real; nothing else needs them.

Like the stack's images they are tagged by what they are made of, so an unchanged one is never built twice. Debian has
no MongoDB server: the one for tests is FerretDB on SQLite, with MongoDB's own mongodump and mongorestore. Their
versions and hashes are pinned in go.mod and go.sum beside the Dockerfile; the go command here builds them.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from deploy.setup import base_image, stack_images
from deploy.setup.commands import ROOT, SetupError, execute, output, say, step
from deploy.setup.docker_cli import need_docker

FOLDER = ROOT / "ops_pipeline_tests" / "testbed" / "images"
# The slowest first, so that two at a time end soonest.
NAMES = ("mongodb", "mariadb", "postgres", "redis")
NEEDED_GO = (1, 24)


@dataclass(frozen=True)
class Program:
    """A Go program: the folder of its go.mod, its package, build tags, linker settings."""

    name: str
    module: str
    package: str
    tags: str = ""
    linker: str = ""


PROGRAMS = (
    Program("ferretdb", "ferretdb", "github.com/FerretDB/FerretDB/cmd/ferretdb", tags="ferretdb_no_postgresql"),
    *(
        Program(
            name, "mongo-tools", f"github.com/mongodb/mongo-tools/{name}/main", linker="-X main.VersionStr=100.10.0"
        )
        for name in ("mongodump", "mongorestore")
    ),
)
COMPILER = "all=-N -l"
"""Nothing is optimised: they serve a few hundred documents, and compiling them is the longest step of the set-up. All
alike, so that what they share is compiled once."""


def tag(name: str) -> str:
    """Name with which this image, in its present state, is or will be built."""
    digest = hashlib.sha256(f"{stack_images.base_id()} {PROGRAMS} {COMPILER}".encode())
    for path in sorted((FOLDER / name).rglob("*")):
        if path.is_file():
            digest.update(f"\0{path.relative_to(FOLDER).as_posix()}\0".encode() + path.read_bytes())
    return f"ops-testbed-{name}:{digest.hexdigest()[:12]}"


def ensure(names: tuple[str, ...] = (), *, quiet: bool = False) -> None:
    """Build what is missing, two at a time. Raise SetupError with the end of the first failed build's output."""
    wanted = [name for name in NAMES if not names or name in names]
    missing = [name for name in wanted if not _present(tag(name))]
    with ThreadPoolExecutor(max_workers=2) as pool:
        for done in [pool.submit(_build, name) for name in missing]:
            done.result()
    if missing or not quiet:
        say("databases", f"{len(wanted) - len(missing)} of {len(wanted)} images were present, {len(missing)} built")


def _present(name: str) -> bool:
    return output([need_docker().path, "image", "inspect", "--format", "{{.Id}}", name]) is not None


def _build(name: str) -> None:
    cli = need_docker()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        context = Path(temporary) / "context"
        context.mkdir()
        shutil.copy(FOLDER / name / "Dockerfile", context)
        if name == "mongodb":
            _build_programs(Path(temporary), context / "programs")
        argv = [cli.path, "build", *base_image.proxy_arguments(), "--tag", tag(name)]
        argv += ["--label", f"ops.stack-image=testbed-{name}", str(context)]
        execute(argv, log=f"image-testbed-{name}", timeout=900, env=cli.environment)
    say("databases", f"{name} built in {time.monotonic() - began:.1f} s")


@cache
def need_go() -> str:
    """Path of a go command that is new enough. Raise SetupError."""
    candidates = [shutil.which("go"), "/usr/local/go/bin/go"]
    seen = ""
    for candidate in candidates:
        text = output([candidate, "version"], env={**os.environ, "GOTOOLCHAIN": "local"}) if candidate else None
        found = re.search(r"go(\d+)\.(\d+)", text or "")
        if candidate and found and (int(found[1]), int(found[2])) >= NEEDED_GO:
            return candidate
        seen = seen or (text or "").strip()
    wanted = ".".join(map(str, NEEDED_GO))
    raise SetupError(
        f"the tests' MongoDB server is built with Go {wanted} or newer, and there is {seen or 'no go command'} on PATH"
        " or in /usr/local/go/bin\n  install Go, then run the same command again"
    )


def _build_programs(temporary: Path, target: Path) -> None:
    go = need_go()
    target.mkdir()
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local"}
    environment["GOWORK"] = "off"
    with step("databases", "building FerretDB, mongodump and mongorestore with Go"):
        for module in sorted({program.module for program in PROGRAMS}):
            source = temporary / module
            shutil.copytree(FOLDER / "mongodb" / module, source)
            execute([go, "-C", str(source), "mod", "vendor"], log=f"go-{module}", timeout=600, env=environment)
        # Otherwise it refuses to start; it is the tag of the version that go.mod pins.
        version = output([go, "-C", str(temporary / "ferretdb"), "list", "-mod=vendor", "-m", "-f", "{{.Version}}",
                          "github.com/FerretDB/FerretDB"], env=environment)  # fmt: skip
        notes = temporary / "ferretdb/vendor/github.com/FerretDB/FerretDB/build/version/version.txt"
        notes.write_text(version or "v1", encoding="ascii")
        for program in PROGRAMS:
            argv = [go, "-C", str(temporary / program.module), "build", "-mod=vendor", "-trimpath"]
            argv += ["-tags", program.tags, "-gcflags", COMPILER, "-ldflags", f"-s -w {program.linker}"]
            argv += ["-o", str(target / program.name)]
            execute([*argv, program.package], log=f"go-{program.name}", timeout=900, env=environment)
