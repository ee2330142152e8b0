"""Real database servers for tests: PostgreSQL, MariaDB, Redis, and FerretDB for MongoDB's protocol.

Each runs in a container without any network but its own loopback and without a published port; its data lie in an
anonymous volume that goes with it. What wants to talk to it does so inside the container, or joins its network
(`container:<name>`), as the adapters do.
"""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from deploy.setup import database_images
from ops_pipeline_tests.testbed import testbed_id

KINDS = ("postgres", "mariadb", "redis", "mongodb")
START_SECONDS = 120.0
_DATA = {
    "postgres": "/var/lib/postgresql/data",
    "mariadb": "/var/lib/mysql",
    "redis": "/data",
    "mongodb": "/data/db",
}
_QUESTIONS = {
    "postgres": ["pg_isready", "-q"],
    "mariadb": ["mariadb-admin", "-uroot", "--silent", "ping"],
    "redis": ["redis-cli", "ping"],
    "mongodb": ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/27017"],
}


@dataclass(frozen=True)
class Database:
    """A running server. `name` is the container's; `password` the superuser's, "" = none is needed inside."""

    kind: str
    name: str
    image: str
    user: str = ""
    password: str = field(default="", repr=False)

    def run(
        self, *argv: str, text: str | bytes = b"", environment: Mapping[str, str] | None = None, check: bool = True
    ) -> bytes:
        """Standard output of a command inside the container, fed `text`. Raise RuntimeError with its words."""
        variables = [part for name in environment or {} for part in ("--env", name)]
        done = subprocess.run(
            ["docker", "exec", "--interactive", *variables, self.name, *argv],
            input=text.encode() if isinstance(text, str) else text,
            capture_output=True,
            timeout=600,
            check=False,
            env=_environment(environment),
        )
        if check and done.returncode:
            raise RuntimeError(
                f"{argv[0]}: exit code {done.returncode}: {done.stderr.decode(errors='replace')[-2000:]}"
            )
        return done.stdout

    def client(self, text: str | bytes, database: str = "") -> str:
        """Answer of the engine's own client to SQL or Redis commands (a line each): bare values, no headings.

        FerretDB has no client of its own; tests talk to it through the adapter's connection. Raise RuntimeError.
        """
        if self.kind == "postgres":
            argv = [
                "psql",
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "postgres",
                "-d",
                database or "postgres",
            ]
            return self.run(*argv, text=text).decode()
        if self.kind == "mariadb":
            argv = [
                "mariadb",
                "-uroot",
                "-N",
                "-B",
                "--default-character-set=utf8mb4",
                *([database] if database else []),
            ]
            return self.run(*argv, text=text, environment={"MYSQL_PWD": self.password}).decode()
        if self.kind == "redis":
            argv = ["redis-cli", "-e", *(["-n", database] if database else [])]
            return self.run(*argv, text=text, environment={"REDISCLI_AUTH": self.password}).decode()
        raise RuntimeError(f"{self.kind} has no client")

    def restart(self) -> None:
        """Stop and start it; return when it answers."""
        _docker("restart", "--time", "30", self.name)
        _wait(self)

    def kill(self) -> None:
        """SIGKILL, as when the machine loses its power."""
        _docker("kill", self.name)


@contextmanager
def running(
    kind: str,
    *,
    password: str = "",
    command: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    network: str = "none",
    memory: str = "1g",
    in_memory: bool = True,
) -> Iterator[Database]:
    """Start a server of KINDS and yield it once it answers; removed with its volumes afterwards.

    `password` of the superuser (MongoDB: of the user "admin"). `command` replaces the image's command. `in_memory`:
    data in a tmpfs, which is faster; without it in an anonymous volume, which survives `kill` and `restart`.
    """
    image = ensured(kind)
    name = f"ops-testbed-{kind}-{uuid.uuid4().hex[:12]}"
    argv = ["create", "--name", name, "--label", f"ops.testbed={testbed_id()}", "--network", network]
    argv += ["--memory", memory, "--init"]
    for key, value in (labels or {}).items():
        argv += ["--label", f"{key}={value}"]
    if kind == "mongodb":
        argv += ["--tmpfs", "/tmp:mode=1777"]
        if password:
            argv += ["--env", "FERRETDB_TEST_ENABLE_NEW_AUTH=true", "--env", "FERRETDB_SETUP_DATABASE=admin"]
            argv += ["--env", "FERRETDB_SETUP_USERNAME=admin", "--env", "FERRETDB_SETUP_PASSWORD"]
    if in_memory and kind in ("redis", "mongodb"):
        # Copied from nothing: both engines make their files themselves. The others bring theirs in the image.
        owner = {"redis": 10022, "mongodb": 10023}[kind]
        argv += ["--tmpfs", f"{_DATA[kind]}:mode=0700,uid={owner},gid={owner}"]
    if kind == "redis" and password:
        argv += ["--env", "TEST_PASSWORD", "--entrypoint", "sh"]
        server = command or ["redis-server", "--dir", "/data", "--bind", "*", "--protected-mode", "no"]
        command = ["-c", 'exec "$@" --requirepass "$TEST_PASSWORD"', "sh", *server]
    secrets = {"FERRETDB_SETUP_PASSWORD": password, "TEST_PASSWORD": password}
    _docker(*argv, image, *command, environment=secrets)
    user = {"postgres": "postgres", "mariadb": "root", "redis": "", "mongodb": "admin" if password else ""}[kind]
    database = Database(kind, name, image, user)
    try:
        _docker("start", name)
        _wait(database)
        if password:
            _set_password(database, password)
        yield Database(kind, name, image, user, password)
    finally:
        _docker("rm", "--force", "--volumes", name)


def ensured(kind: str) -> str:
    """The image of this kind in its present state, built if it is missing; its name."""
    database_images.ensure((kind,), quiet=True)
    return database_images.tag(kind)


@contextmanager
def private_network() -> Iterator[str]:
    """A network without a way out, for servers that must see each other; its name."""
    name = f"ops-testbed-databases-{uuid.uuid4().hex[:12]}"
    _docker("network", "create", "--internal", "--label", f"ops.testbed={testbed_id()}", name)
    try:
        yield name
    finally:
        _docker("network", "rm", name)


def _set_password(database: Database, password: str) -> None:
    if database.kind == "postgres":
        database.client(f"ALTER USER postgres PASSWORD '{password}'")
    elif database.kind == "mariadb":
        database.client(f"SET PASSWORD FOR root@localhost = PASSWORD('{password}')")


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    return {**os.environ, **(extra or {})}


def _wait(database: Database) -> None:
    deadline = time.monotonic() + START_SECONDS
    question = _QUESTIONS[database.kind]
    while True:
        done = subprocess.run(
            ["docker", "exec", database.name, *question], capture_output=True, timeout=60, check=False
        )
        if done.returncode == 0 or b"NOAUTH" in done.stdout:
            return
        if time.monotonic() > deadline:
            log = subprocess.run(["docker", "logs", "--tail", "40", database.name], capture_output=True, check=False)
            raise RuntimeError(f"{database.name} did not come up: {(log.stdout + log.stderr).decode()[-3000:]}")
        time.sleep(0.1)


def _docker(*arguments: str, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        ["docker", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=_environment(environment),
    )
    if done.returncode:
        raise RuntimeError(f"docker {' '.join(arguments)}: {done.stderr.strip()[-2000:]}")
    return done.stdout.strip()
