"""Holds keep a set from being cleared away until a person releases them; a quarantine is lifted here too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ops_pipeline.core.backup.records import Hold, SetState
from ops_pipeline.errors import BadInput, NotFound, Problem
from ops_pipeline.services.backup.sets import BackupSet, find_set, write_state
from ops_pipeline.services.platform import Platform

NAME_LENGTH = 60
REASON_LENGTH = 500


def hold_set(platform: Platform, environment: str, set_id: str, *, name: str, reason: str, by: str) -> BackupSet:
    """Put a hold on a set and return it as it is now. A hold of the same name is replaced.

    `retention.WRONG_CLOCK` as name says that the set's time is wrong: it then no longer counts as the newest.
    Raise BadInput (no name, too long), NotFound, StoreDamaged, Unavailable.
    """
    problems = [*_text("name", name, NAME_LENGTH), *_text("reason", reason, REASON_LENGTH)]
    if problems:
        raise BadInput(problems, subject="hold")
    found = find_set(platform, environment, set_id)
    hold = Hold(name.strip(), reason.strip(), by, platform.clock.now())

    def held(state: SetState) -> SetState:
        others = tuple(one for one in state.holds if one.name != hold.name)
        return replace(state, holds=(*others, hold))

    return _changed(platform, found, held)


def release_set_hold(platform: Platform, environment: str, set_id: str, *, name: str) -> BackupSet:
    """Take a hold off a set and return it as it is now. Raise NotFound naming the holds there are, Unavailable."""
    found = find_set(platform, environment, set_id)
    names = [one.name for one in found.state.holds]
    if name.strip() not in names:
        raise NotFound(f"set {found.id} has no hold `{name}`", hint=f"It has: {', '.join(names) or 'none'}.")
    return _changed(
        platform,
        found,
        lambda state: replace(state, holds=tuple(one for one in state.holds if one.name != name.strip())),
    )


def lift_quarantine(platform: Platform, environment: str, set_id: str, *, reason: str, by: str) -> BackupSet:
    """Say that a set in quarantine is right after all: it counts as good again, and retention goes on.

    Why and by whom stays with the set, as a hold, so that the set itself stays until that is released too.
    Raise BadInput (no reason), NotFound (not in quarantine), Unavailable.
    """
    problems = _text("reason", reason, REASON_LENGTH)
    if problems:
        raise BadInput(problems, subject="quarantine")
    found = find_set(platform, environment, set_id)
    if not found.state.quarantined:
        raise NotFound(f"set {found.id} is not in quarantine")
    now = platform.clock.now()

    def lifted(state: SetState) -> SetState:
        note = Hold("quarantine lifted", f"{reason.strip()} (it was: {state.quarantined})", by, now)
        others = tuple(one for one in state.holds if one.name != note.name)
        return replace(state, quarantined="", holds=(*others, note)) if state.quarantined else state

    return _changed(platform, found, lifted)


def _changed(platform: Platform, found: BackupSet, change: Callable[[SetState], SetState]) -> BackupSet:
    state = write_state(platform.vault(), platform.clock, found.manifest.environment, found.id, change)
    return replace(found, state=state)


def _text(field: str, value: str, longest: int) -> Sequence[Problem]:
    text = value.strip()
    if not text:
        return [Problem(field, "is empty")]
    if len(text) > longest or not text.isprintable():
        return [Problem(field, f"must be at most {longest} printable characters in one line")]
    return []
