"""What a tick does about watched releases that were judged bad: the guarding flag, the warm standby, or a run.

Killed between any two steps, the next tick ends in the same state: what is tried stands in the watch before it is
tried, and that a roll-back has to be shown stands in the ledger before it begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from ops_pipeline.core.journal import Journal
from ops_pipeline.core.judgement.verdict import Verdict
from ops_pipeline.core.release import Release
from ops_pipeline.core.watch import Due, Watch
from ops_pipeline.core.watch_decision import Act, Around, Decision, decide, next_try
from ops_pipeline.errors import DeployFailed, LeaseHeld, OpsError, StaleGeneration
from ops_pipeline.ports import Progress
from ops_pipeline.services import ledger
from ops_pipeline.services.flags import guarding_flags, turn_off
from ops_pipeline.services.journal import OpenJournal, read_journal
from ops_pipeline.services.lease import acquire, read_lease
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.release_set import SetMember, roll_back_set, set_members
from ops_pipeline.services.retrying import retried
from ops_pipeline.services.standby import standby_fault
from ops_pipeline.services.verdicts import read_verdict, write_verdict
from ops_pipeline.services.watch_alerts import Telling
from ops_pipeline.services.watch_record import (
    Handled,
    Memory,
    handled,
    is_live,
    key_of,
    label_of,
    run_key,
    successor,
)
from ops_pipeline.services.watches import remove_due, remove_watch, update_watch, write_due

WHO = "metric_rollback"
"""Who rolls back when nobody asked for it."""

GONE = "something else is live by now"


class BadReleases:
    """Acts on verdicts FAIL. `delivered` are the keys of runs known to be launched."""

    def __init__(
        self,
        platform: Platform,
        memory: Memory,
        telling: Telling,
        *,
        run_id: str,
        delivered: frozenset[str],
        progress: Progress,
    ) -> None:
        self._platform = platform
        self._memory = memory
        self._telling = telling
        self._run_id = run_id
        self._delivered = delivered
        self._progress = progress

    def handle(self, group: Sequence[tuple[Watch, Verdict]]) -> list[Handled]:
        """Act on releases that belong together (or on one), one after the other; never raises for one of them."""
        verdicts = {watch.service: verdict for watch, verdict in group}
        done = []
        for watch, verdict in group:
            try:
                done.append(self._handle(watch, verdict, verdicts))
            except OpsError as error:
                done.append(self._telling.trouble(watch, error))
        return done

    def show(self, due: Due) -> tuple[Handled, ...]:
        """A roll-back no run shows yet: the tick that made it may have been killed before it could ask for one."""
        platform, environment, service = self._platform, due.environment, due.service
        try:
            live = read_journal(platform, environment, service).live
            if live is not None and live.release == due.release:
                return ()  # not rolled back yet: its watch sees to it
            back = None if live is None else self._release(environment, service, live.timestamp)
            if back is None or not back.automatic or back.previous != due.release:
                return self._forget(due)
            self._finish(due)
            members = set_members(platform, environment, due.set_id) if due.set_id else ()
            if members:
                self._back(environment, members, {}, back.why, due.set_id)
            if run_key(environment, service, due.release, due.attempt) in self._delivered:
                return self._forget(due)
            verdict = read_verdict(platform, environment, service, due.release)
        except LeaseHeld as held:
            self._progress(f"{environment}/{service} #{due.release} is rolled back; its records wait: {held.message}")
            return ()
        except OpsError as error:
            self._progress(f"{environment}/{service} #{due.release}: {error.message}")
            return (Handled(environment, service, due.release, Act.ALERT, error.message, due.attempt),)
        done = Handled(environment, service, due.release, Act.ROLL_BACK, back.why, due.attempt, back.number, verdict)
        self._telling.rolled_back(done)
        return (done,)

    def _forget(self, due: Due) -> tuple[Handled, ...]:
        remove_due(self._platform, due)
        self._memory.finished.discard((due.environment, due.service, due.release))
        return ()

    def _finish(self, due: Due) -> None:
        """Bring a committed roll-back into manifests, pointer and quarantine, should its controller have been killed.

        Raise LeaseHeld while that one's lease still runs.
        """
        key = (due.environment, due.service, due.release)
        if key in self._memory.finished:
            return
        platform = self._platform
        seen = read_journal(platform, due.environment, due.service).generation
        reason = f"record the roll-back of #{due.release}"
        with acquire(
            platform, due.environment, due.service, run_id=self._run_id, reason=reason, at_least=seen
        ) as lease:
            OpenJournal(platform, due.environment, due.service, lease).take_over(self._run_id)
        self._memory.finished.add(key)

    def roll_back_asked(self, watch: Watch, verdict: Verdict) -> Release:
        """What a run does that was asked for it: as a tick would, but with containers started anew where needed.

        Raise what `roll_back` raised.
        """
        members = self._members(watch)
        results = self._back(watch.environment, members, {watch.service: verdict}, verdict.reason, watch.set_id, watch)
        result = results[watch.service]
        if isinstance(result, OpsError):
            raise result
        return result

    def finished_flags(self, watch: Watch, reason: str = "") -> Watch:
        """The watch after the flags it names were turned off, also those a killed tick meant to turn off.

        Raise StoreDamaged, Unavailable.
        """
        if not watch.turning_off:
            return watch
        why = reason or f"{label_of(watch)} was judged bad"
        for flag in watch.turning_off:
            try:
                turn_off(self._platform, watch.environment, flag, reason=why, who=WHO, progress=self._progress)
            except OpsError as error:
                # Its next FAIL turns off what is still on, or rolls back.
                self._telling.say(watch, f"flag {flag}: {error.message}")
        watch = replace(watch, turning_off=(), since=self._platform.clock.now())
        update_watch(self._platform, watch)
        self._memory.kept.pop(key_of(watch), None)
        return watch

    def end(self, watch: Watch, why: str) -> Handled:
        """End a watch, with the newest verdict kept. Raise Unavailable, StoreDamaged."""
        verdict = self._memory.newest.get(key_of(watch))
        if verdict is not None:
            write_verdict(self._platform, watch.environment, watch.service, verdict)
        self._telling.settle(watch, why)
        remove_watch(self._platform, watch.environment, watch.service, up_to=watch.release)
        return handled(watch, Act.END, why, verdict)

    def _handle(self, watch: Watch, verdict: Verdict, verdicts: Mapping[str, Verdict]) -> Handled:
        self._memory.newest[key_of(watch)] = verdict
        now = self._platform.clock.now()
        worked_on = self._worked_on(watch, now)  # before the journal: what is free now wrote nothing since
        journal = read_journal(self._platform, watch.environment, watch.service)
        if not is_live(watch, journal):
            return self.end(watch, successor(journal))
        said = (verdict.outcome, verdict.incident)
        if self._memory.kept.get(key_of(watch)) != said:
            write_verdict(self._platform, watch.environment, watch.service, verdict)
            self._memory.kept[key_of(watch)] = said
        around = Around(now, worked_on) if worked_on else self._around(watch, journal, now)
        decision = decide(watch, verdict, around)
        match decision.act:
            case Act.TURN_OFF:
                return self._turn_off(watch, decision, verdict, around.guards)
            case Act.ROLL_BACK:
                return self._roll_back(watch, decision, verdict, verdicts)
            case Act.ASK:
                again = watch.asked and watch.not_before is not None and now < watch.not_before
                return (
                    self._ask(watch, decision, verdict) if not again else handled(watch, Act.ASK, decision.why, verdict)
                )
            case _:
                # Its watch goes on for as long as it is bad, whatever its time.
                watch = self._telling.stand(watch, decision, verdict)
                return handled(watch, decision.act, decision.why, verdict)

    def _worked_on(self, watch: Watch, now: datetime) -> str:
        lease = read_lease(self._platform, watch.environment, watch.service)
        if lease is None or not lease.held(now):
            return ""
        run = f", run {lease.run_id}" if lease.run_id else ""
        return f"{lease.reason} by {lease.holder}{run}"

    def _around(self, watch: Watch, journal: Journal, now: datetime) -> Around:
        """What the decision needs, asked for in its order and no further than it needs."""
        platform, environment, service = self._platform, watch.environment, watch.service
        if not watch.rollout.automatic_rollback:
            return Around(now)
        try:
            guards = guarding_flags(platform, environment, service)
        except OpsError as error:
            self._telling.say(watch, f"flags cannot be read, so none is turned off: {error.message}")
            guards = ()
        if guards:
            return Around(now, guards=guards)
        delivered = run_key(environment, service, watch.release, watch.attempts) in self._delivered
        if watch.not_before is not None and now < watch.not_before:
            return Around(now, delivered=delivered)
        return Around(
            now,
            last_automatic=self._last_automatic(watch, now),
            no_standby=standby_fault(platform, journal),
            delivered=delivered,
        )

    def _last_automatic(self, watch: Watch, now: datetime) -> datetime | None:
        """When the service was last rolled back by itself, as far back as its cooldown reaches."""
        platform, since = self._platform, now - timedelta(seconds=watch.rollout.cooldown_seconds)

        def read() -> datetime | None:
            for release in ledger.newest_first(platform.store, watch.environment, watch.service):
                began = release.phases[0].at if release.phases else since
                if release.automatic and release.was_live:
                    return began
                if began < since:
                    return None
            return None

        return retried(platform.clock, f"read the releases of {watch.environment}/{watch.service}", read)

    def _turn_off(self, watch: Watch, decision: Decision, verdict: Verdict, flags: tuple[str, ...]) -> Handled:
        """Turn the guarding flags off and let the evidence begin anew."""
        watch = replace(watch, turning_off=flags, since=self._platform.clock.now())
        if not update_watch(self._platform, watch):
            return self.end(watch, GONE)
        self._telling.say(watch, decision.why)
        watch = self.finished_flags(watch, verdict.reason)
        self._telling.flag_off(watch, decision.why, verdict)
        return handled(watch, Act.TURN_OFF, decision.why, verdict)

    def _roll_back(
        self, watch: Watch, decision: Decision, verdict: Verdict, verdicts: Mapping[str, Verdict]
    ) -> Handled:
        """To the warm standby, here and now; every other member of its set too."""
        platform, environment = self._platform, watch.environment
        before, watch = watch, replace(watch, attempts=watch.attempts + 1, asked=False, not_before=None)
        if not update_watch(platform, watch):
            return self.end(watch, GONE)
        results = self._back(environment, self._members(watch), verdicts, decision.why, watch.set_id, watch)
        result = results[watch.service]
        if isinstance(result, LeaseHeld | StaleGeneration):
            update_watch(platform, before)
            return handled(
                before, Act.WAIT, f"{verdict.reason}; left to whoever works on it: {result.message}", verdict
            )
        if isinstance(result, DeployFailed):
            self._telling.say(watch, f"the standby did not take over, a run starts it anew: {result.message}")
            return self._ask(watch, decision, verdict)
        if isinstance(result, OpsError):
            watch = replace(watch, not_before=next_try(watch, platform.clock.now(), asked=False))
            why = f"{verdict.reason}; it could not be rolled back: {result.message}"
            update_watch(platform, watch)
            watch = self._telling.stand(watch, Decision(Act.ALERT, why), verdict)
            return handled(watch, Act.ALERT, why, verdict)
        done = handled(watch, Act.ROLL_BACK, decision.why, verdict, result.number)
        self._telling.rolled_back(done)
        self._telling.settle(watch, decision.why)
        return done

    def _members(self, watch: Watch) -> tuple[SetMember, ...]:
        """The release itself, and whatever else is live of its set."""
        members = set_members(self._platform, watch.environment, watch.set_id) if watch.set_id else ()
        if any(member.service == watch.service for member in members):
            return members
        return (*members, SetMember(watch.service, watch.release))

    def _back(
        self,
        environment: str,
        members: Sequence[SetMember],
        verdicts: Mapping[str, Verdict],
        why: str,
        set_id: str,
        judged: Watch | None = None,
    ) -> dict[str, Release | OpsError]:
        """Roll members back, dependents first. One that cannot follow is told and does not hold up the others."""
        for member in members:
            attempt = judged.attempts if judged and judged.service == member.service else 1
            write_due(self._platform, Due(environment, member.service, member.release, attempt, set_id))
        results = roll_back_set(
            self._platform,
            environment,
            members,
            verdicts={name: verdicts[name] for name in verdicts if any(name == one.service for one in members)},
            why=why,
            who=WHO,
            run_id=self._run_id,
            progress=self._progress,
        )
        for member in members:
            result = results[member.service]
            if isinstance(result, OpsError) and not (judged and judged.service == member.service):
                self._telling.left_behind(environment, member.service, member.release, result)
            elif not isinstance(result, OpsError):
                self._memory.finished.add((environment, member.service, member.release))
        return results

    def _ask(self, watch: Watch, decision: Decision, verdict: Verdict) -> Handled:
        """Let a run do it: containers have to be started anew, which takes longer than a tick may."""
        watch = replace(watch, attempts=watch.attempts + 1, asked=True)
        watch = replace(watch, not_before=next_try(watch, self._platform.clock.now(), asked=True))
        if not update_watch(self._platform, watch):
            return self.end(watch, GONE)
        self._telling.say(watch, decision.why)
        return handled(watch, Act.ASK, decision.why, verdict)

    def _release(self, environment: str, service: str, timestamp: str) -> Release:
        return retried(
            self._platform.clock,
            f"read the live release of {environment}/{service}",
            lambda: ledger.read_release(self._platform.store, environment, service, timestamp),
        )
