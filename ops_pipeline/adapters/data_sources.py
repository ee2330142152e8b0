"""What the catalogue says is backed up, as data sources: databases first, files second."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ops_pipeline.catalogue import backup_model as shape
from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.core.backup.records import FILE_KINDS
from ops_pipeline.errors import BadInput, Problem
from ops_pipeline.ports import DataSource, FileTree


def open_sources(
    catalogue: Catalogue, environment: str, root: Path, secret: Callable[[str], str]
) -> Sequence[DataSource | FileTree]:
    """Given an environment's name, the project folder and a reader of secret references, return its data sources.

    Touches no engine, disk or network; passwords are read when they are needed. Databases come first, files second,
    both in the catalogue's order: applications write a file before the row that names it, so a set that took the rows
    first has the files of all its rows. Raise BadInput naming every host that the environment does not have.
    """
    described = catalogue.environments[environment]
    if described.backup is None:
        return ()
    hosts = {host.name: host.docker for host in described.hosts}
    first = described.hosts[0].name
    problems = [
        Problem(f"environments.{environment}.backup.sources.{name}.host", f"{host!r} is no host of the environment")
        for name, source in described.backup.sources.items()
        if (host := getattr(source, "host", None)) is not None and host not in hosts
    ]
    if problems:
        raise BadInput(problems, subject="catalogue")
    found = [
        _opened(
            name,
            source,
            hosts,
            first,
            root,
            secret,
            courier=catalogue.backups.courier_image,
            memory_bytes=described.backup.drill_memory_mb * 1024 * 1024,
        )
        for name, source in described.backup.sources.items()
    ]
    return sorted(found, key=lambda source: source.kind in FILE_KINDS)


def _opened(
    name: str,
    source: shape.Source,
    hosts: Mapping[str, str],
    first: str,
    root: Path,
    secret: Callable[[str], str],
    *,
    courier: str,
    memory_bytes: int,
) -> DataSource | FileTree:
    if isinstance(source, shape.DirectorySource):
        from ops_pipeline.adapters.file_tree import DirectoryTree

        return DirectoryTree(name, root / source.path, exclude=source.exclude)
    host = source.host or first
    if isinstance(source, shape.VolumeSource):
        from ops_pipeline.adapters.volume_tree import VolumeTree

        return VolumeTree(name, source.volume, docker_url=hosts[host], host=host, image=courier, exclude=source.exclude)
    return _database(name, source, hosts[host], host, secret, memory_bytes)


def _database(
    name: str,
    source: shape.PostgresSource | shape.MysqlSource | shape.MongodbSource | shape.RedisSource,
    docker_url: str,
    host: str,
    secret: Callable[[str], str],
    memory_bytes: int,
) -> DataSource:
    from ops_pipeline.adapters.databases.container import DatabaseContainer, Engine

    container = DatabaseContainer(Engine(docker_url, host), source.container, name)
    reference = source.password
    password = None if reference is None else (lambda: secret(reference))
    remote = source.remote or ""
    if isinstance(source, shape.PostgresSource):
        from ops_pipeline.adapters.databases.postgres import PostgresSource

        return PostgresSource(
            name,
            container,
            source.database,
            user=source.user,
            password=password,
            remote=remote,
            timeout_seconds=source.timeout_seconds,
            memory_bytes=memory_bytes,
        )
    if isinstance(source, shape.MysqlSource):
        from ops_pipeline.adapters.databases.mysql import MysqlSource

        return MysqlSource(
            name,
            source.kind,
            container,
            source.database,
            user=source.user,
            password=password,
            remote=remote,
            timeout_seconds=source.timeout_seconds,
            memory_bytes=memory_bytes,
        )
    if isinstance(source, shape.MongodbSource):
        from ops_pipeline.adapters.databases.mongodb import MongodbSource

        return MongodbSource(
            name,
            container,
            source.database,
            user=source.user,
            password=password,
            remote=remote,
            timeout_seconds=source.timeout_seconds,
            memory_bytes=memory_bytes,
        )
    from ops_pipeline.adapters.databases.redis import RedisSource

    return RedisSource(
        name,
        container,
        user=source.user,
        password=password,
        remote=remote,
        timeout_seconds=source.timeout_seconds,
        memory_bytes=memory_bytes,
    )
