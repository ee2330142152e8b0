"""Which release a roll-back goes to."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ops_pipeline.core.release import Release


@dataclass(frozen=True)
class Target:
    """Where a roll-back goes, or why it cannot: exactly one of the two is set."""

    release: Release | None = None
    refusal: str = ""


def choose_target(
    releases: Iterable[Release],
    live: int | None,
    standby: int | None,
    to: int | None,
    *,
    shunned: Collection[str] = (),
) -> Target:
    """Given releases newest first, the numbers of live and standby and a wish, return the target.

    The target is always a release that was built or promoted, never a roll-back record: going back to a roll-back
    means going back to what it restored. Without a wish: the standby unless it was itself rolled back, else the
    newest earlier release that was live, was not rolled back and is not what runs already. Digests in `shunned` are
    passed over then: a roll-back that nobody asked for goes to the second best rather than nowhere.
    """
    known = {release.number: release for release in releases}
    serving = known.get(live) if live is not None else None
    if serving is None:
        return Target(refusal="nothing is live, so there is nothing to roll back")
    if to is not None:
        return _wished(known, serving, to)
    candidates = sorted((number for number in known if number < serving.number), reverse=True)
    if standby is not None and standby in known:
        candidates = [standby, *(number for number in candidates if number != standby)]
    passed_over = []
    for number in candidates:
        candidate = known[number]
        if not candidate.was_live or candidate.was_rolled_back or candidate.root == serving.root:
            continue
        if candidate.digest not in shunned:
            return _root(known, candidate)
        passed_over.append(f"#{number}")
    if passed_over:
        words = ", ".join(passed_over)
        return Target(refusal=f"every good release before {serving.label} is in quarantine ({words})")
    return Target(refusal=f"{serving.label} is the oldest good release: there is nothing to roll back to")


def _wished(known: dict[int, Release], serving: Release, to: int) -> Target:
    wish = known.get(to)
    place = f"{serving.environment}/{serving.service}"
    if wish is None:
        numbers = ", ".join(f"#{number}" for number in sorted(known, reverse=True)[:10])
        return Target(refusal=f"{place} has no release #{to}; the newest are {numbers}")
    if wish.root == serving.root:
        same = "" if to == serving.number else f" (as #{serving.number})"
        return Target(refusal=f"{wish.label} is live already{same}")
    if not wish.was_live:
        return Target(refusal=f"{wish.label} was never live ({wish.phase}); only a release that served can be restored")
    return _root(known, wish)


def _root(known: dict[int, Release], release: Release) -> Target:
    root = known.get(release.root)
    if root is None:
        return Target(refusal=f"{release.label} restored #{release.root}, which is no longer in the ledger")
    return Target(root)
