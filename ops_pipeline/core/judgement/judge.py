"""The judge of one release: raw samples and exits in, a verdict with its evidence out. Pure; time is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from ops_pipeline.core.judgement.account import (
    GOOD_LEVEL,
    HALF_LEVELS,
    STABLE_LEVEL,
    THRESHOLD_LEVEL,
    WORSE_LEVEL,
    Account,
)
from ops_pipeline.core.judgement.comparison import Sides
from ops_pipeline.core.judgement.crashes import Crashes
from ops_pipeline.core.judgement.evidence import FIRST, at_least
from ops_pipeline.core.judgement.reasons import bad_sentence, bad_spell, counts_sentence
from ops_pipeline.core.judgement.records import Records
from ops_pipeline.core.judgement.units import Readings, Unit, Units
from ops_pipeline.core.judgement.verdict import MetricEvidence, Outcome, Verdict
from ops_pipeline.core.measurement import ContainerExit, Counted
from ops_pipeline.core.rollout import Rollout

SLOW_SHARE = 0.05
"""p95 above the limit means: more than this share of requests is slower."""
BLIND_SECONDS = 6.0
"""Three ticks: without a scrape for longer, nothing can be said."""
WARM_UP_SECONDS = 60.0
"""The latency of a release's first minute is not judged: stable is warm, the release is not."""
PASS_UNITS = 30
PASS_SECONDS = 60.0
PASS_SLOW_UNITS = 10
"""Units of latency, which begin after the warm-up."""
CERTAIN_EVERY = 30
"""Units after which the certain share of a metric that is held is worked out anew."""
WATCH_SECONDS = 1800.0
"""Time over which fresh money is paid in at least; an endless watch pays in spans of this length."""


def fresh_money(seconds: float, length: float, watch_seconds: float | None) -> float:
    """Money paid in by a unit of `length` seconds that begins `seconds` after the start; all of it adds up to 0.3.

    A watch with an end pays evenly. One without pays 1/2, 1/6, 1/12, … of it in each half hour, evenly inside.
    """
    if watch_seconds is not None:
        return (1 - FIRST) * length / max(WATCH_SECONDS, watch_seconds)
    span = 1 + int(seconds // WATCH_SECONDS)
    return (1 - FIRST) / (span * (span + 1)) * length / WATCH_SECONDS


class Judge:
    """Judges one release of one service in one environment against its thresholds and against stable.

    `release` and `stable` are the numbers their containers carry; `since` is when the release began to get requests;
    `replicas` per host, `hosts` of the environment; `queries` (errors, slow) are shown in the evidence. A judge made
    anew and fed the same samples says the same.
    """

    def __init__(
        self,
        rollout: Rollout,
        *,
        release: int,
        stable: int | None,
        since: datetime,
        replicas: int,
        hosts: int,
        queries: Mapping[str, str] | None = None,
    ) -> None:
        self.units = Records(since.timestamp())
        self.requests = 0
        self._rollout = rollout
        self._release = release
        self._stable = stable
        self._since = since
        self._hosts = max(1, hosts)
        thresholds = rollout.thresholds
        queries = queries or {}
        self._errors = Account("errors", thresholds.error_rate, queries.get("errors", ""))
        self._slow = Account("slow", SLOW_SHARE, queries.get("slow", ""))
        self._units = Units(release, stable, since.timestamp(), BLIND_SECONDS)
        self._crashes = Crashes(release, stable, since, replicas * self._hosts, thresholds.crash_rate)
        self._sides = Sides()
        self._paid_seconds = 0.0
        self._failed: tuple[str, tuple[MetricEvidence, ...]] | None = None
        self._certain: dict[str, tuple[int, float]] = {}

    def feed(self, readings: Readings, now: datetime) -> None:
        """Take samples of this service's counters, oldest first; known ones are ignored, so windows may overlap.

        Windows should reach some seconds before `since`, so that what was counted before it is known.
        """
        for unit in self._units.feed(readings, now.timestamp()):
            self._add(unit)

    def crashed(self, exits: Sequence[ContainerExit] | None, now: datetime) -> None:
        """Take all exits known of this service since `since`, repeats included; None: the engines did not answer."""
        self._crashes.feed(exits, now)
        if self._failed is None and self._crash_reason() and not self._crashes.stable_too:
            self._failed = (self._crash_reason(), self._metrics(exact=True))

    def verdict(self, now: datetime) -> Verdict:
        """Judge what has been fed so far. A FAIL stays one."""
        if self._failed is not None:
            reason, metrics = self._failed
            return self._say(Outcome.FAIL, reason, now, metrics)
        blind = self._blind(now)
        if blind:
            return self._say(Outcome.BLIND, blind, now, self._metrics())
        if self._crash_reason():
            reason = f"{self._crash_reason()}; but stable's do too: {self._crashes.stable_too}"
            return self._say(Outcome.INCONCLUSIVE, reason, now, self._metrics(), incident=True)
        held = [account for account in (self._errors, self._slow) if account.reached]
        if held:
            return self._hold(held, now)
        metrics = self._metrics()
        counts = counts_sentence(metrics, self._rollout.thresholds.p95_seconds)
        if not self.requests:
            seconds = (now - self._since).total_seconds()
            return self._say(Outcome.INCONCLUSIVE, f"no request in {seconds:.0f} s: nothing to judge", now, metrics)
        lacking = self._lacking(now, metrics)
        if lacking:
            reason = f"{counts}; not yet proven good or bad: {', '.join(lacking)}"
            return self._say(Outcome.INCONCLUSIVE, reason, now, metrics)
        seconds = (now - self._since).total_seconds()
        limits = f"{100 * self._errors.threshold:g} % and {100 * self._slow.threshold:g} %"
        reason = f"{counts} in {seconds:.0f} s, no container exited: below {limits} with 95 % certainty"
        return self._say(Outcome.PASS, reason, now, metrics)

    def _add(self, unit: Unit) -> None:
        """One unit into the books. The levels are looked at after every single one, however many come at once."""
        mine, stable = unit.release, unit.stable
        pay = fresh_money(self._paid_seconds, unit.seconds, self._rollout.watch_seconds)
        self._paid_seconds += unit.seconds
        self.requests += mine.total
        self.units.add(unit)
        self._sides.add(mine.total, stable.total)
        self._errors.add(mine.errors, mine.total, stable.errors, stable.total, pay)
        if self._warm(unit.at):
            self._slow.add(mine.slow, mine.total, stable.slow, stable.total, pay)
        for account in (self._errors, self._slow):
            if self._failed is None and account.reached and (self._alone or account.worse.value >= WORSE_LEVEL):
                metrics = self._metrics(exact=True)
                self._failed = (self._bad_reason(account, metrics), metrics)

    def _warm(self, at: float) -> bool:
        return at > self._since.timestamp() + WARM_UP_SECONDS

    @property
    def _alone(self) -> bool:
        """Stable serves too little to compare with."""
        return self._stable is None or self._sides.alone

    def _crash_reason(self) -> str:
        """Why its crashes alone condemn the release; "" = they do not."""
        crashes = self._crashes
        if crashes.broken_rule:
            return crashes.broken_rule
        if crashes.against_half.value >= HALF_LEVELS["crashes"] and (
            crashes.against_threshold.value >= THRESHOLD_LEVEL
        ):
            share = crashes.bad / crashes.total
            return (
                f"in {crashes.bad} of {crashes.total} instance-minutes a container exited by itself "
                f"({100 * share:.1f} %), threshold {100 * self._rollout.thresholds.crash_rate:g} %"
            )
        return ""

    def _rows(self, account: Account) -> list[tuple[float, int, int, int, int]]:
        """Recorded units of one metric: seconds, bad, total, stable's bad, stable's total."""
        if account is self._errors:
            return [(r.seconds, r.errors, r.total, r.stable_errors, r.stable_total) for r in self.units]
        return [(r.seconds, r.slow, r.total, r.stable_slow, r.stable_total) for r in self.units if self._warm(r.at)]

    def _at_least(self, account: Account) -> float:
        """The share that is certain, when there is something to be certain of."""
        if account.against_half.value < STABLE_LEVEL:
            return 0.0
        count, share = self._certain.get(account.name, (-CERTAIN_EVERY, 0.0))
        if account.good.units - count >= CERTAIN_EVERY:
            units, paid = [], 0.0
            for seconds, bad, total, _, _ in self._rows(account):
                units.append((bad, total, fresh_money(paid, seconds, self._rollout.watch_seconds)))
                paid += seconds
            share = at_least(units)
            self._certain[account.name] = (account.good.units, share)
        return share

    def _bad_reason(self, account: Account, metrics: Sequence[MetricEvidence]) -> str:
        evidence = next(metric for metric in metrics if metric.name == account.name)
        spell = bad_spell(self._rows(account), account.threshold)
        return bad_sentence(evidence, spell, self._rollout.thresholds.p95_seconds)

    def _hold(self, held: Sequence[Account], now: datetime) -> Verdict:
        """Bad enough, but not shown to be worse than stable."""
        metrics = self._metrics(exact=True)
        ill = [account for account in held if account.stable_half.value >= STABLE_LEVEL]
        reason = self._bad_reason((ill or list(held))[0], metrics)
        why = "stable is bad too, so it is the environment" if ill else "not shown to be worse than stable"
        return self._say(Outcome.INCONCLUSIVE, f"{reason}: {why}", now, metrics, incident=bool(ill))

    def _blind(self, now: datetime) -> str:
        """What is missing to judge at all; "" = nothing."""
        moment, since = now.timestamp(), self._since.timestamp()
        if moment - since <= BLIND_SECONDS:
            return ""
        units = self._units
        if moment - max(units.newest, since) > BLIND_SECONDS:
            gone = [c.value for c in Counted if moment - units.newest_of.get(c, 0.0) > BLIND_SECONDS]
            what = "measurements" if len(gone) in (0, len(Counted)) else f"counter of {' and '.join(gone)}"
            if not units.newest:
                return f"no {what} of release {self._release} in the {moment - since:.0f} s since it got requests"
            return f"no {what} of release {self._release} for {moment - units.newest:.0f} s"
        fresh = sum(moment - at <= BLIND_SECONDS for at in units.hosts.values())
        if (self._hosts - fresh) * 2 > self._hosts:
            return f"{self._hosts - fresh} of {self._hosts} hosts send no measurements of release {self._release}"
        return ""

    def _lacking(self, now: datetime, metrics: Sequence[MetricEvidence]) -> list[str]:
        """What a PASS still lacks."""
        errors, slow = metrics[0], metrics[1]
        needed = max(PASS_SECONDS, self._rollout.server_timeout_seconds)
        seconds = (now - self._since).total_seconds()
        lacking = []
        if seconds < needed:
            lacking.append(f"{seconds:.0f} s of at least {needed:.0f} s")
        if errors.units < PASS_UNITS:
            lacking.append(f"{errors.units} of at least {PASS_UNITS} readings with requests")
        if errors.good < GOOD_LEVEL:
            lacking.append(f"too few requests to show fewer than {100 * errors.threshold:g} % failing")
        if slow.good < GOOD_LEVEL or slow.units < PASS_SLOW_UNITS:
            lacking.append(f"too few requests after the warm-up to show fewer than {100 * slow.threshold:g} % slow")
        if self._errors.suspected or self._slow.suspected:
            lacking.append("it has been bad of late")
        if not self._crashes.known:
            lacking.append("a Docker engine does not say whether containers exited")
        elif self._crashes.exits:
            count = len(self._crashes.exits)
            lacking.append(f"{count} unwanted container {'exit' if count == 1 else 'exits'}")
        return lacking

    def _metrics(self, exact: bool = False) -> tuple[MetricEvidence, ...]:
        """Evidence of the three metrics; `exact`: with the share that is certain, which costs milliseconds."""
        errors, slow = (a.evidence(self._at_least(a) if exact else 0.0) for a in (self._errors, self._slow))
        crashes = self._crashes
        half = crashes.against_half.value
        crash = MetricEvidence(
            name="crashes",
            threshold=self._rollout.thresholds.crash_rate,
            bad=crashes.bad,
            total=crashes.total,
            units=crashes.minutes,
            against_half=half,
            against_threshold=crashes.against_threshold.value,
            worse=1.0,
            good=1.0,
            p_value=min(1.0, 1 / half) if half > 0 else 1.0,
            at_least=0.0,
        )
        return errors, slow, crash

    def _say(
        self,
        outcome: Outcome,
        reason: str,
        now: datetime,
        metrics: tuple[MetricEvidence, ...],
        incident: bool = False,
    ) -> Verdict:
        return Verdict(
            outcome=outcome,
            reason=reason,
            at=now,
            since=self._since,
            release=self._release,
            stable=self._stable,
            unit_seconds=self._units.length,
            incident=incident,
            metrics=metrics,
        )
