"""Backing up a tree of files: walk, read what changed, store what is new, list everything.

The list is written while the tree is walked. Every few thousand files or half a gigabyte what was stored so far is
made durable, and only then are its lines written and the change cache told, so a run that is killed loses that much.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field, replace

from ops_pipeline.core.backup.file_list import (
    EMPTY_SHA256,
    ListedFile,
    first_line,
    last_line,
    line_of,
)
from ops_pipeline.core.backup.media import REFERENCES_START, MediaReference, reference_line, references_end
from ops_pipeline.core.backup.records import FRAME_BYTES, Arrived, FilesSummary, Part, Reference, SetKey
from ops_pipeline.ports import Clock, FileEntry, FileTree, ObjectWriter, Progress, Vault
from ops_pipeline.services.backup.file_cache import FileCache, Remembered
from ops_pipeline.services.backup.file_reading import SMALL_BYTES, FileReader, Outcome
from ops_pipeline.services.backup.media_gc import condemned_names
from ops_pipeline.services.backup.media_storing import RECENT, MediaWriter, short
from ops_pipeline.services.backup.streams import write_stream
from ops_pipeline.services.retrying import retried

BATCH_FILES = 256
CHUNK_ENTRIES = 4000
CHUNK_BYTES = 512 * 1024 * 1024
CHUNK_SECONDS = 30.0
PENDING = 16_000
REREAD_ONE_IN = 30
"""Unchanged files are read all the same so often, in turn: a content that changed without a trace is noticed."""

SETTLED_NS = 2_000_000_000
NAMED = 200


def back_up_files(
    vault: Vault,
    key: SetKey,
    tree: FileTree,
    *,
    clock: Clock,
    workers: int = 4,
    progress: Progress | None = None,
    on_bytes: Callable[[int], None] | None = None,
    attempt: int = 1,
) -> Part:
    """Store the tree's new contents, its list and its references; return the part.

    The set must be in flight already (`inflight/…`): that keeps what is reused from being cleared away. `on_bytes`
    hears of plain bytes done, in the calling thread, also of none for a while, and may raise to end it all. Files
    that change or vanish meanwhile are kept as they were last read, or left out, and named. Raise NotFound,
    Permanent, Unavailable.
    """
    started = clock.now()
    work = _Taking(vault, key, tree, clock, workers, on_bytes)
    lines = work.lines(attempt)
    pulled = _Pulled(lines)
    try:
        stream = write_stream(
            vault.sets,
            vault.sealing,
            key.part(tree.name, "files", attempt),
            f"{key.environment}/{key.id}/{tree.name}/files",
            pulled.read,
            workers=2,
        )
    finally:
        lines.close()
    work.cache.finish(key.manifest)
    summary = work.summary()
    if progress:
        progress(
            f"{tree.name}: {summary.entries:,} names, {work.read_files:,} files read, "
            f"{summary.new_objects:,} contents new"
        )
    details = {"silently changed": ", ".join(work.silent[:NAMED])} if work.silent else {}
    arrived = Arrived(
        engine=tree.kind,
        client="ops_pipeline",
        command=(),
        consistency="per-file",
        marker="every file read to its end between two equal looks at it",
        details={**details, "files read": str(work.read_files)},
    )
    return Part(tree.name, tree.kind, "files", stream, arrived, started, max(clock.now(), started), summary)


@dataclass
class _Job:
    """A batch under way; filled before it is begun."""

    entries: list[FileEntry] = field(default_factory=list)
    known: list[Remembered | None] = field(default_factory=list)
    size: int = 0
    future: Future[list[Outcome]] | None = None


class _Taking:
    """One run over one tree."""

    def __init__(
        self,
        vault: Vault,
        key: SetKey,
        tree: FileTree,
        clock: Clock,
        workers: int,
        on_bytes: Callable[[int], None] | None,
    ) -> None:
        self._vault, self._key, self._tree, self._clock = vault, key, tree, clock
        self._workers = workers
        self._on_bytes = on_bytes
        self.cache = FileCache(vault, clock, key.environment, tree.name)
        condemned = condemned_names(vault, clock)
        self._base_holds = self._set_exists(self.cache.head.manifest)
        listed = None if self._base_holds and not self.cache.head.unfinished else self._listing()
        self._media = MediaWriter(vault, clock, key, condemned, listed)
        self._reader = FileReader(tree, self._media, clock, self._count)
        self._remembered = self.cache.remembered()
        self._next: Remembered | None = next(self._remembered, None)
        self._pending: deque[tuple[ListedFile | None, _Job | None, int]] = deque()
        self._open = _Job()
        self._jobs: deque[_Job] = deque()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="files")
        self._counted: deque[int] = deque()
        self._emitted: OrderedDict[str, None] = OrderedDict()
        self._restless: list[str] = []
        self._gone: set[bytes] = set()
        self._references: _References | None = None
        self._entries = self._plain = 0
        self.read_files = 0
        self.silent: list[str] = []

    def _set_exists(self, manifest: str) -> bool:
        if not manifest:
            return False
        found = retried(self._clock, f"look at {manifest}", lambda: self._vault.sets.stat(manifest))
        return found is not None

    def _listing(self) -> frozenset[int]:
        def listing() -> frozenset[int]:
            found = (info.key.rpartition("/")[2] for info in self._vault.media.list("media/") if info.size)
            return frozenset(short(address) for address in found if len(address) >= 64)

        return retried(self._clock, "list the media", listing)

    # ------------------------------------------------------------------------------------------------ the list

    def lines(self, attempt: int) -> Generator[bytes, None, None]:
        """The list's bytes, as they become final."""
        suffix = f".{attempt}" if attempt > 1 else ""
        name = f"{self._key.prefix}parts/{self._tree.name}.files.references{suffix}"
        self._references = _References(self._vault.sets.begin(name), name)
        done = False
        try:
            yield first_line()
            for chunk in self._chunks():
                yield self._settled(chunk)
            yield last_line(self._entries, self._plain)
            self._references.commit()
            done = True
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
            if not done:
                self._references.writer.abort()

    def _chunks(self) -> Iterator[list[ListedFile]]:
        chunk: list[ListedFile] = []
        before, since = self._media.new_bytes, self._clock.monotonic()
        for listed in self._in_order():
            chunk.append(listed)
            full = len(chunk) >= CHUNK_ENTRIES or self._media.new_bytes - before >= CHUNK_BYTES
            if full or (len(chunk) % 64 == 0 and self._clock.monotonic() - since >= CHUNK_SECONDS):
                yield chunk
                chunk = []
                before, since = self._media.new_bytes, self._clock.monotonic()
        yield chunk

    def _settled(self, chunk: list[ListedFile]) -> bytes:
        """Make what a chunk names durable, remember it, and return its lines."""
        self._media.flush()
        if self._media.corrections:
            chunk = [self._corrected(listed) for listed in chunk]
        self.cache.add(chunk, int(self._clock.now().timestamp() * 1e9) - SETTLED_NS)
        assert self._references is not None
        for listed in chunk:
            self._entries += 1
            self._plain += listed.entry.stored_bytes
            for piece in listed.pieces:
                self._refer(piece.reference)
        return b"".join([line_of(listed) for listed in chunk])

    def _corrected(self, listed: ListedFile) -> ListedFile:
        corrections = self._media.corrections
        if not any(piece.reference.address in corrections for piece in listed.pieces):
            return listed
        pieces = [
            replace(piece, reference=corrections.get(piece.reference.address, piece.reference))
            for piece in listed.pieces
        ]
        return replace(listed, pieces=tuple(pieces))

    def _refer(self, reference: MediaReference) -> None:
        # Bounded memory: of more than so many objects a list may name one twice, which nobody minds.
        if reference.address in self._emitted:
            return
        self._emitted[reference.address] = None
        if len(self._emitted) > RECENT:
            self._emitted.popitem(last=False)
        assert self._references is not None
        self._references.add(reference)

    # ------------------------------------------------------------------------------------------------ entries

    def _in_order(self) -> Iterator[ListedFile]:
        """What becomes of every entry of the walk, in its order, with a bounded number of batches under way."""
        for entry in self._tree.walk():
            self._take(entry)
            while self._pending and (len(self._pending) > PENDING or self._is_ready(self._pending[0][1])):
                yield from self._first()
        while self._pending:
            yield from self._first()

    @staticmethod
    def _is_ready(job: _Job | None) -> bool:
        return job is None or (job.future is not None and job.future.done())

    def _take(self, entry: FileEntry) -> None:
        if entry.kind != "file":
            self._pending.append((ListedFile(entry), None, 0))
            return
        if not entry.stored_bytes:
            self._pending.append((ListedFile(entry, EMPTY_SHA256), None, 0))
            return
        known = self._known(entry)
        if known is not None and not self._in_turn(entry):
            self._counted.append(entry.stored_bytes)
            self._pending.append((ListedFile(entry, known.sha256, known.pieces), None, 0))
            return
        if known is not None:
            self._media.know(known.pieces)
        large = entry.stored_bytes > SMALL_BYTES
        if large or len(self._open.entries) >= BATCH_FILES or self._open.size + entry.stored_bytes > SMALL_BYTES:
            self._begin()
        job = self._open
        self._pending.append((None, job, len(job.entries)))
        job.entries.append(entry)
        job.known.append(known)
        job.size += entry.stored_bytes
        self.read_files += 1
        if large:
            self._begin()

    def _known(self, entry: FileEntry) -> Remembered | None:
        while self._next is not None and self._next.path < entry.path:
            self._next = next(self._remembered, None)
        found = self._next
        if found is None or found.path != entry.path:
            return None
        if not (found.of_base and self._base_holds) and not all(self._media.usable(piece) for piece in found.pieces):
            return None
        if not found.fits(entry):
            self._media.know(found.pieces)  # often only its time is new
            return None
        return found

    def _in_turn(self, entry: FileEntry) -> bool:
        return (zlib.crc32(entry.path) + self.cache.head.runs) % REREAD_ONE_IN == 0

    def _begin(self) -> None:
        """Hand over the open batch, once there are few enough under way."""
        if not self._open.entries:
            return
        while len(self._jobs) > self._workers:
            self._wait(self._jobs.popleft())
        job, self._open = self._open, _Job()
        job.future = self._pool.submit(self._reader.read, job.entries)
        self._jobs.append(job)

    def _wait(self, job: _Job) -> list[Outcome]:
        """A batch's outcome; meanwhile whoever watches hears of the bytes."""
        if job is self._open:
            self._begin()
        assert job.future is not None
        while True:
            self._tell()
            try:
                return job.future.result(timeout=0.5)
            except NotYet:
                if job.future.done():
                    return job.future.result()
                if self._on_bytes is not None:
                    self._on_bytes(0)  # nothing is done, but it may be time to end

    def _first(self) -> Iterator[ListedFile]:
        listed, job, index = self._pending.popleft()
        if job is not None:
            outcome, known = self._wait(job)[index], job.known[index]
            listed = outcome.listed
            path = _shown(job.entries[index].path)
            if outcome.restless:
                self._restless.append(f"{path}: {outcome.restless}")
            if known is not None and listed is not None and known.fits(listed.entry) and listed.sha256 != known.sha256:
                self.silent.append(path)
            if listed is None:
                self._gone.add(job.entries[index].path)
        else:
            self._tell()
        if listed is None:
            return
        if listed.entry.kind == "hardlink" and listed.entry.link in self._gone:
            self._restless.append(f"{_shown(listed.entry.path)}: the other name of the same file vanished meanwhile")
            return
        yield listed

    def _count(self, size: int) -> None:
        self._counted.append(size)

    def _tell(self) -> None:
        total = 0
        while self._counted:
            total += self._counted.popleft()
        if total and self._on_bytes is not None:
            self._on_bytes(total)

    def summary(self) -> FilesSummary:
        """The part in numbers."""
        assert self._references is not None
        named = self._restless[:NAMED]
        if len(self._restless) > NAMED:
            named.append(f"and {len(self._restless) - NAMED} more")
        return FilesSummary(
            entries=self._entries,
            plain_size=self._plain,
            objects=self._references.count,
            new_objects=self._media.new_objects,
            new_bytes=self._media.new_bytes,
            references=self._references.reference(),
            changed_while_read=tuple(named),
        )


class _References:
    """The reference list on its way into the store."""

    def __init__(self, writer: ObjectWriter, name: str) -> None:
        self.writer = writer
        self._name = name
        self._buffer = bytearray(REFERENCES_START)
        self._blocks = self._size = 0
        self._hash = hashlib.sha256()
        self.count = 0

    def add(self, reference: MediaReference) -> None:
        self.count += 1
        self._buffer += reference_line(reference)
        if len(self._buffer) >= FRAME_BYTES:
            self._store()

    def commit(self) -> None:
        self._buffer += references_end(self.count)
        self._store()
        self.writer.commit(self._blocks)

    def reference(self) -> Reference:
        return Reference(self._name, self._size, self._hash.hexdigest())

    def _store(self) -> None:
        data = bytes(self._buffer)
        self.writer.block(self._blocks, data)
        self._blocks += 1
        self._size += len(data)
        self._hash.update(data)
        self._buffer.clear()


class _Pulled:
    """`read(size)` over the lines."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        while not self._rest:
            following = next(self._lines, None)
            if following is None:
                return b""
            self._rest = memoryview(following)
        piece, self._rest = self._rest[:size], self._rest[size:]
        return bytes(piece)


def _shown(path: bytes) -> str:
    text = path.decode("utf-8", "backslashreplace")
    plain = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return plain if len(plain) <= 160 else f"{plain[:80]}…{plain[-70:]}"
