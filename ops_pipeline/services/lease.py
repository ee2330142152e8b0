"""The lease of one (environment, service): who may act, and with which generation.

Clocks: a lease names the time until which it counts, by the clock of whoever wrote it. Controllers whose clocks differ
stay safe in any case, because each taking raises the generation, and the journal and every edge refuse a lower one;
a wrong clock costs waiting, never correctness. A clock that is ahead cannot block others for long either: whoever
waits counts a record that stayed unchanged for a whole term, by its own monotonic clock, as a dead holder's.
The holder itself stops acting well before its term ends, by its monotonic *and* its wall clock, so that a process
that was suspended notices. Starting or removing a container cannot be fenced by Docker; between the last check and
the call a suspended holder may still do one such call. That is why container names carry release numbers, which are
never used twice: such a call can only concern a release that is failed or leaving, and reconcile removes what is left.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime, timedelta
from types import TracebackType

from ops_pipeline.core.lease import Lease
from ops_pipeline.errors import Conflict, LeaseHeld, StaleGeneration, Transient
from ops_pipeline.ports import Progress
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.records import decode, encode
from ops_pipeline.services.retrying import retried

POLL_SECONDS = 1.0
FOLDER = "leases"


def lease_key(environment: str, service: str, folder: str = FOLDER) -> str:
    """Store key of a lease."""
    return f"{folder}/{environment}/{service}.json"


def read_lease(platform: Platform, environment: str, service: str, *, folder: str = FOLDER) -> Lease | None:
    """The lease's record, held or not; None before the first one. Raise StoreDamaged, Unavailable."""
    key = lease_key(environment, service, folder)
    blob = retried(platform.clock, f"read {key}", lambda: platform.store.read(key))
    return None if blob is None else decode(Lease, blob.data, key)


class HeldLease:
    """A lease in our hands; a context manager that renews it in the background and gives it back at the end."""

    def __init__(
        self, platform: Platform, lease: Lease, etag: str, taken_at: float, folder: str = FOLDER, hint: str = ""
    ) -> None:
        self._platform = platform
        self._key = lease_key(lease.environment, lease.service, folder)
        self._hint = hint or "Nothing more was changed. `ops reconcile` finishes or undoes what was begun."
        self._lease = lease
        self._etag = etag
        self._renewed = taken_at  # monotonic, from before the write: the term may end earlier for us, never later
        self._lost = ""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_renewing, name="lease renewal", daemon=True)

    @property
    def generation(self) -> int:
        """Fencing generation of everything done under this lease."""
        return self._lease.generation

    @property
    def lease(self) -> Lease:
        """The record as we last wrote it."""
        return self._lease

    def check(self) -> None:
        """Return when we may still act, renewing when it is time.

        Raise StaleGeneration when somebody else has taken over, LeaseHeld when our term may have ended.
        """
        with self._lock:
            if not self._lost and self._age() > self._lease.term_seconds / 3:
                self._renew()
            if self._lost:
                raise StaleGeneration(self._lost)
            clock, lease = self._platform.clock, self._lease
            if self._age() > self._term_for_us() or clock.now() >= lease.expires_at:
                raise LeaseHeld(
                    f"the lease of {lease.environment}/{lease.service} could not be renewed for {self._age():.0f} s "
                    "and may be somebody else's by now",
                    hint=self._hint,
                )

    def __enter__(self) -> HeldLease:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=self._lease.term_seconds)
        with self._lock:
            if self._lost:
                return
            free = replace(self._lease, holder="", expires_at=self._platform.clock.now())
            try:
                self._platform.store.write(self._key, encode(free), if_match=self._etag)
            except (Conflict, Transient):
                # Somebody took over, or the store is away: the term ends by itself, and the work's own result counts.
                self._lost = "given back"

    def _age(self) -> float:
        return self._platform.clock.monotonic() - self._renewed

    def _term_for_us(self) -> float:
        return self._lease.term_seconds * 0.8

    def _keep_renewing(self) -> None:
        while not self._stop.wait(self._lease.term_seconds / 3):
            with self._lock:
                if self._lost:
                    return
                self._renew()

    def _renew(self) -> None:
        """Write a later expiry. A store that does not answer is tried again later; a foreign record ends it all."""
        clock = self._platform.clock
        started, now = clock.monotonic(), clock.now()
        if self._age() > self._term_for_us() or now >= self._lease.expires_at:
            return  # too late to be sure; `check` says so
        renewed = replace(self._lease, expires_at=now + timedelta(seconds=self._lease.term_seconds))
        try:
            self._etag = self._platform.store.write(self._key, encode(renewed), if_match=self._etag)
        except Conflict:
            self._read_conflict(renewed, started)
        except Transient:
            return
        else:
            self._lease, self._renewed = renewed, started

    def _read_conflict(self, renewed: Lease, started: float) -> None:
        # A write whose answer got lost and was sent again by the store's client meets its own first copy.
        try:
            blob = self._platform.store.read(self._key)
        except Transient:
            return
        found = None if blob is None else decode(Lease, blob.data, self._key)
        mine = self._lease
        if blob and found and (found.generation, found.holder) == (mine.generation, mine.holder):
            self._etag, self._lease, self._renewed = blob.etag, found, started
            return
        who = "nobody" if found is None else f"{found.holder or 'nobody'} (run {found.run_id}: {found.reason})"
        generation = "" if found is None else f", generation {found.generation}"
        self._lost = (
            f"the lease of {renewed.environment}/{renewed.service} (generation {mine.generation}) was taken over by "
            f"{who}{generation}; this controller does nothing more"
        )


def acquire(
    platform: Platform,
    environment: str,
    service: str,
    *,
    run_id: str,
    reason: str,
    at_least: int = 0,
    term_seconds: float = 30.0,
    wait_seconds: float = 0.0,
    progress: Progress | None = None,
    folder: str = FOLDER,
    hint: str = "",
) -> HeldLease:
    """Take the lease; use the result in a `with` statement.

    `at_least` is the highest generation seen elsewhere (the journal's): ours will be higher. With `wait_seconds` a
    held lease is waited for, and `progress` hears of it. `folder` keeps leases of different kinds apart; `hint` is
    said to a holder whose term may have ended. Raise LeaseHeld naming holder, run, reason, since when and until when;
    StoreDamaged; Unavailable.
    """
    clock, store, key = platform.clock, platform.store, lease_key(environment, service, folder)
    deadline = clock.monotonic() + wait_seconds
    seen, seen_since, told = "", 0.0, 0
    while True:
        blob = retried(clock, f"read {key}", lambda: store.read(key))
        found = None if blob is None else decode(Lease, blob.data, key)
        now, monotonic = clock.now(), clock.monotonic()
        if blob is not None and blob.etag != seen:
            seen, seen_since = blob.etag, monotonic
        unchanged = monotonic - seen_since
        if found is not None and found.held(now) and unchanged <= found.term_seconds:
            text = _held_words(found, now)
            if monotonic >= deadline:
                raise LeaseHeld(text, hint="Wait for it, or start again with waiting switched on.")
            if progress and found.generation != told:
                progress(f"waiting: {text}")
                told = found.generation
            clock.sleep(min(POLL_SECONDS, max(deadline - monotonic, 0.05)))
            continue
        lease = Lease(
            environment=environment,
            service=service,
            generation=max(found.generation if found else 0, at_least) + 1,
            holder=platform.controller,
            run_id=run_id,
            reason=reason,
            since=now,
            expires_at=now + timedelta(seconds=term_seconds),
            term_seconds=term_seconds,
        )
        try:
            if blob is None:
                etag = store.write(key, encode(lease), if_absent=True)
            else:
                etag = store.write(key, encode(lease), if_match=blob.etag)
        except (Conflict, Transient):
            # Somebody was quicker, or the answer was lost: what the record says now decides.
            if monotonic >= deadline + term_seconds:
                raise
            clock.sleep(0.05)
            continue
        return HeldLease(platform, lease, etag, monotonic, folder, hint)


def _held_words(lease: Lease, now: datetime) -> str:
    left = max((lease.expires_at - now).total_seconds(), 0.0)
    return (
        f"{lease.environment}/{lease.service} is being worked on by {lease.holder} (run {lease.run_id or 'none'}: "
        f"{lease.reason}) since {lease.since:%Y-%m-%d %H:%M:%S} UTC; its lease runs until "
        f"{lease.expires_at:%H:%M:%S} UTC ({left:.0f} s) unless renewed"
    )
