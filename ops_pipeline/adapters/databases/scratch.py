"""Throw-away database servers: restores are proven in them, and nothing of them stays.

A scratch server has no network but its own loopback, no published port, bounded memory, no capabilities, a read-only
root file system, and its data in an anonymous volume that goes with it. It runs as the image's database user from the
start, so that no entry point of any image matters.
"""

from __future__ import annotations

import contextlib
import io
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence

from ops_pipeline.adapters.databases.container import Engine
from ops_pipeline.adapters.docker_facts import file_of
from ops_pipeline.adapters.docker_secrets import user_ids
from ops_pipeline.errors import NotFound, OpsError, Permanent, Transient, Unavailable

FOLDER = "/ops-scratch"
DATA = "/ops-scratch/data"
LABEL = "ops.scratch"
PURPOSE = "ops.scratch.source"
START_SECONDS = 120.0
LOG_BYTES = 4000


@contextlib.contextmanager
def scratch_server(
    engine: Engine,
    image: str,
    command: Sequence[str],
    *,
    answers: Callable[[str], bool],
    source: str,
    user: str = "",
    labels: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    memory_bytes: int = 1024 * 1024 * 1024,
    shared_memory_bytes: int = 64 * 1024 * 1024,
    tmpfs: Sequence[str] = ("/tmp", "/run", "/var/run"),  # noqa: S108  (inside the container)
    read_only: bool = True,
    start_seconds: float = START_SECONDS,
) -> Iterator[str]:
    """Start `command` in a container of `image` and give its id once `answers(id)`; at the end it is gone.

    `user` is the name or number the server runs as ("" = the image's own); DATA (`/ops-scratch/data`) is its own
    empty directory (mode 0700) in an anonymous volume. `source` names the data source, and is part of the container's
    name. Earlier scratch servers of the same labels and source are removed first (none without labels).
    Raise NotFound (no such image), Permanent (it ended: its last words), Unavailable (no answer in time), Transient.
    """
    if labels:
        sweep(engine, {**labels, PURPOSE: source})
    with engine.doing(f"make a scratch server of {image}") as client:
        host = client.create_host_config(
            network_mode="none",
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            read_only=read_only,
            tmpfs={path: "mode=1777,exec" for path in tmpfs},
            mem_limit=memory_bytes,
            shm_size=shared_memory_bytes,
            init=True,
        )
        host["Mounts"] = [
            {
                "Type": "volume",
                "Target": FOLDER,
                "VolumeOptions": {"NoCopy": True, "Labels": {**(labels or {}), LABEL: "true", PURPOSE: source}},
            }
        ]
        created = client.create_container_from_config(  # type: ignore[no-untyped-call]
            {
                "Image": image,
                "Entrypoint": list(command),
                "Cmd": [],
                "User": user,
                "WorkingDir": "/",
                "Env": [f"{name}={value}" for name, value in (environment or {}).items()],
                "Labels": {**(labels or {}), LABEL: "true", PURPOSE: source},
                "Healthcheck": {"Test": ["NONE"]},
                "HostConfig": host,
            },
            f"ops-scratch-{source}-{uuid.uuid4().hex[:8]}",
        )
        container = str(created["Id"])
    try:
        _give_folder(engine, container)
        with engine.doing(f"start a scratch server of {image}") as client:
            client.start(container)
        _wait(engine, container, answers, start_seconds, f"the scratch server of {source} ({image})")
        yield container
    finally:
        remove(engine, container)


def sweep(engine: Engine, labels: Mapping[str, str]) -> int:
    """Remove every scratch server that carries all these labels, running or not; return how many there were."""
    wanted = [f"{name}={value}" for name, value in {**labels, LABEL: "true"}.items()]
    with engine.doing("list scratch servers") as client:
        listed = [str(entry["Id"]) for entry in client.containers(all=True, filters={"label": wanted})]
    for container in listed:
        remove(engine, container)
    return len(listed)


def remove(engine: Engine, container: str) -> None:
    """Remove a container with its anonymous volumes, also a running one; no error when it does not exist."""
    for attempt in range(3):
        try:
            with engine.doing(f"remove {container[:12]}", 120.0) as client, contextlib.suppress(NotFound):
                client.remove_container(container, v=True, force=True)
            return
        except NotFound:
            return
        except (Transient, Permanent) as error:
            # «removal is already in progress» counts as done by somebody else; a busy engine is asked again.
            if "already in progress" in error.message:
                return
            if attempt == 2:
                raise
            time.sleep(1.0)


def _give_folder(engine: Engine, container: str) -> None:
    """Make DATA, which belongs to the user the server runs as."""
    with engine.doing(f"prepare {container[:12]}") as client:
        user = str(client.inspect_container(container)["Config"].get("User") or "")
        passwd, group = (file_of(client, container, path) for path in ("/etc/passwd", "/etc/group"))
    try:
        uid, gid = user_ids(user, passwd, group)
    except ValueError as error:
        raise Permanent(f"cannot prepare a scratch server: {error}") from error
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo(DATA.removeprefix(f"{FOLDER}/"))
        entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o700, uid, gid
        archive.addfile(entry)
    with engine.doing(f"prepare {container[:12]}") as client:
        client.put_archive(container, FOLDER, stream.getvalue())


def _wait(engine: Engine, container: str, answers: Callable[[str], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    wait = 0.05
    while True:
        with engine.doing(f"look at {what}") as client:
            state = client.inspect_container(container)["State"]
            if not state["Running"]:
                log: bytes = client.logs(container, stdout=True, stderr=True, tail=30)
                words = log.decode(errors="replace").strip()[-LOG_BYTES:]
                why = "ran out of memory" if state.get("OOMKilled") else f"ended with code {state['ExitCode']}"
                raise Permanent(f"{what} {why}: {words}")
        with contextlib.suppress(OpsError):
            if answers(container):
                return
        if time.monotonic() > deadline:
            raise Unavailable(f"{what} did not answer within {seconds:.0f} s")
        time.sleep(wait)
        wait = min(wait * 1.5, 1.0)
