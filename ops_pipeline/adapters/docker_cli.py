"""Finds a Docker command line that can build, and writes its build commands."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ops_pipeline.adapters.process import CommandError, run
from ops_pipeline.errors import Unavailable
from ops_pipeline.ports import BuildRequest

_PROBE_TIMEOUT_SECONDS = 20.0
_LAST_MAJOR_WITH_BUILDKIT_INSIDE = 22
_MAJOR = re.compile(r"(\d+)\.")
INSTALL_HINT = (
    "Install the buildx plugin (package docker-buildx-plugin, or docker-buildx on Debian 13 and Ubuntu), or put a "
    "Docker CLI older than version 23, which has BuildKit inside, on PATH."
)


@dataclass(frozen=True)
class DockerCli:
    """One `docker` program. `buildkit`: it can drive BuildKit; `buildx`: through the plugin."""

    path: str
    buildkit: bool
    buildx: bool


def candidates(path: str | None = None) -> tuple[str, ...]:
    """All programs called `docker` on PATH (or on `path`), in its order, each once."""
    found: dict[str, str] = {}
    for folder in (path if path is not None else os.environ.get("PATH", os.defpath)).split(os.pathsep):
        program = Path(folder or ".") / "docker"
        if program.is_file() and os.access(program, os.X_OK):
            found.setdefault(str(program.resolve()), str(program))
    return tuple(found.values())


def find_cli(programs: Sequence[str], *, engine_has_buildkit: bool) -> DockerCli:
    """Return the best of the programs: buildx, else BuildKit inside, else any. Raise Unavailable without one."""
    if not programs:
        raise Unavailable(
            "no `docker` program on PATH: it is needed to build images",
            hint="Install the Docker CLI (package docker-ce-cli, or docker.io on Debian and Ubuntu).",
        )
    if engine_has_buildkit:
        for program in programs:
            if _succeeds(program, "buildx", "version"):
                return DockerCli(program, buildkit=True, buildx=True)
        for program in programs:
            # Only very old clients carry BuildKit themselves; newer ones hand over to the plugin or fail.
            if _client_major(program) <= _LAST_MAJOR_WITH_BUILDKIT_INSIDE:
                return DockerCli(program, buildkit=True, buildx=False)
    return DockerCli(programs[0], buildkit=False, buildx=False)


def refuse_unsupported(cli: DockerCli, request: BuildRequest, *, engine_has_buildkit: bool) -> None:
    """Raise Unavailable, naming what to install, when the request needs more than this CLI and engine have."""
    needs: list[str] = []
    if request.secrets and not cli.buildkit:
        needs.append("build secrets need BuildKit")
    if len(request.platforms) == 1 and not cli.buildkit:
        needs.append("a target platform needs BuildKit")
    if len(request.platforms) > 1 and not cli.buildx:
        needs.append("several target platforms need Docker's buildx")
    if needs:
        lacking = "the Docker CLI" if engine_has_buildkit else "the Docker Engine (18.09 or newer is needed)"
        raise Unavailable(
            f"cannot build {request.tag}: {' and '.join(needs)}, which {lacking} lacks",
            hint=INSTALL_HINT if engine_has_buildkit else "Update the Docker Engine.",
        )


def build_argv(cli: DockerCli, request: BuildRequest, iid_file: str, metadata_file: str) -> tuple[str, ...]:
    """Return the build command. Secret values are named by environment variable (see `secret_variables`)."""
    argv = [cli.path, *(["buildx"] if cli.buildx else []), "build", "--file", request.dockerfile]
    several = len(request.platforms) > 1
    if cli.buildkit:
        argv += ["--progress", "plain"]
    else:
        argv += ["--force-rm"]  # else the container of a failed step stays behind
    if request.tag:
        argv += ["--tag", request.tag]
    if several:
        # An image of several platforms cannot be kept by the engine; it goes to the registry at once.
        argv += ["--push", "--metadata-file", metadata_file]
    else:
        argv += ["--iidfile", iid_file, *(["--load"] if cli.buildx else [])]
    if request.platforms:
        argv += ["--platform", ",".join(request.platforms)]
    if request.target:
        argv += ["--target", request.target]
    for name, value in sorted(request.args.items()):
        argv += ["--build-arg", f"{name}={value}"]
    for name, value in sorted(request.labels.items()):
        argv += ["--label", f"{name}={value}"]
    for id_, variable in secret_variables(request):
        argv += ["--secret", f"id={id_},env={variable}"]
    return (*argv, request.context)


def secret_variables(request: BuildRequest) -> tuple[tuple[str, str], ...]:
    """Secret id → environment variable that carries its value to the CLI: never an argument, never a file."""
    return tuple((id_, f"OPS_BUILD_SECRET_{number}") for number, id_ in enumerate(sorted(request.secrets)))


def _succeeds(*argv: str) -> bool:
    try:
        run(argv, timeout=_PROBE_TIMEOUT_SECONDS)
    except CommandError:
        return False
    return True


def _client_major(program: str) -> int:
    try:
        # `docker version` fails without an engine, `docker --version` does not.
        text = run([program, "--version"], timeout=_PROBE_TIMEOUT_SECONDS).stdout.decode("utf-8", "replace")
    except CommandError:
        return 1000
    match = _MAJOR.search(text)
    return int(match[1]) if match else 1000
