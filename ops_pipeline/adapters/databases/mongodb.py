"""A MongoDB database (or one of a server that speaks its protocol) as a data source, by mongodump and mongorestore."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from ops_pipeline.adapters.databases import mongo_tools
from ops_pipeline.adapters.databases.container import DatabaseContainer
from ops_pipeline.adapters.databases.mongo_archive import ArchiveWalker
from ops_pipeline.adapters.databases.mongo_exchange import MongoExchange, current
from ops_pipeline.adapters.databases.mongo_restore import MongoBeside, ask, stored_users, users, with_users
from ops_pipeline.adapters.databases.mongo_server import MongoServer, collections
from ops_pipeline.adapters.databases.mongo_tools import BESIDE, HOLD, STATE
from ops_pipeline.adapters.databases.places import place
from ops_pipeline.adapters.databases.scratch import DATA, scratch_server
from ops_pipeline.adapters.databases.tool_dump import TextDump, ToolDump
from ops_pipeline.core.backup.records import Arrived, Contents, Kind
from ops_pipeline.errors import NotFound, OpsError, Permanent
from ops_pipeline.ports.backup import Beside, Dump

CONSISTENCY = "per collection: each as it was while it was read, not all of one moment"
_SCRATCH = f"""\
if command -v mongod >/dev/null; then exec mongod --dbpath {DATA} --bind_ip 127.0.0.1 --port 27017; fi
exec ferretdb --handler=sqlite --sqlite-url=file:{DATA}/ --state-dir={DATA} --listen-addr=127.0.0.1:27017 \
  --debug-addr=- --telemetry=disable --log-level=warn
"""


class MongodbSource:
    """One database of a server. Contacts nothing before the first call."""

    def __init__(
        self,
        name: str,
        container: DatabaseContainer,
        database: str,
        *,
        user: str = "",
        password: Callable[[], str] | None = None,
        remote: str = "",
        login: str = "admin",
        timeout_seconds: float = 3600.0,
        memory_bytes: int = 1024 * 1024 * 1024,
    ) -> None:
        """`remote` is host:port of a server elsewhere, for which `container` lends its tools.

        `password()` is asked when it is needed; `login` is the database that `user` belongs to.
        """
        host, _, port = remote.rpartition(":")
        self._name = name
        self._container = container
        self._database = database
        self._seconds = timeout_seconds
        self._memory = memory_bytes
        self._server = MongoServer(
            container.engine,
            lambda: container.find().id,
            name,
            user=user,
            password=password,
            host=host.strip("[]") or "127.0.0.1",
            port=int(port) if port else 27017,
            login=login,
        )
        self._exchange = MongoExchange(self._server, database)

    @property
    def name(self) -> str:
        """Name in the catalogue."""
        return self._name

    @property
    def kind(self) -> Kind:
        """ "mongodb"."""
        return "mongodb"

    def check(self) -> Sequence[str]:
        """Warnings about what a dump will not hold. Raise Unavailable, NotFound, Permanent."""
        mongo_tools.version(self._server)
        warnings = [f"the dump is {CONSISTENCY}"]
        with self._server.session() as session:
            found = collections(session, self._database)
            try:
                listed = session.ask("admin", {"listDatabases": 1, "nameOnly": True})["databases"]
                names = {str(each["name"]) for each in listed} - {self._database, "admin", "config", "local"}
            except Permanent:
                names = set()
            try:
                session.ask(self._database, {"usersInfo": 1, "showCredentials": True})
            except Permanent as error:
                warnings.append(f"users are not in the backup: {error.message}")
        if names:
            warnings.append(f"the server has databases that this source does not back up: {', '.join(sorted(names))}")
        series = sorted(name for name, each in found.items() if each.get("type") == "timeseries")
        if series:
            warnings.append(f"time series are dumped, but cannot be swapped in by a restore: {', '.join(series)}")
        return warnings

    def version(self) -> str:
        """E.g. "MongoDB 7.0.14". FerretDB calls itself by the version of MongoDB that it speaks like."""
        found = self._server.ask("admin", {"buildInfo": 1})
        ferret = found.get("ferretdbVersion") or found.get("ferretdb", {}).get("version")
        return f"FerretDB {str(ferret).removeprefix('v')}" if ferret else f"MongoDB {found['version']}"

    def image(self) -> str:
        """Image of the container: its name while that still means the same image, else its id."""
        found = self._container.find()
        with contextlib.suppress(NotFound), self._container.engine.doing(f"look for {found.image}") as client:
            if client.inspect_image(found.image)["Id"] == found.image_id:  # type: ignore[no-untyped-call]
                return found.image
        return found.image_id

    @contextlib.contextmanager
    def dumps(self) -> Iterator[Sequence[Dump]]:
        """Users of the database, then all of its collections."""
        parts = (self._users_dump(), self._dump())
        try:
            yield parts
        finally:
            for part in parts:
                part.close()

    def contents(self) -> Contents:
        """The live data's view, now."""
        found = mongo_tools.contents(self._server, self._database, "", (), self._seconds)
        return with_users(found, self._server, self._database)

    def ask(self, query: str) -> str:
        """Answer of a query, now, as `MongoBeside.ask`: the engine has no snapshot that can be asked."""
        return ask(self._server, self._database, query)

    def beside(self, token: str) -> Beside:
        """Collections beside the live ones; what an earlier attempt of the same token left is dropped."""
        place(self._database, "r", token)  # says what is wrong with a token
        if token in self.holds():
            raise Permanent(
                f"data source {self._name}: token {token} is in use, its hold exists",
                hint="Release the hold, or use another token.",
            )
        self._exchange.drop_beside(token)
        self._exchange.begin(token)
        return MongoBeside(self._server, self._database, f"{BESIDE}{token}_", self._seconds)

    @contextlib.contextmanager
    def scratch(self, image: str, labels: Mapping[str, str]) -> Iterator[Beside]:
        """A throw-away server of this image, where nobody needs a password."""
        engine = self._container.engine

        def server(container: str) -> MongoServer:
            return MongoServer(engine, lambda: container, self._name)

        def answers(container: str) -> bool:
            try:
                return bool(server(container).ask("admin", {"ping": 1})["ok"])
            except OpsError:
                return False

        with scratch_server(
            engine,
            image,
            ["sh", "-c", _SCRATCH],
            answers=answers,
            source=self._name,
            user="mongodb",
            labels=labels,
            memory_bytes=self._memory,
        ) as container:
            yield MongoBeside(server(container), self._database, "", self._seconds)

    def swap(self, token: str) -> None:
        """Live becomes the hold, beside becomes live, collection by collection. Raise NotFound, Permanent."""
        self._exchange.swap(token)

    def swapped(self, token: str) -> bool:
        """Whether beside `token` is what is live now."""
        journal = self._exchange.journals().get(token)
        return journal is not None and current(journal)

    def unswap(self, token: str) -> None:
        """The hold becomes live again, what was live becomes beside. Raise NotFound when there is no hold any more."""
        self._exchange.unswap(token)

    def drop_beside(self, token: str) -> None:
        """Remove what `beside` made."""
        self._exchange.drop_beside(token)

    def holds(self) -> Sequence[str]:
        """Tokens of the holds that exist."""
        return sorted(token for token, journal in self._exchange.journals().items() if journal["phase"] == "live")

    def drop_hold(self, token: str) -> None:
        """Remove a hold."""
        self._exchange.drop_hold(token)

    def _users_dump(self) -> TextDump:
        found = users(self._server, self._database)
        arrived = Arrived(
            engine=self.version(),
            client="usersInfo",
            command=("usersInfo",),
            consistency="snapshot",
            marker="closed JSON object",
            details={"users": str(len(found))},
        )
        return TextDump("globals", self._name, stored_users(found), arrived)

    def _dump(self) -> ToolDump:
        command = [
            *mongo_tools.dumping(self._server, self._database),
            *mongo_tools.excluded(BESIDE, HOLD, STATE),
        ]
        walker = ArchiveWalker(f"the dump of {self._database}")
        engine, client = self.version(), mongo_tools.version(self._server)

        def arrived() -> Arrived:
            found = walker.contents(self._database)
            return Arrived(
                engine=engine,
                client=client,
                command=tuple(command),
                consistency=CONSISTENCY,
                marker=f"archive walked: {len(walker.namespaces)} collections closed with the right CRC-64",
                contents=with_users(found, self._server, self._database),
                details={"database": self._database},
            )

        return ToolDump(
            "dump",
            self._name,
            lambda: mongo_tools.tool(self._server, command, self._seconds),
            arrived,
            walker.feed,
            walker.finish,
        )
