"""The tick of the watch, and the run before it, killed anywhere."""

from __future__ import annotations

from typing import Any

import pytest

from ops_pipeline.core.judgement.verdict import Outcome
from ops_pipeline.core.watch_decision import Act
from ops_pipeline.services.attention import attention
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.flags import flag_states
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.judged_rollback import roll_back_judged
from ops_pipeline.services.ledger import find_quarantine, read_current
from ops_pipeline.services.reconcile import reconcile
from ops_pipeline.services.watch import Memory
from ops_pipeline.services.watches import list_watches
from ops_pipeline_tests.fakes.platform import Killed, Lifeline, healthy, quiet
from ops_pipeline_tests.services.watching import API, FLAGS, Desk


def everything(call: str) -> bool:
    return True


@pytest.mark.parametrize("flags", [{}, FLAGS], ids=["roll-back", "flag first"])
def test_killed_anywhere_the_next_ticks_end_in_the_same_state(flags: dict[str, Any]) -> None:
    ended: list[tuple[object, ...]] = []
    die_at = 0
    while True:
        die_at += 1
        desk = Desk(flags=flags)
        desk.ship("1.0.0")
        desk.bed.clock.advance(3600)
        desk.ship("2.0.0")
        desk.says(Outcome.FAIL)
        bad: list[str] = []

        def served(call: str, desk: Desk = desk, bad: list[str] = bad) -> None:
            if not healthy(desk.bed.ask()):
                bad.append(call)

        killed = False
        try:
            desk.tick(lifeline=Lifeline(die_at, everything, served))
        except Killed:
            killed = True
        wanted = set()
        for _ in range(6):
            desk.memory = Memory()
            for done in desk.tick(lifeline=Lifeline(after_each=served)):
                if done.wants_run:
                    wanted.add(done.run_key)
                    if done.act is Act.ASK and not read_journal(desk.bed.platform(), *API).work:
                        roll_back_judged(desk.bed.platform("run:1"), *API, done.release, progress=quiet)
            desk.bed.clock.advance(31)
            if read_journal(desk.bed.platform(), *API).work:
                reconcile(desk.bed.platform("drift:1"), *API, progress=quiet)
        assert not bad, (die_at, bad[:3])
        end: tuple[object, ...] = (
            desk.bed.ask(),
            desk.release(2).phase,
            desk.release(desk.live()).root,
            find_quarantine(desk.bed.store, desk.release(2).digest) is not None,
            [state.on for state in flag_states(desk.bed.platform(), "prod")],
            list_watches(desk.bed.platform()),
        )
        ended.append(end)
        assert wanted, f"killed at call {die_at}, nobody ever saw it in the UI"
        current = read_current(desk.bed.store, *API)
        assert current is not None and current.number == desk.live()
        if not killed:
            break
    assert die_at > 15
    for number, end in enumerate(ended, 1):
        assert end == ended[-1], f"killed at call {number}"


def store_writes(call: str) -> bool:
    return call.startswith("store.write ")


def test_a_release_whose_run_was_killed_before_it_was_watched_is_noticed_and_then_watched() -> None:
    unwatched, die_at = 0, 0
    while True:
        die_at += 1
        made = Desk()
        made.ship("1.0.0")
        made.bed.image("2.0.0")
        try:
            deploy(made.bed.platform("doomed:1", lifeline=Lifeline(die_at, store_writes)), *API, progress=quiet)
        except Killed:
            made.bed.clock.advance(31)
            if made.live() == 2 and 2 not in {watch.release for watch in list_watches(made.bed.platform())}:
                unwatched += 1
                found = attention(made.bed.platform(), *API)
                assert found is not None and "ended before what it had made live was recorded" in found.reason
                reconcile(made.bed.platform("drift:1"), *API, progress=quiet)
            if made.live() == 2:
                assert made.only().label == "prod/api #2"
                assert attention(made.bed.platform(), *API) is None
            continue
        break
    assert unwatched
