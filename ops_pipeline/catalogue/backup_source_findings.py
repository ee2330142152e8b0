"""Whether the data sources of a catalogue can be backed up and restored, each and side by side. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ops_pipeline.catalogue.addresses import Found
from ops_pipeline.catalogue.backup_model import (
    DatabaseSource,
    DirectorySource,
    MongodbSource,
    MysqlSource,
    PostgresSource,
    RedisSource,
    Source,
    VolumeSource,
)
from ops_pipeline.catalogue.document import Path
from ops_pipeline.catalogue.model import Catalogue, Environment
from ops_pipeline.catalogue.wording import did_you_mean
from ops_pipeline.core.backup.patterns import Patterns

_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_LABELS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]*=[^=,\s]+(\s*,\s*[A-Za-z0-9][A-Za-z0-9_./-]*=[^=,\s]+)*")
_VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]+")
_REMOTE = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?):([0-9]{1,5})")
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f]+")

_LONGEST_NAME = 46
"""Of a database: engines take 63 bytes, and what a restore makes beside has `_` and up to 16 characters more."""

_ENGINES_OWN = {
    "postgres": {"template0", "template1"},
    "mysql": {"mysql", "information_schema", "performance_schema", "sys"},
    "mongodb": {"admin", "config", "local"},
}
_READS = ("select", "with", "values", "table", "show")
_REDIS_READS = {
    "dbsize", "exists", "get", "getrange", "hexists", "hget", "hgetall", "hlen", "hmget", "keys", "lindex", "llen",
    "lrange", "mget", "scard", "sismember", "smembers", "strlen", "ttl", "type", "xlen", "zcard", "zcount", "zrange",
    "zscore",
}  # fmt: skip


def source_findings(catalogue: Catalogue) -> Iterator[Found]:
    """Everything that makes a data source impossible to back up or to restore."""
    taken: dict[tuple[str, ...], tuple[Path, str]] = {}
    for name, environment in catalogue.environments.items():
        sources = environment.backup.sources if environment.backup is not None else {}
        for source_name, source in sources.items():
            where: Path = ("environments", name, "backup", "sources", source_name)
            yield from _source(where, source, name, environment)
            place = _place(source, environment)
            if place is None:
                continue
            first = taken.setdefault(place, (where, f"source `{source_name}` of `{name}`"))
            if first[0] != where:
                text = f"is the same {_what(source)} as {first[1]}: restoring one would change the other"
                yield where, text, (first[0],)


def _source(where: Path, source: Source, name: str, environment: Environment) -> Iterator[Found]:
    if isinstance(source, DirectorySource):
        yield from _folder(where, source.path)
        yield from _exclude(where, source.exclude)
        return
    hosts = [host.name for host in environment.hosts]
    if source.host is not None and source.host not in hosts:
        text = f"`{name}` has no host `{source.host}`{did_you_mean(source.host, hosts)}"
        yield (*where, "host"), text, (("environments", name, "hosts"),)
    if isinstance(source, VolumeSource):
        if not _VOLUME.fullmatch(source.volume):
            text = "must be the name of a Docker volume: letters, digits and `_ . -`"
            text += "; write out what `{environment}` stands for" if "{" in source.volume else ""
            text += "; a folder is a source of kind `directory`" if "/" in source.volume else ""
            yield (*where, "volume"), text, ()
        yield from _exclude(where, source.exclude)
    else:
        yield from _database(where, source)


def _database(where: Path, source: DatabaseSource) -> Iterator[Found]:
    selector = source.container
    if not _CONTAINER.fullmatch(selector) and not _LABELS.fullmatch(selector.strip()):
        text = "must be a container's name, or labels `key=value,key=value`"
        yield (*where, "container"), text, ()
    if source.remote is not None:
        remote = _REMOTE.fullmatch(source.remote)
        if remote is None or not 1 <= int(remote.group(3)) <= 65535:
            yield (*where, "remote"), "must be host:port, without scheme, user and password", ()
    if source.user and (not _PRINTABLE.fullmatch(source.user) or source.user.startswith("-")):
        yield (*where, "user"), "must be a user's name, without control characters and not starting with `-`", ()
    if isinstance(source, MongodbSource) and source.password is not None and not source.user:
        yield (*where, "password"), "needs a `user` beside it", ()
    if isinstance(source, (PostgresSource, MysqlSource, MongodbSource)):
        yield from _database_name((*where, "database"), _family(source), source.database)
    for question, query in source.questions.items():
        yield from _question((*where, "questions", question), source, question, query)


def _database_name(where: Path, family: str, database: str) -> Iterator[Found]:
    size = len(database.encode("utf-8", "surrogatepass"))
    if not 0 < size <= _LONGEST_NAME:
        text = f"must have 1 to {_LONGEST_NAME} bytes: a restore makes `{database[:20] or 'x'}…_r20261121` beside it"
        yield where, text, ()
    elif database in _ENGINES_OWN[family]:
        yield where, f"`{database}` is the engine's own; name the application's database", ()
    elif not _PRINTABLE.fullmatch(database) or database.startswith("-") or database != database.strip():
        yield where, "must not start with `-`, nor hold control characters or blanks at its ends", ()
    elif re.search(r"[/\\`\"'$=]", database) or (family == "mongodb" and re.search(r"[.*<>:|? ]", database)):
        yield where, "holds a character that database names of this kind cannot have safely", ()


def _question(where: Path, source: DatabaseSource, name: str, query: str) -> Iterator[Found]:
    text = query.strip()
    if not name.strip() or not text:
        yield where, "needs a name and a query", ()
        return
    word = text.split(None, 1)[0].lower()
    if isinstance(source, RedisSource):
        if word not in _REDIS_READS or "\n" in text:
            yield where, "must be one reading Redis command, such as `GET key`, `DBSIZE`, `HLEN key`", ()
    elif isinstance(source, MongodbSource):
        if not text.startswith("db."):
            yield where, "must be one reading call, such as `db.listings.count({})`", ()
    else:
        outside = re.sub(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`", "", text).rstrip().removesuffix(";")
        if word.lstrip("(") not in _READS or ";" in outside:
            yield where, "must be one reading query: SELECT …, WITH … SELECT …, VALUES …, TABLE …, SHOW …", ()


def _folder(where: Path, path: str) -> Iterator[Found]:
    if not path.strip() or "\0" in path:
        yield (*where, "path"), "must be a folder's path, absolute or relative to the project folder", ()
    elif not path.strip("/"):
        yield (*where, "path"), "is the root of the file system: a restore could not put anything beside it", ()


def _exclude(where: Path, patterns: tuple[str, ...]) -> Iterator[Found]:
    for index, pattern in enumerate(patterns):
        try:
            Patterns([pattern])
        except ValueError as error:
            yield (*where, "exclude", index), str(error), ()


def _place(source: Source, environment: Environment) -> tuple[str, ...] | None:
    """What makes two sources the same data; None for folders, which are compared by path."""
    if isinstance(source, DirectorySource):
        return None
    endpoints = {host.name: host.docker for host in environment.hosts}
    engine = endpoints.get(source.host, "") if source.host is not None else environment.hosts[0].docker
    if isinstance(source, VolumeSource):
        return ("volume", engine, source.volume)
    family = _family(source)
    database = getattr(source, "database", "")
    if source.remote is not None:
        return (family, "remote", source.remote.lower(), database)
    return (family, engine, ",".join(sorted(part.strip() for part in source.container.split(","))), database)


def _family(source: DatabaseSource) -> str:
    """Kind, with MariaDB as MySQL."""
    kind = str(getattr(source, "kind", ""))
    return "mysql" if kind == "mariadb" else kind


def _what(source: Source) -> str:
    if isinstance(source, VolumeSource):
        return "volume"
    return "server" if isinstance(source, RedisSource) else "database"
