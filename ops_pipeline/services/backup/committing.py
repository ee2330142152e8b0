"""The last steps of a set: everything looked at once more, the manifest written, the rest told.

Order, and what a kill after each step leaves: record `committing` (the next run finishes the set), quarantine if any
(state of a set that does not exist: harmless), manifest (the set exists), head, record removed. Only the manifest
makes the set exist, and it is written if there is none: a repetition that finds its own bytes has succeeded.
"""

from __future__ import annotations

from dataclasses import replace

from ops_pipeline.core.backup.records import Manifest, SetKey
from ops_pipeline.errors import Conflict, NotFound, OpsError, Permanent, StoreDamaged
from ops_pipeline.ports import Clock, Progress, Vault
from ops_pipeline.services.backup.heads import Head, remember_head
from ops_pipeline.services.backup.inflight import ABANDONED, COMMITTING, Flight, InFlight, give_up, in_flight
from ops_pipeline.services.backup.manifests import decode_manifest, manifest_hash
from ops_pipeline.services.backup.set_states import write_state
from ops_pipeline.services.backup.structure import structure_problems
from ops_pipeline.services.lease import HeldLease
from ops_pipeline.services.retrying import retried


def refuse_gaps(vault: Vault, clock: Clock, manifest: Manifest) -> None:
    """Look at every part and media object again. Raise Permanent naming what is missing, Unavailable."""
    retried(clock, "make all parts durable", vault.sets.flush)
    retried(clock, "make all files durable", vault.media.flush)
    problems = structure_problems(vault, clock, manifest)
    if problems:
        raise Permanent(
            f"set {manifest.id} of {manifest.environment} is not whole and does not come to be: "
            + "; ".join(problems[:3])
            + (f"; and {len(problems) - 3} more" if len(problems) > 3 else ""),
            hint="Something removed objects while the set was taken. Take it again.",
        )


def commit(
    vault: Vault,
    clock: Clock,
    flight: Flight,
    lease: HeldLease,
    manifest: Manifest,
    data: bytes,
    progress: Progress,
) -> None:
    """Make the set exist. `flight` says `committing` already; what cannot be tidied up afterwards, the next run does.

    Raise StaleGeneration or LeaseHeld when somebody else may be at work (nothing was written, or the set was looked at
    again and is in quarantine), Unavailable, Permanent.
    """
    quarantine = flight.record.quarantine
    if quarantine:
        quarantine_set(vault, clock, manifest.environment, manifest.id, quarantine)
    lease.check()
    put_manifest(vault, clock, flight.record.key, data)
    try:
        lease.check()
    except OpsError:
        # Suspended between the last look and the manifest: somebody may have cleared parts away meanwhile.
        problems = structure_problems(vault, clock, manifest)
        if problems:
            quarantine_set(vault, clock, manifest.environment, manifest.id, "; ".join(problems[:3]))
            raise
    try:
        tidy(vault, clock, flight, data)
    except OpsError as error:
        progress(f"set {manifest.id} is whole, but not all is tidied up: {error.message}")


def put_manifest(vault: Vault, clock: Clock, key: SetKey, data: bytes) -> None:
    """Write the manifest, durably, unless these very bytes are there. Raise Conflict, Unavailable, Permanent."""

    def put() -> None:
        try:
            vault.sets.put(key.manifest, data)
        except Conflict:
            try:
                found = vault.sets.get(key.manifest)
            except NotFound:
                return  # put, and not yet to be seen: `flush` says how it ends
            if manifest_hash(found) != manifest_hash(data):
                raise
        vault.sets.flush()

    retried(clock, f"write {key.manifest}", put)
    retried(clock, f"make {key.manifest} durable", vault.sets.flush)


def quarantine_set(vault: Vault, clock: Clock, environment: str, set_id: str, why: str) -> None:
    """Keep a set apart, beside what it is kept apart for already."""

    def change_reason(before: str) -> str:
        return before if why in before else f"{before}; {why}" if before else why

    write_state(
        vault,
        clock,
        environment,
        set_id,
        lambda state: replace(state, quarantined=change_reason(state.quarantined)),
    )


def tidy(vault: Vault, clock: Clock, flight: Flight, data: bytes) -> None:
    """Remember the set as the newest and forget that it was being taken. Raise Unavailable."""
    record = flight.record
    remember_head(vault, clock, record.environment, Head(record.id, manifest_hash(data), clock.now()))
    flight.end()


def settle_flights(vault: Vault, clock: Clock, environment: str, progress: Progress) -> tuple[str, ...]:
    """Finish or give up what earlier runs left, and return all ids they had. Only under the environment's lock.

    A set whose parts are all there becomes a set; any other never will. Raise Unavailable, StoreDamaged.
    """
    ids = []
    for record, etag in in_flight(vault, clock, environment):
        ids.append(record.id)
        _settle(vault, clock, record, etag, progress)
    return tuple(ids)


def _settle(vault: Vault, clock: Clock, record: InFlight, etag: str, progress: Progress) -> None:
    flight, key = Flight(vault, clock, record, etag), record.key
    if record.stage == ABANDONED:
        if not retried(clock, f"list {key.prefix}", lambda: any(True for _ in vault.sets.list(key.prefix))):
            flight.end()  # its parts were cleared away
        return
    exists = retried(clock, f"look at {key.manifest}", lambda: vault.sets.stat(key.manifest)) is not None
    if record.stage == COMMITTING:
        _finish(vault, clock, flight, progress, exists=exists)
    elif exists:
        flight.end()
    else:
        progress(f"set {record.id} was never finished (run {record.run_id or 'none'}: {record.note or 'begun'})")
        give_up(vault, clock, record, etag, f"{record.note or 'begun'}; given up by a later run")


def _finish(vault: Vault, clock: Clock, flight: Flight, progress: Progress, *, exists: bool) -> None:
    """What was about to become a set becomes one, if all of it is there."""
    record, data = flight.record, flight.record.manifest.encode()
    try:
        manifest = decode_manifest(vault.sealing, data, record.key.manifest)
        if not exists:
            refuse_gaps(vault, clock, manifest)
    except (StoreDamaged, Permanent) as error:
        if not exists:
            progress(f"set {record.id} cannot be finished: {error.message}")
            flight.abandon(error.message)
            return
    if record.quarantine:
        quarantine_set(vault, clock, record.environment, record.id, record.quarantine)
    if not exists:
        put_manifest(vault, clock, record.key, data)
        progress(f"finished set {record.id}, which run {record.run_id or 'none'} had left without its manifest")
    tidy(vault, clock, flight, data)
