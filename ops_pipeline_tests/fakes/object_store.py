"""An ObjectStore in memory, held to the same contract as the real ones, with faults that a test scripts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from ops_pipeline.adapters.store_keys import check_key, check_prefix, conflict_words
from ops_pipeline.errors import Conflict, NotFound, Permanent, Transient
from ops_pipeline.ports import ObjectInfo, ObjectStore, ObjectWriter

Hook = Callable[[str, str], None]
"""Called with operation and key; may raise. Operations: begin, block, commit, abort, put, flush (key ""), get, stat,
list (key = prefix), delete."""


class Killed(BaseException):
    """The process is gone: whatever it tries from here on does not happen."""


@dataclass
class _Rule:
    times: int
    operations: tuple[str, ...]
    key: str


class Faults:
    """What goes wrong, as a `Hook` for `InMemoryObjectStore.before` (or `after`: the answer is lost).

    One may serve several stores, so that calls are counted over all of them. `calls` is what was asked, for
    assertions and for choosing `kill_at`.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        self._kill_at: int | None = None
        self._wait: Callable[[], None] = lambda: None

    def transient(self, times: int, *operations: str, key: str = "") -> Faults:
        """The next `times` calls of these operations (none = any) on keys that contain `key` fail as Transient."""
        self._rules.append(_Rule(times, operations, key))
        return self

    def kill_at(self, call: int) -> Faults:
        """Raise Killed at the `call`-th call from now (1 = the next one), and at every one after it."""
        self._kill_at = len(self.calls) + call
        return self

    def slow(self, wait: Callable[[], None]) -> Faults:
        """Call `wait` before every call, e.g. `lambda: clock.sleep(2)`."""
        self._wait = wait
        return self

    def __call__(self, operation: str, key: str) -> None:
        self._wait()
        with self._lock:
            self.calls.append((operation, key))
            if self._kill_at is not None and len(self.calls) >= self._kill_at:
                raise Killed(f"at call {len(self.calls)}: {operation} {key}")
            for rule in self._rules:
                if rule.times > 0 and (not rule.operations or operation in rule.operations) and rule.key in key:
                    rule.times -= 1
                    raise Transient(f"store cannot {operation} {key}: 503 ServerBusy (scripted)")


def _nothing(operation: str, key: str) -> None: ...


class InMemoryObjectStore(ObjectStore):
    """Safe for threads. `before` runs before an operation takes effect, `after` when it has.

    `shows_puts`: whether what was put shows before `flush`, as in Azure, or not, as in a directory. `capacity`: bytes
    after which the disk is full. `lose_power` forgets what was never flushed or committed, as a machine does.
    """

    def __init__(
        self,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        before: Hook = _nothing,
        after: Hook = _nothing,
        shows_puts: bool = False,
        capacity: int | None = None,
    ) -> None:
        self.before = before
        self.after = after
        self.capacity = capacity
        self._now = now
        self._shows_puts = shows_puts
        self._lock = threading.RLock()
        self._objects: dict[str, tuple[bytes, ObjectInfo]] = {}
        self._waiting: dict[str, tuple[bytes, ObjectInfo]] = {}
        self._unfinished = 0
        self._written = 0

    # ---------------------------------------------------------------------------------------------- for tests

    @property
    def objects(self) -> dict[str, bytes]:
        """Copy of everything that shows, for assertions."""
        with self._lock:
            return {key: data for key, (data, _) in sorted(self._visible().items())}

    @property
    def unfinished(self) -> int:
        """How many bytes of blocks lie about that belong to no object."""
        return self._unfinished

    def damage(self, key: str, data: bytes) -> None:
        """Replace stored bytes behind everybody's back: size, but neither etag nor time, shows it."""
        with self._lock:
            _, info = self._objects[key]
            self._objects[key] = (data, ObjectInfo(key, len(data), info.modified, info.etag))

    def lose_power(self) -> None:
        """Forget what is not durable, as when the machine (or, for what does not show, the process) dies."""
        with self._lock:
            self._waiting.clear()
            self._unfinished = 0

    # ---------------------------------------------------------------------------------------------- the port

    def begin(self, key: str) -> ObjectWriter:
        check_key(key)
        self.before("begin", key)
        writer = InMemoryWriter(self, key)
        self.after("begin", key)
        return writer

    def put(self, key: str, data: bytes) -> ObjectInfo:
        check_key(key)
        self.before("put", key)
        with self._lock:
            self._refuse_folders(key)
            if key in self._objects or key in self._waiting:
                raise Conflict(conflict_words(key, if_absent=True))
            self.need_room(key, len(data))
            info = self._new(key, len(data))
            self._waiting[key] = (bytes(data), info)
        self.after("put", key)
        return info

    def flush(self) -> None:
        self.before("flush", "")
        with self._lock:
            taken = [key for key in self._waiting if key in self._objects]
            for key, item in self._waiting.items():
                self._objects.setdefault(key, item)
            self._waiting.clear()
        if taken:
            raise Conflict(conflict_words(taken[0], if_absent=True))
        self.after("flush", "")

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        check_key(key)
        if offset < 0 or (length is not None and length < 0):
            raise Permanent(f"stored object {key}: no such range ({offset}, {length})")
        self.before("get", key)
        with self._lock:
            found = self._visible().get(key)
        if found is None:
            raise NotFound(f"there is no stored object {key}")
        self.after("get", key)
        return found[0][offset:] if length is None else found[0][offset : offset + length]

    def stat(self, key: str) -> ObjectInfo | None:
        check_key(key)
        self.before("stat", key)
        with self._lock:
            found = self._visible().get(key)
        self.after("stat", key)
        return None if found is None else found[1]

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        self.before("list", prefix)
        with self._lock:
            found = [info for key, (_, info) in sorted(self._visible().items()) if key.startswith(prefix)]
        self.after("list", prefix)
        return iter(found)

    def delete(self, key: str, *, etag: str | None = None) -> None:
        check_key(key)
        self.before("delete", key)
        with self._lock:
            found = self._visible().get(key)
            if found is not None and etag is not None and found[1].etag != etag:
                raise Conflict(f"stored object {key} is another one by now; nothing was deleted")
            if found is not None:
                self._objects.pop(key, None)
                self._waiting.pop(key, None)
        self.after("delete", key)

    # ---------------------------------------------------------------------------------------------- inside

    def _visible(self) -> dict[str, tuple[bytes, ObjectInfo]]:
        return {**self._waiting, **self._objects} if self._shows_puts else self._objects

    def _new(self, key: str, size: int) -> ObjectInfo:
        self._written += 1
        return ObjectInfo(key, size, self._now(), f'"{self._written:x}"')

    def need_room(self, key: str, size: int) -> None:
        """Raise Permanent when so many more bytes do not fit."""
        used = sum(len(data) for data, _ in (*self._objects.values(), *self._waiting.values()))
        if self.capacity is not None and used + self._unfinished + size > self.capacity:
            raise Permanent(f"store cannot write {key}: No space left on device", hint="The disk is full.")

    def keep(self, key: str, size: int) -> None:
        """Count bytes of blocks. Raise Permanent when they do not fit."""
        with self._lock:
            self.need_room(key, size)
            self._unfinished += size

    def forget(self, size: int) -> None:
        """Blocks are gone."""
        with self._lock:
            self._unfinished = max(self._unfinished - size, 0)

    def finish(self, key: str, data: bytes) -> ObjectInfo:
        """An object of blocks comes into being. Raise Conflict."""
        with self._lock:
            self._refuse_folders(key)
            found = self._objects.get(key) or self._waiting.get(key)
            if found is not None and found[0] != data:
                raise Conflict(conflict_words(key, if_absent=True))
            if found is not None:
                return found[1]
            self._objects[key] = (data, self._new(key, len(data)))
            return self._objects[key][1]

    def _refuse_folders(self, key: str) -> None:
        # A directory cannot hold a file and a folder of one name; refuse here what would break there.
        parents = {key[:i] for i, character in enumerate(key) if character == "/"}
        if any(other in parents or other.startswith(f"{key}/") for other in (*self._objects, *self._waiting)):
            raise Permanent(f"store key {key} is a folder of another key, or lies inside one")


class InMemoryWriter(ObjectWriter):
    """What `begin` gives."""

    def __init__(self, store: InMemoryObjectStore, key: str) -> None:
        self._store = store
        self._key = key
        self._blocks: dict[int, bytes] = {}
        self._lock = threading.Lock()
        self._done: ObjectInfo | None = None
        self._ended = False

    def block(self, index: int, data: bytes) -> None:
        if index < 0 or self._ended:
            raise Permanent(f"stored object {self._key} takes no block {index}")
        self._store.before("block", self._key)
        with self._lock:
            self._store.keep(self._key, len(data))
            self._store.forget(len(self._blocks.get(index, b"")))
            self._blocks[index] = bytes(data)
        self._store.after("block", self._key)

    def commit(self, count: int) -> ObjectInfo:
        if self._done is not None:
            return self._done
        if self._ended:
            raise Permanent(f"stored object {self._key} was given up already")
        missing = next((index for index in range(count) if index not in self._blocks), None)
        if missing is not None:
            raise Permanent(f"stored object {self._key} cannot be committed: block {missing} of {count} never came")
        self._store.before("commit", self._key)
        data = b"".join(self._blocks[index] for index in range(count))
        try:
            info = self._store.finish(self._key, data)
        finally:
            self._end()
        self._store.after("commit", self._key)
        self._done = info
        return info

    def abort(self) -> None:
        self._store.before("abort", self._key)
        self._end()
        self._store.after("abort", self._key)

    def _end(self) -> None:
        self._ended = True
        with self._lock:
            self._store.forget(sum(map(len, self._blocks.values())))
            self._blocks.clear()
