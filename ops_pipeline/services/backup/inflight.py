"""Sets being taken: who, since when, how far. `inflight/<environment>/<id>.json`, written before the first part.

Every change is conditional on the one before it, so a set that was given up by others cannot be finished by the
process that began it, however long that was suspended: `committing` fails, and the manifest is never written.
Whoever clears away the parts of a set that never came to be first brings its record to `abandoned` (`give_up`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from ops_pipeline.core.backup.records import SetKey, Trigger
from ops_pipeline.errors import Conflict, OpsError, StaleGeneration, StoreDamaged
from ops_pipeline.ports import Clock, Vault
from ops_pipeline.services.records import decode, encode
from ops_pipeline.services.retrying import retried

TAKING, COMMITTING, ABANDONED = "taking", "committing", "abandoned"
BEAT_SECONDS = 20.0


@dataclass(frozen=True)
class InFlight:
    """One set that is being taken. `generation` is its lock's; `manifest` is set from `committing` on (JSON)."""

    environment: str
    id: str
    started_at: datetime
    trigger: Trigger
    run_id: str
    controller: str
    generation: int
    stage: str
    beat_at: datetime
    note: str = ""  # what is being done, or why it was given up
    manifest: str = ""
    quarantine: str = ""

    @property
    def key(self) -> SetKey:
        """Where its objects lie."""
        return SetKey(self.environment, self.id, self.started_at)


def in_flight_key(environment: str, set_id: str) -> str:
    """Key in `vault.state`."""
    return f"inflight/{environment}/{set_id}.json"


def in_flight(vault: Vault, clock: Clock, environment: str) -> Iterator[tuple[InFlight, str]]:
    """Records of an environment with their etags, oldest first; what cannot be read is left out. Raise Unavailable."""
    keys = retried(
        clock,
        f"list the sets of {environment} being taken",
        lambda: [info.key for info in vault.state.list(f"inflight/{environment}/")],
    )
    for key in keys:
        blob = retried(clock, f"read {key}", lambda key=key: vault.state.read(key))  # type: ignore[misc]
        if blob is None:
            continue
        try:
            yield decode(InFlight, blob.data, key), blob.etag
        except StoreDamaged:
            continue


def give_up(vault: Vault, clock: Clock, found: InFlight, etag: str, why: str) -> bool:
    """Bring a record to `abandoned`; False when somebody changed it meanwhile: then look again. Raise Unavailable."""
    flight = Flight(vault, clock, found, etag)
    try:
        flight.abandon(why)
    except StaleGeneration:
        return False
    return True


class Flight:
    """The record of one set, in the hands of whoever takes it."""

    def __init__(self, vault: Vault, clock: Clock, record: InFlight, etag: str | None = None) -> None:
        self._vault = vault
        self._clock = clock
        self._record = record
        self._etag = etag
        self._beat = clock.monotonic()

    @property
    def record(self) -> InFlight:
        """As last written."""
        return self._record

    def begin(self) -> None:
        """Write the first record. Raise Unavailable, Permanent."""
        self._write(self._record)

    def beat(self, note: str) -> None:
        """Say that it goes on, at most every 20 s; a store that is away is no error. Raise StaleGeneration."""
        if self._clock.monotonic() - self._beat < BEAT_SECONDS:
            return
        self._beat = self._clock.monotonic()
        try:
            self._write(replace(self._record, note=note, beat_at=self._clock.now()), attempts=1)
        except StaleGeneration:
            raise
        except OpsError:
            return

    def committing(self, manifest: bytes, quarantine: str) -> None:
        """Say that all parts are there and what the manifest will be. Raise StaleGeneration, Unavailable."""
        self._write(
            replace(
                self._record,
                stage=COMMITTING,
                note="all parts are there",
                manifest=manifest.decode(),
                quarantine=quarantine,
                beat_at=self._clock.now(),
            )
        )

    def abandon(self, why: str) -> None:
        """Say that it will never be. Raise StaleGeneration, Unavailable."""
        self._write(
            replace(
                self._record, stage=ABANDONED, note=why[:500], manifest="", quarantine="", beat_at=self._clock.now()
            )
        )

    def end(self) -> None:
        """Forget it. Raise Unavailable."""
        key = in_flight_key(self._record.environment, self._record.id)
        retried(self._clock, f"delete {key}", lambda: self._vault.state.delete(key))

    def _write(self, record: InFlight, attempts: int = 4) -> None:
        key, data = in_flight_key(record.environment, record.id), encode(record)

        def attempt() -> str:
            try:
                if self._etag is None:
                    return self._vault.state.write(key, data, if_absent=True)
                return self._vault.state.write(key, data, if_match=self._etag)
            except Conflict:
                blob = self._vault.state.read(key)
                if blob is None or not self._is_ours(blob.data):
                    raise StaleGeneration(
                        f"set {record.id} of {record.environment} was given up by somebody else; nothing more is done",
                        hint="A set exists only once it is whole: nothing was lost. Start again.",
                    ) from None
                # An earlier write of our own, whose answer was lost.
                return blob.etag if blob.data == data else self._vault.state.write(key, data, if_match=blob.etag)

        self._etag = retried(self._clock, f"write {key}", attempt, attempts=attempts)
        self._record = record

    def _is_ours(self, data: bytes) -> bool:
        try:
            found = decode(InFlight, data, self._record.id)
        except StoreDamaged:
            return False
        mine = self._record
        who = (found.controller, found.generation, found.id) == (mine.controller, mine.generation, mine.id)
        return who and (found.stage != ABANDONED or mine.stage == ABANDONED)
