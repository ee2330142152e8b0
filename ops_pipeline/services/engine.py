"""The release engine: observe, decide, write the journal, act, until nothing is unfinished.

Deploy, roll-back and reconcile all run `ReleaseEngine.settle`; what to do next is `core.release_plan`'s decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ops_pipeline.core import journal as transitions
from ops_pipeline.core.journal import Journal
from ops_pipeline.core.judgement.verdict import Verdict
from ops_pipeline.core.redaction import redact
from ops_pipeline.core.release import Release
from ops_pipeline.core.release_plan import Do, Needs, Step, needs, next_step, settled, smoke_is_due
from ops_pipeline.core.work_state import crashed
from ops_pipeline.core.world import World
from ops_pipeline.errors import DeployFailed, LeaseHeld, OpsError, Permanent, RolledBack, StaleGeneration, Unavailable
from ops_pipeline.ports import Progress
from ops_pipeline.services import ledger
from ops_pipeline.services.announcing import Announcer
from ops_pipeline.services.fleet import Fleet
from ops_pipeline.services.host_work import HostWork
from ops_pipeline.services.instances import last_words
from ops_pipeline.services.journal import OpenJournal
from ops_pipeline.services.judged_work import WorkJudge, stopped_by_somebody
from ops_pipeline.services.lease import HeldLease
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.smoke import smoke_faults

LOGS_SHOWN = 3
REPEATS = 4
"""How often one and the same step may be taken in a row without getting anywhere."""

DETAIL_SECONDS = 10.0
"""How often a step that takes long says how it stands."""


class ReleaseEngine(HostWork):
    """Works on one (environment, service) while it holds the lease."""

    def __init__(
        self, platform: Platform, fleet: Fleet, journal: OpenJournal, lease: HeldLease, progress: Progress
    ) -> None:
        super().__init__(platform, fleet, journal, lease, progress)
        self._judge = WorkJudge(platform)
        self._announcer = Announcer(platform)
        self._logs: list[tuple[str, str]] = []
        self._undone: tuple[str, Verdict | None] = ("", None)

    def take_over(self, run_id: str, *, strict: bool) -> None:
        """Become the one controller: in the journal, and at every edge where a former one may still be at work.

        Where nothing was unfinished no former controller has anything left to change, and the first change of each
        edge fences it. With `strict` an edge that does not answer is an error (Unavailable).
        """
        found = self.journal
        self._journal.take_over(run_id)
        self._announcer.changed(found, self.journal)
        if not (strict and settled(found) and settled(self.journal)):
            self.fence(strict=strict)

    def make(
        self,
        release: Release,
        secrets: Mapping[str, str],
        *,
        because: Verdict | None = None,
        seen: World | None = None,
    ) -> Release:
        """Carry a planned release to live and return its manifest.

        `because` is the verdict a roll-back follows; `seen` what was found a moment ago and need not be asked again.

        Raise RolledBack with the verdict's sentence when it was judged bad, DeployFailed with the reason and the new
        containers' last words when it was undone for another reason: either way traffic is where it was. An
        interruption (KeyboardInterrupt, Dagster's termination) undoes too, then passes on.
        """
        self.use_secrets(secrets)
        own = release.containers_of is None
        try:
            now = self.platform.clock.now()
            plan = transitions.planned(
                self.journal, release, self.fleet.hosts, now, own_containers=own, because=because
            )
            self.write(plan)
            self.progress(self.journal.lines[-1].text)
            self.settle(seen)
        except (StaleGeneration, LeaseHeld):
            raise  # somebody else may own the work by now: not ours to undo
        except OpsError as error:
            if self.journal.last_number < release.number:
                raise  # nothing was begun, not even the plan
            if not self._is_live(release):
                if self.journal.work is not None and not self.journal.work.undo:
                    self._step_back(release, error)
                raise self._failed(release, error.message, error.hint) from error
            self.progress(f"{release.label} is live, but not all is tidied up: {error.message}")
        except BaseException as interruption:
            self._step_back(release, interruption)
            raise
        if not self._is_live(release):
            raise self._failed(release, "", "Traffic is where it was; nothing is left behind.")
        return ledger.read_release(self.platform.store, release.environment, release.service, release.timestamp)

    def use_secrets(self, secrets: Mapping[str, str]) -> None:
        """Secrets of the containers started from here on, and masked in everything said about them."""
        super().use_secrets(secrets)
        self._logs, self._undone = [], ("", None)

    def settle(self, seen: World | None = None) -> None:
        """Take steps until no work is unfinished and nothing leaves any more.

        `seen` is what the first step needs, found a moment ago. Raise Unavailable when a host has to answer first,
        whatever a step raises that cannot be undone.
        """
        last, repeats, told = "", 0, self.platform.clock.monotonic()
        try:
            while not settled(self.journal):
                self.lease.check()
                now = self.platform.clock.now()
                world, seen = self._look_for(self.journal, needs(self.journal, now)) if seen is None else seen, None
                step = next_step(self.journal, world, now, keep_standby=self._keeps_standby())
                if step.do is Do.BLOCKED:
                    raise Unavailable(
                        step.text, hint="Bring the host back or take it out of the catalogue, then `ops reconcile`."
                    )
                repeats = repeats + 1 if step.then is None and step.text == last and step.do is not Do.WAIT else 0
                if repeats >= REPEATS:
                    raise Permanent(f"no progress after {REPEATS} attempts: {step.text}")
                if step.text != last:
                    self.progress(step.text)
                    told = self.platform.clock.monotonic()
                elif step.detail and self.platform.clock.monotonic() - told >= DETAIL_SECONDS:
                    self.progress(step.detail)
                    told = self.platform.clock.monotonic()
                last = step.text
                self._take(step)
                self._judge.keep(self.journal, self.progress)
                self._announcer.tell(self.progress)
        finally:
            self._judge.keep(self.journal, self.progress, final=True)

    def write(self, journal: Journal, *, flush: bool = True) -> None:
        """Write the journal, before the action it announces. Without `flush` the manifests follow after it."""
        before = self.journal
        self._note_undo(journal)
        self._journal.write(journal, flush=flush)
        self._announcer.changed(before, journal)

    def _look_for(self, journal: Journal, wanted_facts: Needs) -> World:
        """Look at the world now, and at the release being made as those who judge it see it."""
        world = self.look(wanted_facts)
        if wanted_facts.smoke and journal.work is not None and smoke_is_due(journal, world):
            release = journal.work.release
            self.progress(f"smoke tests of #{release.number}")
            failed = smoke_faults(self.platform, self.environment, self.service, release, progress=self.progress)
            world = replace(world, smoke_faults=failed)
        if journal.work is not None and crashed(journal, world):
            # Known without measurements, and not to be kept waiting by a slow source of them.
            return replace(world, stopped=stopped_by_somebody(self.fleet, journal, world))
        if wanted_facts.verdict:
            world = replace(world, verdict=self._judge.verdict(journal))
        if wanted_facts.decision:
            world = replace(world, word=self._judge.word(journal, self.progress))
        return world

    def _take(self, step: Step) -> None:
        if step.then is not None:
            # Where traffic moves seconds count: the manifests hear of it afterwards.
            self.write(step.then, flush=step.do is not Do.ROUTE)
        try:
            self._act(step)
            self._journal.flush()
        except (StaleGeneration, LeaseHeld):
            raise
        except OpsError as error:
            work = self.journal.work
            if work is None or work.undo:
                raise
            turned = transitions.withdrawn(self.journal, error.message, self.platform.clock.now())
            self.progress(turned.lines[-1].text)
            self.write(turned)

    def _act(self, step: Step) -> None:
        work = self.journal.work
        match step.do:
            case Do.PULL if work is not None:
                self.pull(work.release.image, step.hosts)
            case Do.START if work is not None:
                release = work.release
                launch = self.launch_of(
                    release.number, release.version, release.image, release.pool, release.configuration
                )
                self.start(launch, step.replicas)
            case Do.WAIT:
                self.platform.clock.sleep(step.wait_seconds)
            case Do.ROUTE:
                self.route()
            case Do.REMOVE:
                if work is not None:
                    self._keep_last_words(step)
                self.remove(step.containers, step.grace_seconds)
            case _:
                return

    def _note_undo(self, then: Journal) -> None:
        """On the way back every host is asked again, also one that failed on the way forward."""
        work, after = self.journal.work, then.work
        if work is not None and after is not None and after.undo and not work.undo:
            self.ask_all_again()
            self._undone = (after.undo, after.blame)

    def _keep_last_words(self, step: Step) -> None:
        seen = {text for _, text in self._logs}
        for host, container in step.containers:
            text = redact(last_words(self.fleet.runtimes[host], container), self._secrets.values())
            if text not in seen and len(self._logs) < LOGS_SHOWN:
                seen.add(text)
                self._logs.append((f"{container[:12]} on {host}", text))

    def _step_back(self, release: Release, cause: BaseException) -> None:
        """Undo after an interruption, as far as the work is still ours and traffic has not been committed."""
        work = self.journal.work
        if work is None or work.release.number != release.number:
            return
        try:
            if not work.undo:
                reason = cause.message if isinstance(cause, OpsError) else f"interrupted ({type(cause).__name__})"
                turned = transitions.withdrawn(self.journal, reason, self.platform.clock.now())
                self.progress(turned.lines[-1].text)
                self.write(turned)
            self.settle()
        except OpsError as error:
            self.progress(f"the undo is unfinished, `ops reconcile` completes it: {error.message}")

    def _is_live(self, release: Release) -> bool:
        live = self.journal.live
        return live is not None and live.release == release.number

    def _failed(self, release: Release, unfinished: str, hint: str) -> DeployFailed:
        work, (reason, blame) = self.journal.work, self._undone
        how = "was rolled back" if blame is not None else "failed"
        text = f"{release.label} ({release.version}) {how}: {reason or unfinished}"
        if work is not None and unfinished:
            text += f"; its undo is unfinished: {unfinished}"
        logs = (f"last words of {where}:\n{_indented(words)}" for where, words in self._logs)
        message = "\n".join((redact(text, self._secrets.values()), *logs))
        if blame is None:
            return DeployFailed(message, hint=hint)
        return RolledBack(message, hint=f"{hint} `ops quarantine list` shows the evidence.")

    def _keeps_standby(self) -> bool:
        return self.platform.catalogue.environments[self.environment].standby_minutes > 0


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
