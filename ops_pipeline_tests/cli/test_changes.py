"""Commands that change the ledger directly (quarantine, flags), and what is checked before a release set is started."""

from __future__ import annotations

import getpass
import re
from pathlib import Path
from typing import Any

import pytest

from ops_pipeline.errors import BadInput, NotFound, OpsError, PolicyRefused
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.flags import flag_states
from ops_pipeline_tests.cli.typing_ops import data, ops, refusal, said, use
from ops_pipeline_tests.fakes.platform import Bed, catalogue, quiet

FLAGS = {"new-search": {"on": True, "percent": 25, "guards": "api"}, "banner": {"on": False}}


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    environments: dict[str, Any] = {
        name: one.model_dump(exclude_unset=True) for name, one in catalogue().environments.items()
    }
    environments["prod"]["flags"] = FLAGS
    return use(Bed(catalogue(environments=environments)), tmp_path)


def keys(bed: Bed) -> list[str]:
    return sorted(info.key for info in bed.store.list(""))


# ------------------------------------------------------------------------------------------------ quarantine


def test_a_digest_is_kept_out_until_it_is_lifted(bed: Bed) -> None:
    image = bed.image("1.0.0")
    digest, start = image.ref.digest, image.ref.digest[7:15]
    assert "nothing is in quarantine" in said("quarantine", "list")

    before = keys(bed)
    assert "would be in quarantine" in said("quarantine", "add", start, "--why", "leaks memory", "--dry-run")
    assert keys(bed) == before
    assert data("quarantine", "add", start, "--why", "leaks memory") == {
        "digest": digest,
        "service": "api",
        "reason": "leaks memory",
        "who": getpass.getuser(),
        "added": True,
    }
    with pytest.raises(PolicyRefused, match="leaks memory"):
        deploy(bed.platform(), "prod", "api", progress=quiet)
    listed = said("quarantine", "list")
    assert start in listed and "prod" not in listed and "leaks memory" in listed and getpass.getuser() in listed
    assert [one["digest"] for one in data("quarantine", "list")] == [digest]

    assert "would be out of quarantine" in said("quarantine", "lift", start, "--why", "fixed", "--dry-run")
    assert data("quarantine", "lift", start, "--why", "not the image", "--dry-run")["lifted"] is False
    assert [one["digest"] for one in data("quarantine", "list")] == [digest]
    assert "it was in for: leaks memory" in said("quarantine", "lift", digest, "--why", "not the image after all")
    assert "nothing is in quarantine" in said("quarantine", "list")
    deploy(bed.platform(), "prod", "api", progress=quiet)


# ------------------------------------------------------------------------------------------------ flags


def test_flags_are_listed_overridden_and_cleared(bed: Bed) -> None:
    def state(name: str) -> tuple[bool, float]:
        (found,) = [one for one in flag_states(bed.platform(), "prod") if one.name == name]
        return found.on, found.percent

    shown = said("flags", "list", "prod").splitlines()
    assert [line.split()[0] for line in shown] == ["flag", "banner", "new-search"]
    assert "on for 25 %" in shown[2] and "api" in shown[2]
    assert "has no flags" in said("flags", "list", "dev")

    before = keys(bed)
    assert "it would be set to on" in said("flags", "set", "prod", "banner", "on", "--dry-run")
    assert keys(bed) == before and state("banner") == (False, 100)

    assert "flag banner is on" in said("flags", "set", "prod", "banner", "on", "--why", "sale")
    assert state("banner") == (True, 100)
    assert "flag banner is on for 40 %" in said("flags", "set", "prod", "banner", "40%")
    document = data("flags", "set", "prod", "new-search", "off", "--why", "slow")
    assert (document["on"], document["changed"], document["override"]["who"]) == (False, True, getpass.getuser())
    overridden = said("flags", "list", "prod").splitlines()[2]
    assert "off" in overridden and "on for 25 %" in overridden and "slow" in overridden

    assert "would be on for 25 % again" in said("flags", "clear", "prod", "new-search", "--dry-run")
    assert state("new-search")[0] is False
    assert "flag new-search is on for 25 %" in said("flags", "clear", "prod", "new-search", "--why", "it was not that")
    assert [one["override"] for one in data("flags", "list", "prod") if one["name"] == "new-search"] == [None]


# ------------------------------------------------------------------------------------------------ several services


def test_a_release_set_is_planned_as_a_whole(bed: Bed) -> None:
    bed.image("1.0.0")
    bed.image("1.1.0", service="web")
    before = keys(bed)
    shown = said("deploy", "api", "web", "prod", "--together", "--dry-run")
    assert "prod/api: nothing -> 1.0.0" in shown and "prod/web: nothing -> 1.1.0" in shown
    assert [one["service"] for one in data("deploy", "api", "web", "prod", "--together", "--dry-run")] == ["api", "web"]
    assert keys(bed) == before
    said("quarantine", "add", bed.image("1.1.0", service="web").ref.digest, "--why", "bad")
    error = refusal("deploy", "api", "web", "prod", "--together", "--dry-run")
    assert isinstance(error, PolicyRefused) and "web: " in error.message and "quarantine" in error.message


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (("deploy", "api", "web", "prod"), BadInput, ["one service at a time, or all of them with --together"]),
        (("deploy", "api", "prod", "--together"), BadInput, ["--together: means nothing for one service"]),
        (
            ("deploy", "api", "web", "prod", "--together", "--force", "--digest", "sha256:" + "0" * 64),
            BadInput,
            ["--force", "--digest"],
        ),
        (
            ("deploy", "apii", "api", "api", "prd", "--together", "--dry-run"),
            BadInput,
            ["no service `apii`", "no environment `prd`", "`api` is named twice", "The environment comes last"],
        ),
        (("deploy", "prod", "api", "--dry-run"), BadInput, ["`prod` is an environment", "api prod"]),
        (("quarantine", "lift", "latest"), BadInput, ["DIGEST: `latest`", "--why: is missing"]),
        (("quarantine", "lift", "abcd1234", "--why", "x"), NotFound, ["no digest that begins with abcd1234"]),
        (("quarantine", "add", "abcd1234", "--why", "x"), NotFound, ["no image whose digest begins with abcd1234"]),
        (("flags", "list", "prd"), BadInput, ["did you mean `prod`?"]),
        (("flags", "set", "prod", "baner", "on"), BadInput, ["no flag `baner`", "did you mean `banner`?"]),
        (("flags", "set", "prod", "banner", "maybe"), BadInput, ["`maybe` is not `on`, `off` or a share"]),
        (("flags", "set", "prod", "banner", "101%"), BadInput, ["from 0% to 100%"]),
        (("flags", "clear", "dev", "banner"), BadInput, ["dev has no flag `banner`"]),
        (("verdict", "web", "api"), BadInput, ["`api` is a service, not an environment"]),
    ],
)
def test_mistakes_are_named_and_change_nothing(
    bed: Bed, arguments: tuple[str, ...], kind: type[OpsError], words: list[str]
) -> None:
    before = keys(bed)
    error = refusal(*arguments)
    assert type(error) is kind
    for word in words:
        assert word in str(error), str(error)
    assert keys(bed) == before


def test_help_names_every_command_in_order_and_in_whole_sentences() -> None:
    result = ops("--help")
    listed = [line.split()[0] for line in result.stdout.partition("Commands:")[2].splitlines() if line.startswith("  ")]
    assert listed[:24] == [
        *("status", "plan", "deploy", "promote", "rollback", "verdict", "resume", "abort", "releases", "logs", "build"),
        *("backup", "backups", "restore", "restores", "drill"),
        *("flags", "quarantine", "replay", "reconcile", "follow", "stop", "catalogue"),
        "serve",
    ]


@pytest.mark.parametrize(
    "command", ["verdict", "resume", "abort", "replay", "deploy", "flags set", "flags clear", "quarantine lift"]
)
def test_help_says_what_comes_in_which_order(command: str) -> None:
    usage = ops(*command.split(), "--help").stdout
    order = {
        "deploy": "SERVICE... ENV",
        "flags set": "ENV FLAG on|off|PERCENT",
        "flags clear": "ENV FLAG",
        "quarantine lift": "DIGEST",
    }
    assert f"[OPTIONS] {order.get(command, 'SERVICE ENV')}" in " ".join(re.sub(r"[{}]", "", usage).split())
    assert "--json" in usage and (command in ("verdict", "replay") or "--dry-run" in usage)
