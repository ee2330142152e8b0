"""MongoDB's own dump and restore tools, run in a container. The password reaches them through a pipe, as `--config`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from ops_pipeline.adapters.databases.mongo_archive import ArchiveWalker
from ops_pipeline.adapters.databases.mongo_server import MongoServer
from ops_pipeline.adapters.databases.streaming import Tool, failure_words, run
from ops_pipeline.core.backup.records import Contents
from ops_pipeline.errors import Permanent

BESIDE, HOLD, STATE = "ops_r_", "ops_h_", "ops_s_"
"""How the names of collections begin that restores make in the live database; no dump has them."""
_CONFIGURED = 'exec "$@" --config <(printf "%s" "$OPS_CONFIG")'
_TOTAL = re.compile(r"(\d+) document\(s\) restored successfully\. (\d+) document\(s\) failed to restore")


def dumping(server: MongoServer, database: str, without: Sequence[str] = ()) -> list[str]:
    """Arguments of mongodump without any secret. `without`: collections that are left out."""
    command = ["mongodump", "--quiet", *_where(server), "--archive", f"--db={database}"]
    return [*command, *(f"--excludeCollection={name}" for name in without)]


def excluded(*prefixes: str) -> list[str]:
    """Arguments that leave out collections by the beginning of their name."""
    return [f"--excludeCollectionsWithPrefix={prefix}" for prefix in prefixes]


def tool(server: MongoServer, command: Sequence[str], hang_seconds: float) -> Tool:
    """A tool that writes an archive."""
    return Tool(
        server.engine,
        server.container(),
        _configured(server, command),
        environment=_environment(server),
        bulk=True,
        hang_seconds=hang_seconds,
        what=command[0],
    )


def version(server: MongoServer) -> str:
    """E.g. "mongodump 100.10.0"."""
    text = run(server.engine, server.container(), ["mongodump", "--version"], check=True).text
    match = re.search(r"version: (\S+)", text)
    return f"mongodump {match[1] if match else text.strip()[:80]}"


def contents(server: MongoServer, database: str, prefix: str, others: Sequence[str], seconds: float) -> Contents:
    """What the collections hold whose name begins with `prefix`, as a dump of them tells; `others` are left out."""
    walker = ArchiveWalker(f"the dump of {database}")
    hidden = excluded(HOLD, STATE) if prefix else excluded(BESIDE, HOLD, STATE)
    with tool(server, [*dumping(server, database, others), *hidden], seconds) as running:
        while data := running.read(1024 * 1024):
            walker.feed(data)
        running.require_success()
    walker.finish()
    return walker.contents(database, prefix)


def restore(
    server: MongoServer,
    source: str,
    target: str,
    prefix: str,
    chunks: Iterator[bytes],
    seconds: float,
    *,
    indexes: bool = True,
) -> ArchiveWalker:
    """Load an archive of `source` into the database `target`, its collections named with `prefix` before their name.

    Without `indexes` only those of `_id` are made. Return the walker that followed the archive.
    Raise StoreDamaged when the archive is not whole, Permanent when the tool failed or left a document out: its exit
    code alone does not tell.
    """
    command = ["mongorestore", *_where(server), "--archive", "--stopOnError", f"--nsInclude={_pattern(source)}.*"]
    command += [] if indexes else ["--noIndexRestore"]
    if (source, "") != (target, prefix):
        command += [f"--nsFrom={_pattern(source)}.*", f"--nsTo={_pattern(target)}.{prefix}*"]
    walker = ArchiveWalker("the archive")
    result = run(
        server.engine,
        server.container(),
        _configured(server, command),
        chunks=_walked(walker, chunks),
        environment=_environment(server),
        hang_seconds=seconds,
        what="mongorestore",
    )
    totals = _TOTAL.search(result.err)
    if result.code != 0 or totals is None:
        raise Permanent(f"data source {server.source}: {failure_words('mongorestore', result.code, result.err)}")
    wanted = sum(each.documents for each in walker.namespaces.values() if each.database == source)
    if int(totals[1]) != wanted or int(totals[2]):
        raise Permanent(
            f"data source {server.source}: mongorestore restored {totals[1]} of {wanted} documents",
            hint=result.err[-500:],
        )
    return walker


def _walked(walker: ArchiveWalker, chunks: Iterator[bytes]) -> Iterator[bytes]:
    held = b""
    for chunk in chunks:
        walker.feed(chunk)
        if held:
            yield held
        held = chunk
    # The last piece goes only when all is proved: without it no restore ends well.
    walker.finish()
    yield held


def _where(server: MongoServer) -> list[str]:
    found = [f"--host={server.host}", f"--port={server.port}"]
    if server.password is not None:
        found += [f"--username={server.user}", f"--authenticationDatabase={server.login}"]
    return found


def _configured(server: MongoServer, command: Sequence[str]) -> list[str]:
    return list(command) if server.password is None else ["bash", "-c", _CONFIGURED, "bash", *command]


def _environment(server: MongoServer) -> Mapping[str, str]:
    # A JSON string is a YAML string.
    return {} if server.password is None else {"OPS_CONFIG": f"password: {json.dumps(server.password())}\n"}


def _pattern(name: str) -> str:
    return re.sub(r"([\\*$])", r"\\\1", name)
