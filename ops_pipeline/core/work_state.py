"""How the release being made stands: by what strategy, how many replicas are due, what is wrong with them, who is to
blame."""

from __future__ import annotations

from datetime import datetime

from ops_pipeline.core import journal as transitions
from ops_pipeline.core.journal import Journal, Work, containers_of, same_routing, wanted, weight, work_of
from ops_pipeline.core.judgement.verdict import Outcome, Verdict
from ops_pipeline.core.release import Action, Instance
from ops_pipeline.core.rollout import CanaryStep, Strategy
from ops_pipeline.core.routing import Pool, Routing
from ops_pipeline.core.steps import Do, Probing, Step
from ops_pipeline.core.world import World


def strategy_of(journal: Journal) -> Strategy:
    """How traffic moves to the release being made. The first release of a service, and a roll-back, switch at once."""
    work = work_of(journal)
    gradual = work.own_containers and journal.live is not None and work.release.action is not Action.ROLLBACK
    return work.release.rollout.strategy if gradual else Strategy.BLUE_GREEN


def due(journal: Journal) -> int:
    """Replicas per host that ought to be there by now."""
    work = work_of(journal)
    count = work.release.configuration.replicas
    return min(work.step + 1, count) if strategy_of(journal) is Strategy.ROLLING else count


def partial_steps(journal: Journal) -> tuple[CanaryStep, ...]:
    """Steps of a canary before everybody gets it; empty for other strategies."""
    if strategy_of(journal) is not Strategy.CANARY:
        return ()
    steps: list[CanaryStep] = []
    for step in work_of(journal).release.rollout.steps:
        if step.weight >= 100:
            break
        steps.append(step)
    return tuple(steps)


def probing(work: Work) -> Probing:
    """How the replicas of the release being made are asked for their health."""
    configuration = work.release.configuration
    return Probing(containers_of(work), configuration.port, configuration.health_path)


def faults(work: Work, world: World) -> str:
    """What containers started for this work did wrong, restarts included; those of a warm standby may have a past."""
    if not work.own_containers:
        return ""
    return "; ".join(replica.fault for replica in world.of(work.release.number) if replica.fault)


def why_not_ready(journal: Journal, world: World) -> str:
    """Why the replicas that are due could not all serve; "" = they could. They must have been probed."""
    work = work_of(journal)
    return faults(work, world) or world.why_not_ready(containers_of(work), due(journal))


def crashed(journal: Journal, world: World) -> str:
    """What ended by itself among the replicas of a release that gets traffic; "" = nothing, or nothing to blame it for.

    A first release has nothing to go back to, and one whose controller died may have met the same end as that.
    """
    work = work_of(journal)
    if not work.own_containers or work.judged_since is None or work.resumed or journal.live is None:
        return ""
    mine = world.of(work.release.number)
    return "; ".join(replica.ended for replica in mine if replica.ended and replica.key not in world.stopped)


def edges_agree(journal: Journal, world: World) -> bool:
    """Whether every edge that answers routes as wanted."""
    return all(
        same_routing(world.routing.get(host, Routing()), wanted(journal, host))
        for host in world.hosts
        if host not in world.unreachable
    )


def pools(journal: Journal, world: World) -> dict[str, Pool]:
    """The pool of the release being made on every host, of the replicas that are due."""
    release = work_of(journal).release
    port = release.configuration.port
    return {host: world.pool(release.number, release.number, host, port, due(journal)) for host in world.hosts}


def instances(work: Work, world: World) -> tuple[Instance, ...]:
    """The containers of the release being made, for its manifest."""
    port = work.release.configuration.port
    return tuple(Instance(r.host, r.name, r.address, port) for r in world.of(containers_of(work)))


def turn(journal: Journal, reason: str, now: datetime) -> Step:
    """Undo from here on. Where traffic has not moved, the edges may be equal already and nothing is applied."""
    return Step(Do.ROUTE, f"undo: {reason}", transitions.withdrawn(journal, reason, now))


def take_back(journal: Journal, verdict: Verdict, now: datetime) -> Step:
    """Undo from here on because of a verdict."""
    share = weight(journal)
    where = f" with {share} % of the users" if 0 < share < 100 else ""
    reason = f"bad{where}: {verdict.reason}"
    return Step(Do.ROUTE, f"roll back: {reason}", transitions.withdrawn(journal, reason, now, blame=verdict))


def turn_or_take_back(journal: Journal, world: World, fault: str, now: datetime) -> Step:
    """Undo because of a fault: with blame when a replica that had traffic crashed, which is a hard rule."""
    crash = crashed(journal, world)
    return take_back(journal, crash_verdict(journal, crash, now), now) if crash else turn(journal, fault, now)


def crash_verdict(journal: Journal, crash: str, now: datetime) -> Verdict:
    """The verdict on a crash seen in the list of containers; it needs no measurements."""
    work, live = work_of(journal), journal.live
    return Verdict(
        outcome=Outcome.FAIL,
        reason=crash,
        at=now,
        since=work.judged_since or now,
        release=containers_of(work),
        stable=None if live is None else live.containers,
    )
