"""One restore under way: each step is written down before it is done, so that whoever comes after a kill goes on.

Live data are touched by the swap only, and by its way back. Up to the confirmation a failure drops what was made; from
then on all sources are swapped, or all are as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from ops_pipeline.core.backup.records import Manifest, Part
from ops_pipeline.core.backup.restore_plan import parts_of
from ops_pipeline.errors import LeaseHeld, OpsError, Permanent, StaleGeneration
from ops_pipeline.ports import DataSource, FileTree, Progress, Vault
from ops_pipeline.services.backup.loading import load_source
from ops_pipeline.services.backup.restore_journal import RestoreJournal, RestoreRecord, Stage
from ops_pipeline.services.lease import HeldLease, acquire
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried

T = TypeVar("T")
SERVICE_WAIT_SECONDS = 120.0
"""So long a swap waits for deploys of the environment that are under way."""

Confirm = Callable[[str], bool]
"""Given what is about to happen, say whether it may."""


@dataclass(frozen=True)
class RestoreOutcome:
    """Where a restore stands now. `seconds`: how long each source took to be restored and compared."""

    record: RestoreRecord
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def token(self) -> str:
        """Names what it made, and its hold."""
        return self.record.token

    @property
    def stage(self) -> Stage:
        """Where it stands."""
        return self.record.stage

    @property
    def compared(self) -> int:
        """How many things were compared with the set."""
        return self.record.compared

    @property
    def words(self) -> str:
        """In one sentence."""
        record = self.record
        names = ", ".join(record.sources)
        return {
            Stage.HELD: f"{names}: restored from set {record.set_id}; what was live is kept as the hold {record.token}",
            Stage.KEPT: f"{names}: restored beside the live data as {record.token}; live data did not change",
            Stage.UNDONE: f"{names}: what was live before restore {record.token} is live again; the restored data stay "
            f"beside until released",
            Stage.DONE: f"{names}: what restore {record.token} kept is gone",
            Stage.FAILED: f"{names}: not restored, live data are as they were: {record.failure}",
        }.get(record.stage, record.words)


class Restoring:
    """The steps of one restore. The environment's data lock must be held."""

    def __init__(
        self,
        platform: Platform,
        vault: Vault,
        journal: RestoreJournal,
        held: HeldLease,
        progress: Progress,
    ) -> None:
        self._platform = platform
        self._vault = vault
        self._journal = journal
        self._held = held
        self._progress = progress
        self._seconds: dict[str, float] = {}
        known = {source.name: source for source in platform.sources(journal.record.environment)}
        missing = [name for name in journal.record.sources if name not in known]
        if missing:
            raise Permanent(
                f"restore {journal.record.token} needs data sources the catalogue no longer has: {', '.join(missing)}"
            )
        self._sources: dict[str, DataSource | FileTree] = {name: known[name] for name in journal.record.sources}

    @property
    def outcome(self) -> RestoreOutcome:
        """Where it stands."""
        return RestoreOutcome(self._journal.record, dict(self._seconds))

    # ------------------------------------------------------------------------------------------------ forward

    def beside(self, manifest: Manifest) -> None:
        """Restore what is not restored yet, and compare: up to `checked`, or `kept`. Else it is dropped and raised."""
        try:
            for name in self._record.sources:
                if name not in self._record.loaded:
                    self._load(name, parts_of(manifest, name))
            if self._record.into:
                self._write(f"kept beside as {self._record.token}", stage=Stage.KEPT)
            else:
                self._write("all is there and as it was backed up", stage=Stage.CHECKED)
        except (StaleGeneration, LeaseHeld):
            raise
        except BaseException as error:
            self.drop(_words(error))
            raise

    def swap(self) -> None:
        """All sources, or none: from `confirmed` to `held`. Raise Permanent when it went back."""
        with self._services():
            try:
                for name, source in self._sources.items():
                    self._held.check()
                    self._write(f"{name}: swapping", stage=Stage.SWAPPING)
                    self._retried(f"swap {name}", partial(source.swap, self._record.token))
                    self._progress(f"{name}: the restored data are live")
                    swapped = tuple(dict.fromkeys((*self._record.swapped, name)))
                    self._write(f"{name}: swapped", swapped=swapped)
                self._write("all swapped; what was live is held", stage=Stage.HELD)
            except (StaleGeneration, LeaseHeld):
                raise
            except BaseException as error:
                try:
                    self.go_back(_words(error), locked=True)
                except OpsError as second:
                    raise Permanent(
                        f"the swap failed ({_words(error)}) and could not be taken back yet ({second.message}): live "
                        "data may be of two moments",
                        hint=f"Resume restore {self._record.token}: it goes on taking it back.",
                    ) from error
                if isinstance(error, OpsError):
                    raise Permanent(
                        f"the swap failed and all data are as they were before: {error.message}", hint=error.hint
                    ) from error
                raise

    # ------------------------------------------------------------------------------------------------ back

    def drop(self, why: str) -> None:
        """Remove what was made beside. Raise Unavailable, Permanent: then `dropping` is left to be finished."""
        self._write(f"dropping what was made: {why}", stage=Stage.DROPPING, failure=self._record.failure or why[:500])
        for name, source in self._sources.items():
            self._retried(f"drop {name}", partial(source.drop_beside, self._record.token))
        self._write("nothing of it is left; live data were not touched", stage=Stage.FAILED)

    def go_back(self, why: str, *, locked: bool = False) -> None:
        """Bring back what was live of every source, then drop the rest: from anywhere in the swap to `failed`."""
        with ExitStack() as stack:
            if not locked:
                stack.enter_context(self._services())
            self._write(f"going back: {why}", stage=Stage.RETURNING, failure=self._record.failure or why[:500])
            self._progress(f"the swap is taken back: {why}")
            self._unswap_all()
            self._write("all data are as they were before", swapped=())
        self.drop(why)

    def undo(self) -> None:
        """Bring the hold back: from `held` to `undone`. When it cannot, all stays as it is and Permanent is raised."""
        with self._services():
            self._write("undoing: bringing back what was live before", stage=Stage.UNDOING)
            try:
                self._unswap_all()
            except OpsError as error:
                for name, source in self._sources.items():
                    self._retried(f"swap {name}", partial(source.swap, self._record.token))
                self._write(f"could not be undone: {error.message}", stage=Stage.HELD)
                raise Permanent(
                    f"restore {self._record.token} could not be undone; the restored data are still live: "
                    f"{error.message}",
                    hint=error.hint,
                ) from error
            self._write("what was live before is live again", stage=Stage.UNDONE, swapped=())

    def release(self) -> None:
        """Remove for good what is kept: from `held` the hold, from `undone` and `kept` what lies beside."""
        beside = self._record.stage in (Stage.UNDONE, Stage.KEPT) or (
            self._record.stage is Stage.RELEASING and not self._record.swapped
        )
        what = "what lies beside" if beside else "the hold"
        self._write(f"removing {what}", stage=Stage.RELEASING)
        for name, source in self._sources.items():
            self._held.check()
            drop = source.drop_beside if beside else source.drop_hold
            self._retried(f"remove {what} of {name}", partial(drop, self._record.token))
            self._progress(f"{name}: {what} is gone")
        self._write("nothing of it is left", stage=Stage.DONE)

    # ------------------------------------------------------------------------------------------------ steps

    @property
    def _record(self) -> RestoreRecord:
        return self._journal.record

    def _write(self, text: str, **changes: Any) -> None:
        self._journal.write(text, **changes)

    def _load(self, name: str, parts: Sequence[Part]) -> None:
        if not parts:
            raise Permanent(f"set {self._record.set_id} holds nothing of {name}")
        clock = self._platform.clock
        self._held.check()
        self._write(f"{name}: restoring beside", stage=Stage.LOADING)
        self._progress(f"{name}: restoring beside the live data")
        started = clock.monotonic()
        found = self._retried(
            f"restore {name}",
            lambda: load_source(
                self._platform,
                self._vault,
                self._sources[name],
                parts,
                self._record.token,
                only=self._record.only,
                alive=lambda words: self._held.check(),
                progress=self._progress,
            ),
        )
        self._seconds[name] = clock.monotonic() - started
        if found.problems:
            raise Permanent(
                f"{name}: the restored copy is not what was backed up: " + "; ".join(found.problems),
                hint="Live data were not touched. Take another set.",
            )
        self._progress(f"{name}: {found.count:,} things compared with the set, all the same")
        self._write(
            f"{name}: restored and compared",
            loaded=(*self._record.loaded, name),
            compared=self._record.compared + found.count,
        )

    def _unswap_all(self) -> None:
        for name, source in reversed(list(self._sources.items())):
            self._held.check()

            def back(source: DataSource | FileTree = source) -> None:
                if source.swapped(self._record.token):
                    source.unswap(self._record.token)

            self._retried(f"bring back {name}", back)
            self._progress(f"{name}: what was live before is live again")

    @contextmanager
    def _services(self) -> Iterator[None]:
        """The leases of all services of the environment: no deploy runs while data are swapped."""
        with ExitStack() as stack:
            for service in sorted(self._platform.catalogue.services):
                stack.enter_context(
                    acquire(
                        self._platform,
                        self._record.environment,
                        service,
                        run_id=self._record.run_id,
                        reason=f"data are swapped (restore {self._record.token})",
                        wait_seconds=SERVICE_WAIT_SECONDS,
                        progress=self._progress,
                    )
                )
            yield

    def _retried(self, what: str, action: Callable[[], T]) -> T:
        return retried(self._platform.clock, what, action, progress=self._progress)


def _words(error: BaseException) -> str:
    return error.message if isinstance(error, OpsError) else f"interrupted ({type(error).__name__})"
