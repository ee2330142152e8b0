"""A Redis server asked through `redis-cli` in a container; commands go in by standard input, never as arguments."""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ops_pipeline.adapters.databases.container import Engine
from ops_pipeline.adapters.databases.streaming import Tool, failure_words, run
from ops_pipeline.errors import Permanent, Unavailable

ASK_SECONDS = 60.0
_ESCAPE = re.compile(r'\\(x[0-9a-f]{2}|[nrtab"\\])')
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", '"': '"', "\\": "\\"}
_ITEM = re.compile(r"^\s*\d+[)#] ")
MARK_LIBRARY = "ops_mark_"


@dataclass(frozen=True)
class RedisServer:
    """Where and as whom. `container()` gives the id of the container whose redis-cli is used."""

    engine: Engine
    container: Callable[[], str]
    source: str
    user: str = ""
    password: Callable[[], str] | None = field(default=None, repr=False)
    host: str = "127.0.0.1"
    port: int = 6379
    link: Tool | None = field(default=None, repr=False)  # of a session

    def arguments(self) -> list[str]:
        """redis-cli and where to; without any secret."""
        return [
            "redis-cli",
            "-h",
            self.host,
            "-p",
            str(self.port),
            *(["--user", self.user] if self.user and self.password else []),
        ]

    def environment(self) -> Mapping[str, str]:
        """Variables of redis-cli; they hold the password."""
        return {"REDISCLI_AUTH": self.password()} if self.password else {}

    @contextlib.contextmanager
    def session(self, seconds: float) -> Iterator[RedisServer]:
        """The same server over one connection that stays open. `seconds`: longest time of one command."""
        with Tool(
            self.engine,
            self.container(),
            [*self.arguments(), "--no-raw"],
            environment=self.environment(),
            fed=True,
            hang_seconds=seconds,
            what="redis-cli",
        ) as link:
            yield replace(self, link=link)

    def ask(self, *words: str) -> str:
        """Answer of one command: text, or the items of a list, one a line. Raise Permanent when it is an error."""
        return self.ask_all([words])[0]

    def ask_all(self, commands: Sequence[Sequence[str]]) -> list[str]:
        """Answers of commands that go over one connection. Raise Permanent at the first error."""
        mark = f"end-{uuid.uuid4().hex}"
        text = "".join(f"{_line(words)}\nECHO {mark}\n" for words in commands)
        if self.link is not None:
            return self._answers(self.link, commands, text, mark)
        result = run(
            self.engine,
            self.container(),
            [*self.arguments(), "--no-raw"],
            chunks=[text.encode()],
            environment=self.environment(),
            hang_seconds=ASK_SECONDS,
            what="redis-cli",
        )
        answers = result.out.decode(errors="surrogateescape").split(f'"{mark}"\n')
        if result.code != 0 or len(answers) != len(commands) + 1:
            words = failure_words("redis-cli", result.code, result.err or result.text[-500:].strip())
            raise Unavailable(f"data source {self.source}: {words}")
        return [self._value(words[0], answer) for words, answer in zip(commands, answers, strict=False)]

    def _answers(self, link: Tool, commands: Sequence[Sequence[str]], text: str, mark: str) -> list[str]:
        link.write(text.encode())
        answers = []
        for words in commands:
            lines = []
            while (line := link.readline().decode(errors="surrogateescape")) != f'"{mark}"\n':
                if not line:
                    raise Unavailable(
                        f"data source {self.source}: {failure_words('redis-cli', link.code, link.error_tail)}"
                    )
                lines.append(line)
            answers.append(self._value(words[0], "".join(lines)))
        return answers

    def raw(self, line: str, database: int = 0) -> str:
        """Answer of a command line as people write it: text, or items, one a line. Raise Permanent when it is an error.

        Redis-cli ends with code 0 and prints an error like a text when it reads commands; only `--no-raw` tells which.
        """
        mark = f"end-{uuid.uuid4().hex}"
        result = run(
            self.engine,
            self.container(),
            [*self.arguments(), "--no-raw", "-n", str(database)],
            chunks=[f"{line}\nECHO {mark}\n".encode()],
            environment=self.environment(),
            hang_seconds=ASK_SECONDS,
            what="redis-cli",
        )
        answers = result.out.decode(errors="surrogateescape").split(f'"{mark}"\n')
        if result.code != 0 or len(answers) != 2:
            words = failure_words("redis-cli", result.code, result.err or result.text[-500:].strip())
            raise Permanent(f"data source {self.source}: {words}")
        return self._value((line.split() or [""])[0].upper(), answers[0])

    def info(self, section: str) -> dict[str, str]:
        """Fields of one section of INFO."""
        pairs = (line.partition(":") for line in self.ask("INFO", section).splitlines() if ":" in line)
        return {name: value.strip() for name, _, value in pairs}

    def setting(self, name: str) -> str:
        """Value of one setting, "" when the server does not know it."""
        return [*self.ask("CONFIG", "GET", name).split("\n"), ""][1]

    def settings(self, pattern: str) -> dict[str, str]:
        """Values of settings by name."""
        lines = self.ask("CONFIG", "GET", pattern).split("\n")
        return dict(zip(lines[::2], lines[1::2], strict=False))

    def users(self) -> dict[str, str]:
        """User → its rules as ACL SETUSER takes them (passwords as hashes), but for `default`, which is configuration.

        Empty where the server has no ACL (before Redis 6).
        """
        if int(self.info("server")["redis_version"].split(".")[0]) < 6:
            return {}
        found = {}
        for line in self.ask("ACL", "LIST").splitlines():
            _, name, *rules = line.split(" ")
            if name != "default":
                # Says nothing but for the default user, and depends on how the user was made.
                found[name] = " ".join(rule for rule in rules if rule != "sanitize-payload")
        return found

    def user_objects(self) -> dict[str, str]:
        """Users as a backup compares them."""
        return {f"user {name}": hashlib.sha256(rules.encode()).hexdigest() for name, rules in self.users().items()}

    def marks(self) -> set[str]:
        """Our marks in the data: function libraries, which come and go with the data. Redis 7 or newer."""
        text = self.ask("FUNCTION", "LIST", "LIBRARYNAME", f"{MARK_LIBRARY}*")
        return set(re.findall(rf"\b{MARK_LIBRARY}([a-z0-9_]+)", text))

    def mark(self, name: str) -> None:
        """Put a mark into the data, and no other of ours. Replicated, and saved with the data."""
        commands = [["FUNCTION", "DELETE", MARK_LIBRARY + other] for other in self.marks() - {name}]
        if name:
            library = MARK_LIBRARY + name
            code = f"#!lua name={library}\nredis.register_function('{library}', function() return 1 end)"
            commands.append(["FUNCTION", "LOAD", "REPLACE", code])
        if commands:
            self.ask_all(commands)

    def persist(self, seconds: float) -> None:
        """Return once all data are on disk, if this server keeps any there. Raise Permanent."""
        file = f"{self.setting('dir')}/{self.setting('dbfilename')}"
        kept = self.setting("save") or self.setting("appendonly") == "yes"
        if not kept and run(self.engine, self.container(), ["test", "-e", file], what="test").code:
            return
        if self.setting("appendonly") == "yes":
            self._wait_for({"aof_rewrite_in_progress": "0", "aof_rewrite_scheduled": "0"}, seconds)
            if self.info("persistence").get("aof_last_bgrewrite_status") != "ok":
                raise Permanent(f"data source {self.source}: the server could not rewrite its append-only file")
        self._wait_for({"rdb_bgsave_in_progress": "0"}, seconds)
        self.ask("BGSAVE", "SCHEDULE")
        self._wait_for({"rdb_bgsave_in_progress": "0"}, seconds)
        if self.info("persistence")["rdb_last_bgsave_status"] != "ok":
            raise Permanent(f"data source {self.source}: the server could not save its data")

    def _wait_for(self, wanted: Mapping[str, str], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            found = self.info("persistence")
            if all(found.get(name, value) == value for name, value in wanted.items()):
                return
            if time.monotonic() > deadline:
                raise Permanent(f"data source {self.source}: the server did not finish saving in {seconds:.0f} s")
            time.sleep(0.1)

    def _value(self, command: str, answer: str) -> str:
        text = answer.removesuffix("\n")
        if text.startswith("(error) "):
            raise Permanent(f"data source {self.source}: {command} refused: {text.removeprefix('(error) ')}")
        if re.match(r"(ERR|NOAUTH|WRONGPASS|NOPERM|LOADING|MISCONF) ", text):
            raise Permanent(f"data source {self.source}: {command} refused: {text}")
        if command == "INFO":
            return text.replace("\r", "")
        return "\n".join(_unquoted(line) for line in text.split("\n"))


def _unquoted(line: str) -> str:
    while _ITEM.match(line):
        line = _ITEM.sub("", line, count=1)
    line = line.strip()
    if line.startswith("(integer) "):
        return line.removeprefix("(integer) ")
    if line in ("(nil)", "(empty array)"):
        return ""
    if len(line) >= 2 and line[0] == line[-1] == '"':
        return _ESCAPE.sub(lambda found: _character(found[1]), line[1:-1])
    return line


def _character(escape: str) -> str:
    return chr(int(escape[1:], 16)) if escape[0] == "x" else _ESCAPES[escape]


def _line(words: Sequence[str]) -> str:
    """One line as redis-cli reads it."""
    return " ".join(f'"{_quoted(word)}"' for word in words)


def _quoted(word: str) -> str:
    return "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}"
        for byte in word.encode(errors="surrogateescape")
    )
