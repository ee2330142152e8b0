"""Which backup sets stay and which go: a pure plan with a reason for every set.

The rules, strongest first:

1. Frozen: nothing at all is deleted while a set is in quarantine, while no set is good, while a set claims to be from
   the future, or shortly after a gap no schedule explains (a clock that jumped ahead looks like that).
2. Held sets stay, and those whose manifest cannot be trusted: only a person may clear these away.
3. Age counts from the newest good set, not from now: a schedule that stalls deletes nothing. Everything younger than
   `keep_days` stays, good or not, and everything newer than the newest good set.
4. The newest `keep_last` good sets stay.
5. The youngest good set that is older than `keep_days` stays: without it `keep_days` back is not restorable
   (pgBackRest's rule for time-based retention).
6. Then the last good set of each of `daily` days, then of `weekly` weeks, then of `monthly` months, as periods that
   follow one another in time. What a later period will need is not deleted in an earlier one.
7. The rest goes. Each of them has a newer good set, by rule 3.

Good = checked without a finding, not damaged, no drill failed since, not quarantined. Days, weeks (ISO) and months
are UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

FUTURE_SLACK = timedelta(hours=1)
"""Clocks of the machines that take backups may differ by so much."""
SETTLE = timedelta(days=3)
"""After an unexplained gap sets must come for so long before anything is deleted."""
WRONG_CLOCK = "wrong-clock"
"""A hold of this name says: a person has looked at this set, its time is wrong. It stays and no longer counts."""
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Keep:
    """How long sets are kept; the catalogue's `Retention`. `keep_days` may be a fraction."""

    keep_days: float = 30
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    keep_last: int = 3


@dataclass(frozen=True)
class Candidate:
    """One set as retention sees it. `bad` says in words why it does not count as good ("" = it does).

    `unreadable` says why nothing is known about it but its place in the store.
    """

    id: str
    taken_at: datetime
    bad: str = ""
    quarantined: str = ""
    unreadable: str = ""
    holds: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether a restore may rely on it."""
        return not self.bad and not self.unreadable and not self.quarantined and WRONG_CLOCK not in self.holds


@dataclass(frozen=True)
class Decision:
    """What happens to one set, and why."""

    id: str
    taken_at: datetime
    keep: bool
    reason: str
    good: bool


@dataclass(frozen=True)
class RetentionPlan:
    """Decisions newest first. `frozen` says why nothing at all may be deleted ("" = not frozen).

    `newest_good` is the set ages count from; `bridge` the one that makes `keep_days` back restorable.
    """

    decisions: tuple[Decision, ...]
    frozen: str = ""
    newest_good: str = ""
    bridge: str = ""

    @property
    def kept(self) -> tuple[Decision, ...]:
        """What stays, newest first."""
        return tuple(decision for decision in self.decisions if decision.keep)

    @property
    def deleted(self) -> tuple[Decision, ...]:
        """What goes, oldest first: the order of deletion, so that a stop in the middle leaves no hole."""
        return tuple(decision for decision in reversed(self.decisions) if not decision.keep)

    @property
    def words(self) -> str:
        """The plan in one sentence."""
        if self.frozen:
            return f"nothing is deleted: {self.frozen}"
        return f"{len(self.kept)} of {len(self.decisions)} sets stay, {len(self.deleted)} go"


def plan(candidates: Iterable[Candidate], settings: Keep, now: datetime) -> RetentionPlan:
    """Given all sets of an environment, the settings and the time, return what stays and what goes.

    Time is only used to notice clocks that are wrong. Cost: one sort, then linear.
    """
    sets = sorted(candidates, key=lambda one: (one.taken_at, one.id), reverse=True)
    good = [one for one in sets if one.good]
    if not sets:
        return RetentionPlan(())
    frozen = _frozen(sets, good, settings, now)
    if frozen:
        decisions = tuple(
            Decision(one.id, one.taken_at, True, f"nothing is deleted: {frozen}", one.good) for one in sets
        )
        return RetentionPlan(decisions, frozen, good[0].id if good else "", "")
    edge = good[0].taken_at - timedelta(days=settings.keep_days)
    bridge = next((one.id for one in good if one.taken_at < edge), "")
    last = {one.id: number for number, one in enumerate(good[: settings.keep_last], start=1)}
    periods = _periods(good, edge, settings)
    decisions = tuple(_decide(one, good[0], edge, bridge, last, periods, settings) for one in sets)
    return RetentionPlan(decisions, "", good[0].id, bridge)


def _frozen(sets: Sequence[Candidate], good: Sequence[Candidate], settings: Keep, now: datetime) -> str:
    """Why nothing at all may be deleted, or ""."""
    quarantined = [one for one in sets if one.quarantined]
    if quarantined:
        first = quarantined[0]
        others = f" (and {len(quarantined) - 1} more)" if len(quarantined) > 1 else ""
        return f"set {first.id}{others} is in quarantine ({first.quarantined}) until a person has looked at it"
    future = [one for one in sets if one.taken_at > now + FUTURE_SLACK and WRONG_CLOCK not in one.holds]
    if future:
        return (
            f"set {future[-1].id} was taken at {future[-1].taken_at:%Y-%m-%d %H:%M} UTC and here it is "
            f"{now:%Y-%m-%d %H:%M} UTC: one of the two clocks is wrong. If it was that of the set, put a hold named "
            f"{WRONG_CLOCK} on it"
        )
    if not good:
        return "no set is good: checked, without a finding"
    return _leap(good, settings)


def _leap(good: Sequence[Candidate], settings: Keep) -> str:
    """Why the newest sets may carry a clock's leap and not real age, or "".

    A gap counts that is longer than `keep_days` and more than four times longer than any of the ten before it: else
    it is the schedule. Only the gap before the newest `SETTLE` of sets matters, since later ones were seen by people.
    """
    settle = min(SETTLE, timedelta(days=settings.keep_days))
    recent = next((n for n, one in enumerate(good) if good[0].taken_at - one.taken_at >= settle), len(good))
    # Sets 0 … recent-1 lie within the settling time; the gap in question ends at one of them.
    for newer in range(min(recent, len(good) - 1)):
        gap = good[newer].taken_at - good[newer + 1].taken_at
        before = [good[n].taken_at - good[n + 1].taken_at for n in range(newer + 1, min(newer + 11, len(good) - 1))]
        if gap > timedelta(days=settings.keep_days) and before and gap > 4 * max(before):
            return (
                f"the set before {good[newer].id} is {_days(gap)} older, far more than usual: a clock may have jumped. "
                f"Once sets have come for {_days(settle)} it counts; a hold named {WRONG_CLOCK} says that it does not"
            )
    return ""


def _periods(good: Sequence[Candidate], edge: datetime, settings: Keep) -> Mapping[str, str]:
    """Id → reason of the sets that stay for being the last of their day, week or month."""
    days_end = edge - settings.daily * DAY
    weeks_end = days_end - settings.weekly * 7 * DAY
    months_end = _months_before(weeks_end, settings.monthly)
    reasons: dict[str, str] = {}
    seen: set[object] = set()
    for one in good:  # newest first, so the first met of a day, week or month is its last
        if one.taken_at < months_end:
            break
        date = one.taken_at.date()
        levels = (
            ("day", date.toordinal(), days_end, settings.daily),
            ("week", date.isocalendar()[:2], weeks_end, settings.weekly),
            ("month", (date.year, date.month), months_end, settings.monthly),
        )
        for word, period, end, count in levels:
            first = (word, period) not in seen
            seen.add((word, period))
            if count and first and one.taken_at >= end and one.id not in reasons:
                reasons[one.id] = f"the last good set of its {word} ({count} {word}{'s' if count > 1 else ''} are kept)"
    return reasons


def _months_before(moment: datetime, months: int) -> datetime:
    if not months:
        return moment
    index = moment.year * 12 + moment.month - 1 - months
    year, month = max(index // 12, 1), index % 12 + 1
    return moment.replace(year=year, month=month, day=1, hour=0, minute=0, second=0, microsecond=0)


def _decide(
    one: Candidate,
    newest: Candidate,
    edge: datetime,
    bridge: str,
    last: Mapping[str, int],
    periods: Mapping[str, str],
    settings: Keep,
) -> Decision:
    keep = True
    age = newest.taken_at - one.taken_at
    if one.holds:
        reason = f"held: {', '.join(one.holds)}"
    elif one.unreadable:
        reason = f"it cannot be read ({one.unreadable}): it stays until a person has looked at it"
    elif one is newest:
        reason = "the newest good set"
    elif age <= timedelta(0):
        reason = (
            f"newer than the newest good set, itself not good yet: {one.bad}" if one.bad else "as new as the newest"
        )
    elif one.taken_at >= edge:
        reason = f"{_days(age)} older than the newest good set; {settings.keep_days:g} days are kept"
    elif one.id in last:
        reason = f"number {last[one.id]} of the {settings.keep_last} newest good sets that always stay"
    elif one.id == bridge:
        reason = f"the youngest good set older than {settings.keep_days:g} days: without it that far back is lost"
    elif one.id in periods:
        reason = periods[one.id]
    else:
        keep = False
        bad = f", and not good: {one.bad}" if one.bad else ""
        reason = f"{_days(age)} older than the newest good set {newest.id}{bad}; no rule keeps it"
    return Decision(one.id, one.taken_at, keep, reason, one.good)


def _days(span: timedelta) -> str:
    days = span / DAY
    return f"{days:.0f} days" if days >= 2 else f"{span / timedelta(hours=1):.0f} hours"
