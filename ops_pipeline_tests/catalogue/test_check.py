"""What `ops catalogue check` adds to the shape: files, stages, secrets, dates. And the sample catalogue itself."""
# ruff: noqa: E501 - what people read stays on one line

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from ops_pipeline.catalogue.check import check, reference_warnings, schema
from ops_pipeline.catalogue.load import load
from ops_pipeline.catalogue.project import project_root
from ops_pipeline.catalogue.resolve import resolve
from ops_pipeline.errors import BadInput
from ops_pipeline_tests.catalogue.test_wrong_catalogues import GOOD, WAIVER

PROJECT = Path(__file__).parents[2]
SAMPLE = PROJECT / "deploy" / "services.yaml"
DOCKERFILE = "FROM debian:bookworm-slim AS Test\nRUN true\nFROM --platform=$BUILDPLATFORM debian AS app\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose catalogue has nothing wrong."""
    monkeypatch.setenv("PASSWORD", "x")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy/services.yaml").write_text(GOOD)
    for context in ("api", "web"):
        (tmp_path / context).mkdir()
        (tmp_path / context / "Dockerfile").write_text(DOCKERFILE)
    return tmp_path


def said(project: Path, text: str | None = None) -> tuple[list[str], list[str]]:
    path = project / "deploy/services.yaml"
    if text is not None:
        path.write_text(text)
    report = check(path, today=date(2027, 1, 20))
    assert report.ok == (not report.problems)
    return [str(problem) for problem in report.problems], [str(warning) for warning in report.warnings]


def test_nothing_wrong(project: Path) -> None:
    assert said(project) == ([], [])


def test_the_sample_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    report = check(SAMPLE)
    assert [str(problem) for problem in report.problems if "examples/" not in problem.text] == []
    catalogue = load(SAMPLE)
    assert list(catalogue.services) == ["api", "frontend"]
    assert (catalogue.environments["prod"].promote_from, catalogue.network("prod")) == ("dev", "ops-prod")


def test_the_sample_catalogues_comments_are_valid_too(tmp_path: Path) -> None:
    text = SAMPLE.read_text()
    for line in ("azure:", "  container: ops-ledger", "  account_url: https", "waivers:", "  - id: CVE", "    package:",
                 "    reason:", "    owner:", "    expires:", "max_database_age_hours:", "max_scan_age_hours:",
                 "severities: [CRITICAL, HIGH, MEDIUM]", "database_mirror:", "automatic_rollback: false",
                 "pause: true", "- name: a command", "  command:", "  sets:", "  media:", "  state:", "  prune:",
                 "  prune_media:", "  immutability_days:", "  soft_delete_days:", "weekly:", "monthly:", "heartbeat_url:",
                 "require_backup_minutes: 60", "require_drill_days: 14"):  # fmt: skip
        assert f"# {line}" in text, line
        text = text.replace(f"# {line}", line)
    text = text.replace("  directory: .ops/store\n", "")
    text = "".join(line for line in text.splitlines(keepends=True) if "directory: .ops/backups" not in line)
    text = text.replace("      allow_sample_database: true\n      max", "      max")
    path = tmp_path / "services.yaml"
    path.write_text(text.replace("https://ACCOUNT", "https://account"))
    catalogue = load(path)
    assert catalogue.store.azure is not None
    assert catalogue.environments["prod"].policy.max_database_age_hours == 48
    assert not catalogue.environments["prod"].policy.allow_sample_database
    assert catalogue.environments["prod"].policy.require_backup_minutes == 60
    azure = catalogue.backups.store.azure
    assert azure is not None and azure.prune is not None and azure.sets.container == "backups"
    assert (catalogue.backups.retention.weekly, catalogue.backups.retention.monthly) == (8, 12)
    assert catalogue.scan.waivers[0].owner == "ada@example.org"
    assert not catalogue.environments["prod"].automatic_rollback
    api = catalogue.services["api"]
    assert [(step.weight, step.pause) for step in api.canary] == [(10, False), (50, True), (100, False)]
    assert [bool(test.command) for test in api.verify.smoke] == [False, True]


def test_the_exported_schema_is_in_step() -> None:
    stored = json.loads((PROJECT / "deploy/services.schema.json").read_text())
    assert stored == schema(), "renew it: ops catalogue schema > deploy/services.schema.json"
    assert SAMPLE.read_text().startswith("# yaml-language-server: $schema=services.schema.json\n")
    replicas = stored["$defs"]["Service"]["properties"]["replicas"]
    assert (replicas["minimum"], replicas["maximum"]) == (1, 32)
    assert stored["additionalProperties"] is False


def test_files_that_are_missing(project: Path) -> None:
    (project / "web/Dockerfile").unlink()
    text = GOOD.replace("{context: api}", "{context: apy}").replace(".ops/store", "web/x")
    (project / "web/x").write_text("")
    problems, _ = said(project, text + "scan: {sample_database: nowhere}\n")
    assert problems == [
        f"deploy/services.yaml:4 store.directory: {project}/web/x is a file, not a folder",
        f"deploy/services.yaml:20 services.api.build.context: there is no folder {project}/apy",
        f"deploy/services.yaml:30 services.web.build.dockerfile: cannot read {project}/web/Dockerfile: "
        "No such file or directory",
        f"deploy/services.yaml:32 scan.sample_database: there is no folder {project}/nowhere",
    ]


def test_stages_that_are_missing(project: Path) -> None:
    (project / "web/Dockerfile").write_text("FROM debian AS app\n")
    text = GOOD.replace("{context: api}", "{context: api, target: application}")
    problems, _ = said(project, text)
    assert problems == [
        f"deploy/services.yaml:20 services.api.build.target: {project}/api/Dockerfile has no stage `application`",
        f"deploy/services.yaml:30 services.web.build.test_target: {project}/web/Dockerfile has no stage `test`; set "
        "`test_target: null` if there are no tests",
    ]
    assert said(project, GOOD.replace("{context: web}", "{context: web, test_target: null}")) == ([], [])


def test_definitions_load_while_files_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "services.yaml"
    path.write_text(GOOD)
    assert load(path)


def test_warnings(project: Path) -> None:
    text = GOOD.replace("LOG_LEVEL: info", "DB_PASSWORD: info").replace(
        "{context: web}", "{context: web, args: {API_KEY: x}}"
    )
    text = text.replace("    promote_from: dev", "    promote_from: dev\n    policy: {allow_sample_database: true}")
    second = WAIVER.replace("scan: {waivers: [", "").replace("]}\n", "").replace("CVE-1", "CVE-2")
    waivers = WAIVER.replace("]}", f", {second.replace('2027-01-31', '2027-01-19')}]}}")
    problems, warnings = said(project, text + waivers)
    assert problems == []
    assert warnings == [
        "deploy/services.yaml:16 environments.prod.policy.allow_sample_database: accepts scans made with the small SAMPLE "
        "database: for demo and tests only",
        "deploy/services.yaml:25 services.api.environment.DB_PASSWORD: looks like a secret in plain sight; put a "
        "reference under `secrets`",
        "deploy/services.yaml:31 services.web.build.args.API_KEY: looks like a secret; build arguments stay in the image: "
        "use `build.secrets`",
        "deploy/services.yaml:33 scan.waivers[0].expires: the waiver of CVE-1 expires in 11 days, on 2027-01-31",
        "deploy/services.yaml:33 scan.waivers[1].expires: the waiver of CVE-2 expired on 2027-01-19: it blocks again",
    ]


def test_a_flag_whose_service_cannot_see_it_is_worth_a_warning(project: Path) -> None:
    text = GOOD.replace("    promote_from: dev", "    flags: {badges: {on: true, guards: api}}")
    assert said(project, text) == (
        [],
        [
            "deploy/services.yaml:15 environments.prod.flags.badges.guards: `api` has no `flags` folder: it cannot see "
            "this flag, and turning it off helps nobody"
        ],
    )
    assert said(project, text.replace("port: 8000", "port: 8000\n    flags: /run/flags")) == ([], [])


def test_flags_are_a_volume_that_the_service_only_reads(tmp_path: Path) -> None:
    path = tmp_path / "services.yaml"
    path.write_text(GOOD.replace("port: 8000", "port: 8000\n    flags: /run/flags/"))
    catalogue = load(path)
    assert resolve(catalogue, "prod", "api").volumes == {
        "shop-prod-data": "/data",
        "ops-flags-prod": "/run/flags:ro",
    }
    assert resolve(catalogue, "prod", "web").volumes == {}
    path.write_text(path.read_text().replace("    promote_from: dev", "    flags_volume: other\n    promote_from: dev"))
    assert resolve(load(path), "prod", "api").volumes["other"] == "/run/flags:ro"


def test_secret_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPS_TEST_SECRET", raising=False)
    tmp_path.chmod(0o755)
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o644)
    assert reference_warnings(tmp_path, "file:secret") == (
        f"file:secret: every user of this machine can read {secret}; chmod 600 it",
    )
    secret.chmod(0o600)
    assert reference_warnings(tmp_path, "file:secret") == ()
    assert reference_warnings(tmp_path, "file:none") == (f"file:none: {tmp_path}/none: No such file or directory",)
    assert reference_warnings(tmp_path, "file:.") == (f"file:.: {tmp_path} is not a file",)
    assert reference_warnings(tmp_path, "env:OPS_TEST_SECRET") == (
        "env:OPS_TEST_SECRET: this variable is not set here",
    )


def test_a_missing_secret_is_a_warning(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PASSWORD")
    assert said(project) == (
        [], ["deploy/services.yaml:26 services.api.secrets.PASSWORD: env:PASSWORD: this variable is not set here"]
    )  # fmt: skip


def test_the_project_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = tmp_path / "shop/deploy/services.yaml"
    catalogue.parent.mkdir(parents=True)
    assert project_root(catalogue) == tmp_path / "shop"
    assert project_root(tmp_path / "other/services.yaml") == tmp_path / "other"
    (tmp_path / "shop/deploy/.git").mkdir()
    assert project_root(catalogue) == tmp_path / "shop/deploy"
    monkeypatch.setenv("OPS_PROJECT_ROOT", str(tmp_path))
    assert project_root(catalogue) == tmp_path


def test_resolve(project: Path) -> None:
    text = GOOD.replace(
        "{replicas: 2}",
        "{replicas: 2, environment: {LOG_LEVEL: debug, MORE: x}, secrets: {PASSWORD: env:OTHER}, volumes: {b.1: /b}}",
    ).replace("port: 8000", "port: 8000\n    memory_mb: 64")
    path = project / "deploy/services.yaml"
    path.write_text(text)
    catalogue = load(path)
    dev, prod = resolve(catalogue, "dev", "api"), resolve(catalogue, "prod", "api")
    assert (dev.replicas, dict(dev.environment), dict(dev.volumes)) == (
        1,
        {"LOG_LEVEL": "info"},
        {"shop-dev-data": "/data"},
    )
    assert (prod.replicas, dict(prod.environment)) == (2, {"LOG_LEVEL": "debug", "MORE": "x"})
    assert (dict(prod.secrets), dict(prod.volumes)) == (
        {"PASSWORD": "env:OTHER"},
        {"shop-prod-data": "/data", "b.1": "/b"},
    )
    assert (dev.memory_bytes, dev.port, dev.health_path) == (64 * 1024 * 1024, 8000, "/health/ready")
    with pytest.raises(BadInput) as refused:
        resolve(catalogue, "prd", "wep")
    assert [str(problem) for problem in refused.value.problems] == [
        "environment: the catalogue has no environment `prd`; did you mean `prod`?",
        "service: the catalogue has no service `wep`; did you mean `web`?",
    ]
