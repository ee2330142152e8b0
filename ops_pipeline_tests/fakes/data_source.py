"""A database in memory, held to the same contract as the real ones (contracts/test_data_source.py).

Tables of rows (text), users, and `filler` bytes of deterministic noise to make dumps long. Faults are scripted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ops_pipeline.core.backup.records import Arrived, Contents, Kind
from ops_pipeline.errors import NotFound, OpsError, Permanent
from ops_pipeline.ports import Beside, DataSource, Dump

END = b"-- end of dump\n"


@dataclass
class Tables:
    """What a database holds."""

    tables: dict[str, list[str]] = field(default_factory=dict)
    users: list[str] = field(default_factory=lambda: ["app"])
    filler: int = 0  # bytes of noise in every dump of it

    def copy(self) -> Tables:
        return Tables({name: list(rows) for name, rows in self.tables.items()}, list(self.users), self.filler)

    def contents(self) -> Contents:
        return Contents(
            counts={name: len(rows) for name, rows in sorted(self.tables.items())},
            objects={
                **{f"table {name}": "text" for name in sorted(self.tables)},
                **{f"user {user}": "login" for user in sorted(self.users)},
            },
            samples={
                name: hashlib.sha256("\n".join(rows).encode()).hexdigest() for name, rows in sorted(self.tables.items())
            },
        )


@dataclass
class Fault:
    """What happens to a dump once `after` bytes of it were read.

    `error` is raised then ("failed with code 1 after output", "hung", a Transient for a lost connection). `times`: so
    many dumps meet it, later ones do not. `part`: only this part; "" = the first that comes so far.
    """

    error: OpsError
    after: int = 0
    times: int = 1
    part: str = ""


def failed(name: str = "listings") -> OpsError:
    """A dump tool that ended with code 1 after it had written something."""
    return Permanent(f"{name}: the dump ended with code 1: out of memory")


def hung(name: str = "listings") -> OpsError:
    """A dump tool that gave nothing any more."""
    return Permanent(f"{name}: the dump gave nothing for 3600 s and was ended")


def cut(name: str = "listings") -> OpsError:
    """A dump that ended with code 0 and without its own end."""
    return Permanent(f"{name}: the dump is cut off: its end was not seen")


def _noise(seed: str, size: int) -> Iterator[bytes]:
    """Deterministic bytes that do not compress."""
    for number in range(0, size, 32):
        yield hashlib.sha256(f"{seed} {number}".encode()).digest()[: size - number]


class FakeDump(Dump):
    """One stream; the whole of it is made when the snapshot is taken."""

    def __init__(self, source: FakeDatabase, name: str, data: bytes, contents: Contents | None, piece: int) -> None:
        self._source = source
        self._name = name
        self._data = data
        self._contents = contents
        self._piece = piece
        self._at = 0
        self._ended = False
        self.closed = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def stands(self) -> bool:
        return self._source.stands

    def read(self, size: int) -> bytes:
        if self.closed:
            raise Permanent(f"{self._source.name}: the dump is closed")
        fault = self._source.fault
        if fault is not None and fault.times > 0 and fault.part in ("", self._name) and self._at >= fault.after:
            fault.times -= 1
            raise fault.error
        end = min(size, self._piece)
        if fault is not None and fault.times > 0 and fault.part in ("", self._name):
            end = min(end, max(fault.after - self._at, 1))
        data = self._data[self._at : self._at + end]
        self._at += len(data)
        self._ended = not data
        return data

    def arrived(self) -> Arrived:
        if not self._ended:
            raise Permanent(f"{self._source.name}: the dump was not read to its end")
        return Arrived(
            engine=self._source.version(),
            client="fakedump 1",
            command=("fakedump", self._name),
            consistency="snapshot",
            marker="end of dump",
            contents=self._contents,
        )

    def close(self) -> None:
        self.closed = True


class FakeBeside(Beside):
    """An empty place; `tables` is what was loaded."""

    def __init__(self, name: str, broken: Callable[[], OpsError | None]) -> None:
        self._name = name
        self._broken = broken
        self.tables = Tables(users=[])
        self.finished = False

    @property
    def name(self) -> str:
        return self._name

    def load(self, part: str, chunks: Iterator[bytes]) -> None:
        data = b"".join(chunks)
        if (error := self._broken()) is not None:
            raise error
        lines = data.split(b"\n")
        if not data.endswith(END) or not lines[0].startswith(b"{"):
            raise Permanent(f"{self._name}: {part} cannot be loaded: not a whole dump")
        document: dict[str, Any] = json.loads(lines[0])
        if "users" in document:
            self.tables.users = list(document["users"])
        else:
            self.tables.tables, self.tables.filler = document["tables"], document["filler"]

    def finish(self) -> None:
        self.finished = True

    def contents(self) -> Contents:
        return self.tables.contents()

    def ask(self, query: str) -> str:
        return answer(self.tables, query)


def answer(tables: Tables, query: str) -> str:
    """`count <table>`, `users`. Raise Permanent for anything else."""
    word, _, rest = query.partition(" ")
    if word == "count" and rest in tables.tables:
        return str(len(tables.tables[rest]))
    if query == "users":
        return ",".join(sorted(tables.users))
    raise Permanent(f"{query!r} is not understood")


class FakeDatabase(DataSource):
    """`live` may be changed at any time. Switches for tests:

    `down` makes every call raise it; `fault` befalls dumps; `load_error` befalls every load; `before(call)` is called
    before every call takes effect and may raise (a process that is killed); `while_reading` is called at each read, so
    that a test can write, or let time pass, while a dump is under way. `open_dumps`, `scratches` count what is open.
    `stands`: what its dumps say of themselves.
    """

    def __init__(
        self,
        name: str = "listings",
        kind: Kind = "postgres",
        tables: Mapping[str, Sequence[str]] | None = None,
        *,
        filler: int = 0,
        piece: int = 1 << 20,
    ) -> None:
        self._name = name
        self._kind = kind
        rows = tables if tables is not None else {"listing": [f"house {number}" for number in range(200)]}
        self.live = Tables({table: list(lines) for table, lines in rows.items()}, filler=filler)
        self.besides: dict[str, FakeBeside] = {}
        self.held: dict[str, Tables] = {}
        self.live_token = ""  # of the beside that is live now
        self.down: OpsError | None = None
        self.fault: Fault | None = None
        self.load_error: OpsError | None = None
        self.warnings: tuple[str, ...] = ()
        self.engine = "Fake 1.0"
        self.piece = piece
        self.open_dumps = 0
        self.stands = True
        self.scratches = 0
        self.before: Callable[[str], None] = lambda call: None
        self.scratch_images: list[str] = []
        self.server_image = "fake/database:1.0"
        self.images = {self.server_image}  # what the engine has
        self._moments: list[Tables] = []  # of the dumps that are open

    @property
    def name(self) -> str:
        return self._name

    @property
    def kind(self) -> Kind:
        return self._kind

    def check(self) -> Sequence[str]:
        self._reach("check")
        return self.warnings

    def version(self) -> str:
        self._reach("version")
        return self.engine

    def image(self) -> str:
        self._reach("image")
        return self.server_image

    @contextmanager
    def dumps(self) -> Iterator[Sequence[Dump]]:
        self._reach("dumps")
        moment = self.live.copy()
        self.open_dumps += 1
        self._moments.append(moment)
        globals_ = json.dumps({"users": moment.users}).encode() + b"\n" + END
        document = json.dumps({"tables": moment.tables, "filler": moment.filler}).encode()
        noise = b"".join(_noise(f"{self._name} {document.hex()[:64]}", moment.filler)).replace(b"\n", b" ")
        dump = document + b"\n" + noise + (b"\n" if noise else b"") + END
        opened = [
            FakeDump(self, "globals", globals_, None, self.piece),
            FakeDump(self, "dump", dump, moment.contents(), self.piece),
        ]
        try:
            yield opened
        finally:
            for one in opened:
                one.close()
            self.open_dumps -= 1
            self._moments.remove(moment)

    def contents(self) -> Contents:
        self._reach("contents")
        return self.live.contents()

    def ask(self, query: str) -> str:
        self._reach("ask")
        return answer(self._moments[-1] if self._moments else self.live, query)

    def beside(self, token: str) -> Beside:
        self._reach("beside")
        self.besides[token] = FakeBeside(f"{self._name}_r{token}", lambda: self.load_error)
        return self.besides[token]

    @contextmanager
    def scratch(self, image: str, labels: Mapping[str, str]) -> Iterator[Beside]:
        self._reach("scratch")
        if image not in self.images:
            raise NotFound(f"{self._name}: No such image: {image}")
        self.scratch_images.append(image)
        self.scratches += 1
        try:
            yield FakeBeside(self._name, lambda: self.load_error)
        finally:
            self.scratches -= 1

    def swap(self, token: str) -> None:
        self._reach("swap")
        if self.swapped(token):
            return
        if token not in self.besides:
            raise NotFound(f"{self._name}: there is nothing beside it called r{token}")
        self.held[token] = self.live
        self.live = self.besides.pop(token).tables
        self.live_token = token

    def swapped(self, token: str) -> bool:
        self._reach("swapped")
        return self.live_token == token

    def unswap(self, token: str) -> None:
        self._reach("unswap")
        if not self.swapped(token):
            return
        if token not in self.held:
            raise NotFound(f"{self._name}: there is no hold h{token}")
        back = FakeBeside(f"{self._name}_r{token}", lambda: self.load_error)
        back.tables, back.finished = self.live, True
        self.besides[token] = back
        self.live = self.held.pop(token)
        self.live_token = ""

    def drop_beside(self, token: str) -> None:
        self._reach("drop_beside")
        self.besides.pop(token, None)

    def holds(self) -> Sequence[str]:
        self._reach("holds")
        return sorted(self.held)

    def drop_hold(self, token: str) -> None:
        self._reach("drop_hold")
        self.held.pop(token, None)

    def _reach(self, call: str) -> None:
        self.before(call)
        if self.down is not None:
            raise self.down
