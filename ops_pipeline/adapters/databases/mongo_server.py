"""A MongoDB server asked in its own protocol, through a tunnel into its container.

Images of MongoDB need not have a shell for queries, and its port need not be published: so `bash` inside the container
connects to the server and passes bytes on. Messages are OP_MSG (MongoDB 3.6 and newer), the password is proved by
SCRAM-SHA-256 or SCRAM-SHA-1 (RFC 5802, RFC 7677) and never leaves this process.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import secrets
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ops_pipeline.adapters.databases.container import Engine
from ops_pipeline.adapters.databases.mongo_bson import BsonError, Raw, decode, encode
from ops_pipeline.adapters.databases.streaming import Tool
from ops_pipeline.errors import NotFound, Permanent, Unavailable

ASK_SECONDS = 120.0
MAX_ANSWER = 64 * 1024 * 1024
_MSG = 2013
_TUNNEL = 'exec 3<>"/dev/tcp/$0/$1" || exit 1; cat <&3 & cat >&3; kill $!'


@dataclass(frozen=True)
class MongoServer:
    """Where and as whom. `container()` gives the id of the container whose tools are used."""

    engine: Engine
    container: Callable[[], str]
    source: str
    user: str = ""
    password: Callable[[], str] | None = field(default=None, repr=False)
    host: str = "127.0.0.1"
    port: int = 27017
    login: str = "admin"  # database the user belongs to

    def session(self) -> MongoSession:
        """A connection. Raise Unavailable, Permanent (wrong password)."""
        return MongoSession(self)

    def ask(self, database: str, command: Mapping[str, Any]) -> dict[str, Any]:
        """Answer of one command. Raise NotFound (no such collection), Permanent when it is refused, Unavailable."""
        with self.session() as session:
            return session.ask(database, command)


class MongoSession:
    """One connection. Not thread-safe."""

    def __init__(self, server: MongoServer) -> None:
        self._server = server
        self._numbers = itertools.count(1)
        self._left = b""
        self._tool = Tool(
            server.engine,
            server.container(),
            ["bash", "-c", _TUNNEL, server.host, str(server.port)],
            fed=True,
            hang_seconds=ASK_SECONDS,
            what="connection to MongoDB",
        )
        try:
            if server.password is not None:
                self._log_in(server.user, server.password())
        except BaseException:
            self.close()
            raise

    def ask(self, database: str, command: Mapping[str, Any]) -> dict[str, Any]:
        """Answer of one command. Raise NotFound (no such collection), Permanent when it is refused, Unavailable."""
        body = struct.pack("<I", 0) + b"\0" + encode({**command, "$db": database})
        number = next(self._numbers)
        self._tool.write(struct.pack("<iiii", len(body) + 16, number, 0, _MSG) + body)
        size, _, _, operation = struct.unpack("<iiii", self._take(16))
        if operation != _MSG or not 21 < size < MAX_ANSWER:
            raise Unavailable(f"data source {self._server.source}: what answers does not speak MongoDB's protocol")
        try:
            answer = decode(self._take(size - 16)[5:])
        except BsonError as error:
            raise Unavailable(f"data source {self._server.source}: an answer cannot be read: {error}") from error
        name = next(iter(command))
        if not answer.get("ok"):
            words = f"data source {self._server.source}: {name} refused: {answer.get('errmsg')}"
            if answer.get("code") == 26:
                raise NotFound(words)
            raise Permanent(words)
        if answer.get("writeErrors"):
            raise Permanent(f"data source {self._server.source}: {name} failed: {answer['writeErrors'][0]}")
        return answer

    def rows(self, database: str, command: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Documents of a command that gives a cursor."""
        answer = self.ask(database, command)
        batch = "firstBatch"
        while True:
            cursor = answer["cursor"]
            yield from cursor[batch]
            if not cursor["id"]:
                return
            collection = str(cursor["ns"]).partition(".")[2]
            answer = self.ask(database, {"getMore": _long(cursor["id"]), "collection": collection})
            batch = "nextBatch"

    def close(self) -> None:
        """Disconnect; no error."""
        self._tool.close()

    def __enter__(self) -> MongoSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, size: int) -> bytes:
        while len(self._left) < size:
            piece = self._tool.read(1024 * 1024)
            if not piece:
                raise Unavailable(
                    f"data source {self._server.source}: the MongoDB server closed the connection or does not answer",
                    hint=self._tool.error_tail[-500:],
                )
            self._left += piece
        data, self._left = self._left[:size], self._left[size:]
        return data

    def _log_in(self, user: str, password: str) -> None:
        found = self.ask("admin", {"hello": 1, "saslSupportedMechs": f"{self._server.login}.{user}"})
        offered = found.get("saslSupportedMechs") or ["SCRAM-SHA-256"]
        mechanism = "SCRAM-SHA-256" if "SCRAM-SHA-256" in offered else "SCRAM-SHA-1"
        algorithm = "sha256" if mechanism == "SCRAM-SHA-256" else "sha1"
        if algorithm == "sha1":
            password = hashlib.md5(f"{user}:mongo:{password}".encode()).hexdigest()  # noqa: S324  (the protocol's)
        name = user.replace("=", "=3D").replace(",", "=2C")
        nonce = base64.b64encode(secrets.token_bytes(24)).decode()
        first = f"n={name},r={nonce}"
        database = self._server.login
        begun = self.ask(
            database,
            {"saslStart": 1, "mechanism": mechanism, "payload": f"n,,{first}".encode(), "autoAuthorize": 1,
             "options": {"skipEmptyExchange": True}},
        )  # fmt: skip
        theirs = _payload(begun["payload"])
        fields = dict(part.split("=", 1) for part in theirs.split(","))
        if not fields["r"].startswith(nonce) or int(fields["i"]) < 4096:
            raise Permanent(f"data source {self._server.source}: the server's side of the password check is wrong")
        salted = hashlib.pbkdf2_hmac(algorithm, password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
        last = f"c=biws,r={fields['r']}"
        message = f"{first},{theirs},{last}".encode()
        key = hmac.digest(salted, b"Client Key", algorithm)
        stored = hashlib.new(algorithm, key).digest()
        proof = bytes(a ^ b for a, b in zip(key, hmac.digest(stored, message, algorithm), strict=True))
        ended = self.ask(
            database,
            {
                "saslContinue": 1,
                "conversationId": begun["conversationId"],
                "payload": f"{last},p={base64.b64encode(proof).decode()}".encode(),
            },
        )
        wanted = hmac.digest(hmac.digest(salted, b"Server Key", algorithm), message, algorithm)
        if not hmac.compare_digest(f"v={base64.b64encode(wanted).decode()}", _payload(ended["payload"])):
            raise Permanent(f"data source {self._server.source}: the server does not know the password itself")
        if not ended["done"]:
            self.ask(database, {"saslContinue": 1, "conversationId": begun["conversationId"], "payload": b""})


def _payload(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _long(number: int) -> Raw:
    return Raw(0x12, struct.pack("<q", number))


def collections(session: MongoSession, database: str) -> dict[str, Mapping[str, Any]]:
    """Name → what listCollections says, without the server's own."""
    listed = session.rows(database, {"listCollections": 1, "cursor": {}})
    return {str(each["name"]): each for each in listed if not str(each["name"]).startswith("system.")}


__all__: Sequence[str] = ("MongoServer", "MongoSession", "collections")
