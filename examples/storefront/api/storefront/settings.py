"""Everything that can be set, read once from the environment.

Secrets are files (`/run/secrets/<NAME>`, or the path in `<NAME>_FILE`); a plain variable of the same name is the
fallback for local work. They are read anew for each connection, so a rotated file needs no restart.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

N = TypeVar("N", int, float)
SECRETS = Path("/run/secrets")


class BadSettings(Exception):
    """Names every setting that cannot be used."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Secret:
    """A secret's name and where it may be found. The value is never kept, shown or logged."""

    name: str
    file: Path
    fallback: str | None = None

    def read(self) -> str | None:
        """The value, or None when there is none."""
        try:
            return self.file.read_text(encoding="utf-8").rstrip("\r\n")
        except FileNotFoundError:
            return self.fallback

    def __repr__(self) -> str:
        return f"Secret({self.name})"


@dataclass(frozen=True)
class Settings:
    """Times are seconds, sizes are bytes."""

    database_password: Secret
    redis_password: Secret
    host: str = "0.0.0.0"  # noqa: S104 (inside a container; what is reachable is the network's business)
    port: int = 8000
    database_host: str = "postgres"
    database_port: int = 5432
    database_name: str = "storefront"
    database_user: str = "storefront"
    database_pool: int = 8
    redis_host: str = "redis"
    redis_port: int = 6379
    flags: Path = Path("/run/flags/flags.json")
    photos: Path = Path("/srv/photos")
    photo_max_bytes: int = 5 * 1024 * 1024
    stop_grace: float = 8.0
    request_timeout: float = 30.0
    tick: float = 5.0
    log_level: str = "INFO"
    faults: str | None = None
    version: str = "0.0.0-dev"
    commit: str = "unknown"
    release: str = ""
    environment: str = "local"
    instance: str = ""


def load(environ: Mapping[str, str], *, secrets: Path = SECRETS) -> Settings:
    """Settings from the environment. Raises BadSettings that names all problems at once."""
    problems: list[str] = []
    defaults = Settings(database_password=Secret("-", secrets), redis_password=Secret("-", secrets))

    def secret(name: str, *, required: bool) -> Secret:
        found = Secret(name, Path(environ.get(f"{name}_FILE") or secrets / name), environ.get(name) or None)
        try:
            value = found.read()
        except OSError as error:
            problems.append(f"{name}: {found.file} cannot be read ({error.strerror})")
        else:
            if required and not value:
                problems.append(f"{name}: neither file {found.file} nor variable {name} gives a value")
        return found

    def number(name: str, default: N, low: N, high: N, kind: Callable[[str], N]) -> N:
        text = environ.get(name, "").strip()
        if not text:
            return default
        try:
            value = kind(text)
            if low <= value <= high:
                return value
        except ValueError:
            pass
        problems.append(f"{name}: «{text}» is not a number between {low} and {high}")
        return default

    level = (environ.get("LOG_LEVEL") or defaults.log_level).upper()
    if level not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        problems.append(f"LOG_LEVEL: «{level}» is none of DEBUG, INFO, WARNING, ERROR")
    settings = Settings(
        database_password=secret("DATABASE_PASSWORD", required=True),
        redis_password=secret("REDIS_PASSWORD", required=False),
        host=environ.get("STOREFRONT_HOST") or defaults.host,
        port=number("STOREFRONT_PORT", defaults.port, 1, 65535, int),
        database_host=environ.get("DATABASE_HOST") or defaults.database_host,
        database_port=number("DATABASE_PORT", defaults.database_port, 1, 65535, int),
        database_name=environ.get("DATABASE_NAME") or defaults.database_name,
        database_user=environ.get("DATABASE_USER") or defaults.database_user,
        database_pool=number("DATABASE_POOL", defaults.database_pool, 1, 100, int),
        redis_host=environ.get("REDIS_HOST") or defaults.redis_host,
        redis_port=number("REDIS_PORT", defaults.redis_port, 1, 65535, int),
        flags=Path(environ.get("FLAGS_FILE") or defaults.flags),
        photos=Path(environ.get("PHOTOS_DIRECTORY") or defaults.photos),
        photo_max_bytes=number("PHOTO_MAX_BYTES", defaults.photo_max_bytes, 1024, 100 * 1024 * 1024, int),
        stop_grace=number("STOP_GRACE_SECONDS", defaults.stop_grace, 0.0, 600.0, float),
        tick=number("LIVE_TICK_SECONDS", defaults.tick, 0.05, 3600.0, float),
        log_level=level,
        faults=environ.get("STOREFRONT_FAULTS") or None,
        version=environ.get("STOREFRONT_VERSION") or defaults.version,
        commit=environ.get("STOREFRONT_COMMIT") or defaults.commit,
        release=environ.get("OPS_RELEASE") or defaults.release,
        environment=environ.get("OPS_ENVIRONMENT") or defaults.environment,
        instance=socket.gethostname(),
    )
    if problems:
        raise BadSettings(problems)
    return settings
