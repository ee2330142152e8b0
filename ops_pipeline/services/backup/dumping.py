"""The parts of one data source: its dumps as sealed streams, or its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from ops_pipeline.core.backup.records import ATTEMPTS, FILE_KINDS, Part, SetKey
from ops_pipeline.errors import Permanent, Transient, Unavailable
from ops_pipeline.ports import Clock, DataSource, Dump, FileTree, Progress, Vault
from ops_pipeline.services.backup.files import back_up_files
from ops_pipeline.services.backup.meter import Meter
from ops_pipeline.services.backup.streams import write_stream

WAIT_SECONDS = 5.0
"""A dump cannot go on where it was cut: its snapshot is gone. It begins anew, once, and only after a passing fault."""


class Dumper:
    """Takes data sources into one set. `alive` is called about once a second and may raise."""

    def __init__(
        self,
        vault: Vault,
        clock: Clock,
        key: SetKey,
        *,
        workers: int,
        progress: Progress,
        alive: Callable[[str], None],
        expected: Mapping[tuple[str, str], int],
    ) -> None:
        """`expected`: plain bytes of a part by source and name, as the last set had them."""
        self._vault = vault
        self._clock = clock
        self._key = key
        self._workers = workers
        self._progress = progress
        self._alive = alive
        self._expected = expected

    def take(self, source: DataSource | FileTree) -> tuple[Part, ...]:
        """All parts of a source. Raise Permanent, Unavailable, whatever `alive` raises; nothing of a cut part shows."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                if source.kind in FILE_KINDS:
                    return (self._files(cast(FileTree, source), attempt),)
                return self._database(cast(DataSource, source), attempt)
            except Transient as error:
                if attempt == ATTEMPTS:
                    raise Unavailable(
                        f"{source.name} could not be backed up in {ATTEMPTS} attempts: {error.message}", hint=error.hint
                    ) from error
                self._progress(f"{source.name}: {error.message}; it is taken anew in {WAIT_SECONDS:g} s")
                self._clock.sleep(WAIT_SECONDS)
        raise AssertionError("there is at least one attempt")

    def _database(self, source: DataSource, attempt: int) -> tuple[Part, ...]:
        parts: list[Part] = []
        with source.dumps() as dumps:
            for dump in dumps:
                try:
                    parts.append(self._dump(source, dump, attempt))
                finally:
                    dump.close()
        if not parts:
            raise Permanent(f"{source.name}: there was nothing to dump")
        return tuple(parts)

    def _dump(self, source: DataSource, dump: Dump, attempt: int) -> Part:
        name, started = dump.name, self._clock.now()
        label = source.name if name == "dump" else f"{source.name} ({name})"
        meter = self._meter(label, source.name, name)
        stream = write_stream(
            self._vault.sets,
            self._vault.sealing,
            self._key.part(source.name, name, attempt),
            f"{self._key.environment}/{self._key.id}/{source.name}/{name}",
            dump.read,
            workers=self._workers,
            on_bytes=meter,
        )
        arrived = dump.arrived()
        if arrived.exit_code != 0 or not stream.plain_size:
            raise Permanent(f"{label}: the dump gave {stream.plain_size} bytes and ended with code {arrived.exit_code}")
        meter.done()
        return Part(source.name, source.kind, name, stream, arrived, started, max(self._clock.now(), started))

    def _files(self, tree: FileTree, attempt: int) -> Part:
        meter = self._meter(tree.name, tree.name, "files")
        part = back_up_files(
            self._vault,
            self._key,
            tree,
            workers=self._workers,
            progress=self._progress,
            on_bytes=meter,
            clock=self._clock,
            attempt=attempt,
        )
        self._alive(f"{tree.name}: all files")
        return part

    def _meter(self, label: str, source: str, name: str) -> Meter:
        self._alive(f"{label}: begins")
        return Meter(self._progress, self._clock, label, self._expected.get((source, name), 0), self._alive)
