"""Changing places between a live Redis and a copy of other data, without restarting it.

The live server is made a replica of the copy's server, takes over all its data and functions in one step (with
`repl-diskless-load swapdb` the old data stay until the new ones are there, and come back when the transfer breaks), and
is made a master again. Before that its own data were taken over by a new copy in the same way: that one follows the
live server until both stand at the same offset while writes are paused, then stands alone and saves.

A mark in the data (a function library, see `RedisServer.mark`) tells which data are live; it comes and goes with them,
atomically, and also when a crash takes the live server back to what it had on disk. So every step can be repeated.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

from ops_pipeline.adapters.databases.redis_places import PORTS, RedisPlaces
from ops_pipeline.adapters.databases.redis_server import RedisServer
from ops_pipeline.adapters.databases.scratch import DATA
from ops_pipeline.adapters.databases.streaming import run
from ops_pipeline.errors import OpsError, Permanent

PAUSE_MILLISECONDS = 60_000
"""Writes that wait go on by themselves after this, should we be killed meanwhile."""
LINK_SECONDS = 60.0
_BORROWED = ("masterauth", "masteruser", "repl-diskless-load")


def follow(live: RedisServer, copy: RedisServer, mark: str, seconds: float) -> None:
    """Let `live` take over the data of `copy`, which carry `mark`; it is a master again afterwards.

    Raise Permanent when the transfer fails; `live` has its own data then and is a master.
    """
    with copy.session(seconds) as open_copy:
        open_copy.ask("REPLICAOF", "NO", "ONE")
        open_copy.mark(mark)
    with _settings(live):
        try:
            live.ask_all([["REPLICAOF", copy.host, str(copy.port)], ["CLIENT", "UNPAUSE"]])
            _until_taken_over(live, mark, seconds)
        finally:
            live.ask("REPLICAOF", "NO", "ONE")


def finish_following(live: RedisServer) -> None:
    """After a kill in the middle of `follow`: let `live` be a master again, with whatever data it has by now."""
    if live.info("replication").get("role") == "slave":
        live.ask("REPLICAOF", "NO", "ONE")


def follows_copy(replication: Mapping[str, str]) -> bool:
    """Given a replica's INFO, return whether its master is a server of ours and no real master."""
    port = int(replication.get("master_port", "0"))
    return replication.get("master_host") == "127.0.0.1" and PORTS[0] <= port < PORTS[1]


def capture(live: RedisServer, places: RedisPlaces, kind: str, token: str, seconds: float) -> None:
    """Make a copy of what `live` holds, to the last write; durable. Writes to `live` are paused when this returns."""
    copy, container = places.make(kind, token, alone=True)
    engine = live.engine
    run(engine, container, ["sh", "-c", f": > {DATA}/go"], what="start of the copy", check=True)
    _until_answers(copy, seconds)
    with copy.session(seconds) as open_copy:
        _take_all(live, open_copy, seconds)
    run(engine, container, ["sh", "-c", f"sync {DATA}/dump.rdb || sync"], what="sync", check=True)


def _take_all(live: RedisServer, copy: RedisServer, seconds: float) -> None:
    if live.password:
        copy.ask_all([["CONFIG", "SET", "masterauth", live.password()], ["CONFIG", "SET", "masteruser", live.user]])
    copy.ask("REPLICAOF", live.host, str(live.port))
    _until(_linked(copy), seconds, f"{live.source}: a full copy")
    live.ask("CLIENT", "PAUSE", str(PAUSE_MILLISECONDS), "WRITE")
    try:
        _until(lambda: _offset(copy, "slave_repl_offset") >= _offset(live, "master_repl_offset"), 30, "the last writes")
        copy.ask_all([["REPLICAOF", "NO", "ONE"], ["SAVE"]])
        live.ask("CLIENT", "PAUSE", str(PAUSE_MILLISECONDS), "WRITE")
    except BaseException:
        with contextlib.suppress(OpsError):
            live.ask("CLIENT", "UNPAUSE")
        raise


def end_sessions(live: RedisServer) -> None:
    """Applications connect anew and forget what they knew of the data before."""
    live.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def add_missing_users(live: RedisServer, users: dict[str, str]) -> None:
    """Users that exist stay as they are. Kept over a restart where the server has a file for them."""
    missing = {name: rules for name, rules in users.items() if name not in live.users()}
    for name, rules in missing.items():
        live.ask("ACL", "SETUSER", name, "reset", *rules.split(" "))
    if missing and live.setting("aclfile"):
        live.ask("ACL", "SAVE")
    elif missing and live.info("server").get("config_file"):
        with contextlib.suppress(Permanent):  # a read-only configuration; the users hold until the next restart
            live.ask("CONFIG", "REWRITE")


@contextlib.contextmanager
def _settings(live: RedisServer) -> Iterator[None]:
    before = {name: live.setting(name) for name in _BORROWED}
    live.ask_all(
        [
            ["CONFIG", "SET", "repl-diskless-load", "swapdb"],
            ["CONFIG", "SET", "masterauth", ""],
            ["CONFIG", "SET", "masteruser", ""],
        ]
    )
    try:
        yield
    finally:
        live.ask_all([["CONFIG", "SET", name, value] for name, value in before.items()])


def _until_taken_over(live: RedisServer, mark: str, seconds: float) -> None:
    linked = _linked(live)
    _until(lambda: linked() and mark in live.marks(), seconds, f"{live.source}: the restored data")


def _linked(replica: RedisServer) -> Callable[[], bool]:
    """A question whether the replica has everything; raises Permanent once no transfer has been going on for long."""
    deadline = time.monotonic() + LINK_SECONDS

    def linked() -> bool:
        nonlocal deadline
        found = replica.info("replication")
        if found.get("master_sync_in_progress") == "1":
            deadline = time.monotonic() + LINK_SECONDS
        elif found.get("master_link_status") == "up":
            return True
        elif time.monotonic() > deadline:
            raise Permanent(f"data source {replica.source}: replication did not begin within {LINK_SECONDS:.0f} s")
        return False

    return linked


def _until_answers(server: RedisServer, seconds: float) -> None:
    def answers() -> bool:
        with contextlib.suppress(OpsError):
            return server.ask("PING") == "PONG"
        return False

    _until(answers, seconds, f"{server.source}: an answer of the copy's server")


def _until(there: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if there():
                return
        except Permanent as error:
            if "LOADING" not in error.message:
                raise
        if time.monotonic() > deadline:
            raise Permanent(f"{what} did not arrive within {seconds:.0f} s")
        time.sleep(0.05)


def _offset(server: RedisServer, name: str) -> int:
    return int(server.info("replication").get(name, "-1"))
