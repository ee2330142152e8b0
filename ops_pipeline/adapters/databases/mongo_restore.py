"""Restoring MongoDB: into collections beside the live ones, or into a scratch server; users; questions."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from ops_pipeline.adapters.databases import mongo_tools
from ops_pipeline.adapters.databases.mongo_bson import BsonError, Raw, decode, encode
from ops_pipeline.adapters.databases.mongo_server import MongoServer, MongoSession, collections
from ops_pipeline.core.backup.records import Contents
from ops_pipeline.errors import BadInput, Permanent, Problem, StoreDamaged

MAX_GLOBALS = 64 * 1024 * 1024
_COUNT = re.compile(r"db\.(?P<collection>[^()]+)\.(?:count|countDocuments)\((?P<filter>.*)\)\s*;?", re.DOTALL)
_BY_NAME = ("count", "find", "aggregate", "distinct")  # commands whose value is a collection


class MongoBeside:
    """A `Beside`: collections of `database` whose names begin with `prefix` ("" = a scratch server's own)."""

    def __init__(self, server: MongoServer, database: str, prefix: str, seconds: float) -> None:
        self._server = server
        self._database = database
        self._prefix = prefix
        self._seconds = seconds
        self._users: list[bytes] = []

    @property
    def name(self) -> str:
        """Database, and how its collections' names begin."""
        return f"{self._database}.{self._prefix}*" if self._prefix else self._database

    def load(self, part: str, chunks: Iterator[bytes]) -> None:
        """Load one part. Raise Permanent with the tool's last words, StoreDamaged when it is cut."""
        if part == "globals":
            self._users = users_of(b"".join(_bounded(chunks)), self._server.source)
        elif part == "dump":
            self._load_dump(chunks)
        else:
            raise Permanent(f"data source {self._server.source}: a MongoDB backup has no part {part!r}")

    def _load_dump(self, chunks: Iterator[bytes]) -> None:
        # mongorestore names the collection in each index and asks the server to overlook that; FerretDB does not.
        by_tool = "ferretdb" not in " ".join(self._server.ask("admin", {"buildInfo": 1})).lower()
        walker = mongo_tools.restore(
            self._server, self._database, self._database, self._prefix, chunks, self._seconds, indexes=by_tool
        )
        if by_tool:
            return
        with self._server.session() as session:
            for each in walker.namespaces.values():
                kept = [
                    {name: _plain(value) for name, value in index.items() if name not in {"v", "ns"}}
                    for index in each.metadata.get("indexes") or []
                    if index.get("name") != "_id_"
                ]
                if kept:
                    session.ask(self._database, {"createIndexes": self._prefix + each.collection, "indexes": kept})

    def finish(self) -> None:
        """Add the users that the server does not have; those it has stay as they are."""
        with self._server.session() as session:
            there = {str(user["_id"]) for user in _users(session, self._database)}
            for document in self._users:
                user = decode(document)
                if str(user["_id"]) not in there:
                    session.ask("admin", {"insert": "system.users", "documents": [user]})

    def contents(self) -> Contents:
        """What it holds now."""
        with self._server.session() as session:
            found = collections(session, self._database)
            others = [name for name in found if self._prefix and not name.startswith(self._prefix)]
        return with_users(
            mongo_tools.contents(self._server, self._database, self._prefix, others, self._seconds),
            self._server,
            self._database,
        )

    def ask(self, query: str) -> str:
        """Answer of a query: `db.<collection>.count({…})`, or a database command as JSON."""
        return ask(self._server, self._database, query, self._prefix)


def ask(server: MongoServer, database: str, query: str, prefix: str = "") -> str:
    """Answer of a query as text; collections are those whose names begin with `prefix`. Raise BadInput, Permanent."""
    text = query.strip()
    counted = _COUNT.fullmatch(text)
    try:
        if counted:
            command = {"count": counted["collection"], "query": json.loads(counted["filter"] or "{}")}
        else:
            command = json.loads(text)
        name = next(iter(command))
    except (ValueError, StopIteration, TypeError) as error:
        raise BadInput(
            [Problem("question", f"{text[:80]!r} is neither db.<collection>.count({{…}}) nor a command as JSON")],
            subject=f"data source {server.source}",
        ) from error
    if name in _BY_NAME:
        command = {**command, name: prefix + str(command[name])}
    with server.session() as session:
        answer = session.ask(database, command)
    if name == "count":
        return str(int(answer["n"]))
    found = answer.get("values", answer.get("cursor", {}).get("firstBatch"))
    return json.dumps(found if found is not None else answer, default=_shown, ensure_ascii=False)


def users(server: MongoServer, database: str) -> list[dict[str, Any]]:
    """Users of a database with their credentials; none where we may not read them. Raise Unavailable."""
    with server.session() as session:
        return _users(session, database)


def _users(session: MongoSession, database: str) -> list[dict[str, Any]]:
    try:
        found = list(session.rows("admin", {"find": "system.users", "filter": {"db": database}}))
    except Permanent:
        try:
            found = session.ask(database, {"usersInfo": 1, "showCredentials": True}).get("users", [])
        except Permanent:
            return []
    # What a server adds when it is asked, and does not store.
    kept = ("_id", "userId", "user", "db", "credentials", "customData", "roles", "authenticationRestrictions")
    return [{name: user[name] for name in kept if name in user} for user in found if "credentials" in user]


def stored_users(found: list[dict[str, Any]]) -> bytes:
    """Users as a part of a backup: JSON that says how many there are, each as BSON in base64."""
    listed = [base64.b64encode(encode(user)).decode() for user in found]
    return json.dumps({"count": len(listed), "users": listed}).encode() + b"\n"


def users_of(data: bytes, source: str) -> list[bytes]:
    """What `stored_users` gave, as documents. Raise StoreDamaged."""
    try:
        document = json.loads(data)
        found = [base64.b64decode(user) for user in document["users"]]
        if len(found) != document["count"] or not all("_id" in decode(user) for user in found):
            raise ValueError
    except (ValueError, KeyError, TypeError, BsonError) as error:
        raise StoreDamaged(f"data source {source}: the list of users is cut or damaged") from error
    return found


def with_users(found: Contents, server: MongoServer, database: str) -> Contents:
    """The same with the database's users among the objects."""
    objects = {f"user {user['user']}": hashlib.sha256(encode(user)).hexdigest() for user in users(server, database)}
    return Contents(found.counts, {**found.objects, **objects}, found.samples)


def _plain(value: Any) -> Any:
    """Given a value of Extended JSON as indexes have it, return it as BSON takes it. Raise Permanent (other types)."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        [(kind, text)] = value.items()
        if kind in ("$numberInt", "$numberLong"):
            return int(text)
        if kind == "$numberDouble":
            return float(text)
        if kind in ("$oid", "$date", "$binary", "$numberDecimal", "$timestamp", "$regularExpression"):
            raise Permanent(f"an index with a value of type {kind} cannot be made on this server")
    return {name: _plain(item) for name, item in value.items()}


def _bounded(chunks: Iterator[bytes]) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > MAX_GLOBALS:
            raise StoreDamaged("the list of users is larger than 64 MiB")
        yield chunk


def _shown(value: object) -> object:
    if isinstance(value, Raw):
        return {"type": value.kind, "hex": value.data.hex()}
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


__all__ = ["MongoBeside", "ask", "stored_users", "users", "users_of", "with_users"]
