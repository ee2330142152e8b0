"""The release being made, judged: verdicts on it, what people decided about it, what it died of."""

from __future__ import annotations

from ops_pipeline.core.journal import Journal, containers_of, work_of
from ops_pipeline.core.judgement.verdict import Verdict
from ops_pipeline.core.world import Word, World
from ops_pipeline.errors import OpsError, StoreDamaged
from ops_pipeline.ports import Progress
from ops_pipeline.services.fleet import Fleet
from ops_pipeline.services.judging import Case, Judging
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.verdicts import read_decision, write_verdict


class WorkJudge:
    """Judges the work of one engine, and keeps each change of the verdict in the ledger."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._judging = Judging(platform)
        self._newest: Verdict | None = None
        self._kept: Verdict | None = None

    def verdict(self, journal: Journal) -> Verdict | None:
        """The verdict on the release being made as of now; None before it got traffic."""
        work, live = work_of(journal), journal.live
        if work.judged_since is None:
            return None
        release = work.release
        case = Case(
            environment=release.environment,
            service=release.service,
            release=containers_of(work),
            stable=None if live is None else live.containers,
            rollout=release.rollout,
            replicas=release.configuration.replicas,
            since=work.judged_since,
        )
        self._newest = self._judging.look([case])[case]
        return self._newest

    def word(self, journal: Journal, progress: Progress) -> Word | None:
        """What a person decided about the canary's present step. A store that does not answer has nothing to say."""
        release, step = work_of(journal).release, work_of(journal).step
        try:
            found = read_decision(self._platform, release.environment, release.service, release.number, step)
        except StoreDamaged as error:
            progress(error.message)
            return None
        except OpsError:
            return None
        return None if found is None else Word(found.go, found.who, found.at, found.why)

    def keep(self, journal: Journal, progress: Progress, *, final: bool = False) -> None:
        """Keep the newest verdict in the ledger when it says something new, or, at the end, whatever it says."""
        newest, kept = self._newest, self._kept
        if newest is None or newest is kept:
            return
        same = kept is not None and (kept.outcome, kept.incident) == (newest.outcome, newest.incident)
        if same and not final:
            return
        try:
            write_verdict(self._platform, journal.environment, journal.service, newest)
        except OpsError as error:
            progress(f"the verdict could not be kept: {error.message}")
        self._kept = newest


def stopped_by_somebody(fleet: Fleet, journal: Journal, world: World) -> frozenset[str]:
    """Keys of ended replicas of the release being made that somebody had the engine stop: no crash, so no blame."""
    work = work_of(journal)
    ended = [replica for replica in world.of(work.release.number) if replica.ended]
    stopped: set[str] = set()
    for host in {replica.host for replica in ended}:
        try:
            exits = fleet.runtimes[host].exits(journal.environment, work.judged_since or work.entered)
        except OpsError:
            continue
        newest = {one.container: one.wanted for one in exits}
        stopped |= {r.key for r in ended if r.host == host and newest.get(r.name, False)}
    return frozenset(stopped)
