"""The journal of a restore, in `vault.state`: `restores/<environment>/<token>.json`, written before each action.

    prepared → loading → checked → confirmed → swapping → held → releasing → done
                  ↓          ↓          ↘         ↙          ↓
              dropping → failed       returning → failed   undoing → undone → releasing → done

and `kept` instead of `checked` for a copy that stays beside. Every write is conditional on the one before it, so a
controller that was suspended cannot go on with a restore somebody else has finished or undone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from ops_pipeline.core.backup.records import SetKey
from ops_pipeline.errors import BadInput, Conflict, NotFound, PolicyRefused, Problem, StaleGeneration, StoreDamaged
from ops_pipeline.ports import Clock, Vault
from ops_pipeline.services.backup.wanted import TOKEN
from ops_pipeline.services.records import decode, encode
from ops_pipeline.services.retrying import retried

LINES_KEPT = 100


class Stage(StrEnum):
    """Where a restore stands; see the module."""

    PREPARED = "prepared"
    LOADING = "loading"
    CHECKED = "checked"
    CONFIRMED = "confirmed"
    SWAPPING = "swapping"
    HELD = "held"
    KEPT = "kept"
    UNDOING = "undoing"
    UNDONE = "undone"
    RETURNING = "returning"
    DROPPING = "dropping"
    FAILED = "failed"
    RELEASING = "releasing"
    DONE = "done"


BESIDE = frozenset({Stage.PREPARED, Stage.LOADING, Stage.CHECKED})
"""Nothing live was touched; may go on or be dropped."""
SWITCHING = frozenset({Stage.CONFIRMED, Stage.SWAPPING, Stage.RETURNING, Stage.UNDOING})
"""Live data may be of two moments: nothing else may be done with them until this is finished or undone."""
UNFINISHED = BESIDE | SWITCHING | {Stage.DROPPING, Stage.RELEASING}
"""Somebody has to finish it."""
RESTING = frozenset({Stage.HELD, Stage.UNDONE, Stage.KEPT})
"""Done, and something is kept until it is released."""


@dataclass(frozen=True)
class Line:
    """One line of the journal."""

    at: datetime
    by: str
    text: str


@dataclass(frozen=True)
class RestoreRecord:
    """One restore. `started_at` is the set's and says where it lies; `sources` in the order they are swapped."""

    environment: str
    token: str
    set_id: str
    started_at: datetime
    manifest_sha256: str
    sources: tuple[str, ...]
    begun_at: datetime
    stage: Stage = Stage.PREPARED
    only: tuple[str, ...] = ()
    into: str = ""
    run_id: str = ""
    by: str = ""
    loaded: tuple[str, ...] = ()  # restored beside, and compared
    compared: int = 0
    swapped: tuple[str, ...] = ()
    failure: str = ""
    lines: tuple[Line, ...] = ()

    @property
    def key(self) -> SetKey:
        """Where the set lies."""
        return SetKey(self.environment, self.set_id, self.started_at)

    @property
    def words(self) -> str:
        """In one sentence."""
        last = f"; last: {self.lines[-1].text}" if self.lines else ""
        return f"restore {self.token} of set {self.set_id} ({', '.join(self.sources)}) is {self.stage}{last}"


def journal_key(environment: str, token: str) -> str:
    """Key in `vault.state`."""
    return f"restores/{environment}/{token}.json"


class RestoreJournal:
    """The journal of one restore, in the hands of whoever does it."""

    def __init__(self, vault: Vault, clock: Clock, record: RestoreRecord, etag: str | None, who: str) -> None:
        self._vault = vault
        self._clock = clock
        self._record = record
        self._etag = etag
        self._who = who
        self._sent = b""  # what was last sent: it may be there although no answer came

    @property
    def record(self) -> RestoreRecord:
        """As last written."""
        return self._record

    def write(self, text: str, **changes: Any) -> None:
        """One more line and these fields. Raise StaleGeneration when somebody else wrote meanwhile, Unavailable."""
        line = Line(self._clock.now(), self._who, text[:500])
        record = replace(self._record, lines=(*self._record.lines, line)[-LINES_KEPT:], **changes)
        key, data = journal_key(record.environment, record.token), encode(record)
        before, self._sent = self._sent, data

        def attempt() -> str:
            try:
                if self._etag is None:
                    return self._vault.state.write(key, data, if_absent=True)
                return self._vault.state.write(key, data, if_match=self._etag)
            except Conflict:
                blob = self._vault.state.read(key)
                if blob is not None and blob.data == data:
                    return blob.etag  # our own write, whose answer was lost
                if blob is not None and before and blob.data == before:
                    return self._vault.state.write(key, data, if_match=blob.etag)  # the one before it was
                raise StaleGeneration(
                    f"restore {record.token} of {record.environment} is in somebody else's hands by now; this "
                    "controller does nothing more",
                    hint=f"`ops restores {record.environment}` shows where it stands.",
                ) from None

        self._etag = retried(self._clock, f"write {key}", attempt)
        self._record = record


def begin_journal(vault: Vault, clock: Clock, record: RestoreRecord, who: str) -> RestoreJournal:
    """Write the first line of a restore. Raise BadInput when its token is in use, StoreDamaged, Unavailable.

    The journal of an earlier restore of the same name that left nothing behind is replaced.
    """
    key = journal_key(record.environment, record.token)
    blob = retried(clock, f"read {key}", lambda: vault.state.read(key))
    if blob is not None:
        found = decode(RestoreRecord, blob.data, key)
        if found.stage not in (Stage.DONE, Stage.FAILED):
            raise BadInput([Problem("restore", f"`{record.token}` is in use: {found.words}")])
    journal = RestoreJournal(vault, clock, record, None if blob is None else blob.etag, who)
    journal.write(f"restoring {', '.join(record.sources)} from set {record.set_id}")
    return journal


def open_journal(vault: Vault, clock: Clock, environment: str, token: str, who: str) -> RestoreJournal:
    """The journal of a restore there is. Raise BadInput (no token), NotFound, StoreDamaged, Unavailable."""
    if not TOKEN.fullmatch(token):
        raise BadInput([Problem("restore", f"`{token}` is no token of a restore: 4 to 12 small letters and digits")])
    key = journal_key(environment, token)
    blob = retried(clock, f"read {key}", lambda: vault.state.read(key))
    if blob is None:
        known = ", ".join(record.token for record in restores(vault, clock, environment)) or "none"
        raise NotFound(f"{environment} has no restore {token}", hint=f"There are: {known}.")
    record = decode(RestoreRecord, blob.data, key)
    if (record.environment, record.token) != (environment, token):
        raise StoreDamaged(f"stored object {key} is damaged: it is the journal of {record.environment}/{record.token}")
    return RestoreJournal(vault, clock, record, blob.etag, who)


def restores(vault: Vault, clock: Clock, environment: str) -> tuple[RestoreRecord, ...]:
    """All restores of an environment, oldest first. Raise StoreDamaged naming the one that cannot be read."""
    prefix = f"restores/{environment}/"
    keys = retried(clock, f"list {prefix}", lambda: [info.key for info in vault.state.list(prefix)])
    found = []
    for key in keys:
        blob = retried(clock, f"read {key}", lambda key=key: vault.state.read(key))  # type: ignore[misc]
        if blob is not None:
            found.append(decode(RestoreRecord, blob.data, key))
    return tuple(sorted(found, key=lambda one: (one.begun_at, one.token)))


def unfinished(vault: Vault, clock: Clock, environment: str) -> RestoreRecord | None:
    """The restore somebody has to finish, or None. Raise StoreDamaged, Unavailable.

    While there is one no other restore begins; while its stage is one of SWITCHING no backup may be taken either: it
    would hold data of two moments.
    """
    return next((one for one in restores(vault, clock, environment) if one.stage in UNFINISHED), None)


def refuse_while_switching(vault: Vault, clock: Clock, environment: str, doing: str = "") -> None:
    """For backups and releases: raise PolicyRefused while live data may be of two moments.

    That is from the confirmation of a swap until it is finished or undone, also when it was killed half-way. `doing`
    is what is refused (default: the backup). A journal that cannot be read keeps nobody from taking a backup. Raise
    Unavailable. For a backup call it with the environment's data lock held.
    """
    try:
        found = next((one for one in restores(vault, clock, environment) if one.stage in SWITCHING), None)
    except StoreDamaged:
        return
    if found is not None:
        raise PolicyRefused(
            doing or f"backing up {environment}",
            [f"live data may be of two moments: {found.words}"],
            hint=f"Resume that restore, or abandon it, first: `ops restores {environment}` shows where it stands.",
        )
