"""`ops backups`, `ops restore`, `ops backup keys` in memory: what people see, and every mistake at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ops_pipeline.core.backup.records import Manifest
from ops_pipeline.errors import BadInput, NotFound, OpsError, Permanent, PolicyRefused
from ops_pipeline.services.backup.drill import drill
from ops_pipeline.services.backup.integrity import check_set
from ops_pipeline.services.backup.restore import plan_restore, restore
from ops_pipeline.services.backup.sets import write_state
from ops_pipeline_tests.cli.typing_ops import data, ops, refusal, said, use
from ops_pipeline_tests.fakes.backups import backup_bed, backup_catalogue, database
from ops_pipeline_tests.fakes.platform import Bed, quiet
from ops_pipeline_tests.services.backing_up import take

DAY = 86_400


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    made = backup_bed()
    database(made).live.tables["houses"] = [f"house {number}" for number in range(150)]
    return use(made, tmp_path)


def taken(bed: Bed, environment: str = "prod") -> Manifest:
    """One set, checked."""
    manifest = take(bed.platform(), environment)
    check_set(bed.platform(), environment, manifest.id, progress=quiet)
    return manifest


def stored(bed: Bed) -> list[str]:
    return sorted([*(info.key for info in bed.vault.sets.list("")), *(one.key for one in bed.vault.state.list(""))])


# ---------------------------------------------------------------------------------------------------- reading


def test_sets_are_listed_newest_first_with_all_that_is_known(bed: Bed) -> None:
    assert "take one: ops backup prod" in said("backups", "prod")
    older = taken(bed)
    bed.clock.advance(2 * DAY)
    newer = taken(bed)
    drill(bed.platform(), "prod", set_id=older.id, progress=quiet)
    said("backups", "hold", older.id, "--why", "before the migration", "--name", "migration")
    header, first, second, *_ = said("backups", "prod").splitlines()
    assert header.split() == ["set", "age", "trigger", "sources", "data", "new", "checked", "drilled", "stands"]
    assert newer.id in first and "manual" in first and "cache, listings" in first and "good" in first
    assert older.id in second and "2 d" in second and "passed" in second and "held: migration" in second
    document = data("backups", "prod")
    assert [one["id"] for one in document["sets"]] == [newer.id, older.id]
    assert document["sets"][1]["holds"] == ["migration"] and document["sets"][0]["good"]
    assert document["damaged"] == [] and document["chain"] == []
    assert data("backups", "list", "prod", "--limit", "1")["sets"][0]["id"] == newer.id


def test_one_set_tells_its_parts_wherever_it_is(bed: Bed) -> None:
    manifest = taken(bed, "dev")
    shown = said("backups", "show", manifest.id[:20])
    assert shown.startswith(f"dev: set {manifest.id}, good") and "end of dump" in shown and "150" not in shown
    assert data("backups", "show", manifest.id)["manifest"]["parts"][0]["source"] == "listings"


def test_checking_reads_what_is_stored_and_fails_when_it_is_damaged(bed: Bed) -> None:
    manifest = taken(bed)
    assert "nothing is wrong" in said("backups", "check", "prod")
    assert data("backups", "check", "prod", "--all")["checks"][0]["read_share"] == 1.0
    assert data("backups", "check", "prod", "--set", manifest.id)["problems"] == []
    bed.vault.sets.delete(manifest.parts[0].stream.key)
    error = refusal("backups", "check", "prod", "--all")
    assert type(error) is Permanent and error.exit_code == 1
    assert manifest.id in error.message and manifest.parts[0].stream.key in error.message
    assert "damaged" in said("backups", "prod")
    result = ops("backups", "check", "prod", "--json")
    assert result.exit_code == 1 and len(json.loads(result.stdout)["problems"]) == 1


def test_pruning_explains_every_set_without_touching_any(bed: Bed) -> None:
    ids = []
    for _ in range(5):
        ids.append(taken(bed).id)
        bed.clock.advance(25 * DAY)
    before = stored(bed)
    shown = said("backups", "prune", "prod", "--dry-run")
    assert "3 of 5 sets stay, 2 go" in shown and "the newest good set" in shown and "no rule keeps it" in shown
    assert all(one in shown for one in ids)
    (plan,) = data("backups", "prune", "prod", "--dry-run")
    assert [(one["id"], one["keep"]) for one in plan["sets"]][-1] == (ids[0], False)
    assert [one["environment"] for one in data("backups", "prune", "--dry-run")] == ["dev", "prod"]
    assert stored(bed) == before


# ---------------------------------------------------------------------------------------------------- changing


def test_holds_are_put_and_taken_away(bed: Bed) -> None:
    manifest = taken(bed)
    assert "is held: kept" in said("backups", "hold", manifest.id, "--why", "court order")
    assert data("backups", "prod")["sets"][0]["holds"] == ["kept"]
    assert "court order" in said("backups", "show", manifest.id)
    assert "is not held" in said("backups", "unhold", manifest.id)
    assert type(refusal("backups", "unhold", manifest.id)) is NotFound


def test_a_set_in_quarantine_is_accepted_or_forgotten_by_a_person(bed: Bed) -> None:
    good, odd = taken(bed), taken(bed)

    def quarantine(state: Any) -> Any:
        return type(state)(state.environment, state.id, checks=state.checks, quarantined="rows fell by 90 %")

    write_state(bed.vault.vault(), bed.clock, "prod", odd.id, quarantine)
    assert "quarantine: rows fell by 90 %" in said("backups", "prod")
    assert "nothing is deleted" in said("backups", "prune", "prod", "--dry-run")
    assert "counts as good" in said("backups", "accept", odd.id, "--why", "we archived old houses")
    assert type(refusal("backups", "forget", odd.id, "--why", "odd")) is PolicyRefused  # the newest good one, and held
    said("backups", "unhold", odd.id, "--name", "quarantine lifted")
    assert "is gone" in said("backups", "forget", good.id, "--why", "a test")
    assert [one["id"] for one in data("backups", "prod")["sets"]] == [odd.id]


# ---------------------------------------------------------------------------------------------------- restoring


def test_a_dry_restore_says_what_would_happen_and_how_old_the_data_are(bed: Bed) -> None:
    manifest = taken(bed)
    bed.clock.advance(3 * DAY)
    before, live = stored(bed), database(bed).live.copy()
    day = manifest.started_at.date().isoformat()
    shown = said("restore", "prod", "--date", day, "--dry-run")
    assert manifest.id in shown and "3 days old" in shown and "rows in" in shown and "nothing was changed" in shown
    plan = data("restore", "prod", "--set", manifest.id[:12], "--source", "listings", "--dry-run")
    assert plan["set_id"] == manifest.id and [one["source"] for one in plan["sources"]] == ["listings"]
    assert plan["left_out"] == ["cache"] and plan["age_seconds"] == pytest.approx(3 * DAY, abs=60)
    assert stored(bed) == before and database(bed).live == live


def test_what_restores_keep_is_shown(bed: Bed) -> None:
    assert "keeps anything" in said("restores", "prod")
    taken(bed)
    plan = plan_restore(bed.platform(), "prod")
    restore(bed.platform(), plan, confirm=lambda words: True, progress=quiet, by="ada")
    shown = said("restores", "prod")
    assert plan.token in shown and "ada" in shown and plan.set_id in shown
    document = data("restores", "prod")
    assert [one["token"] for one in document["holds"]] == [plan.token] and document["unfinished"] is None


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (("backup", "prd", "--source", "x"), BadInput, ["no environment `prd`", "did you mean `prod`?"]),
        (("backup", "prod", "--source", "listing"), BadInput, ["no data source `listing`", "listings, cache"]),
        (("backups", "stage"), BadInput, ["no environment `stage`"]),
        (("backups", "show", "latest"), BadInput, ["of which environment"]),
        (("backups", "hold", "no!"), BadInput, ["ID: `no!` is not the id of a set", "--why: is missing"]),
        (("backups", "show", "01ZZZZZZ"), NotFound, ["there is no backup set 01ZZZZZZ"]),
        (("drill", "prod", "--set", "x"), BadInput, ["--set: `x` is not the id of a set"]),
        (
            ("restore", "prod", "--date", "soon", "--set", "x", "--source", "y", "--into", "No"),
            BadInput,
            ["--date: `soon` is no date", "--set: cannot be used together with --date", "`y`", "--into: `No`"],
        ),
        (("restore", "prod", "--undo", "abcd", "--date", "2026-11-20"), BadInput, ["--date: means nothing for --undo"]),
        (("restore", "prod", "--resume", "--abandon"), BadInput, ["--abandon: cannot be used together with --resume"]),
        (("restore", "prod", "--undo", "abcd"), PolicyRefused, ["keeps nothing of a restore abcd"]),
        (("restore", "prod", "--resume"), PolicyRefused, ["no restore is unfinished"]),
        (("restores", "prod", "--release", "NO"), BadInput, ["--release: `NO` is not the token"]),
        (("restore", "prod"), NotFound, ["prod has no good backup set"]),
        (("backups", "prune", "prd", "--dry-run"), BadInput, ["ENV: no environment `prd`"]),
    ],
)
def test_mistakes_are_named_and_change_nothing(
    bed: Bed, arguments: tuple[str, ...], kind: type[OpsError], words: list[str]
) -> None:
    before = stored(bed)
    error = refusal(*arguments)
    assert type(error) is kind, error
    for word in words:
        assert word in str(error), str(error)
    assert stored(bed) == before


def test_a_restore_is_not_begun_where_nobody_can_be_asked(bed: Bed) -> None:
    taken(bed)
    before = stored(bed)
    error = refusal("restore", "prod")
    assert isinstance(error, BadInput) and "--yes: is missing" in str(error)
    assert stored(bed) == before


def test_an_environment_without_backups_is_said_to_have_none(tmp_path: Path) -> None:
    book = backup_catalogue()
    environments = {**book.environments, "dev": book.environments["dev"].model_copy(update={"backup": None})}
    use(backup_bed(book.model_copy(update={"environments": environments})), tmp_path)
    assert "`dev` has no `backup` in the catalogue; these have: prod" in str(refusal("backup", "dev"))


# ---------------------------------------------------------------------------------------------------- keys


def test_keys_are_made_once_and_only_their_owner_can_read_them(bed: Bed, tmp_path: Path) -> None:
    first = data("backup", "keys")
    assert first["recipient"].startswith("age1") and len(first["made"]) == 2 and not first["known"]
    for name in first["made"]:
        path = Path(name)
        assert path.is_relative_to(tmp_path) and path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
    again = data("backup", "keys")
    assert again["made"] == [] and (again["recipient"], again["signer"]) == (first["recipient"], first["signer"])
    shown = said("backup", "keys")
    secret = Path(first["identity"]).read_text().splitlines()[-1]
    assert secret.startswith("AGE-SECRET-KEY-1") and secret not in shown + str(first)
    assert first["recipient"] in shown and "Keep a copy of the identity" in shown


def test_the_recipient_goes_into_the_file_that_the_catalogue_names(tmp_path: Path) -> None:
    use(backup_bed(backup_catalogue(recipients=[], recipients_file="keys/recipients")), tmp_path)
    made = data("backup", "keys")
    listed = tmp_path / "keys/recipients"
    assert listed.read_text() == f"{made['recipient']}\n" and made["known"] and str(listed) in made["made"]
    assert data("backup", "keys")["made"] == [] and listed.read_text() == f"{made['recipient']}\n"


def test_a_key_that_lives_elsewhere_is_not_made_here(tmp_path: Path) -> None:
    use(backup_bed(backup_catalogue(signing_key="env:SIGNING_KEY")), tmp_path)
    error = refusal("backup", "keys")
    assert isinstance(error, BadInput) and "backups.signing_key" in str(error)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("backup take", "ENV"),
        ("backups list", "ENV"),
        ("backups show", "ID"),
        ("backups hold", "ID"),
        ("backups check", "ENV"),
        ("restore", "ENV"),
        ("restores", "ENV"),
        ("drill", "ENV"),
    ],
)
def test_help_says_what_comes_in_which_order(command: str, usage: str) -> None:
    shown = ops(*command.split(), "--help").stdout.replace("{", "").replace("}", "")
    assert f"[OPTIONS] {usage}" in " ".join(shown.split()) and "--json" in shown
