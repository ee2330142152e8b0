"""What to do next, from the journal and the world as it is. Deploy, roll-back and reconcile all run this one table.

`needs` says what has to be looked at, `next_step` decides. A step may carry the journal to write before it is taken.
What is done with a canary between its first user and its last one is in `canary_plan.py`.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from ops_pipeline.core import canary_plan, shifting, succession
from ops_pipeline.core import journal as transitions
from ops_pipeline.core.journal import Journal, Placement, Work, switched_over, wanted
from ops_pipeline.core.judgement.verdict import Outcome
from ops_pipeline.core.release import Phase
from ops_pipeline.core.rollout import Strategy
from ops_pipeline.core.routing import Routing
from ops_pipeline.core.steps import Do, Needs, Probing, Step
from ops_pipeline.core.work_state import (
    due,
    edges_agree,
    faults,
    instances,
    partial_steps,
    pools,
    probing,
    strategy_of,
    take_back,
    turn,
    turn_or_take_back,
    why_not_ready,
)
from ops_pipeline.core.world import World

__all__ = ["STEADY_SECONDS", "Do", "Needs", "Probing", "Step", "needs", "next_step", "settled", "smoke_is_due"]

STEADY_SECONDS = 1.0
"""New replicas stay healthy for this long beside the old ones before traffic goes to them: a crash loop shows."""


QUICK_SECONDS = 3.0
"""For this long after their start new replicas are asked at short intervals."""


def settled(journal: Journal) -> bool:
    """Whether nothing is unfinished, so that nothing needs to be looked at to know it."""
    return journal.work is None and not journal.leaving and not _accusing(journal)


def needs(journal: Journal, now: datetime) -> Needs:
    """Given the journal, return what has to be looked at before `next_step` at the same moment."""
    work = journal.work
    if work is None:
        if not journal.leaving:
            return Needs()
        place = journal.leaving[0]
        if any(place.pool in routing.pools for routing in journal.routing.values()):
            return Needs(connections=place.pool, drains=place.containers)
        return Needs(routing=True)
    if work.undo:
        had_traffic = work.own_containers and work.judged_since is not None
        pool = work.release.pool if had_traffic else ""
        return Needs(routing=True, connections=pool, drains=work.release.number)
    mine = probing(work)
    match work.stage:
        case Phase.PLANNED if work.own_containers:
            return Needs(image=work.release.image)
        case Phase.PLANNED:
            return Needs(probes=(mine,), patient=True)
        case Phase.STARTING:
            return Needs(probes=(mine,))
        case Phase.HEALTHY if _unsteady(work, now) > 0:
            return Needs()
        case Phase.HEALTHY:
            return Needs(probes=(mine,), patient=True)
        case _ if not switched_over(journal):
            canary = bool(partial_steps(journal))
            return Needs(verdict=True, decision=True) if canary else Needs(probes=(mine,), patient=True)
        case _ if _verify_left(work, now) > 0:
            return Needs(verdict=True)
        case _ if work.verify_since is not None:
            return Needs(routing=True, probes=(mine,), route=True, patient=True, verdict=True)
        case _:
            smoke = bool(work.release.rollout.smoke)
            return Needs(routing=True, probes=(mine,), route=True, patient=True, smoke=smoke)


def next_step(journal: Journal, world: World, now: datetime, *, keep_standby: bool = True) -> Step:
    """Given the journal and what `needs` asked for, return the next step. `DONE` = no unfinished work is left."""
    work = journal.work
    if work is None:
        return _tidy(journal, world, now)
    if work.undo:
        return _undo(journal, work, world, now)
    if world.unreachable:
        host, why = next(iter(world.unreachable.items()))
        return turn(journal, f"host {host} does not answer: {why}", now)
    match work.stage:
        case Phase.PLANNED:
            return _prepare(journal, work, world, now) if work.own_containers else _wake(journal, work, world, now)
        case Phase.STARTING:
            return _start(journal, work, world, now)
        case Phase.HEALTHY:
            return _shift(journal, work, world, now)
        case _ if switched_over(journal):
            verified = work.verify_since is not None
            return (_watch if verified else _verify)(journal, work, world, now, keep_standby)
        case _ if partial_steps(journal):
            return canary_plan.judge(journal, world, now)
        case _:
            return _next_replica(journal, work, world, now)


def smoke_is_due(journal: Journal, world: World) -> bool:
    """Whether all else is well with a release that everybody is sent to, so that its smoke tests tell something."""
    return not (why_not_ready(journal, world) or world.route_faults) and edges_agree(journal, world)


def _prepare(journal: Journal, work: Work, world: World, now: datetime) -> Step:
    if world.without_image:
        hosts = tuple(host for host in world.hosts if host in world.without_image)
        return Step(Do.PULL, f"pull {work.release.image} on {', '.join(hosts)}", hosts=hosts)
    return _begin_replicas(journal, work, 0, world, now)


def _next_replica(journal: Journal, work: Work, world: World, now: datetime) -> Step:
    """A rolling release with a share of the traffic: what serves must be well before the next replica starts."""
    fault = why_not_ready(journal, world)
    if fault:
        return turn_or_take_back(journal, world, f"no longer healthy with its share of the traffic: {fault}", now)
    return _begin_replicas(journal, work, work.step + 1, world, now)


def _begin_replicas(journal: Journal, work: Work, index: int, world: World, now: datetime) -> Step:
    number, count, hosts = work.release.number, work.release.configuration.replicas, ", ".join(world.hosts)
    rolling = strategy_of(journal) is Strategy.ROLLING and count > 1
    what = f"replica {index + 1} of {count} of" if rolling else f"{count} x"
    text = f"start {what} #{number} on {hosts}"
    then = shifting.replica_begun(journal, index, now, text)
    return Step(Do.START, text, then, number, replicas=world.missing(number, due(then)))


def _start(journal: Journal, work: Work, world: World, now: datetime) -> Step:
    release, count = work.release, due(journal)
    fault = faults(work, world)
    if fault:
        return turn_or_take_back(journal, world, fault, now)
    missing = world.missing(release.number, count)
    if missing:
        return Step(Do.START, f"start #{release.number} again where it is missing", None, release.number, (), missing)
    silent = world.why_not_ready(release.number, count)
    if silent:
        limit = release.configuration.start_timeout_seconds
        if (now - work.entered).total_seconds() > limit:
            return turn(journal, f"not healthy within {limit:g} s: {silent}", now)
        return Step(Do.WAIT, f"waiting: {silent}", wait_seconds=_pause(now - work.entered))
    if work.judged_since is not None:  # a share of the traffic goes to the replicas before it: it must not join yet
        text = f"replica {count} of #{release.number} is healthy on {', '.join(world.hosts)}"
        return Step(Do.RECORD, text, transitions.advanced(journal, Phase.HEALTHY, now, text, told=False))
    pool = pools(journal, world)
    routing = {host: transitions.with_pool(wanted(journal, host), release.pool, pool[host]) for host in world.hosts}
    text = f"#{release.number} is healthy; pool {release.pool} joins the edge without traffic"
    then = transitions.advanced(journal, Phase.HEALTHY, now, text, routing=routing, instances=instances(work, world))
    return Step(Do.ROUTE, text, then)


def _wake(journal: Journal, work: Work, world: World, now: datetime) -> Step:
    """A return to the warm standby: nothing to start or to join, but its health is asked before traffic goes there."""
    fault = why_not_ready(journal, world)
    if fault:
        return turn(journal, f"the standby is not healthy: {fault}", now)
    return _switch(journal, work, {host: wanted(journal, host) for host in world.hosts}, world, now)


def _shift(journal: Journal, work: Work, world: World, now: datetime) -> Step:
    left = _unsteady(work, now)
    number, hosts, pool = work.release.number, ", ".join(world.hosts), pools(journal, world)
    if left > 0:
        return Step(Do.WAIT, f"#{number} has to stay healthy for {STEADY_SECONDS:g} s", wait_seconds=left)
    fault = why_not_ready(journal, world)
    if fault:
        return turn_or_take_back(journal, world, f"no longer healthy before the switch: {fault}", now)
    count = work.release.configuration.replicas
    steps = partial_steps(journal)
    if steps:
        text = f"{steps[0].weight} % of the users get #{number} on {hosts}"
        return Step(Do.ROUTE, text, shifting.shared(journal, pool, steps[0].weight, now, text, step=0))
    if due(journal) < count:
        share = min(max(round(100 * due(journal) / count), 1), 99)
        text = f"{due(journal)} of {count} replicas of #{number} take {share} % of the users on {hosts}"
        then = shifting.shared(journal, pool, share, now, text, step=work.step, instances=instances(work, world))
        return Step(Do.ROUTE, text, then)
    routing = {host: wanted(journal, host) for host in world.hosts}
    if work.own_containers:
        routing = {host: transitions.with_pool(routing[host], work.release.pool, pool[host]) for host in routing}
    return _switch(journal, work, routing, world, now)


def _switch(journal: Journal, work: Work, routing: dict[str, Routing], world: World, now: datetime) -> Step:
    text = f"switch to pool {work.release.pool} (#{work.release.number}) on {', '.join(world.hosts)}"
    return Step(Do.ROUTE, text, shifting.given_all(journal, routing, now, text))


def _verify(journal: Journal, work: Work, world: World, now: datetime, keep_standby: bool) -> Step:
    fault = why_not_ready(journal, world)
    if fault:
        return turn_or_take_back(journal, world, f"not healthy after the switch: {fault}", now)
    unrouted = _unrouted(journal, work, world, now)
    if unrouted is not None:
        return unrouted
    if world.smoke_faults:
        return turn(journal, "smoke tests failed: " + "; ".join(world.smoke_faults), now)
    seconds = work.release.rollout.verify_seconds
    if seconds > 0 and journal.live is not None:  # a first release has nothing better to go back to
        text = f"#{work.release.number} answers on {', '.join(world.hosts)} and is judged for {seconds:g} s"
        return Step(Do.RECORD, text, shifting.verifying(journal, now, text))
    return _commit(journal, work, world, now, keep_standby)


def _unrouted(journal: Journal, work: Work, world: World, now: datetime) -> Step | None:
    """What to do about edges that do not send everybody to the release, or get bad answers from it."""
    if not edges_agree(journal, world):
        return Step(Do.ROUTE, f"finish the switch to pool {work.release.pool} on every edge")
    if world.route_faults:
        met = "; ".join(f"through the edge of {host}: {why}" for host, why in world.route_faults.items())
        return turn(journal, met, now)
    return None


def _watch(journal: Journal, work: Work, world: World, now: datetime, keep_standby: bool) -> Step:
    """After the switch and the tests: only what speaks against the release stops it from counting as live."""
    fault = why_not_ready(journal, world)
    if fault:
        return turn_or_take_back(journal, world, f"not healthy after the switch: {fault}", now)
    verdict = world.verdict
    if verdict is not None and verdict.outcome is Outcome.FAIL and not verdict.incident:
        return take_back(journal, verdict, now)
    seen = journal if verdict is None else shifting.observed(journal, verdict, now)
    left = _verify_left(work, now)
    if left <= 0:  # looked at as a whole once more: an edge may have gone meanwhile
        return _unrouted(seen, work, world, now) or _commit(seen, work, world, now, keep_standby)
    text = f"#{work.release.number} has all users and is watched"
    detail = f"100 %: {verdict.reason if verdict is not None else 'no verdict yet'}; {left:.0f} s more"
    wait = min(canary_plan.LOOK_SECONDS, left)
    return Step(Do.WAIT, text, None if seen is journal else seen, wait_seconds=wait, detail=detail)


def _commit(journal: Journal, work: Work, world: World, now: datetime, keep_standby: bool) -> Step:
    then = succession.committed(journal, now, keep_standby=keep_standby, instances=instances(work, world))
    return Step(Do.RECORD, f"#{work.release.number} is live on {', '.join(world.hosts)}", then)


def _undo(journal: Journal, work: Work, world: World, now: datetime) -> Step:
    if not edges_agree(journal, world):
        return Step(Do.ROUTE, f"return every edge to the routing before #{work.release.number}")
    number = work.release.number
    if work.blame is not None and not work.accused:
        then = transitions.accused(journal, now)
        return Step(Do.RECORD, then.lines[-1].text, then)
    if work.own_containers and world.of(number):
        left = work.release.configuration.drain_seconds - (now - (work.undo_since or now)).total_seconds()
        if world.connections and left > 0:
            return _drain(number, world, left)
        grace = work.release.configuration.stop_grace_seconds
        return _remove(f"remove the containers of #{number}", None, number, world, grace)
    if world.unreachable:
        return _blocked(f"#{number} is undone everywhere else", world)
    return Step(Do.RECORD, f"#{number} is undone", transitions.closed(journal, now))


def _tidy(journal: Journal, world: World, now: datetime) -> Step:
    accusing = _accusing(journal)
    if accusing:
        # Written once more, so that a quarantine a person lifts later is not brought back by a take-over.
        text = f"{accusing[:19]} is in quarantine"
        return Step(Do.RECORD, text, transitions.noted(journal, now, text))
    if not journal.leaving:
        return Step(Do.DONE, "nothing is unfinished")
    return _leave(journal, journal.leaving[0], world, now)


def _leave(journal: Journal, place: Placement, world: World, now: datetime) -> Step:
    left = place.configuration.drain_seconds - (now - place.since).total_seconds()
    there = world.of(place.containers)
    if there and world.connections and left > 0:
        return _drain(place.release, world, left)
    if there:
        text = f"stop and remove the containers of #{place.release}"
        grace = place.configuration.stop_grace_seconds
        then = transitions.noted(journal, now, text)
        return _remove(text, then, place.containers, world, grace)
    if world.unreachable:
        return _blocked(f"#{place.release} has left everywhere else", world)
    if any(place.pool in routing.pools for routing in journal.routing.values()):
        text = f"pool {place.pool} (#{place.release}) leaves the edge"
        return Step(Do.ROUTE, text, succession.pool_dropped(journal, place.pool, now, text))
    if not edges_agree(journal, world):
        return Step(Do.ROUTE, f"pool {place.pool} leaves the edge")
    return Step(Do.RECORD, f"#{place.release} is retired", succession.retired(journal, place, now))


def _drain(release: int, world: World, left: float) -> Step:
    text = f"#{release} drains: {world.connections} connections, at most {left:.0f} s more"
    return Step(Do.WAIT, text, wait_seconds=min(1.0, left))


def _remove(text: str, then: Journal | None, release: int, world: World, grace: float) -> Step:
    # Hosts that do not answer show no replicas: nothing is removed where the edge could not be told first.
    containers = tuple((replica.host, replica.id) for replica in world.of(release))
    return Step(Do.REMOVE, text, then, release, containers=containers, grace_seconds=grace)


def _blocked(text: str, world: World) -> Step:
    hosts = "; ".join(f"host {host} does not answer: {why}" for host, why in world.unreachable.items())
    return Step(Do.BLOCKED, f"{text}, but {hosts}")


def _verify_left(work: Work, now: datetime) -> float:
    """Seconds for which a release that everybody is sent to is still judged before it counts as live."""
    if work.verify_since is None:
        return 0.0
    return work.release.rollout.verify_seconds - (now - work.verify_since).total_seconds()


def _pause(since: timedelta) -> float:
    """Seconds until new replicas are asked again: most are ready soon, and the others cost the edge less."""
    return 0.05 if since.total_seconds() < QUICK_SECONDS else 0.25


def _unsteady(work: Work, now: datetime) -> float:
    """Seconds for which new replicas still have to stay healthy before traffic may go to them."""
    passed = (now - work.entered).total_seconds()
    return STEADY_SECONDS - passed if work.own_containers and passed >= 0 else 0.0


def _accusing(journal: Journal) -> str:
    """The digest that the newest line sends into quarantine; "" = none."""
    return next((change.quarantine for change in journal.outbox if change.quarantine), "")
