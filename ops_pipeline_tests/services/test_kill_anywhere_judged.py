"""A controller killed between any two calls while a release is rolling, a canary, resting or being taken back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from ops_pipeline.core.judgement.verdict import Outcome, Verdict
from ops_pipeline.core.release import Phase, Release
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.journal import read_journal
from ops_pipeline.services.ledger import find_quarantine, releases
from ops_pipeline.services.platform import Platform
from ops_pipeline.services.quarantine import lift
from ops_pipeline.services.rollback import roll_back
from ops_pipeline.services.verdicts import Decision, decide
from ops_pipeline.services.watches import read_watch
from ops_pipeline_tests.fakes.platform import Bed, catalogue, quiet
from ops_pipeline_tests.fakes.runtime import Behaviour
from ops_pipeline_tests.services.shipping import settings_of_services
from ops_pipeline_tests.services.test_kill_anywhere import (
    ENVIRONMENT,
    SERVICE,
    assert_consistent,
    deploy_it,
    journal_writes,
    recover,
    run_to_its_death,
)

STEPS = ({"weight": 10, "min_seconds": 1}, {"weight": 50, "min_seconds": 1}, {"weight": 100})
PAUSING = ({"weight": 10, "min_seconds": 1, "pause": True}, {"weight": 100})


def world(behaviour: Behaviour | None = None, **api: object) -> Bed:
    """Three releases made by blue-green: #3 live, #2 standby, #1 retired; a fourth image waits, `api` changed so."""
    bed = Bed()
    bed.users(100)
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        bed.image(version)
        deploy(bed.platform(), ENVIRONMENT, SERVICE, progress=quiet)
    services = settings_of_services()
    bed.catalogue = catalogue(services={**services, "api": {**services["api"], **api}})
    bed.image("4.0.0", behaviour)
    bed.clock.advance(30)
    return bed


def good_canary() -> Bed:
    return world(strategy="canary", canary=STEPS, verify={"seconds": 2})


def bad_canary() -> Bed:
    return world(Behaviour(errors=0.5), strategy="canary", canary=STEPS)


def rolling() -> Bed:
    return world(strategy="rolling", verify={"seconds": 2})


def resting_canary() -> Bed:
    """Prometheus goes away ten seconds after the first users came, for longer than `blind_seconds`."""
    bed = good_canary()
    begin = bed.clock.monotonic()

    def script(seconds: float) -> None:
        bed.metrics.down = "connection refused" if 10 <= bed.clock.monotonic() - begin < 90 else ""

    bed.clock.on_sleep = script
    return bed


def waiting_canary() -> Bed:
    """Somebody says go, long after it began to wait for that."""
    bed = world(strategy="canary", canary=PAUSING)
    begin, said = bed.clock.monotonic(), []

    def script(seconds: float) -> None:
        if bed.clock.monotonic() - begin > 100 and not said:
            said.append(True)
            decide(bed.platform(), ENVIRONMENT, SERVICE, Decision(4, 0, True, "ann", "", bed.clock.now()))

    bed.clock.on_sleep = script
    return bed


ASKS = ("containers", "probe", "probe_route", "observe", "connections", "has_image", "addresses", "check", "exits")


def changes(call: str) -> bool:
    """Calls that change something: dying before a question is dying before the next change."""
    port, _, name = call.partition(".")
    return name.startswith(("write", "delete")) if port == "store" else name not in ASKS


WORLDS: dict[str, tuple[Callable[[], Bed], Callable[[str], bool]]] = {
    "canary": (good_canary, changes),
    "rolling": (rolling, changes),
    "canary that rests": (resting_canary, journal_writes),
    "canary that waits for a person": (waiting_canary, journal_writes),
}


@pytest.mark.parametrize("case", WORLDS)
def test_killed_anywhere_and_reconciled(case: str) -> None:
    """Killed before it has everybody it is undone and not blamed; after that it is finished."""
    make, counts = WORLDS[case]
    die_at, ends, shares = 0, set(), set()
    while True:
        die_at += 1
        bed, killed, _ = run_to_its_death(deploy_it, die_at, counts, make)
        if not killed:
            break
        shares.add(bed.edges[ENVIRONMENT][0].routings[SERVICE].weight)
        bed.clock.on_sleep, bed.metrics.down = (lambda seconds: None), ""
        bed.clock.advance(30.1)
        recover(bed)
        assert_consistent(bed)
        live = read_journal(bed.platform(), ENVIRONMENT, SERVICE).live
        assert live is not None
        ends.add(live.release)
        watch = read_watch(bed.platform(), ENVIRONMENT, SERVICE)
        assert watch is not None and watch.release == live.release, "no release is live and unwatched"
        assert not [key for key in bed.store.objects if key.startswith("quarantine/")]
        standby = read_journal(bed.platform(), ENVIRONMENT, SERVICE).standby
        assert standby is not None and standby.release == (3 if live.release == 4 else 2), "the standby is not lost"
    assert ends == {3, 4}
    assert shares == {"canary": {0, 10, 50}, "rolling": {0, 50}}.get(case, {0, 10} if "waits" in case else {0, 10, 50})


def test_a_bad_canary_killed_anywhere_is_gone_and_its_quarantine_is_neither_lost_nor_made_up() -> None:
    die_at, phases = 0, set()
    while True:
        die_at += 1
        bed, killed, _ = run_to_its_death(deploy_it, die_at, changes, bad_canary)
        accused = any("goes into quarantine" in line.text for line in _journal_lines(bed))
        if killed:
            bed.clock.advance(30.1)
            recover(bed)
        assert_consistent(bed)
        known = {release.number: release for release in releases(bed.store, ENVIRONMENT, SERVICE)}
        if 4 in known:
            bad = known[4]
            phases.add(bad.phase)
            kept = find_quarantine(bed.store, bad.digest)
            assert (kept is not None) is (bad.phase is Phase.ROLLED_BACK)
            assert not accused or kept is not None
        if not killed:
            break
    assert phases == {Phase.FAILED, Phase.ROLLED_BACK}


def _journal_lines(bed: Bed) -> tuple[object, ...]:
    return read_journal(bed.platform("reader:1"), ENVIRONMENT, SERVICE).lines


def back_by_itself(platform: Platform) -> Release:
    now = platform.clock.now()
    verdict = Verdict(Outcome.FAIL, "300 of 900 requests failed", now, now - timedelta(seconds=60), 3, 2)
    return roll_back(
        platform, ENVIRONMENT, SERVICE, automatic=True, verdict=verdict, progress=quiet, run_id="run-a", who="sensor"
    )


@pytest.mark.parametrize("standby", ["warm", "broken"])
def test_an_automatic_roll_back_killed_anywhere_quarantines_if_and_only_if_it_went_back(standby: str) -> None:
    def make() -> Bed:
        bed = world()
        if standby == "broken":
            bed.runtimes[ENVIRONMENT][1].breaks("ops-prod-api-2-1", "exited")
        return bed

    die_at, ends = 0, set()
    while True:
        die_at += 1
        bed, killed, _ = run_to_its_death(back_by_itself, die_at, changes, make)
        if killed:
            bed.clock.advance(30.1)
            recover(bed)
        journal = read_journal(bed.platform(), ENVIRONMENT, SERVICE)
        known = {release.number: release for release in releases(bed.store, ENVIRONMENT, SERVICE)}
        assert journal.live is not None and journal.work is None
        went = journal.live.release == 4
        ends.add(went)
        bad = known[3]
        kept = find_quarantine(bed.store, bad.digest)
        assert (kept is not None) is went is (bad.phase is Phase.ROLLED_BACK)
        watch = read_watch(bed.platform(), ENVIRONMENT, SERVICE)
        assert (watch is None) is went, "a roll-back is not watched, and what it left is not either"
        if went:
            assert_consistent(bed)
            assert kept is not None and kept.evidence is not None and kept.evidence.outcome is Outcome.FAIL
            assert known[4].automatic and known[4].rollout.verify_seconds == 0 and known[4].restores == 2
            # Lifted by a person it stays lifted, whoever takes the journal over next.
            lift(bed.platform(), bad.digest, "ann", "checked")
            bed.image("5.0.0")
            deploy(bed.platform("next:1"), ENVIRONMENT, SERVICE, progress=quiet)
            assert find_quarantine(bed.store, bad.digest) is None
        if not killed:
            break
    assert ends == {False, True}
