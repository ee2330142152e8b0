"""The ContainerRuntime port over the Docker SDK: one engine, local or remote."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ops_pipeline.adapters.docker_errors import docker_errors, engine_down
from ops_pipeline.adapters.docker_events import LOOK_BACK, exits_among, forgotten, last_exit, merged, read_events
from ops_pipeline.adapters.docker_facts import (
    address_on,
    as_container,
    command_of,
    engine_time,
    file_of,
    once,
    read_timed_out,
)
from ops_pipeline.adapters.docker_secrets import FOLDER, plain_ids, secrets_archive, user_ids
from ops_pipeline.core.addresses import dynamic_range
from ops_pipeline.core.measurement import ContainerExit
from ops_pipeline.errors import OpsError, Permanent, Transient
from ops_pipeline.ports import AddressInUse, Container, ContainerSpec, Progress

if TYPE_CHECKING:
    from docker import APIClient

TIMEOUT_SECONDS = 30.0
PULL_TIMEOUT_SECONDS = 300.0  # between two lines of progress, not for the whole pull
EXITS_TIMEOUT_SECONDS = 4.0
CLOCK_FRESH_SECONDS = 600.0
TIMED_OUT = 124  # as timeout(1)
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
        self._ahead: tuple[float, timedelta] | None = None  # when it was asked, how far its clock is ahead of ours

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
            found = {address_on(entry.get("NetworkSettings") or {}, network) for entry in listed}
        return frozenset(found - {""})

    def create(self, spec: ContainerSpec) -> str:
        """Create (not start) and return the id; secrets are in place. Raise AddressInUse, NotFound, Permanent."""
        with self._doing(f"create {spec.name}") as client:
            created = client.create_container_from_config(self._config(client, spec), spec.name)  # type: ignore[no-untyped-call]
            container = str(created["Id"])
        try:
            if spec.secrets:
                self._place_secrets(container, spec)
            if spec.address:
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
                    found.append(as_container(client.inspect_container(entry["Id"])))
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

    def exits(self, environment: str, since: datetime) -> Sequence[ContainerExit]:
        """Exits of this environment's release containers since a moment, oldest first. Raise Transient, Unavailable.

        One call for the engine's events. An engine remembers only its last 256 events, of all kinds; when those do not
        reach back to `since`, the environment's containers are inspected too, which shows the newest exit of each.
        Ten minutes apart the engine is asked for its time, so that a clock that is wrong does no harm.
        """
        with self._doing(f"read the events of {environment}", EXITS_TIMEOUT_SECONDS) as client:
            ahead = self._clock_ahead(client)
            begin, now = since + ahead, datetime.now(UTC) + ahead
            events = read_events(client, min(begin, now) - LOOK_BACK, now, EXITS_TIMEOUT_SECONDS)
            found = exits_among(events, environment, self._host)
            if forgotten(events, begin):
                found = merged(found, self._inspected_exits(client, environment))
        return [replace(exit_, at=exit_.at - ahead) for exit_ in found if exit_.at >= begin]

    def run_once(self, spec: ContainerSpec, timeout_seconds: float) -> tuple[int, str]:
        """Run a one-shot container to its end, remove it, and return exit code and last output lines.

        Past the time-out it is killed and the code is 124. What a killed controller left behind under the same name is
        removed first. Raise AddressInUse, NotFound, Permanent, Transient.
        """
        import requests.exceptions

        spec = once(spec)
        for left in self.containers({"ops.once": "true", "ops.once.name": spec.name}):
            self.remove(left.id)
        container = self.create(spec)
        try:
            self.start(container)
            with self._doing(f"wait for {spec.name}", None) as client:
                try:
                    code = int(client.wait(container, timeout=timeout_seconds)["StatusCode"])  # type: ignore[arg-type]
                except requests.exceptions.RequestException as error:
                    if not read_timed_out(error):
                        raise
                    self.stop(container, 0)
                    code = TIMED_OUT
            return code, self.logs(container)
        finally:
            self.remove(container)

    def _inspected_exits(self, client: APIClient, environment: str) -> list[ContainerExit]:
        import docker.errors

        found = []
        for entry in client.containers(all=True, filters={"label": [f"ops.environment={environment}", "ops.release"]}):
            with contextlib.suppress(docker.errors.NotFound):  # removed between listing and looking
                found.append(last_exit(client.inspect_container(entry["Id"]), environment, self._host))
        return [exit_ for exit_ in found if exit_ is not None]

    def _clock_ahead(self, client: APIClient) -> timedelta:
        """How far the engine's clock is ahead of ours; a local engine has the same clock."""
        if self._url.startswith("unix://"):
            return timedelta(0)
        now = time.monotonic()
        if self._ahead is None or now - self._ahead[0] > CLOCK_FRESH_SECONDS:
            theirs = engine_time(str(client.info().get("SystemTime") or ""))
            ahead = timedelta(0) if theirs is None else theirs - datetime.now(UTC)
            self._ahead = (now, ahead)
        return self._ahead[1]

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
            restart_policy=None if "ops.once" in spec.labels else {"Name": "unless-stopped"},
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
        endpoint = client.create_endpoint_config(ipv4_address=spec.address or None, aliases=list(spec.aliases) or None)
        return {
            "Image": spec.image,
            **command_of(spec),
            "Env": [f"{name}={value}" for name, value in spec.environment.items()],
            "Labels": labels,
            "HostConfig": host,
            "NetworkingConfig": {"EndpointsConfig": {spec.network: endpoint}},
        }

    def _place_secrets(self, container: str, spec: ContainerSpec) -> None:
        with self._doing(f"place the secrets of {spec.name}") as client:
            user = str(client.inspect_container(container)["Config"].get("User") or "")
            try:
                # Each file read out of a container costs as much as an exec.
                uid, gid = plain_ids(user) or user_ids(
                    user, file_of(client, container, "/etc/passwd"), file_of(client, container, "/etc/group")
                )
            except ValueError as error:
                raise Permanent(f"secrets of {spec.name}: {error}", hint="Use a numeric USER in the image.") from error
            client.put_archive(container, FOLDER, secrets_archive(spec.secrets, uid, gid))

    def _see_address_is_free(self, container: str, spec: ContainerSpec) -> None:
        # The engine notices a double static address only at start, and not at all while the other one is stopped.
        with self._doing(f"list the addresses of {spec.network}") as client:
            for entry in client.containers(all=True, filters={"network": spec.network}):
                same = address_on(entry.get("NetworkSettings") or {}, spec.network) == spec.address
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
