"""The proof that a set can be restored: into throw-away servers and trees, compared, asked, timed, and cleared away.

Databases go into a scratch server of the version they were dumped from; files into a tree beside the live one that is
never swapped. What a killed drill left is cleared away by the next: servers by their labels, trees by the note
`drills/<environment>/<token>.json` that is written before they are made. Nothing live is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import TypeVar, cast

from ops_pipeline.core.backup import alerts
from ops_pipeline.core.backup.records import FILE_KINDS, DrillResult, Part, SetState
from ops_pipeline.core.backup.restore_plan import parts_of, size, sources_of, span
from ops_pipeline.errors import NotFound, OpsError, PolicyRefused, StoreDamaged, Transient, Unavailable
from ops_pipeline.ports import Beside, DataSource, FileTree, Progress, Vault
from ops_pipeline.services.alerting import settle, tell
from ops_pipeline.services.backup.answers import IMAGE, QUESTION, differs
from ops_pipeline.services.backup.comparing import Compared, compare_contents, expected_contents
from ops_pipeline.services.backup.loading import load_database, load_tree
from ops_pipeline.services.backup.locks import FOLDER
from ops_pipeline.services.backup.restore_planning import check_source, new_token
from ops_pipeline.services.backup.sets import BackupSet, find_set, write_state
from ops_pipeline.services.lease import HeldLease, acquire
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.records import encode
from ops_pipeline.services.retrying import retried

DRILLS_KEPT = 20
LABEL = "ops.drill"
LOCK = "drill"
TERM_SECONDS = 120.0

T = TypeVar("T")


@dataclass(frozen=True)
class DrillNote:
    """What a drill under way makes beside live trees."""

    environment: str
    token: str
    set_id: str
    sources: tuple[str, ...]
    at: datetime
    run_id: str = ""


def drill(
    platform: Platform,
    environment: str,
    *,
    set_id: str = "",
    run_id: str = "",
    progress: Progress,
    tokens: Callable[[], str] = new_token,
) -> DrillResult:
    """Restore a set ("" = the newest good one) into scratch places and compare it with what the dump itself saw.

    The result is kept with the set, and people are alerted when anything differs. Raise PolicyRefused (no identity
    here), LeaseHeld (another drill), NotFound (no set), Unavailable (a store or an engine does not answer: nothing is
    known about the set, and nothing recorded).
    """
    vault = platform.vault()
    if not vault.sealing.can_open:
        raise PolicyRefused(
            f"drilling {environment}",
            ["no identity here opens a backup"],
            hint="Set `backups.identity`, to the escrowed key, where drills run.",
        )
    with acquire(
        replace(platform, store=vault.state),
        environment,
        LOCK,
        run_id=run_id,
        reason="restore drill",
        term_seconds=TERM_SECONDS,
        progress=progress,
        folder=FOLDER,
    ) as held:
        _sweep(platform, vault, environment, progress)
        found = find_set(platform, environment, set_id or "latest", vault=vault)
        progress(f"drill of set {found.id}, taken {found.manifest.started_at:%Y-%m-%d %H:%M} UTC")
        with _note(platform, vault, found, tokens(), run_id) as note:
            result = _Drilling(platform, vault, found, note.token, held, progress).run(run_id)
        _record(platform, vault, found, result)
    _tell(platform, environment, found, result, progress)
    return result


@dataclass
class _Drilling:
    """One drill under way."""

    platform: Platform
    vault: Vault
    found: BackupSet
    token: str
    held: HeldLease
    progress: Progress
    problems: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    compared: int = 0

    def run(self, run_id: str) -> DrillResult:
        manifest, clock = self.found.manifest, self.platform.clock
        known = {source.name: source for source in self.platform.sources(manifest.environment)}
        for name in sources_of(manifest):
            parts = parts_of(manifest, name)
            self.held.check()
            if name not in known or check_source(known[name], parts[0].kind):
                self.problems.append(f"{name}: the catalogue has no such data source ({parts[0].kind}) any more")
                continue
            self._drill(known[name], parts)
        total = sum(self.seconds.values())
        return DrillResult(
            clock.now(), run_id, total, self.compared, tuple(self.problems), dict(self.seconds), self.found.id
        )

    def _drill(self, source: DataSource | FileTree, parts: Sequence[Part]) -> None:
        """One source. What is wrong with the set is a problem; what is away is raised."""
        clock = self.platform.clock
        started = clock.monotonic()
        try:
            if source.kind in FILE_KINDS:
                result = self._tree(cast(FileTree, source), parts)
            else:
                result = self._database(cast(DataSource, source), parts)
        except (Transient, Unavailable) as error:
            if isinstance(error, Unavailable):
                raise
            raise Unavailable(f"{source.name}: {error.message}", hint=error.hint) from error
        except StoreDamaged as error:
            self.problems.append(error.message)
            return
        except OpsError as error:
            self.problems.append(f"{source.name}: could not be restored: {error.message}")
            return
        self.seconds[source.name] = clock.monotonic() - started
        self.compared += result.count
        self.problems += result.problems
        self.progress(
            f"{source.name}: restored and compared in {span(self.seconds[source.name])}, {result.count:,} things, "
            f"{len(result.problems) or 'no'} difference{'' if len(result.problems) == 1 else 's'}"
        )

    def _database(self, source: DataSource, parts: Sequence[Part]) -> Compared:
        with ExitStack() as stack:
            beside = self._scratch(source, parts, stack)
            load_database(
                self.platform,
                self.vault,
                source.name,
                beside,
                parts,
                alive=lambda words: self.held.check(),
                progress=self.progress,
            )
            compared = compare_contents(source.name, expected_contents(parts), beside.contents())
            return compared.and_also(self._questions(source.name, beside, parts))

    def _scratch(self, source: DataSource, parts: Sequence[Part], stack: ExitStack) -> Beside:
        """A server of the image the dump came from, or of the live server's where this engine has that no more."""
        engine = next((part.arrived.engine for part in parts), "")
        labels = {LABEL: self.found.manifest.environment}
        recorded = next((part.arrived.details[IMAGE] for part in parts if IMAGE in part.arrived.details), "")
        if recorded:
            self.progress(f"{source.name}: a scratch server of {recorded} for data of {engine}")
            try:
                return stack.enter_context(source.scratch(recorded, labels))
            except NotFound as error:
                self.progress(f"{source.name}: the image it was dumped from is not here: {error.message}")
        image = self._retried(f"find the image of {source.name}", source.image)
        self.progress(f"{source.name}: a scratch server of {image}, which the live server runs, for data of {engine}")
        return stack.enter_context(source.scratch(image, labels))

    def _questions(self, name: str, beside: Beside, parts: Sequence[Part]) -> Compared:
        """The application's own queries: they must be answered, and as they were when the set was taken if known."""
        settings = self.platform.catalogue.environments[self.found.manifest.environment].backup
        questions: dict[str, str] = getattr(settings.sources.get(name), "questions", {}) if settings else {}
        known = {key: value for part in parts for key, value in part.arrived.details.items()}
        problems = []
        for title, query in questions.items():
            try:
                answer = beside.ask(query)
            except OpsError as error:
                problems.append(f"{name}: question {title} is not answered: {error.message}")
                continue
            expected = known.get(f"{QUESTION}{title}")
            if expected is not None and (words := differs(expected, answer)):
                problems.append(f"{name}: question {title} {words}")
            elif expected is None and not answer.strip():
                problems.append(f"{name}: question {title} is answered with nothing")
        return Compared(len(questions), tuple(problems))

    def _tree(self, tree: FileTree, parts: Sequence[Part]) -> Compared:
        total = sum(part.files.plain_size for part in parts if part.files)
        self.progress(f"{tree.name}: {size(total)} of files into a tree beside the live one, never swapped")
        try:
            return load_tree(
                self.platform,
                self.vault,
                tree,
                parts,
                self.token,
                alive=lambda words: self.held.check(),
                progress=self.progress,
            )
        finally:
            self._retried(f"clear away {tree.name}", lambda: tree.drop_beside(self.token))

    def _retried(self, what: str, action: Callable[[], T]) -> T:
        return retried(self.platform.clock, what, action)


def note_key(environment: str, token: str) -> str:
    """Key in `vault.state` of a drill under way."""
    return f"drills/{environment}/{token}.json"


@contextmanager
def _note(platform: Platform, vault: Vault, found: BackupSet, token: str, run_id: str) -> Iterator[DrillNote]:
    """Written before anything is made; taken back when nothing of it is left, however the drill ended."""
    clock, environment = platform.clock, found.manifest.environment
    trees = tuple(source.name for source in platform.sources(environment) if source.kind in FILE_KINDS)
    note = DrillNote(environment, token, found.id, trees, clock.now(), run_id)
    key = note_key(environment, token)
    retried(clock, f"write {key}", lambda: vault.state.write(key, encode(note)))
    yield note
    retried(clock, f"delete {key}", lambda: vault.state.delete(key))


def _sweep(platform: Platform, vault: Vault, environment: str, progress: Progress) -> None:
    """Clear away trees a killed drill left. The lock is held, so none of them is at work."""
    clock, prefix = platform.clock, f"drills/{environment}/"
    trees = [one for one in platform.sources(environment) if one.kind in FILE_KINDS]
    for key in retried(clock, f"list {prefix}", lambda: [info.key for info in vault.state.list(prefix)]):
        token = key.rpartition("/")[2].removesuffix(".json")
        for tree in trees:
            retried(clock, f"clear away {tree.name}", partial(tree.drop_beside, token))
        retried(clock, f"delete {key}", partial(vault.state.delete, key))
        progress(f"what drill {token} left behind is gone")


def _record(platform: Platform, vault: Vault, found: BackupSet, result: DrillResult) -> None:
    def drilled(state: SetState) -> SetState:
        return replace(state, drills=(*state.drills, result)[-DRILLS_KEPT:])

    write_state(vault, platform.clock, found.manifest.environment, found.id, drilled)


def _tell(platform: Platform, environment: str, found: BackupSet, result: DrillResult, progress: Progress) -> None:
    words = f"set {found.id}: {'; '.join(result.problems)}" if result.problems else ""
    alert = alerts.drill_failed(environment, words or f"set {found.id} passed")
    if result.problems:
        tell(platform, alert, progress)
        progress(f"the drill did not pass: {len(result.problems)} problems")
        for problem in result.problems:
            progress(f"  {problem}")
    else:
        settle(platform, alert, progress)
        progress(f"the drill passed: {result.compared:,} things are as backed up; recovery took {span(result.seconds)}")
