"""The stored journal: read, written before each action under the lease, and followed by the manifests."""

from __future__ import annotations

from dataclasses import replace

from ops_pipeline.core.journal import Journal, PhaseChange, taken_over
from ops_pipeline.core.release import Phase, PhaseTime, Release
from ops_pipeline.errors import Conflict, StaleGeneration
from ops_pipeline.services import ledger
from ops_pipeline.services.backup.gate import hold_after_failure
from ops_pipeline.services.lease import HeldLease
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.quarantine import quarantine
from ops_pipeline.services.records import decode, encode
from ops_pipeline.services.retrying import retried
from ops_pipeline.services.verdicts import write_verdict
from ops_pipeline.services.watches import remove_watch, write_watch


def journal_key(environment: str, service: str) -> str:
    """Store key of a journal."""
    return f"journal/{environment}/{service}.json"


def read_journal(platform: Platform, environment: str, service: str) -> Journal:
    """The journal as stored; an empty one before the first deploy. Raise StoreDamaged, Unavailable."""
    return _read(platform, environment, service)[0]


class OpenJournal:
    """The journal in the hands of the lease's holder. `now` is the document as last written."""

    def __init__(self, platform: Platform, environment: str, service: str, lease: HeldLease) -> None:
        self._platform = platform
        self._lease = lease
        self._key = journal_key(environment, service)
        self._owed = False
        self.now, self._etag = _read(platform, environment, service)

    def take_over(self, run_id: str) -> None:
        """Raise the stored generation to ours and empty the former controller's outbox, before anything else.

        A former controller that still writes at this moment is not lost: what it wrote is read again first.
        """
        while True:
            journal = taken_over(self.now, self._lease.generation, run_id, self._platform.clock.now())
            try:
                return self.write(journal)
            except Conflict:
                continue  # `now` is what the former controller wrote; from our generation on it can write no more

    def write(self, journal: Journal, *, flush: bool = True) -> None:
        """Store the next document, then bring its outbox into the manifests.

        Without `flush` the manifests may wait until after the action, where seconds count: the outbox stays in the
        document until `flush`, the next write or whoever takes over. Raise StaleGeneration when a newer controller
        wrote meanwhile, LeaseHeld, Conflict when an older one did (only possible before `take_over` is through),
        Unavailable, Permanent.
        """
        self.flush()
        platform, data = self._platform, encode(journal)
        while True:
            self._lease.check()
            etag = self._etag
            try:
                self._etag = retried(
                    platform.clock,
                    f"write {self._key}",
                    lambda etag=etag: (  # type: ignore[misc]
                        platform.store.write(self._key, data, if_match=etag)
                        if etag
                        else platform.store.write(self._key, data, if_absent=True)
                    ),
                )
            except Conflict:
                self._adopt_own_write()
            else:
                break
        self.now, self._owed = journal, True
        if flush:
            self.flush()

    def flush(self) -> None:
        """Bring the outbox of the current document to where it belongs, unless that was tried.

        Phases go into the manifests, what is live into the pointer and under watch, what is blamed into quarantine.
        Repeating it, after a take-over, changes nothing.
        """
        if not self._owed:
            return
        self._owed = False  # what cannot be brought there must not stop an undo: whoever takes over tries again
        journal, store = self.now, self._platform.store
        for change in journal.outbox:
            retried(
                self._platform.clock,
                f"update the manifest of #{change.release}",
                lambda change=change: _enter(self._platform, journal, change),  # type: ignore[misc]
            )
        live = journal.live
        if live is not None and any(change.phase is Phase.LIVE for change in journal.outbox):
            retried(
                self._platform.clock,
                "point at the live release",
                lambda: ledger.point_current(store, journal.environment, journal.service, live),
            )
        for change in journal.outbox:
            self._follow(change)

    def _follow(self, change: PhaseChange) -> None:
        """What goes with a phase: a watch begins or ends, a verdict is kept, a digest is kept out."""
        platform, environment, service = self._platform, self.now.environment, self.now.service
        if change.phase is Phase.LIVE and change.watch is None:
            remove_watch(platform, environment, service, up_to=change.release)
        elif change.watch is not None and not change.watch.over(platform.clock.now()):
            write_watch(platform, change.watch)  # one that is over by now was ended already, perhaps
        if change.evidence is not None:
            write_verdict(platform, environment, service, change.evidence)
        if change.phase in (Phase.FAILED, Phase.ROLLED_BACK):
            self._hold_backup(change)
        if change.quarantine:
            reason = change.evidence.reason if change.evidence is not None else change.reason
            quarantine(
                platform,
                change.quarantine,
                f"{reason} ({environment}/{service} #{change.release})",
                "verdict",
                environment=environment,
                service=service,
                release=change.release,
                evidence=change.evidence,
            )

    def _hold_backup(self, change: PhaseChange) -> None:
        """The data as they were before a release that went wrong may still be wanted."""
        platform, environment, service = self._platform, self.now.environment, self.now.service
        if platform.catalogue.environments[environment].backup is None:
            return
        release = retried(
            platform.clock,
            f"read the manifest of #{change.release}",
            lambda: ledger.read_release(platform.store, environment, service, change.timestamp),
        )
        if release.backup_set:
            hold_after_failure(platform, environment, release.backup_set, release.label, change.reason)

    def _adopt_own_write(self) -> None:
        """After a conflict: our own write whose answer was lost is fine, a newer generation is the end."""
        found, etag = _read(self._platform, self.now.environment, self.now.service)
        mine = self._lease.generation
        if found.generation > mine:
            raise StaleGeneration(
                f"{self._key} was written with generation {found.generation} (run {found.run_id}); "
                f"this controller has {mine} and does nothing more"
            )
        self._etag = etag
        if found.generation < mine:
            self.now, self._owed = found, False
            raise Conflict(f"{self._key} was written by generation {found.generation} meanwhile")


def _enter(platform: Platform, journal: Journal, change: PhaseChange) -> None:
    store, entry = platform.store, PhaseTime(change.phase, change.at, change.reason)
    if change.phase is Phase.PLANNED and journal.work is not None and journal.work.release.number == change.release:
        ledger.add_release(store, replace(journal.work.release, phases=(entry,)))
        return
    release = ledger.read_release(store, journal.environment, journal.service, change.timestamp)
    changed: Release | None = replace(release, instances=change.instances) if change.instances else None
    ledger.enter_phase(store, release, entry, changed)


def _read(platform: Platform, environment: str, service: str) -> tuple[Journal, str]:
    key = journal_key(environment, service)
    blob = retried(platform.clock, f"read {key}", lambda: platform.store.read(key))
    if blob is None:
        return Journal(environment, service), ""
    return decode(Journal, blob.data, key), blob.etag
