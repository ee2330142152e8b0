"""The tick of `metric_rollback`: judges every watched release at once and rolls back what is bad.

Measurements are replayed from Prometheus and all that is decided stands in the ledger, so a tick may be killed
anywhere and the next one, in any process, ends in the same state.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import groupby

from ops_pipeline.core.judgement.verdict import Outcome, Verdict
from ops_pipeline.core.watch import Watch
from ops_pipeline.core.watch_decision import Act, Around, decide, numbers
from ops_pipeline.errors import OpsError
from ops_pipeline.ports import Progress
from ops_pipeline.services.fleet import on_each
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.judging import Case, Judging
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.verdicts import write_verdict
from ops_pipeline.services.watch_alerts import Telling
from ops_pipeline.services.watch_record import Handled, Memory, handled, is_live, key_of, successor
from ops_pipeline.services.watch_rollback import BadReleases
from ops_pipeline.services.watches import standing

__all__ = ["Act", "Handled", "Memory", "tick"]

CHECK_SECONDS = 10.0
CHECKS = 100
"""Whether a watched release is still live is asked so often, for so many in one tick; and always before acting."""

RECORDS = 10
"""Verdicts kept in one tick because they changed; the others follow in the next ticks. FAIL never waits."""


def tick(
    platform: Platform,
    judging: Judging,
    *,
    run_id: str = "",
    delivered: Collection[str] = (),
    memory: Memory | None = None,
    progress: Progress,
) -> tuple[Handled, ...]:
    """Look once at every watched release, act on what is bad, and return what became of each.

    `delivered` are keys of runs known to be launched. Nothing watched costs one listing. A record or a service that
    cannot be worked on never keeps the others from being watched: people are told, and it is among the results with
    Act.ALERT. Raise Unavailable when the watches cannot be listed.
    """
    return _Tick(platform, judging, run_id, frozenset(delivered), memory or Memory(), progress).run()


class _Tick:
    def __init__(
        self,
        platform: Platform,
        judging: Judging,
        run_id: str,
        delivered: frozenset[str],
        memory: Memory,
        progress: Progress,
    ) -> None:
        self._platform = platform
        self._judging = judging
        self._memory = memory
        self._telling = Telling(platform, memory, progress)
        self._bad = BadReleases(platform, memory, self._telling, run_id=run_id, delivered=delivered, progress=progress)
        self._records = 0

    def run(self) -> tuple[Handled, ...]:
        done: list[Handled] = []
        watches, dues = standing(self._platform, lambda error: done.append(self._telling.damage(error)))
        self._memory.forget_all_but({key_of(watch) for watch in watches})
        for due in dues:
            done += self._bad.show(due)
        cases = {watch: _case(watch) for watch in self._to_judge(watches, done)}
        verdicts = self._judging.look(tuple(cases.values())) if cases else {}
        judged = [(watch, verdicts[case]) for watch, case in cases.items()]
        for group in on_each(_groups(item for item in judged if _is_bad(item[1])), self._bad.handle):
            done += group
        done += [self._quiet(watch, verdict) for watch, verdict in judged if not _is_bad(verdict)]
        return tuple(done)

    def _to_judge(self, watches: tuple[Watch, ...], done: list[Handled]) -> list[Watch]:
        """Watches whose release is live, as far as it was their turn to be asked; the others end."""
        now, asked = self._platform.clock.monotonic(), 0
        left: list[Watch] = []
        for watch in watches:
            checked = self._memory.checked.get(key_of(watch))
            try:
                if (checked is None or now - checked >= CHECK_SECONDS) and asked < CHECKS:
                    asked += 1
                    journal = read_journal(self._platform, watch.environment, watch.service)
                    if not is_live(watch, journal):
                        done.append(self._bad.end(watch, successor(journal)))
                        continue
                    self._memory.checked[key_of(watch)] = now
                left.append(self._bad.finished_flags(watch))
            except OpsError as error:
                done.append(self._telling.trouble(watch, error))
        return left

    def _quiet(self, watch: Watch, verdict: Verdict) -> Handled:
        """Everything but FAIL."""
        key, now = key_of(watch), self._platform.clock.now()
        if verdict.outcome is Outcome.BLIND:
            self._memory.blind.setdefault(key, now)
        else:
            self._memory.blind.pop(key, None)
        decision = decide(watch, verdict, Around(now), self._memory.blind.get(key))
        try:
            # A gap shorter than what counts as blind is no change worth a record, nor the last word.
            if decision.act is Act.BLIND or verdict.outcome is not Outcome.BLIND:
                self._memory.newest[key] = verdict
                self._keep(watch, verdict)
            watch = self._telling.stand(watch, decision, verdict)
            if watch.over(now):
                minutes = (watch.rollout.watch_seconds or 0) / 60
                return self._bad.end(watch, f"watched for its {minutes:g} minutes: {numbers(verdict)}")
        except OpsError as error:
            return self._telling.trouble(watch, error)
        return handled(watch, decision.act, decision.why, verdict)

    def _keep(self, watch: Watch, verdict: Verdict) -> None:
        """Keep a verdict that says something else than the one kept before."""
        key, said = key_of(watch), (verdict.outcome, verdict.incident)
        if self._memory.kept.get(key) == said or self._records >= RECORDS:
            return
        self._records += 1
        write_verdict(self._platform, watch.environment, watch.service, verdict)
        self._memory.kept[key] = said


def _is_bad(verdict: Verdict) -> bool:
    return verdict.outcome is Outcome.FAIL and not verdict.incident


def _case(watch: Watch) -> Case:
    return Case(
        environment=watch.environment,
        service=watch.service,
        release=watch.containers,
        stable=watch.stable,
        rollout=watch.rollout,
        replicas=watch.replicas,
        since=watch.since,
    )


def _groups(bad: Iterable[tuple[Watch, Verdict]]) -> list[list[tuple[Watch, Verdict]]]:
    """Those that have nothing to do with each other, to be worked on side by side; a set stays together."""

    def name(item: tuple[Watch, Verdict]) -> tuple[str, str, str]:
        watch = item[0]
        return (watch.environment, watch.set_id, "") if watch.set_id else (watch.environment, "", watch.service)

    return [list(group) for _, group in groupby(sorted(bad, key=name), key=name)]
