"""The lease: one holder, bounded in time, fenced by a growing generation, whatever the clocks say."""

from __future__ import annotations

import pytest

from ops_pipeline.core.lease import Lease
from ops_pipeline.errors import LeaseHeld, StaleGeneration, StoreDamaged, Transient
from ops_pipeline.services.lease import HeldLease, acquire, lease_key, read_lease
from ops_pipeline.services.platform import Platform
from ops_pipeline_tests.fakes.clock import SkewedClock
from ops_pipeline_tests.fakes.platform import Bed


@pytest.fixture
def bed() -> Bed:
    return Bed()


def take(platform: Platform, **arguments: object) -> HeldLease:
    named: dict[str, object] = {"run_id": "run-1", "reason": "deploy of 1.0.0", **arguments}
    return acquire(platform, "prod", "api", **named)  # type: ignore[arg-type]


def record(bed: Bed) -> Lease:
    found = read_lease(bed.platform(), "prod", "api")
    assert found is not None
    return found


def test_it_is_refused_with_holder_run_reason_since_and_until(bed: Bed) -> None:
    with take(bed.platform("alpha:17")), pytest.raises(LeaseHeld) as caught:
        take(bed.platform("beta:2"))
    words = caught.value.message
    for part in ("prod/api", "alpha:17", "run-1", "deploy of 1.0.0", "since 2026-11-21 10:00:00", "until 10:00:30"):
        assert part in words


def test_generations_only_grow_also_over_a_lost_record(bed: Bed) -> None:
    with take(bed.platform()) as first:
        assert first.generation == 1
    with take(bed.platform()) as second:
        assert second.generation == 2
    bed.store.delete(lease_key("prod", "api"))
    with take(bed.platform(), at_least=2) as third:
        assert third.generation == 3


def test_it_is_given_back_at_the_end_and_after_an_error(bed: Bed) -> None:
    with pytest.raises(ZeroDivisionError), take(bed.platform()):
        raise ZeroDivisionError
    assert not record(bed).held(bed.clock.now())
    take(bed.platform("beta:2"))


def test_a_dead_holder_blocks_for_its_term_and_no_longer(bed: Bed) -> None:
    take(bed.platform("dead:1"))  # never entered, never given back
    bed.clock.advance(29.9)
    with pytest.raises(LeaseHeld):
        take(bed.platform("beta:2"))
    bed.clock.advance(0.2)
    with take(bed.platform("beta:2")) as lease:
        assert lease.generation == 2


def test_work_that_lasts_renews_it(bed: Bed) -> None:
    with take(bed.platform("alpha:1")) as lease:
        for _ in range(20):
            bed.clock.advance(11)
            lease.check()
        assert record(bed).held(bed.clock.now())
        with pytest.raises(LeaseHeld):
            take(bed.platform("beta:2"))


def test_a_holder_that_slept_too_long_stops_before_anybody_could_have_taken_over(bed: Bed) -> None:
    with take(bed.platform()) as lease:
        bed.clock.advance(25)
        with pytest.raises(LeaseHeld, match="could not be renewed"):
            lease.check()


def test_a_holder_that_was_taken_over_learns_by_whom(bed: Bed) -> None:
    with take(bed.platform("alpha:1")) as lease:
        bed.clock.advance(31)
        with take(bed.platform("beta:2"), run_id="run-2") as other:
            bed.clock.advance(-31 + 11)  # the sleeper's clock was behind all the time
            with pytest.raises(StaleGeneration, match=r"beta:2 \(run run-2.*generation 2"):
                lease.check()
            other.check()
    assert record(bed).holder == ""


def test_a_store_that_is_away_for_a_moment_does_not_cost_the_lease(bed: Bed) -> None:
    with take(bed.platform()) as lease:

        def away(operation: str, key: str) -> None:
            raise Transient("the store does not answer")

        bed.store.before, usual = away, bed.store.before
        bed.clock.advance(11)
        lease.check()
        bed.store.before = usual
        bed.clock.advance(5)
        lease.check()
        bed.clock.advance(15)
        lease.check()


def test_an_answer_that_got_lost_is_recognised_as_our_own_write(bed: Bed) -> None:
    with take(bed.platform()) as lease:

        def lost(operation: str, key: str) -> None:
            if operation == "write":
                bed.store.after = lambda operation, key: None
                raise Transient("the connection broke")

        bed.store.after = lost
        bed.clock.advance(11)
        lease.check()
        bed.clock.advance(11)
        lease.check()
        assert record(bed).held(bed.clock.now())


def test_waiting_tells_whom_it_waits_for_and_takes_it_when_free(bed: Bed) -> None:
    take(bed.platform("dead:1"))
    lines: list[str] = []
    with take(bed.platform("beta:2"), wait_seconds=60, progress=lines.append) as lease:
        assert lease.generation == 2
    assert len(lines) == 1 and "dead:1" in lines[0]
    assert 30 <= bed.clock.monotonic() <= 32


def test_waiting_ends(bed: Bed) -> None:
    with take(bed.platform("alpha:1")) as lease:
        bed.clock.on_sleep = lambda seconds: lease.check()
        with pytest.raises(LeaseHeld, match="alpha:1"):
            take(bed.platform("beta:2"), wait_seconds=100)
    assert bed.clock.monotonic() >= 100


def test_a_dead_holder_whose_clock_was_ahead_blocks_a_waiter_for_one_term_only(bed: Bed) -> None:
    ahead = SkewedClock(bed.clock, 3600)
    take(bed.platform("dead:1", clock=ahead))
    with take(bed.platform("beta:2"), wait_seconds=60) as lease:
        assert lease.generation == 2
    assert bed.clock.monotonic() <= 32


def test_a_taker_whose_clock_is_ahead_costs_the_holder_its_lease_but_never_two_generations_at_work(bed: Bed) -> None:
    with take(bed.platform("alpha:1")) as lease:
        with take(bed.platform("beta:2", clock=SkewedClock(bed.clock, 60))) as other:
            bed.clock.advance(11)
            with pytest.raises(StaleGeneration):
                lease.check()
            other.check()
        assert other.generation == lease.generation + 1


def test_a_damaged_record_is_named(bed: Bed) -> None:
    bed.store.write(lease_key("prod", "api"), b"not json")
    with pytest.raises(StoreDamaged, match=r"leases/prod/api\.json"):
        take(bed.platform())
