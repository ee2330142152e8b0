"""A digest whose scan failed, is missing or has expired is refused by every path, in words, and nothing changes.

One digest stands for all paths: it is the latest image, what is live in dev, and an old release of prod whose
containers are gone. Its scan in the ledger is then made to fail, removed, or put too far back.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest

from ops_pipeline.cli.remote import RemoteRuns
from ops_pipeline.core.release import Action, Phase
from ops_pipeline.core.scan import Finding, ScanReport
from ops_pipeline.defs.all import build_definitions
from ops_pipeline.defs.partitions import release_tags
from ops_pipeline.defs.run_events import FINISHED, Kind
from ops_pipeline.ports import BlobStore
from ops_pipeline.services.images import latest_image, latest_scan, point_at, record_scan
from ops_pipeline.services.ledger import releases
from ops_pipeline_tests.defs.materializing import opening
from ops_pipeline_tests.testbed.control_plane import until
from ops_pipeline_tests.testbed.whole import Whole

pytestmark = [pytest.mark.real, pytest.mark.timeout(280)]

FINDING = Finding("vulnerability", "CVE-2026-1", "CRITICAL", "openssl", "3.0.1", "3.0.2")
Doctor = Callable[[BlobStore, ScanReport], object]


def _failed(store: BlobStore, report: ScanReport) -> None:
    record_scan(store, replace(report, scanned_at=report.scanned_at + timedelta(seconds=1), findings=(FINDING,)))


def _missing(store: BlobStore, report: ScanReport) -> None:
    for info in list(store.list(_prefix(report.digest))):
        store.delete(info.key)


def _expired(store: BlobStore, report: ScanReport) -> None:
    _missing(store, report)
    record_scan(store, replace(report, scanned_at=report.scanned_at - timedelta(hours=30)))


STATES: dict[str, tuple[Doctor, str]] = {
    "failed": (_failed, "1 CRITICAL blocking: CVE-2026-1 in openssl 3.0.1 (fixed in 3.0.2)"),
    "missing": (_missing, "no scan report for sha256:"),
    "expired": (_expired, "the scan report has expired: it is 30 h old, more than the allowed 24 h"),
}
PATHS: dict[str, tuple[str, Mapping[str, Any] | None]] = {
    "job deploy": ("deploy", None),
    "materialize": ("__ASSET_JOB", None),
    "job deploy by digest": ("deploy", {"digest": "{digest}"}),
    "job deploy by force": ("deploy", {"force": True}),
    "job promote": ("promote", None),
    "job rollback to a release started anew": ("rollback", {"to": 1}),
}


def _prefix(digest: str) -> str:
    return f"scans/{digest.removeprefix('sha256:')}/"


@dataclass
class Scene:
    """The bed, the service everything is about, and the digest that is refused."""

    whole: Whole
    service: str
    digest: str

    @contextmanager
    def scan_is(self, state: str) -> Iterator[str]:
        """Within, the ledger's scan of the digest is in this state; gives the words of the refusal."""
        store = self.whole.platform.store
        before = {info.key: store.read(info.key) for info in store.list(_prefix(self.digest))}
        found = latest_scan(store, self.digest)
        assert found is not None
        doctor, words = STATES[state]
        doctor(store, found[1])
        try:
            yield words
        finally:
            _missing(store, found[1])
            for key, blob in before.items():
                assert blob is not None
                store.write(key, blob.data)

    def run(self, job: str, config: Mapping[str, Any] | None) -> dg.ExecuteInProcessResult:
        """The job on prod in this process, with the real platform."""
        definitions = build_definitions(self.whole.platform.catalogue, opening(self.whole.platform))
        named = {name: value.format(digest=self.digest) if isinstance(value, str) else value
                 for name, value in (config or {}).items()}  # fmt: skip
        with (
            tempfile.TemporaryDirectory() as home,
            dg.DagsterInstance.local_temp(home, overrides={"telemetry": {"enabled": False}}) as instance,
        ):
            return definitions.resolve_job_def(job).execute_in_process(
                asset_selection=[dg.AssetKey("release")] if job == "__ASSET_JOB" else None,
                partition_key=f"prod|{self.service}",
                run_config={"ops": {"release": {"config": named}}} if config is not None else None,
                instance=instance,
                raise_on_error=False,
            )


@pytest.fixture(scope="module")
def scene(whole: Whole) -> Scene:
    service, store = whole.basket, whole.platform.store
    first = whole.build(service, "1.0.0")
    whole.deploy("dev", service)
    whole.deploy("prod", service)
    for version in ("1.1.0", "1.2.0"):
        whole.build(service, version)
        whole.deploy("prod", service)
    point_at(store, first)
    latest = latest_image(store, service)
    assert latest == first
    phases = {release.number: release.phase for release in releases(store, "prod", service)}
    assert phases == {1: Phase.RETIRED, 2: Phase.STANDBY, 3: Phase.LIVE}
    return Scene(whole, service, first.ref.digest)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("state", STATES)
def test_refused_by_every_job_and_button(scene: Scene, state: str, path: str) -> None:
    with scene.scan_is(state) as words:
        before = scene.whole.world()
        result = scene.run(*PATHS[path])
        assert not result.success
        data = next(event for event in result.all_events if event.is_step_failure).step_failure_data.user_failure_data
        assert data is not None
        assert words in (data.description or "")
        shown = {name: value.value for name, value in data.metadata.items()}
        assert (shown["error"], shown["exit_code"]) == ("PolicyRefused", 3)
        assert scene.whole.world() == before


# ------------------------------------------------------------------------- through the real control plane

OPS = {
    ("deploy", "failed"): (),
    ("deploy", "missing"): ("--digest", "{digest}", "--force"),
    ("promote", "missing"): (),
    ("rollback", "expired"): ("--to", "1"),
    ("plan", "expired"): (),
}


@pytest.mark.parametrize(("verb", "state"), OPS)
def test_refused_by_ops(scene: Scene, verb: str, state: str) -> None:
    options = [option.format(digest=scene.digest) for option in OPS[verb, state]]
    with scene.scan_is(state) as words:
        before = scene.whole.world()
        done = scene.whole.plane.ops(verb, scene.service, "prod", *options)
        assert done.returncode == 3, done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert scene.whole.world() == before


LAUNCH = """
mutation($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { id } } ... on Error { message }
  }
}
"""


def test_refused_by_the_button_of_the_asset_page(scene: Scene) -> None:
    """What the browser sends (`test_ui_deploy` presses the button itself)."""
    plane = scene.whole.plane
    selector = {
        "repositoryLocationName": "ops_pipeline",
        "repositoryName": "__repository__",
        "pipelineName": "__ASSET_JOB",
        "assetSelection": [{"path": ["release"]}],
        "assetCheckSelection": [],
    }
    tags = [{"key": key, "value": value} for key, value in release_tags("prod", scene.service).items()]
    params = {"selector": selector, "executionMetadata": {"tags": tags}, "runConfigData": "{}", "mode": "default"}
    with scene.scan_is("expired") as words:
        before = scene.whole.world()
        answer = plane.ask(LAUNCH, {"params": params})["launchPipelineExecution"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        client, run_id = RemoteRuns(plane.url), answer["run"]["id"]
        until(lambda: client.look(run_id, None).status in FINISHED, 120, "the end of the run")
        failed = next(event for event in client.look(run_id, None).events if event.kind is Kind.FAILED)
        assert words in failed.text
        assert failed.metadata["exit_code"] == 3
        assert scene.whole.world() == before


def test_the_very_same_roll_back_passes_once_the_scan_does(scene: Scene) -> None:
    """So it was the scan that refused."""
    result = scene.run("rollback", {"to": 1})
    assert result.success
    newest = releases(scene.whole.platform.store, "prod", scene.service)[0]
    assert (newest.action, newest.restores, newest.digest) == (Action.ROLLBACK, 1, scene.digest)
    assert scene.whole.answer("prod", scene.service) == (200, newest.version)
