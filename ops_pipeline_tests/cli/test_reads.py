"""Reading commands on the in-memory platform: what people see, what programs get, and every mistake at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ops_pipeline.cli.app import project
from ops_pipeline.cli.commands import app
from ops_pipeline.cli.project import Places
from ops_pipeline.core.scan import Finding
from ops_pipeline.errors import BadInput, NotFound, OpsError, PolicyRefused
from ops_pipeline.services.deploy import deploy
from ops_pipeline.services.rollback import roll_back
from ops_pipeline_tests.fakes.platform import Bed, quiet

CRITICAL = Finding("vulnerability", "CVE-2026-1", "CRITICAL", "openssl", "3.0.1", "3.0.2")


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    made = Bed()
    project.use(catalogue=made.catalogue, platform=made.platform(), places=Places(tmp_path))
    yield made
    project.forget()


def live(bed: Bed, *versions: str, environment: str = "prod") -> None:
    for version in versions:
        bed.image(version)
        deploy(bed.platform(), environment, "api", who="ada", why=f"ship {version}", progress=quiet)


def ops(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def data(*arguments: str) -> Any:
    result = ops(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refusal(*arguments: str) -> OpsError:
    error = ops(*arguments).exception
    assert isinstance(error, OpsError), error
    return error


def test_status_shows_what_runs_where(bed: Bed) -> None:
    live(bed, "1.0.0", "2.0.0")
    shown = ops("status").stdout
    (line,) = [line for line in shown.splitlines() if line.startswith("prod  api")]
    assert "#2" in line and "2.0.0" in line and "4/4" in line and "#1 1.0.0" in line
    found = {(one["environment"], one["service"]): one for one in data("status")}
    assert set(found) == {("dev", "api"), ("dev", "web"), ("prod", "api"), ("prod", "web")}
    assert found["prod", "api"]["healthy"] and not found["dev", "api"]["healthy"]
    assert found["prod", "api"]["live"]["version"] == "2.0.0"
    assert [one["environment"] for one in data("status", "api", "prod")] == ["prod"]


def test_status_names_a_host_that_is_away(bed: Bed) -> None:
    live(bed, "1.0.0")
    bed.host_down("prod", "h2", "no route to host")
    shown = ops("status", "api", "prod").stdout
    assert "2/4" in shown and "h2" in shown


def test_releases_are_listed_newest_first_with_who_and_why(bed: Bed) -> None:
    live(bed, "1.0.0", "2.0.0")
    roll_back(bed.platform(), "prod", "api", who="bob", why="slow", progress=quiet)
    found = data("releases", "api", "prod")
    assert [(one["number"], one["action"], one["who"]) for one in found] == [
        (3, "rollback", "bob"),
        (2, "deploy", "ada"),
        (1, "deploy", "ada"),
    ]
    assert "rollback to #1" in ops("releases", "api", "prod").stdout
    assert len(data("releases", "api", "prod", "--limit", "1")) == 1
    assert "nothing was ever released" in ops("releases", "web", "prod").stdout


def test_a_plan_says_what_would_happen_and_changes_nothing(bed: Bed) -> None:
    live(bed, "1.0.0")
    bed.image("2.0.0")
    before = sorted(info.key for info in bed.store.list(""))
    shown = ops("plan", "api", "prod")
    assert shown.exit_code == 0
    assert "#1 1.0.0 -> 2.0.0" in shown.stdout and "step: switch to #2" in shown.stdout
    assert data("plan", "api", "prod")["allowed"] is True
    assert sorted(info.key for info in bed.store.list("")) == before
    assert ops("deploy", "api", "prod", "--dry-run").stdout == shown.stdout


def test_a_plan_that_would_be_refused_says_why_and_ends_with_3(bed: Bed) -> None:
    bed.image("1.0.0", findings=(CRITICAL,))
    error = refusal("plan", "api", "prod")
    assert isinstance(error, PolicyRefused) and error.exit_code == 3
    assert "CVE-2026-1" in error.message
    result = ops("plan", "api", "prod", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["allowed"] is False


def test_logs_of_what_is_live_come_from_every_host(bed: Bed) -> None:
    live(bed, "1.0.0", "2.0.0")
    lines = ops("logs", "api", "prod").stdout.splitlines()
    assert {line.split(" | ")[0] for line in lines} == {
        f"{host}/ops-prod-api-2-{replica}" for host in ("h1", "h2") for replica in (0, 1)
    }
    assert data("logs", "api", "prod", "--release", "1")[0]["container"] == "ops-prod-api-1-0"


def test_after_a_return_to_the_standby_its_own_containers_are_read(bed: Bed) -> None:
    live(bed, "1.0.0", "2.0.0")
    roll_back(bed.platform(), "prod", "api", who="bob", why="slow", progress=quiet)
    assert data("logs", "api", "prod")[0]["container"] == "ops-prod-api-1-0"


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (("releases", "apii", "prd"), BadInput, ["did you mean `api`?", "did you mean `prod`?"]),
        (("plan", "prod", "api"), BadInput, ["`prod` is an environment", "`api` is a service", "api prod"]),
        (
            ("plan", "apii", "prd", "--digest", "latest"),
            BadInput,
            ["no service `apii`", "no environment `prd`", "--digest: `latest`"],
        ),
        (("logs", "zzz", "prod"), BadInput, ["there are: api, web"]),
        (("logs", "api", "prod"), NotFound, ["nothing is live of api in prod"]),
        (("plan", "api", "prod"), NotFound, ["no image of api"]),
        (("status", "api", "nowhere"), BadInput, ["no environment `nowhere`"]),
        (("follow", "x"), BadInput, ["`x` is not the id of a run"]),
        (("rollback", "api", "prod", "--to", "-3"), BadInput, ["--to: -3 is not the number of a release"]),
    ],
)
def test_mistakes_are_named(bed: Bed, arguments: tuple[str, ...], kind: type[OpsError], words: list[str]) -> None:
    error = refusal(*arguments)
    assert type(error) is kind
    for word in words:
        assert word in str(error)


def test_a_release_without_containers_is_said_so(bed: Bed) -> None:
    live(bed, "1.0.0", "2.0.0", "3.0.0")
    error = refusal("logs", "api", "prod", "--release", "1")
    assert "has no containers any more (retired)" in error.message
