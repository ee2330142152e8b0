"""The ContainerRuntime port over the Docker SDK: one engine, local or remote."""

from __future__ import annotations

import contextlib
import io
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ops_pipeline.adapters.docker_errors import docker_errors, engine_down
from ops_pipeline.adapters.docker_secrets import FOLDER, secrets_archive, user_ids
from ops_pipeline.core.addresses import dynamic_range
from ops_pipeline.errors import OpsError, Permanent, Transient
from ops_pipeline.ports import AddressInUse, Container, ContainerSpec, Progress

if TYPE_CHECKING:
    from docker import APIClient

TIMEOUT_SECONDS = 30.0
PULL_TIMEOUT_SECONDS = 300.0  # between two lines of progress, not for the whole pull
LOG_LIMITS = {"max-size": "10m", "max-file": "3"}
PROGRESS_EVERY = 25


class DockerRuntime:
    """One Docker host. Contacts nothing before the first call; safe to share by threads."""

    def __init__(self, docker_url: str, host: str, extra_labels: Mapping[str, str] | None = None) -> None:
        """`docker_url` is unix://, tcp:// or ssh://; `extra_labels` go on all containers, networks and volumes made."""
        self._url = docker_url
        self._host = host
        self._labels = dict(extra_labels or {})
        self._lock = threading.Lock()
        self._clients: dict[float, APIClient] = {}

    @property
    def host(self) -> str:
        """Name of the host as the catalogue gives it."""
        return self._host

    def check(self) -> None:
        """Raise Unavailable, with what to do, when the engine does not answer."""
        try:
            with self._doing("answer") as client:
                client.ping()
        except Transient as error:
            raise engine_down(self._host, self._url, error.message) from error

    def pull(self, image: str, progress: Progress) -> None:
        """Make `repository@digest` present. Raise NotFound, Transient, Permanent (credentials, disk full)."""
        layers: dict[str, str] = {}
        lines = 0
        with self._doing(f"pull {image}", PULL_TIMEOUT_SECONDS) as client:
            for event in client.pull(image, stream=True, decode=True):
                if "error" in event:
                    raise self._pull_error(image, str(event["error"]))
                if "id" in event:
                    layers[event["id"]] = str(event.get("status", ""))
                lines += 1
                if lines % PROGRESS_EVERY == 0:
                    done = sum(status in {"Pull complete", "Already exists"} for status in layers.values())
                    progress(f"{self._host}: {done} of {len(layers)} layers of {image.partition('@')[0]}")

    def has_image(self, image: str) -> bool:
        """Whether `repository@digest` is present already."""
        import docker.errors

        with self._doing(f"look for {image}") as client:
            try:
                client.inspect_image(image)  # type: ignore[no-untyped-call]
            except docker.errors.NotFound:
                return False
        return True

    def ensure_network(self, name: str, subnet: str) -> None:
        """Create the bridge network if absent. Raise Permanent when one of that name has another subnet."""
        import docker.errors
        from docker.types import IPAMConfig, IPAMPool

        with self._doing(f"make the network {name}") as client:
            try:
                found = client.inspect_network(name)
            except docker.errors.NotFound:
                pool = IPAMPool(subnet=subnet, iprange=dynamic_range(subnet))
                client.create_network(
                    name,
                    driver="bridge",
                    ipam=IPAMConfig(pool_configs=[pool]),
                    labels={**self._labels, "ops.network": name},
                    check_duplicate=True,
                )
                return
        subnets = [entry.get("Subnet") for entry in found["IPAM"].get("Config") or []]
        if subnet not in subnets:
            raise Permanent(
                f"network {name} on host {self._host} has the subnet {', '.join(map(str, subnets))}, not {subnet}",
                hint="Correct the environment's `subnet` in the catalogue, or remove the network while nothing runs.",
            )

    def addresses(self, network: str) -> frozenset[str]:
        """Addresses in use on a network, stopped containers' static ones included."""
        with self._doing(f"list the addresses of {network}") as client:
            listed = client.containers(all=True, filters={"network": network})
            found = {_address(entry.get("NetworkSettings") or {}, network) for entry in listed}
        return frozenset(found - {""})

    def create(self, spec: ContainerSpec) -> str:
        """Create (not start) and return the id; secrets are in place. Raise AddressInUse, NotFound, Permanent."""
        with self._doing(f"create {spec.name}") as client:
            created = client.create_container_from_config(self._config(client, spec), spec.name)  # type: ignore[no-untyped-call]
            container = str(created["Id"])
        try:
            if spec.secrets:
                self._place_secrets(container, spec)
            self._see_address_is_free(container, spec)
        except BaseException:
            with contextlib.suppress(OpsError):
                self.remove(container)
            raise
        return container

    def start(self, container_id: str) -> None:
        """Start. Raise AddressInUse, Permanent with the engine's words."""
        with self._doing(f"start {container_id[:12]}") as client:
            client.start(container_id)

    def stop(self, container_id: str, grace_seconds: float) -> None:
        """SIGTERM, then SIGKILL after the grace; no error when it does not run or does not exist."""
        import docker.errors

        with (
            self._doing(f"stop {container_id[:12]}") as client,
            contextlib.suppress(docker.errors.NotFound),
        ):
            client.stop(container_id, timeout=max(round(grace_seconds), 0))

    def remove(self, container_id: str) -> None:
        """Remove with its secrets volume; no error when it does not exist."""
        import docker.errors

        # v=True removes the container's anonymous volumes: the one with its secrets, never a named one.
        with self._doing(f"remove {container_id[:12]}") as client, contextlib.suppress(docker.errors.NotFound):
            client.remove_container(container_id, v=True, force=True)

    def containers(self, labels: Mapping[str, str]) -> Sequence[Container]:
        """All containers, running or not, that carry all these labels, sorted by name."""
        import docker.errors

        filters = {"label": [f"{name}={value}" for name, value in labels.items()]}
        found = []
        with self._doing("list containers") as client:
            for entry in client.containers(all=True, filters=filters):
                with contextlib.suppress(docker.errors.NotFound):  # removed between listing and looking
                    found.append(_container(client.inspect_container(entry["Id"])))
        return sorted(found, key=lambda container: container.name)

    def logs(self, container_id: str, tail: int = 50) -> str:
        """Last lines of stdout and stderr, timestamps off. Raise NotFound."""
        with self._doing(f"read the log of {container_id[:12]}") as client:
            data: bytes = client.logs(container_id, stdout=True, stderr=True, tail=tail)
        return data.decode(errors="replace")

    def follow_logs(self, container_id: str, tail: int = 50) -> Iterator[str]:
        """Lines as they come, until the container stops or the caller closes the iterator. Raise NotFound."""
        rest = b""
        with self._doing(f"follow the log of {container_id[:12]}") as asked:
            asked.inspect_container(container_id)
        with self._doing(f"follow the log of {container_id[:12]}", None) as client:
            stream = client.logs(container_id, stdout=True, stderr=True, tail=tail, stream=True, follow=True)
            try:
                for piece in stream:
                    *lines, rest = (rest + piece).split(b"\n")
                    yield from (line.decode(errors="replace") for line in lines)
            finally:
                stream.close()
        if rest:
            yield rest.decode(errors="replace")

    def _config(self, client: APIClient, spec: ContainerSpec) -> dict[str, Any]:
        labels = {**self._labels, **spec.labels}
        mounts: list[dict[str, Any]] = [
            {
                "Type": "volume",
                "Source": name,
                "Target": path.removesuffix(":ro"),
                "ReadOnly": path.endswith(":ro"),
                "VolumeOptions": {
                    # What is only read here is filled by somebody else, who also decides whose it is.
                    "NoCopy": path.endswith(":ro"),
                    "Labels": {**self._labels, "ops.environment": spec.labels.get("ops.environment", "")},
                },
            }
            for name, path in spec.volumes.items()
        ]
        if spec.secrets:
            # Anonymous, so that it comes and goes with the container in one call of the engine: no leftover of a
            # killed controller can hold secrets.
            secret_labels = {**labels, "ops.secrets": "true"}
            options = {"NoCopy": True, "Labels": secret_labels}
            mounts.append({"Type": "volume", "Target": FOLDER, "VolumeOptions": options})
        from docker.types import LogConfig

        host: dict[str, Any] = client.create_host_config(
            network_mode=spec.network,
            restart_policy={"Name": "unless-stopped"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            read_only=spec.read_only,
            tmpfs={path: "mode=1777" for path in spec.tmpfs},
            mem_limit=spec.memory_bytes,
            nano_cpus=None if spec.cpus is None else int(spec.cpus * 1_000_000_000),
            log_config=LogConfig(type="json-file", config=LOG_LIMITS),
            init=True,
        )
        host["Mounts"] = mounts
        endpoint = client.create_endpoint_config(ipv4_address=spec.address, aliases=list(spec.aliases) or None)
        return {
            "Image": spec.image,
            "Cmd": list(spec.command) or None,
            "Env": [f"{name}={value}" for name, value in spec.environment.items()],
            "Labels": labels,
            "HostConfig": host,
            "NetworkingConfig": {"EndpointsConfig": {spec.network: endpoint}},
        }

    def _place_secrets(self, container: str, spec: ContainerSpec) -> None:
        with self._doing(f"place the secrets of {spec.name}") as client:
            user = str(client.inspect_container(container)["Config"].get("User") or "")
            try:
                uid, gid = user_ids(
                    user, _file(client, container, "/etc/passwd"), _file(client, container, "/etc/group")
                )
            except ValueError as error:
                raise Permanent(f"secrets of {spec.name}: {error}", hint="Use a numeric USER in the image.") from error
            client.put_archive(container, FOLDER, secrets_archive(spec.secrets, uid, gid))

    def _see_address_is_free(self, container: str, spec: ContainerSpec) -> None:
        # The engine notices a double static address only at start, and not at all while the other one is stopped.
        with self._doing(f"list the addresses of {spec.network}") as client:
            for entry in client.containers(all=True, filters={"network": spec.network}):
                same = _address(entry.get("NetworkSettings") or {}, spec.network) == spec.address
                if same and entry["Id"] != container:
                    raise AddressInUse(f"{spec.address} is taken on {spec.network}")

    def _pull_error(self, image: str, words: str) -> OpsError:
        from ops_pipeline.adapters.docker_errors import refusal

        error = refusal(self._host, f"pull {image}", None, words)
        return error if isinstance(error, OpsError) else Permanent(words)

    @contextlib.contextmanager
    def _doing(self, doing: str, timeout: float | None = TIMEOUT_SECONDS) -> Iterator[APIClient]:
        with docker_errors(self._host, self._url, doing):
            yield self._client(timeout)

    def _client(self, timeout: float | None) -> APIClient:
        import docker  # here, because it costs 0.2 s that a process which never deploys need not spend

        with self._lock:
            key = -1.0 if timeout is None else timeout
            if key not in self._clients:
                self._clients[key] = docker.APIClient(
                    base_url=self._url,
                    version="auto",
                    timeout=timeout,  # type: ignore[arg-type]  # None = wait for ever, as a followed log must
                    use_ssh_client=self._url.startswith("ssh://"),
                )
            return self._clients[key]


def _address(settings: Mapping[str, Any], network: str) -> str:
    """A container's address on a network: the live one, else the static one it will have again."""
    endpoint = (settings.get("Networks") or {}).get(network) or {}
    static = (endpoint.get("IPAMConfig") or {}).get("IPv4Address") or ""
    return str(endpoint.get("IPAddress") or static)


def _container(found: Mapping[str, Any]) -> Container:
    state, config = found["State"], found["Config"]
    network = str(found["HostConfig"].get("NetworkMode") or "")
    started = _time(str(state.get("StartedAt") or ""))
    running = state["Status"] in {"running", "paused", "restarting"}
    return Container(
        id=str(found["Id"]),
        name=str(found["Name"]).lstrip("/"),
        labels=dict(config.get("Labels") or {}),
        image=str(config["Image"]),
        state=str(state["Status"]),
        health=str((state.get("Health") or {}).get("Status") or "none"),
        address=_address(found["NetworkSettings"], network),
        exit_code=None if running or started is None else int(state["ExitCode"]),
        oom_killed=bool(state.get("OOMKilled")),
        restarts=int(found.get("RestartCount") or 0),
        started_at=started,
    )


def _time(text: str) -> datetime | None:
    """The engine's RFC 3339 time with nanoseconds; its zero time means «never»."""
    if not text or text.startswith("0001-"):
        return None
    seconds = text.rstrip("Z").partition(".")
    fraction = (seconds[2] + "000000")[:6]
    return datetime.strptime(f"{seconds[0]}.{fraction}", "%Y-%m-%dT%H:%M:%S.%f").replace(tzinfo=UTC)


def _file(client: APIClient, container: str, path: str) -> str:
    """Content of a file of a container that has not been started, "" when it has none."""
    import docker.errors

    try:
        stream, _ = client.get_archive(container, path)
        data = b"".join(stream)
    except docker.errors.NotFound:
        return ""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        member = archive.extractfile(archive.getmembers()[0])
        return "" if member is None else member.read().decode(errors="replace")
