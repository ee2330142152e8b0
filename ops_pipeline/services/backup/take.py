"""Taking a backup: one atomic set of all data sources of an environment.

Check everything, lock, record that a set is being taken, databases, files beside the last of them, look at all of it
again, manifest. Killed anywhere, no set is listed that is not whole; the next run finishes what only lacked its
manifest and gives up the rest. The manifest is chained to the set before it and signed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.core.backup import alerts
from ops_pipeline.core.backup.anomaly import ACCEPTED, LOOKED_AT, Limits, anomalies, facts_of
from ops_pipeline.core.backup.ordering import in_order
from ops_pipeline.core.backup.records import Manifest, Part, Previous, SetKey, Trigger
from ops_pipeline.core.backup.ulid import RANDOM_BYTES, next_ulid
from ops_pipeline.errors import BadInput, OpsError, Permanent, Unavailable
from ops_pipeline.ports import DataSource, FileTree, Progress, Vault
from ops_pipeline.services.alerting import settle, tell
from ops_pipeline.services.backup.all_sources import one_at_a_time, take_all
from ops_pipeline.services.backup.committing import commit, refuse_gaps, settle_flights
from ops_pipeline.services.backup.dumping import Dumper
from ops_pipeline.services.backup.heads import read_head
from ops_pipeline.services.backup.heartbeat import beat
from ops_pipeline.services.backup.inflight import TAKING, Flight, InFlight
from ops_pipeline.services.backup.locks import lock
from ops_pipeline.services.backup.manifests import encode_manifest
from ops_pipeline.services.backup.meter import duration, megabytes
from ops_pipeline.services.backup.restore_journal import refuse_while_switching
from ops_pipeline.services.backup.sets import BackupSet, list_sets
from ops_pipeline.services.backup.structure import media_of
from ops_pipeline.services.backup.wanted import check_backed_up, source_problems
from ops_pipeline.services.backup.what_is_live import what_is_live
from ops_pipeline.services.lease import HeldLease
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.retrying import retried

Randomness = Callable[[int], bytes]


def take_backup(
    platform: Platform,
    environment: str,
    *,
    trigger: Trigger,
    reason: str = "",
    run_id: str = "",
    taken_by: str = "",
    sources: Sequence[str] = (),
    progress: Progress,
    lock_wait_seconds: float = 0.0,
    vault: Vault | None = None,
    randomness: Randomness = os.urandom,
) -> Manifest:
    """Take a set of all data sources (or of `sources` only) and return its manifest.

    A set that differs oddly from the ones before it is stored and kept apart (`SetState.quarantined`), and people are
    alerted. Raise BadInput (names), Unavailable naming every data source that cannot be dumped (nothing was written),
    LeaseHeld when another backup, prune or restore of the environment is at work, PolicyRefused after a restore that
    was killed in its swap, Permanent (a dump failed, was cut off, hung; store full), StaleGeneration, StoreDamaged.
    Whatever is raised, no set came to be unless it is whole.
    """
    chosen = _chosen(platform, environment, sources)
    vault = vault or platform.vault()
    warnings = _checked(platform, environment, chosen)
    for warning in warnings:
        progress(f"warning: {warning}")
    held = lock(
        platform,
        vault,
        environment,
        run_id=run_id,
        reason=f"{trigger} backup",
        wait_seconds=lock_wait_seconds,
        progress=progress,
    )
    with held as lease:
        refuse_while_switching(vault, platform.clock, environment)
        taking = _Taking(platform, vault, environment, lease, progress)
        all_names = platform.catalogue.environments[environment].backup
        partial = all_names is not None and {source.name for source in chosen} != set(all_names.sources)
        manifest, quarantine = taking.take(chosen, trigger, reason, run_id, taken_by, warnings, partial, randomness)
    _told(platform, vault, manifest, quarantine, progress)
    return manifest


class _Taking:
    """One set being taken, under the environment's lock."""

    def __init__(
        self, platform: Platform, vault: Vault, environment: str, lease: HeldLease, progress: Progress
    ) -> None:
        self._platform = platform
        self._vault = vault
        self._clock = platform.clock
        self._environment = environment
        self._lease = lease
        self._progress = progress

    def take(
        self,
        sources: Sequence[DataSource | FileTree],
        trigger: Trigger,
        reason: str,
        run_id: str,
        taken_by: str,
        warnings: Sequence[str],
        partial: bool,
        randomness: Randomness,
    ) -> tuple[Manifest, str]:
        """The manifest of the set that exists now, and why it is kept apart ("" = it is not)."""
        clock, vault, environment = self._clock, self._vault, self._environment
        unfinished = settle_flights(vault, clock, environment, self._progress)
        listing = list_sets(self._platform, environment, vault=vault)
        head = read_head(vault, clock, environment)
        newest = max([listing.newest_id, *unfinished, head.id if head else ""])
        started = clock.now()
        key = SetKey(environment, next_ulid(started, randomness(RANDOM_BYTES), newest), started)
        before = [one for one in listing.sets if one.good]
        warnings = list(warnings)
        if listing.sets and started < listing.sets[0].manifest.started_at:
            warnings.append(
                f"the clock went back: set {listing.sets[0].id}, taken before, began at "
                f"{listing.sets[0].manifest.started_at:%Y-%m-%d %H:%M:%S} UTC"
            )
        flight = Flight(
            vault,
            clock,
            InFlight(
                environment=environment,
                id=key.id,
                started_at=started,
                trigger=trigger,
                run_id=run_id,
                controller=self._platform.controller,
                generation=self._lease.generation,
                stage=TAKING,
                beat_at=started,
            ),
        )
        flight.begin()
        self._progress(f"set {key.id} of {environment}: {', '.join(source.name for source in sources)}")
        try:
            parts = self._parts(key, flight, sources, before)
            live = what_is_live(self._platform, environment)
            manifest = Manifest(
                id=key.id,
                environment=environment,
                project=self._platform.catalogue.project,
                trigger=trigger,
                reason=reason,
                run_id=run_id,
                taken_by=taken_by,
                started_at=started,
                ended_at=max(clock.now(), started),
                parts=parts,
                previous=Previous(listing.sets[0].id, listing.sets[0].manifest_sha256) if listing.sets else None,
                images=live.images,
                commit=live.commit,
                recipients=tuple(vault.sealing.recipients),
                warnings=(*warnings, *live.warnings),
                partial=partial,
            )
            self._lease.check()
            refuse_gaps(vault, clock, manifest)
            quarantine = "; ".join(self._anomalies(manifest, before))
            data = encode_manifest(vault.sealing, manifest)
            self._lease.check()
            flight.committing(data, quarantine)
        except BaseException as error:
            self._give_up(flight, error)
            raise
        commit(vault, clock, flight, self._lease, manifest, data, self._progress)
        return manifest, quarantine

    def _parts(
        self,
        key: SetKey,
        flight: Flight,
        sources: Sequence[DataSource | FileTree],
        before: Sequence[BackupSet],
    ) -> tuple[Part, ...]:
        def alive_now(words: str) -> None:
            self._lease.check()
            flight.beat(words)

        last = before[0].manifest.parts if before else ()
        expected = {
            (part.source, part.name): part.files.plain_size if part.files else part.stream.plain_size for part in last
        }
        progress, alive = one_at_a_time(self._progress), one_at_a_time(alive_now)

        def dumper(check: Callable[[], None], workers: int) -> Dumper:
            return Dumper(
                self._vault,
                self._clock,
                key,
                workers=workers,
                progress=progress,
                alive=alive,
                expected=expected,
                questions=_questions(self._platform.catalogue, self._environment),
                check=check,
            )

        return take_all(dumper, sources, self._platform.catalogue.backups.workers)

    def _anomalies(self, manifest: Manifest, before: Sequence[BackupSet]) -> tuple[str, ...]:
        looked_at = _comparable(before)
        if not looked_at:
            return ()
        kept = _kept(self._vault, self._platform, manifest, looked_at[0].manifest)
        return anomalies(
            facts_of(manifest, kept), [facts_of(one.manifest) for one in looked_at], _limits(self._platform.catalogue)
        )

    def _give_up(self, flight: Flight, error: BaseException) -> None:
        """Say so in the record, if that is possible; the error itself is what counts."""
        try:
            flight.abandon(error.message if isinstance(error, OpsError) else type(error).__name__)
        except OpsError as second:
            self._progress(f"set {flight.record.id} could not be marked as given up: {second.message}")


def _chosen(platform: Platform, environment: str, names: Sequence[str]) -> list[DataSource | FileTree]:
    """Sources to take. Raise BadInput naming every name that is none."""
    check_backed_up(platform.catalogue, environment, "environment")
    problems = source_problems(platform.catalogue, environment, list(names), "sources")
    if problems:
        raise BadInput(problems, subject="arguments")
    found = [source for source in platform.sources(environment) if not names or source.name in names]
    if not found:
        raise Permanent(f"{environment} has no data source that could be opened")
    return list(in_order(found))


def _checked(platform: Platform, environment: str, sources: Sequence[DataSource | FileTree]) -> tuple[str, ...]:
    """Warnings of all sources. Raise Unavailable naming every source that cannot be taken; nothing was written."""
    warnings: list[str] = []
    problems: list[str] = []
    for source in sources:
        try:
            found = retried(platform.clock, f"look at {source.name}", source.check)
            warnings += [text if text.startswith(source.name) else f"{source.name}: {text}" for text in found]
        except OpsError as error:
            hint = f" ({error.hint})" if error.hint else ""
            problems.append(f"  {source.name}: {error.message}{hint}")
    if problems:
        raise Unavailable(
            f"no backup of {environment} can be taken: {len(problems)} of {len(sources)} data sources cannot be "
            "dumped\n" + "\n".join(problems),
            hint="Nothing was written. A set holds all data sources or does not exist.",
        )
    return tuple(warnings)


def _comparable(before: Sequence[BackupSet]) -> Sequence[BackupSet]:
    """Good sets to hold a new one against: the newest ones, back to one that a person said is right as it is."""
    found: list[BackupSet] = []
    for one in before[:LOOKED_AT]:
        found.append(one)
        if any(hold.name == ACCEPTED for hold in one.state.holds):
            break
    return found


def _limits(catalogue: Catalogue) -> Limits:
    wanted = catalogue.backups.anomaly
    return Limits(wanted.fall, wanted.rise, wanted.entropy, wanted.min_rows)


def _kept(vault: Vault, platform: Platform, manifest: Manifest, before: Manifest) -> Mapping[str, float]:
    """Share of the media objects of the set before that this one has too, by source; left out where not known."""
    kept: dict[str, float] = {}
    earlier = {part.source: part for part in before.parts if part.files is not None}
    for part in manifest.parts:
        old = earlier.get(part.source)
        if part.files is None or old is None or old.files is None or not old.files.objects:
            continue
        if old.files.references.sha256 == part.files.references.sha256:
            kept[part.source] = 1.0
            continue
        try:
            now = {one.address for one in media_of(vault, platform.clock, part)}
            then = {one.address for one in media_of(vault, platform.clock, old)}
        except OpsError:
            continue  # the set before is damaged: its own check says so
        if then:
            kept[part.source] = len(now & then) / len(then)
    return kept


def _told(platform: Platform, vault: Vault, manifest: Manifest, quarantine: str, progress: Progress) -> None:
    """The set exists: tell whoever waits for it. Nothing here fails it."""
    environment = manifest.environment
    seconds = (manifest.ended_at - manifest.started_at).total_seconds()
    progress(f"set {manifest.id} is whole: {megabytes(manifest.stored_size)} stored in {duration(seconds)}")
    if quarantine:
        progress(f"set {manifest.id} is kept apart: {quarantine}")
        words = f"set {manifest.id}: {quarantine}\nNothing is pruned until it is accepted or gone."
        tell(platform, alerts.quarantined(environment, words), progress)
        return
    settle(platform, alerts.failed(environment, ""), progress)
    if not manifest.partial:
        settle(platform, alerts.quarantined(environment, ""), progress)
        beat(platform, vault, environment, manifest, progress)


def _questions(catalogue: Catalogue, environment: str) -> Mapping[str, Mapping[str, str]]:
    """The application's queries by data source and name."""
    settings = catalogue.environments[environment].backup
    return {name: getattr(one, "questions", {}) for name, one in settings.sources.items()} if settings else {}
