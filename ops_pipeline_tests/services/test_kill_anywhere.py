"""A controller killed between any two calls to the world; another one reconciles.

Watched all the time by a model: whoever asks the edge gets an answer from a release whose containers are healthy.
Afterwards: one consistent state, no orphan container, the lease free after its term.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from ops_pipeline.core.release import Phase, Release
from ops_pipeline.errors import DeployFailed, LeaseHeld
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.ledger import read_current, releases
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.reconcile import reconcile
from ops_pipeline.services.rollback import roll_back
from ops_pipeline.services.status import status
from ops_pipeline_tests.fakes.platform import Bed, Killed, Lifeline, healthy, quiet

ENVIRONMENT, SERVICE = "prod", "api"
Verb = Callable[[Platform], Release]

STRIDE = int(os.environ.get("OPS_KILL_STRIDE", "3"))
"""Between two journal lines every third call is a death, after a journal line always; 1 = every call."""


def deploy_it(platform: Platform) -> Release:
    return deploy(platform, ENVIRONMENT, SERVICE, progress=quiet, run_id="run-a", who="ann")


def back(platform: Platform) -> Release:
    return roll_back(platform, ENVIRONMENT, SERVICE, progress=quiet, run_id="run-a")


def back_to_first(platform: Platform) -> Release:
    return roll_back(platform, ENVIRONMENT, SERVICE, to=1, progress=quiet, run_id="run-a")


def world() -> Bed:
    """Three releases made: #3 live, #2 standby, #1 retired; a fourth image waits."""
    bed = Bed()
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        bed.image(version)
        deploy_it(bed.platform())
    bed.image("4.0.0")
    return bed


def assert_consistent(bed: Bed) -> None:
    """What must hold once nothing is unfinished."""
    platform = bed.platform("check:1")
    journal = read_journal(platform, ENVIRONMENT, SERVICE)
    assert journal.work is None and journal.leaving == ()
    live = journal.live
    assert live is not None
    known = {release.number: release for release in releases(bed.store, ENVIRONMENT, SERVICE)}
    assert sorted(known) == list(range(1, journal.last_number + 1)), "numbers are given out once, without a gap"
    assert known[live.release].phase is Phase.LIVE
    assert [number for number, release in known.items() if release.phase is Phase.LIVE] == [live.release]
    unfinished = {Phase.PLANNED, Phase.STARTING, Phase.HEALTHY, Phase.SHIFTING}
    assert not [release.label for release in known.values() if release.phase in unfinished]
    current = read_current(bed.store, ENVIRONMENT, SERVICE)
    assert current is not None and (current.number, current.digest) == (live.release, known[live.release].digest)
    owned = {place.containers for place in journal.placements}
    numbers = {int(name.split("-")[3]) for _, name, _ in bed.containers()}
    assert numbers == owned, "no orphan, nothing missing"
    assert all(state == "running" for _, _, state in bed.containers())
    for edge in bed.edges[ENVIRONMENT]:
        routing = edge.routings[SERVICE]
        assert routing.live == live.pool
        assert set(routing.pools) == {place.pool for place in journal.placements}
    (seen,) = status(platform, ENVIRONMENT, SERVICE)
    assert seen.healthy and not seen.unfinished and not seen.working, seen


def run_to_its_death(
    verb: Verb, die_at: int, counts: Callable[[str], bool], make: Callable[[], Bed] = world
) -> tuple[Bed, bool, str]:
    """The world after `verb` was killed at its `die_at`-th call, whether it was, and the call it did not make."""
    bed = make()
    bad: list[str] = []

    def watch(call: str) -> None:
        if not healthy(bed.ask()):
            bad.append(f"after {call}: {bed.ask()}")

    lifeline = Lifeline(die_at, counts, watch)
    killed = False
    try:
        verb(bed.platform("doomed:1", lifeline=lifeline))
    except Killed:
        killed = True
    except DeployFailed:
        killed = False
    assert not bad, bad[:3]
    assert healthy(bed.ask())
    return bed, killed, lifeline.calls[-1] if lifeline.calls else ""


def recover(bed: Bed) -> None:
    bad: list[str] = []

    def watch(call: str) -> None:
        if not healthy(bed.ask()):
            bad.append(f"after {call}: {bed.ask()}")

    second = bed.platform("second:1", lifeline=Lifeline(after_each=watch))
    report = reconcile(second, ENVIRONMENT, SERVICE, progress=quiet, run_id="run-b")
    assert report.settled, report
    assert not bad, bad[:3]
    assert healthy(bed.ask())


def everything(call: str) -> bool:
    return True


def journal_writes(call: str) -> bool:
    return call.startswith("store.write journal/")


@pytest.mark.parametrize("verb", [deploy_it, back, back_to_first], ids=["deploy", "back", "back to #1"])
@pytest.mark.parametrize("counts", [everything, journal_writes], ids=["every call", "every journal line"])
def test_killed_anywhere_and_reconciled(verb: Verb, counts: Callable[[str], bool]) -> None:
    die_at, ends = 0, set()
    while True:
        die_at += STRIDE if counts is everything else 1
        bed, killed, last = run_to_its_death(verb, die_at, counts)
        if not killed:
            break
        lease_blocks = False
        try:
            recover(bed)
        except LeaseHeld:
            lease_blocks = True
            bed.clock.advance(30.1)
            recover(bed)
        assert_consistent(bed)
        ends.add((read_journal(bed.platform(), ENVIRONMENT, SERVICE).live or _nothing()).release)
        # The very next deploy works, whatever was left.
        made = deploy(bed.platform("third:1"), ENVIRONMENT, SERVICE, progress=quiet, force=True)
        assert made.phase is Phase.LIVE, (last, lease_blocks)
        assert_consistent(bed)
    assert die_at > (50 if counts is everything else 4)
    assert ends == {3, 4}, "killed early it is undone, killed late it is finished"


def _nothing() -> object:
    raise AssertionError("nothing is live")


@pytest.mark.parametrize("verb", [deploy_it, back_to_first], ids=["deploy", "back to #1"])
def test_the_next_deploy_recovers_as_well_as_reconcile(verb: Verb) -> None:
    die_at = 0
    while True:
        die_at += 1
        bed, killed, _ = run_to_its_death(verb, die_at, journal_writes)
        if not killed:
            break
        bed.clock.advance(30.1)
        bed.image("5.0.0")
        bad: list[str] = []
        lifeline = Lifeline(after_each=lambda call, bed=bed, bad=bad: None if healthy(bed.ask()) else bad.append(call))  # type: ignore[misc]
        made = deploy(bed.platform("next:1", lifeline=lifeline), ENVIRONMENT, SERVICE, progress=quiet)
        assert made.version == "5.0.0" and not bad
        assert_consistent(bed)


def test_killed_while_reconciling_what_was_killed() -> None:
    """Twice dead: the second controller is killed at every call of its recovery."""
    for first_death in (4, 7):
        second_death = 0
        while True:
            second_death += STRIDE
            bed, killed, _ = run_to_its_death(deploy_it, first_death, journal_writes)
            assert killed
            bed.clock.advance(30.1)
            lifeline = Lifeline(second_death, after_each=lambda call: None)
            try:
                reconcile(bed.platform("second:1", lifeline=lifeline), ENVIRONMENT, SERVICE, progress=quiet)
            except Killed:
                assert healthy(bed.ask())
                bed.clock.advance(30.1)
                recover(bed)
                assert_consistent(bed)
                continue
            break
        assert second_death > 10


@pytest.mark.parametrize("raised", [KeyboardInterrupt])
def test_an_interruption_undoes_and_passes_on(raised: type[BaseException]) -> None:
    """Ctrl-C or Dagster's termination at any call: the process still lives, undoes its work and ends."""
    fatal = 0
    while True:
        fatal += STRIDE
        bed = world()
        numbers = count(1)
        bad: list[str] = []
        interrupted: list[str] = []

        def interrupt(
            call: str,
            numbers: Iterator[int] = numbers,
            bed: Bed = bed,
            bad: list[str] = bad,
            interrupted: list[str] = interrupted,
        ) -> None:
            if not healthy(bed.ask()):
                bad.append(call)
            # The forecast is made by a thread that nobody waits for for long: what is raised there nobody hears of.
            heard = threading.current_thread().name != "forecast"
            if next(numbers) >= fatal and heard and not interrupted:  # noqa: B023 - used within this round only
                interrupted.append(call)
                raise raised

        lifeline = Lifeline(after_each=interrupt)
        try:
            deploy_it(bed.platform("interrupted:1", lifeline=lifeline))
        except raised:
            assert not bad
            journal = read_journal(bed.platform(), ENVIRONMENT, SERVICE)
            if journal.work is None and not journal.leaving:
                bed.clock.advance(0.1)
            else:
                # Interrupted between a write and its answer, or while tidying up: what is left is for reconcile.
                bed.clock.advance(30.1)
            bed.clock.advance(30.1)
            recover(bed)
            assert_consistent(bed)
            continue
        break
    assert fatal > 60
