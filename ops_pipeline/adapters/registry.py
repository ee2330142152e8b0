"""The image registry over HTTP (Distribution API v2), with Docker's own credentials."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ops_pipeline.core.image import DIGEST, ImageRef
from ops_pipeline.errors import Permanent, Transient
from ops_pipeline.ports import Registry

if TYPE_CHECKING:
    import httpx

MANIFEST_TYPES = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
DOCKER_HUB = "docker.io"
DOCKER_HUB_CREDENTIALS = "https://index.docker.io/v1/"  # its key in Docker's configuration
_HUB_API = "registry-1.docker.io"
_TIMEOUT_SECONDS = 10.0
CREDENTIALS_HINT = (
    "Run `docker login {host}`, or set OPS_REGISTRY_USERNAME and OPS_REGISTRY_PASSWORD where the pipeline runs."
)


@dataclass(frozen=True)
class Credentials:
    """User and password (or token) of a registry; never shown."""

    username: str
    password: str = field(repr=False)


def split_repository(repository: str) -> tuple[str, str]:
    """Given "host[:port]/path", return host and path. A first part without dot or port belongs to Docker Hub."""
    host, slash, path = repository.partition("/")
    if slash and ("." in host or ":" in host or host == "localhost"):
        return host, path
    return DOCKER_HUB, repository if slash else f"library/{repository}"


def is_loopback(host: str) -> bool:
    """Whether a registry "host[:port]" is on this machine, where plain HTTP is the custom."""
    name = host.rsplit(":", 1)[0].strip("[]") if not host.endswith("]") else host.strip("[]")
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def environment_credentials(environment: Mapping[str, str] = os.environ) -> Credentials | None:
    """Return what OPS_REGISTRY_USERNAME and OPS_REGISTRY_PASSWORD say, None when one of them is not set."""
    username, password = environment.get("OPS_REGISTRY_USERNAME"), environment.get("OPS_REGISTRY_PASSWORD")
    return Credentials(username, password) if username and password else None


def credentials_for(host: str, environment: Mapping[str, str] = os.environ) -> Credentials | None:
    """Return the credentials of a registry: those of the environment first, then of Docker's configuration.

    Docker's configuration includes credential stores and helpers. Raise Permanent when a configured helper fails.
    """
    if given := environment_credentials(environment):
        return given
    import docker.auth
    import docker.errors

    try:
        found = docker.auth.load_config(config_dict=None).resolve_authconfig(None if host == DOCKER_HUB else host)
    except docker.errors.DockerException as error:
        raise Permanent(
            f"Docker's credential helper for {host} failed: {error}", hint=CREDENTIALS_HINT.format(host=host)
        ) from error
    if not found:
        return None
    if token := found.get("identitytoken") or found.get("IdentityToken"):
        return Credentials(found.get("username") or found.get("Username") or "<token>", token)
    user, secret = found.get("username") or found.get("Username"), found.get("password") or found.get("Password")
    return Credentials(user, secret) if user and secret else None


class HttpRegistry(Registry):
    """`insecure` allows plain HTTP to a registry that is not on loopback. `timeout` is in seconds per request."""

    def __init__(
        self,
        *,
        insecure: bool = False,
        timeout: float = _TIMEOUT_SECONDS,
        credentials: Callable[[str], Credentials | None] = credentials_for,
    ) -> None:
        self._insecure = insecure
        self._timeout = timeout
        self._credentials = credentials
        self._clients: dict[bool, httpx.Client] = {}

    def _client(self, host: str) -> httpx.Client:
        # Made on first use, because reading the certificate store takes time; a proxy is never asked for loopback.
        import httpx  # here, because it costs 0.15 s that a deploy, which leaves pulling to the engine, need not spend

        local = is_loopback(host)
        if local not in self._clients:
            self._clients[local] = httpx.Client(timeout=self._timeout, follow_redirects=True, trust_env=not local)
        return self._clients[local]

    def digest(self, repository: str, tag: str) -> str | None:
        """Digest a tag points to, or None. Raise Transient when the registry does not answer, Permanent."""
        response = self._head(repository, tag)
        if response is None:
            return None
        digest = str(response.headers.get("docker-content-digest", ""))
        if not DIGEST.fullmatch(digest):
            raise Permanent(f"the registry at {split_repository(repository)[0]} gave no digest for {repository}:{tag}")
        return digest

    def exists(self, image: ImageRef) -> bool:
        """Whether the registry still has this digest. Raise Transient when it does not answer, Permanent."""
        return self._head(image.repository, image.digest) is not None

    def _head(self, repository: str, reference: str) -> httpx.Response | None:
        import httpx

        host, path = split_repository(repository)
        scheme = "http" if self._insecure or is_loopback(host) else "https"
        url = f"{scheme}://{_HUB_API if host == DOCKER_HUB else host}/v2/{path}/manifests/{reference}"
        try:
            response = self._client(host).head(url, headers={"Accept": MANIFEST_TYPES})
            if response.status_code == httpx.codes.UNAUTHORIZED:
                response = self._authorised(host, url, response.headers.get("www-authenticate", ""))
        except httpx.HTTPError as error:
            raise Transient(
                f"the registry at {host} does not answer ({type(error).__name__}: {error})".replace(": )", ")"),
                hint="Start it, or correct registry.address in the catalogue.",
            ) from error
        return self._judge(host, repository, response)

    def _authorised(self, host: str, url: str, challenge: str) -> httpx.Response:
        """Ask again with what the registry's challenge wants: a token fetched for us, or basic authentication."""
        import httpx

        credentials = self._credentials(host)
        basic = httpx.BasicAuth(credentials.username, credentials.password) if credentials else None
        scheme, _, rest = challenge.partition(" ")
        wanted = dict(_CHALLENGE.findall(rest))
        headers = {"Accept": MANIFEST_TYPES}
        if scheme.lower() == "bearer" and "realm" in wanted:
            parameters = {key: wanted[key] for key in ("service", "scope") if key in wanted}
            answer = self._client(host).get(wanted["realm"], params=parameters, auth=basic)
            if answer.status_code != httpx.codes.OK:
                return answer
            try:
                body = answer.json()
                token = body.get("token") or body.get("access_token")
            except (ValueError, AttributeError):
                token = None
            if not token:
                raise Permanent(f"the token service of the registry at {host} gave no token")
            return self._client(host).head(url, headers={**headers, "Authorization": f"Bearer {token}"})
        return self._client(host).head(url, headers=headers, auth=basic) if basic else httpx.Response(401)

    def _judge(self, host: str, repository: str, response: httpx.Response) -> httpx.Response | None:
        import httpx

        status = response.status_code
        if status == httpx.codes.OK:
            return response
        if status == httpx.codes.NOT_FOUND:
            return None
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise Permanent(
                f"the registry at {host} refused the credentials for {repository} (HTTP {status})",
                hint=CREDENTIALS_HINT.format(host=host),
            )
        if status == httpx.codes.TOO_MANY_REQUESTS or status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise Transient(f"the registry at {host} answered HTTP {status}")
        raise Permanent(f"the registry at {host} answered HTTP {status} for {repository}")
