"""What a policy demands of backups before a release enters, on every path in; no path back is ever kept waiting."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ops_pipeline.core.backup.records import DrillResult, SetState, Trigger
from ops_pipeline.core.release import Action, Phase, Release
from ops_pipeline.errors import DeployFailed, OpsError, Permanent, PolicyRefused, Transient
from ops_pipeline.services.backup.gate import backup_preview, ensure_fresh
from ops_pipeline.services.backup.locks import lock
from ops_pipeline.services.backup.restore import abandon_restore, plan_restore, restore, resume_restore
from ops_pipeline.services.backup.restore_journal import SWITCHING, restores
from ops_pipeline.services.backup.sets import read_state, write_state
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.gates import refusals
from ops_pipeline.services.ledger import releases
from ops_pipeline.services.plan import plan
from ops_pipeline.services.promote import promote
from ops_pipeline.services.reconcile import reconcile
from ops_pipeline.services.records import decode, encode
from ops_pipeline.services.release_set import deploy_set
from ops_pipeline.services.rollback import roll_back
from ops_pipeline_tests.fakes.backups import backup_bed, backup_catalogue, database
from ops_pipeline_tests.fakes.platform import Bed, Killed, Lifeline, quiet
from ops_pipeline_tests.fakes.runtime import Behaviour
from ops_pipeline_tests.services.backing_up import assert_whole, history, listing, take

DOWN = Permanent("no container finds itself by `listings`")


def guarded(**policy: Any) -> Bed:
    """A bed whose prod demands something, with two images shipped through dev."""
    bed = backup_bed(backup_catalogue(policy=policy))
    bed.image("1.0.0")
    deploy(bed.platform(), "dev", "api", progress=quiet)
    return bed


def ship(bed: Bed, **more: Any) -> Release:
    return deploy(bed.platform(), "prod", "api", progress=quiet, run_id="run-d", who="ann", **more)


def drilled(bed: Bed, set_id: str, *problems: str) -> None:
    result = DrillResult(bed.clock.now(), "run-x", 12.0, 3, problems)

    def drill(state: SetState) -> SetState:
        return replace(state, drills=(*state.drills, result))

    write_state(bed.vault.vault(), bed.clock, "prod", set_id, drill)


def test_nothing_is_demanded_nothing_is_taken() -> None:
    bed = guarded()
    database(bed).down = DOWN
    assert ship(bed).backup_set == "" and bed.vault.sets.objects == {}
    assert backup_preview(bed.platform(), "prod") == ("", ())


def test_a_set_is_taken_before_and_named_in_the_release() -> None:
    bed = guarded(require_backup_minutes=30)
    first = ship(bed)
    made = assert_whole(bed).sets[0].manifest
    assert first.backup_set == made.id and made.trigger is Trigger.PRE_DEPLOY and made.images == {}
    assert (made.run_id, made.taken_by) == ("run-d", "ann")
    bed.image("2.0.0")
    bed.clock.advance(3600)
    second = ship(bed)
    newest = assert_whole(bed).sets[0].manifest
    assert second.backup_set == newest.id != made.id
    assert newest.images == {"api": first.digest} and newest.commit == first.commit, "the code that fits the data"


def test_a_young_set_is_reused_by_every_service_of_a_release() -> None:
    bed = guarded(require_backup_minutes=30)
    made = history(bed, 1)[0]
    bed.image("2.0.0")
    bed.image("2.0.0", service="web")
    bed.clock.advance(29 * 60)
    both = deploy_set(bed.platform(), "prod", ["api", "web"], progress=quiet)
    assert [one.backup_set for one in both] == [made.id, made.id] and len(assert_whole(bed).sets) == 1


@pytest.mark.parametrize("why", ["too old", "in quarantine", "partial", "part missing", "of the future"])
def test_what_does_not_count_as_fresh(why: str) -> None:
    bed = guarded(require_backup_minutes=30)
    sources = ["listings"] if why == "partial" else []
    old = history(bed, 1, sources=sources)[0]
    if why == "too old":
        bed.clock.advance(31 * 60)
    elif why == "in quarantine":
        write_state(bed.vault.vault(), bed.clock, "prod", old.id, lambda state: replace(state, quarantined="odd"))
    elif why == "part missing":
        bed.vault.sets.delete(old.parts[0].stream.key)
    elif why == "of the future":
        bed.clock.advance(-3600)
    made = ship(bed)
    assert made.backup_set not in ("", old.id)


def test_no_backup_no_deploy_and_nothing_was_touched() -> None:
    bed = guarded(require_backup_minutes=30)
    database(bed).down = DOWN
    for attempt in (ship, lambda bed: promote(bed.platform(), "prod", "api", progress=quiet)):
        with pytest.raises(PolicyRefused, match=r"no backup could be taken before it: .*listings: no container"):
            attempt(bed)
    assert releases(bed.store, "prod", "api") == () and bed.containers() == set()
    shown = plan(bed.platform(), "prod", "api")
    assert shown.refusals == ("no backup can be taken: listings: no container finds itself by `listings`",)
    assert shown.steps[0] == "take a backup of prod first: there is no good one"


def test_an_odd_set_before_a_deploy_refuses_it() -> None:
    bed = guarded(require_backup_minutes=30)
    history(bed, 3)
    bed.clock.advance(3600)
    database(bed).live.tables["listing"] = []
    with pytest.raises(PolicyRefused, match="kept apart: listings: 0 rows"):
        ship(bed)
    assert releases(bed.store, "prod", "api") == ()


def test_plan_says_which_set_would_be_reused() -> None:
    bed = guarded(require_backup_minutes=30)
    made = history(bed, 1)[0]
    bed.clock.advance(600)
    shown = plan(bed.platform(), "prod", "api")
    assert shown.steps[0] == f"reuse backup set {made.id}, 10 min old (at most 30 min are allowed)"
    assert shown.refusals == ()


def test_an_unreadable_vault_refuses_what_is_new() -> None:
    bed = guarded(require_backup_minutes=30, require_drill_days=7)

    def away(operation: str, key: str) -> None:
        raise Transient("connection refused")

    bed.vault.sets.before = away
    with pytest.raises(PolicyRefused, match="cannot be read"):
        ship(bed)
    assert any("cannot be read" in reason for reason in plan(bed.platform(), "prod", "api").refusals)


def test_a_backup_at_work_is_waited_for_and_its_set_is_used() -> None:
    bed = guarded(require_backup_minutes=30)
    held = lock(bed.platform("other:1"), bed.vault.vault(), "prod", run_id="run-b", reason="schedule backup")
    held.__enter__()
    made: list[str] = []

    def finish(seconds: float) -> None:
        if not made:
            made.append("begun")
            held.__exit__(None, None, None)
            made[0] = take(bed.platform("other:1")).id

    bed.clock.on_sleep = finish
    lines: list[str] = []
    found = ensure_fresh(bed.platform(), "prod", progress=lines.append)
    assert found is not None and [found.id] == made and len(assert_whole(bed).sets) == 1
    assert any("schedule backup" in line for line in lines)


def test_a_repair_of_what_is_live_waits_for_no_backup() -> None:
    bed = guarded(require_backup_minutes=30)
    first = ship(bed)
    database(bed).down = DOWN
    bed.clock.advance(3600)
    assert ship(bed).number == first.number, "live already"
    for runtime in bed.runtimes["prod"]:
        for box in runtime.boxes.values():
            box.state = "exited"
    with pytest.raises(PolicyRefused):
        ship(bed, force=True)


DRILLS = {
    "none": (None, "none has passed; run one: ops drill prod"),
    "old": (8.0, "the last one passed 8 days ago; run one: ops drill prod"),
    "young": (6.0, ""),
}


@pytest.mark.parametrize("drill", DRILLS)
def test_a_passed_drill_is_demanded_of_deploy_and_promote(drill: str) -> None:
    days, words = DRILLS[drill]
    bed = guarded(require_drill_days=7)
    made = history(bed, 2)
    drilled(bed, made[1].id, "listings: counts differ")
    if days is not None:
        drilled(bed, made[0].id)
        bed.clock.advance(days * 86400)
    shown = plan(bed.platform(), "prod", "api")
    assert (shown.refusals == ()) if not words else any(words in reason for reason in shown.refusals)
    if not words:
        assert ship(bed).phase is Phase.LIVE
        return
    for attempt in (ship, lambda bed: promote(bed.platform(), "prod", "api", progress=quiet)):
        with pytest.raises(PolicyRefused, match="restore drill"):
            attempt(bed)
    assert deploy(bed.platform(), "dev", "api", progress=quiet, force=True).phase is Phase.LIVE


def test_no_way_back_is_ever_refused_or_even_asks() -> None:
    """Both policies unmet and the vault gone: warm and cold roll-backs and reconcile work as ever."""
    bed = guarded(require_backup_minutes=30, require_drill_days=7)
    drilled(bed, history(bed, 1)[0].id)
    numbers = []
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        bed.image(version)
        numbers.append(ship(bed).number)
    bed.clock.advance(30 * 86400)
    database(bed).down = DOWN
    asked: list[str] = []

    def away(operation: str, key: str) -> None:
        asked.append(key)
        raise Transient("connection refused")

    bed.vault.sets.before = bed.vault.state.before = bed.vault.media.before = away
    digest = releases(bed.store, "prod", "api")[0].digest
    assert refusals(bed.platform(), "prod", "api", digest, Action.ROLLBACK).allowed and asked == []
    assert roll_back(bed.platform(), "prod", "api", progress=quiet).phase is Phase.LIVE
    assert roll_back(bed.platform(), "prod", "api", to=numbers[0], progress=quiet).phase is Phase.LIVE
    assert reconcile(bed.platform(), "prod", "api", progress=quiet).settled
    assert "BackupNotHeld" in bed.alerts.names(), "that the set of what was left could not be held is told"


def holds(bed: Bed, set_id: str) -> list[str]:
    return [hold.name for hold in read_state(bed.vault.vault(), bed.clock, "prod", set_id).holds]


def test_the_set_before_a_failed_deploy_is_held() -> None:
    bed = guarded(require_backup_minutes=30)
    good = ship(bed)
    bed.clock.advance(3600)
    bed.image("2.0.0", Behaviour(exits_after=0.5))
    with pytest.raises(DeployFailed):
        ship(bed)
    failed = releases(bed.store, "prod", "api")[0]
    assert failed.backup_set not in ("", good.backup_set)
    assert holds(bed, failed.backup_set) == [f"failed {failed.label}"] and holds(bed, good.backup_set) == []


def test_the_set_before_a_release_that_is_rolled_back_is_held() -> None:
    bed = guarded(require_backup_minutes=30)
    ship(bed)
    bed.clock.advance(3600)
    bed.image("2.0.0")
    second = ship(bed)
    roll_back(bed.platform(), "prod", "api", progress=quiet)
    assert holds(bed, second.backup_set) == [f"failed {second.label}"]


def test_the_set_is_held_when_a_killed_deploy_is_undone_by_others() -> None:
    bed = guarded(require_backup_minutes=30)
    ship(bed)
    bed.clock.advance(3600)
    bed.image("2.0.0")

    def starting(call: str) -> bool:
        return call.endswith(".start")

    with pytest.raises(Killed):
        deploy(bed.platform("doomed:1", lifeline=Lifeline(1, starting)), "prod", "api", progress=quiet)
    bed.clock.advance(31)
    reconcile(bed.platform("second:1"), "prod", "api", progress=quiet)
    failed = releases(bed.store, "prod", "api")[0]
    assert failed.phase is Phase.FAILED and holds(bed, failed.backup_set) == [f"failed {failed.label}"]
    assert listing(bed).sets[0].id == failed.backup_set


def test_manifests_of_releases_from_before_there_were_backups_are_read() -> None:
    bed = guarded()
    release = ship(bed)
    old = encode(release).replace(b'  "backup_set": "",\n', b"")
    assert b"backup_set" not in old and decode(Release, old, "x") == release


def test_a_policy_without_sources_says_so() -> None:
    bed = guarded(require_backup_minutes=30)
    environment = bed.catalogue.environments["prod"].model_copy(update={"backup": None})
    bed.catalogue = bed.catalogue.model_copy(
        update={"environments": {**bed.catalogue.environments, "prod": environment}}
    )
    with pytest.raises(PolicyRefused, match="names no data sources of prod"):
        ship(bed)
    assert any("names no data sources" in reason for reason in plan(bed.platform(), "prod", "api").refusals)


def test_a_deploy_killed_while_its_backup_is_taken_is_simply_begun_again() -> None:
    die_at = 0
    while True:
        die_at += 5
        bed = guarded(require_backup_minutes=30)
        lifeline = Lifeline(die_at, lambda call: call.startswith(("sets", "state", "listings", "cache")))
        try:
            deploy(bed.platform("doomed:1", lifeline=lifeline), "prod", "api", progress=quiet)
        except Killed:
            bed.vault.sets.lose_power()
            assert releases(bed.store, "prod", "api") == () or listing(bed).sets
            bed.clock.advance(121)
            assert ship(bed).backup_set in {one.id for one in assert_whole(bed).sets}
            continue
        except OpsError as error:
            raise AssertionError from error
        break
    assert die_at > 30


def swap_killed(bed: Bed) -> str:
    """Kill a restore when the first of its two sources was swapped; its token."""
    restored, lifeline = plan_restore(bed.platform(), "prod"), Lifeline()

    def watch(line: str) -> None:
        lifeline.dead = line.endswith("the restored data are live")

    with pytest.raises(Killed):
        restore(bed.platform("doomed:1", lifeline=lifeline), restored, confirm=lambda words: True, progress=watch)
    bed.clock.advance(121)
    assert restores(bed.vault.vault(), bed.clock, "prod")[0].stage in SWITCHING
    return restored.token


@pytest.mark.parametrize("policy", [{}, {"require_backup_minutes": 600}], ids=["nothing demanded", "a young set"])
@pytest.mark.parametrize("way_out", [resume_restore, abandon_restore])
def test_nothing_new_enters_data_of_two_moments_but_what_was_there_returns(
    policy: dict[str, Any], way_out: Any
) -> None:
    bed = guarded(**policy)
    ship(bed)
    bed.image("2.0.0")
    ship(bed)
    history(bed, 1)
    database(bed).live.tables["listing"].append("built later")
    token = swap_killed(bed)
    bed.image("3.0.0")
    deploy(bed.platform(), "dev", "api", progress=quiet)
    before = releases(bed.store, "prod", "api")
    for attempt in (ship, lambda bed: promote(bed.platform(), "prod", "api", progress=quiet)):
        with pytest.raises(
            PolicyRefused, match=f"a release to prod refused: live data .* two moments: restore {token}"
        ) as found:
            attempt(bed)
        assert "ops restores prod" in found.value.hint
    assert releases(bed.store, "prod", "api") == before
    assert any("two moments" in reason for reason in plan(bed.platform(), "prod", "api").refusals)
    assert roll_back(bed.platform(), "prod", "api", progress=quiet).phase is Phase.LIVE
    more = {"confirm": lambda words: True} if way_out is resume_restore else {}
    way_out(bed.platform(), "prod", progress=quiet, **more)
    assert ship(bed).phase is Phase.LIVE


def test_where_nothing_is_demanded_the_vault_costs_one_list_of_names_and_may_be_away() -> None:
    bed = guarded()
    asked: list[str] = []

    def note(operation: str, key: str) -> None:
        asked.append(f"{operation} {key}")

    bed.vault.sets.before = bed.vault.state.before = bed.vault.media.before = note
    assert ensure_fresh(bed.platform(), "prod", progress=quiet) is None
    assert asked == ["list restores/prod/"]

    def away(operation: str, key: str) -> None:
        raise Permanent("connection refused")

    bed.vault.state.before = away
    said: list[str] = []
    assert ensure_fresh(bed.platform(), "prod", progress=said.append) is None
    assert "not known: connection refused" in said[0]
    environment = bed.catalogue.environments["prod"].model_copy(update={"backup": None})
    bed.catalogue = bed.catalogue.model_copy(
        update={"environments": {**bed.catalogue.environments, "prod": environment}}
    )
    said.clear()
    assert ensure_fresh(bed.platform(), "prod", progress=said.append) is None and said == []
