"""The parts of one data source: its dumps as sealed streams, or its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

from ops_pipeline.core.backup.records import ATTEMPTS, FILE_KINDS, Part, SetKey
from ops_pipeline.errors import OpsError, Permanent, Transient, Unavailable
from ops_pipeline.ports import Clock, DataSource, Dump, FileTree, Progress, Vault
from ops_pipeline.services.backup.answers import IMAGE, QUESTION, recorded_answer
from ops_pipeline.services.backup.aside import Aside
from ops_pipeline.services.backup.files import back_up_files
from ops_pipeline.services.backup.meter import Meter
from ops_pipeline.services.backup.streams import write_stream

WAIT_SECONDS = 5.0
"""A dump cannot go on where it was cut: its snapshot is gone. It begins anew, once, and only after a passing fault."""


class Dumper:
    """Takes data sources into one set. `alive` is called about once a second, `check` often; both may raise."""

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
        questions: Mapping[str, Mapping[str, str]] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """`expected`: plain bytes of a part by source and name, as the last set had them.

        `questions`: the application's queries by source and name; their answers are kept with the parts.
        """
        self._vault = vault
        self._clock = clock
        self._key = key
        self._workers = workers
        self._progress = progress
        self._alive = alive
        self._expected = expected
        self._questions = questions or {}
        self._check = check

    def take(
        self,
        source: DataSource | FileTree,
        *,
        aside: Aside[tuple[Part, ...]] | None = None,
        attempts: dict[str, int] | None = None,
    ) -> tuple[Part, ...]:
        """All parts of a source. Raise Permanent, Unavailable, whatever `alive` raises; nothing of a cut part shows.

        `aside` is begun when nothing that is written from then on can come into the dump, and anew when the dump is.
        `attempts`: how often each source was begun already, counted on.
        """
        attempts = {} if attempts is None else attempts
        while True:
            attempt = attempts[source.name] = attempts.get(source.name, 0) + 1
            if attempt > ATTEMPTS:
                raise Unavailable(f"{source.name} was begun {ATTEMPTS} times already, and once more is needed")
            try:
                if source.kind in FILE_KINDS:
                    return (self._files(cast(FileTree, source), attempt),)
                return self._database(cast(DataSource, source), attempt, aside)
            except Transient as error:
                if aside is not None:
                    aside.cancel()  # the next dump has rows that name newer files
                if attempt >= ATTEMPTS:
                    raise Unavailable(
                        f"{source.name} could not be backed up in {ATTEMPTS} attempts: {error.message}", hint=error.hint
                    ) from error
                self._progress(f"{source.name}: {error.message}; it is taken anew in {WAIT_SECONDS:g} s")
                self._clock.sleep(WAIT_SECONDS)

    def _database(
        self, source: DataSource, attempt: int, aside: Aside[tuple[Part, ...]] | None = None
    ) -> tuple[Part, ...]:
        parts: list[Part] = []
        with source.dumps() as dumps:
            if aside is not None and all(dump.stands for dump in dumps):
                aside.begin()
            before = self._answers(source, tell=False)
            for dump in dumps:
                try:
                    parts.append(self._dump(source, dump, attempt))
                finally:
                    dump.close()
            if not parts:
                raise Permanent(f"{source.name}: there was nothing to dump")
            after = self._answers(source, tell=True)
        for title in sorted(before.keys() & after.keys()):
            if before[title] != after[title]:
                self._progress(f"{source.name}: the answer to {title} changes meanwhile; a drill will not compare it")
        details = {
            f"{QUESTION}{title}": recorded_answer(answer)
            for title, answer in after.items()
            if before.get(title) == answer
        }
        if image := self._image(source):
            details[IMAGE] = image
        return _with_details(parts, details)

    def _answers(self, source: DataSource, *, tell: bool) -> dict[str, str]:
        """Answers by question; one that is not answered keeps nobody from a backup.

        Asked before and after: an answer that stayed is the dump's, also where the engine has no snapshot to ask.
        """
        found = {}
        for title, query in self._questions.get(source.name, {}).items():
            try:
                found[title] = source.ask(query)
            except OpsError as error:
                if tell:
                    self._progress(f"warning: {source.name}: question {title} is not answered: {error.message}")
        return found

    def _image(self, source: DataSource) -> str:
        try:
            return source.image()
        except OpsError as error:
            self._progress(f"warning: {source.name}: the image of its server is not known: {error.message}")
            return ""

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
            on_bytes=self._checking(meter),
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
            on_bytes=self._checking(meter),
            clock=self._clock,
            attempt=attempt,
        )
        self._alive(f"{tree.name}: all files")
        return part

    def _checking(self, meter: Meter) -> Callable[[int], None]:
        def counted(count: int) -> None:
            self._check()
            meter(count)

        return counted

    def _meter(self, label: str, source: str, name: str) -> Meter:
        self._alive(f"{label}: begins")
        return Meter(self._progress, self._clock, label, self._expected.get((source, name), 0), self._alive)


def _with_details(parts: list[Part], details: Mapping[str, str]) -> tuple[Part, ...]:
    """The parts, with these details beside those of the dump proper (the last part where none is called so)."""
    at = next((number for number, part in enumerate(parts) if part.name == "dump"), len(parts) - 1)
    arrived = parts[at].arrived
    parts[at] = replace(parts[at], arrived=replace(arrived, details={**arrived.details, **details}))
    return tuple(parts)
