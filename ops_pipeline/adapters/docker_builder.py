"""Builds images with the Docker CLI, pushes and inspects them through the Docker SDK."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests.exceptions

from ops_pipeline.adapters import docker_cli
from ops_pipeline.adapters.build_context import read_source
from ops_pipeline.adapters.build_log import BuildLog
from ops_pipeline.adapters.process import CommandError, CommandMissing, CommandTimedOut, run
from ops_pipeline.adapters.registry import (
    CREDENTIALS_HINT,
    Credentials,
    credentials_for,
    split_repository,
)
from ops_pipeline.core.image import DIGEST, ImageConfig, ImageRef
from ops_pipeline.core.inputs import outline
from ops_pipeline.errors import BadInput, NotFound, OpsError, Permanent, Problem, Transient, Unavailable
from ops_pipeline.ports import BuildRequest, BuildSource, ImageBuilder, Progress

_SDK_TIMEOUT_SECONDS = 60
_PUSH_TIMEOUT_SECONDS = 600  # between two messages of the engine
_BUILDKIT_API = (1, 39)  # Docker Engine 18.09
_DOWN = re.compile(r"(cannot connect to the docker daemon|error during connect|is the docker daemon running)", re.I)
_REFUSED = re.compile(r"(unauthorized|authentication required|access denied|denied:|no basic auth|forbidden)", re.I)
_PULL_BACKOFF = "make demo builds the base images of this repository where no registry can be reached"
DOCKER_HINT = "Start the Docker Engine (`systemctl start docker`, or Docker Desktop), or correct DOCKER_HOST."


class DockerBuilder(ImageBuilder):
    """Builds on the engine at `docker_host` (default: DOCKER_HOST, else the local socket).

    `path` is searched for the `docker` program instead of PATH; `credentials` gives those of a registry host.
    """

    def __init__(
        self,
        docker_host: str | None = None,
        *,
        path: str | None = None,
        credentials: Callable[[str], Credentials | None] = credentials_for,
    ) -> None:
        self._host = docker_host
        self._path = path
        self._credentials = credentials
        self._engine: docker.DockerClient | None = None
        self._cli: docker_cli.DockerCli | None = None
        self._pushed: dict[str, str] = {}  # tag of an image of several platforms → digest, pushed while building

    # ------------------------------------------------------------------------------------------------ port

    def source(self, context: str, dockerfile: str) -> BuildSource:
        """Read a build context and its Dockerfile. Raise BadInput naming a path that is missing."""
        return read_source(context, dockerfile)

    def build(self, request: BuildRequest, progress: Progress) -> str:
        """Build and return the local image id (several platforms: the digest). Raise Permanent, Unavailable."""
        engine_has_buildkit = self._engine_has_buildkit()
        cli = self._find_cli(engine_has_buildkit)
        docker_cli.refuse_unsupported(cli, request, engine_has_buildkit=engine_has_buildkit)
        log = BuildLog()

        def take(line: str) -> None:
            if shown := log.take(line):
                progress(shown)

        with tempfile.TemporaryDirectory(prefix="ops-build-") as scratch:
            iid_file, metadata_file = Path(scratch) / "iid", Path(scratch) / "metadata.json"
            try:
                run(
                    docker_cli.build_argv(cli, request, str(iid_file), str(metadata_file)),
                    timeout=request.timeout_seconds,
                    env=self._environment(cli, request),
                    on_line=take,
                    redact=tuple(request.secrets.values()),
                )
            except CommandError as error:
                raise _build_error(request, log, error) from error
            if len(request.platforms) > 1:
                self._pushed[request.tag] = digest = _pushed_digest(request.tag, metadata_file)
                return digest
            if not iid_file.is_file():
                raise Permanent(f"Docker ended the build of {request.tag} well but named no image")
            image_id = iid_file.read_text().strip()
        if not request.tag:
            self._drop_untagged(image_id)
        return image_id

    def push(self, tag: str, progress: Progress) -> ImageRef:
        """Push and return the image by digest. Raise Transient, Permanent (credentials refused), Unavailable."""
        repository, _, label = tag.rpartition(":")
        if tag in self._pushed:
            image = ImageRef(repository, self._pushed.pop(tag))
            self._pull(str(image), progress)  # for `inspect`, and to prove that it can be had
            return image
        host = split_repository(repository)[0]
        credentials = self._credentials(host)
        auth = {"username": credentials.username, "password": credentials.password} if credentials else {}
        digest = ""
        try:
            # An empty auth_config keeps the SDK from reading Docker's configuration a second time.
            for message in self._client(_PUSH_TIMEOUT_SECONDS).api.push(
                repository, tag=label, stream=True, decode=True, auth_config=auth
            ):
                if error := message.get("error"):
                    raise _push_error(host, tag, str(error))
                digest = (message.get("aux") or {}).get("Digest", digest)
        except docker.errors.NotFound as error:
            raise NotFound(f"there is no local image {tag} to push") from error
        except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
            raise self._sdk_error(error, f"push {tag}") from error
        if not DIGEST.fullmatch(digest):
            raise Permanent(f"Docker pushed {tag} but named no digest")
        progress(f"pushed {tag} as {digest}")
        return ImageRef(repository, digest)

    def inspect(self, reference: str) -> ImageConfig:
        """Configuration of a local image. Raise NotFound, Unavailable."""
        attributes = self._attributes(reference)
        if attributes is None:
            raise NotFound(f"the Docker Engine has no image {reference}")
        config: dict[str, Any] = attributes.get("Config") or {}
        return ImageConfig(
            size_bytes=int(attributes.get("Size", 0)),
            user=str(config.get("User") or ""),
            healthcheck=tuple((config.get("Healthcheck") or {}).get("Test") or ()),
            labels=dict(config.get("Labels") or {}),
            exposed_ports=tuple(sorted(config.get("ExposedPorts") or {})),
            platform=f"{attributes.get('Os', '')}/{attributes.get('Architecture', '')}".strip("/"),
        )

    def base_digests(self, dockerfile: str, args: Mapping[str, str]) -> Mapping[str, str]:
        """Base image → local image id, pulling what is absent. Raise BadInput, NotFound, Unavailable."""
        try:
            declared = outline(Path(dockerfile).read_text(encoding="utf-8"), args)
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput([Problem(dockerfile, f"cannot be read: {error}")], subject="build") from error
        if declared.problems:
            raise BadInput([Problem(dockerfile, problem) for problem in declared.problems], subject="build")
        digests: dict[str, str] = {}
        for base in declared.bases:
            attributes = self._attributes(base)
            if attributes is None:
                self._pull(base, lambda line: None)
                attributes = self._attributes(base) or {}
            digests[base] = str(attributes.get("Id", ""))
        return digests

    # ------------------------------------------------------------------------------------------------ engine

    def _client(self, timeout: int = _SDK_TIMEOUT_SECONDS) -> docker.DockerClient:
        try:
            if self._engine is None:
                environment = {"DOCKER_HOST": self._host} if self._host else None
                self._engine = docker.from_env(timeout=timeout, environment=environment)
            self._engine.api.timeout = timeout
            return self._engine
        except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
            raise self._down(error) from error

    def _down(self, error: Exception) -> Unavailable:
        where = self._host or "its usual place"
        return Unavailable(f"the Docker Engine does not answer at {where}: {error}", hint=DOCKER_HINT)

    def _sdk_error(self, error: Exception, doing: str) -> OpsError:
        if isinstance(error, requests.exceptions.ReadTimeout):
            return Transient(f"the Docker Engine took too long to {doing}")
        if not isinstance(error, docker.errors.APIError):
            self._engine = None
            return self._down(error)
        return Permanent(f"Docker could not {doing}: {error.explanation or error}")

    def _attributes(self, reference: str) -> dict[str, Any] | None:
        try:
            attributes: dict[str, Any] = self._client().images.get(reference).attrs
            return attributes
        except docker.errors.ImageNotFound:
            return None
        except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
            raise self._sdk_error(error, f"look for image {reference}") from error

    def _drop_untagged(self, image_id: str) -> None:
        """Remove an image nobody asked to keep; the build cache stays. Something else may have tagged the same id."""
        attributes = self._attributes(image_id)
        if attributes is not None and not attributes.get("RepoTags") and not attributes.get("RepoDigests"):
            with contextlib.suppress(docker.errors.DockerException, requests.exceptions.RequestException):
                self._client().api.remove_image(image_id, noprune=True)

    def _pull(self, image: str, progress: Progress) -> None:
        progress(f"pulling {image}")
        name, at, digest = image.partition("@")
        repository, colon, tag = name.rpartition(":")
        if not colon or "/" in tag:
            repository, tag = name, ""
        credentials = self._credentials(split_repository(repository)[0])
        auth = {"username": credentials.username, "password": credentials.password} if credentials else {}
        try:
            self._client(_PUSH_TIMEOUT_SECONDS).api.pull(
                repository, tag=digest if at else tag or "latest", auth_config=auth
            )
        except docker.errors.APIError as error:
            raise NotFound(
                f"image {image} is neither here nor can it be pulled: {error.explanation or error}",
                hint=f"Check its name and the network; {_PULL_BACKOFF}.",
            ) from error
        except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
            raise self._sdk_error(error, f"pull {image}") from error

    def _engine_has_buildkit(self) -> bool:
        try:
            version = self._client().version(api_version=False).get("ApiVersion", "1.0")
        except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
            raise self._sdk_error(error, "say its version") from error
        major, _, minor = str(version).partition(".")
        return (int(major), int(minor)) >= _BUILDKIT_API

    def _find_cli(self, engine_has_buildkit: bool) -> docker_cli.DockerCli:
        if self._cli is None:
            self._cli = docker_cli.find_cli(docker_cli.candidates(self._path), engine_has_buildkit=engine_has_buildkit)
        return self._cli

    def _environment(self, cli: docker_cli.DockerCli, request: BuildRequest) -> dict[str, str]:
        environment = {"DOCKER_BUILDKIT": "1" if cli.buildkit else "0", "DOCKER_CLI_HINTS": "false"}
        if self._host:
            environment["DOCKER_HOST"] = self._host
        return environment | {variable: request.secrets[id_] for id_, variable in docker_cli.secret_variables(request)}


def _build_error(request: BuildRequest, log: BuildLog, error: CommandError) -> OpsError:
    if isinstance(error, CommandMissing):
        return Unavailable(f"could not start the Docker CLI: {error.message}")
    step, output, trouble = log.failure()
    if _DOWN.search(error.stderr_tail):
        return Unavailable(f"the Docker Engine went away: {error.stderr_tail.splitlines()[-1]}", hint=DOCKER_HINT)
    # A test stage has no tag; its context tells whose it is.
    whose = request.tag or Path(request.context).name
    what = f"build of target {request.target} of {whose}" if request.target else f"build of {whose}"
    if isinstance(error, CommandTimedOut):
        return Permanent(
            f"the {what} did not end within {request.timeout_seconds:g} s and was stopped"
            + (f" in step {newest}" if (newest := log.newest_step()) else ""),
            hint="Raise build.timeout_seconds of the service, or make the step faster.",
        )
    trouble = trouble or (error.stderr_tail.strip().splitlines() or [f"code {error.returncode}"])[-1]
    lines = [f"the {what} failed" + (f" in step {step}" if step else "") + f": {trouble}"]
    if output:
        lines.append("last output of the step:")
        lines += [f"  {line}" for line in output.splitlines()]
    return Permanent("\n".join(lines))


def _push_error(host: str, tag: str, words: str) -> OpsError:
    if "does not exist locally" in words:
        return NotFound(f"there is no local image {tag} to push")
    if _REFUSED.search(words):
        return Permanent(
            f"the registry at {host} refused the credentials for {tag}: {words}",
            hint=CREDENTIALS_HINT.format(host=host),
        )
    # The engine gives only words; everything but a refusal may be a registry that is down or starting.
    return Transient(
        f"pushing {tag} failed: {words}", hint="Start the registry, or correct registry.address in the catalogue."
    )


def _pushed_digest(tag: str, metadata_file: Path) -> str:
    try:
        digest = str(json.loads(metadata_file.read_text())["containerimage.digest"])
    except (OSError, ValueError, KeyError, TypeError):
        digest = ""
    if not DIGEST.fullmatch(digest):
        raise Permanent(f"Docker pushed {tag} but named no digest")
    return digest
