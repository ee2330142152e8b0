"""`ops serve` and `ops` beside it: ready, reloading, one at a time, nothing left; runs through it and without it."""

from __future__ import annotations

import getpass
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ops_pipeline.cli.remote import RemoteRuns
from ops_pipeline.defs.attribution import SECRET_HEADER, USER_HEADER
from ops_pipeline.defs.run_events import FINISHED, Launch
from ops_pipeline.errors import OpsError
from ops_pipeline_tests.testbed.control_plane import ControlPlaneBed, project, serving, until

NOTHING_BUILT = "no image of api has been built"


def socket_client(bed: ControlPlaneBed) -> RemoteRuns:
    """The UI straight on its socket, as the front door asks it."""
    secret = (bed.door / "secret").read_text().strip()
    transport = httpx.HTTPTransport(uds=str(bed.door / "webserver.sock"))
    return RemoteRuns("http://ui", transport=transport, headers={SECRET_HEADER: secret, USER_HEADER: "ada"})


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(bed: ControlPlaneBed) -> list[int]:
    return [int(path.read_text()) for path in (bed.root / ".ops" / "run").glob("*.pid") if path.stem != "serve"]


@pytest.fixture(scope="module")
def bed() -> Iterator[ControlPlaneBed]:
    with project() as made, serving(made):
        yield made


def finished(client: RemoteRuns, run_id: str) -> str:
    until(lambda: client.look(run_id, None).status in FINISHED, 120, "the end of the run")
    return client.look(run_id, None).status


def test_runs_are_launched_and_followed(bed: ControlPlaneBed) -> None:
    client = socket_client(bed)
    assert client.answers()
    services, environments = client.names()
    assert list(services) == ["api", "web"] and set(environments) == {"dev", "prod"}
    tags = {
        "dagster/partition": "dev|api",
        "dagster/partition/environment": "dev",
        "dagster/partition/service": "api",
    }
    run_id = client.launch(Launch("deploy", {"release": {"action": "deploy"}}, tags))
    assert finished(client, run_id) == "FAILURE"
    failed = next(event for event in client.look(run_id, None).events if event.kind == "failed")
    assert failed.text.startswith(NOTHING_BUILT)
    assert failed.metadata["error"] == "NotFound" and failed.metadata["exit_code"] == 1
    assert not client.stop(run_id)


def test_ops_asks_the_socket_when_there_is_no_front_door(bed: ControlPlaneBed) -> None:
    done = bed.ops("deploy", "api", "dev", "--json")
    assert "control-plane-of-this-machine" in done.stderr
    answer = json.loads(done.stdout)
    assert done.returncode == 1 and NOTHING_BUILT in answer["error"]["message"]
    query = "query($id: ID!) { runOrError(runId: $id) { ... on Run { tags { key value } } } }"
    tags = socket_client(bed)._ask(query, {"id": answer["run_id"]})["runOrError"]["tags"]
    assert {"key": "ops/user", "value": getpass.getuser()} in tags


def test_only_the_owner_reaches_the_socket(bed: ControlPlaneBed) -> None:
    assert (bed.root / ".ops" / "run").stat().st_mode & 0o077 == 0


def test_a_second_one_is_refused(bed: ControlPlaneBed) -> None:
    done = bed.ops("serve")
    assert done.returncode == 5
    assert "already runs" in done.stderr


def test_the_catalogue_is_loaded_again_when_it_changes_and_its_mistakes_are_shown(bed: ControlPlaneBed) -> None:
    client, text = socket_client(bed), bed.catalogue.read_text()
    try:
        bed.catalogue.write_text(text + "  mobile: {build: {context: mobile}, port: 8081, route: {path: /m}}\n")
        until(lambda: "mobile" in _services(client), 60, "the new service")
        bed.catalogue.write_text(text.replace("port: 8000", "prt: 8000").replace("project: shop", "project: Shop!"))
        until(lambda: "3 problems" in _trouble(client), 60, "the catalogue's mistakes")
        assert "services.api.prt" in _trouble(client) and "project" in _trouble(client)
    finally:
        bed.catalogue.write_text(text)
    until(lambda: _services(client) == ["api", "web"], 60, "the old catalogue")


def _services(client: RemoteRuns) -> list[str]:
    try:
        return list(client.names()[0])
    except OpsError:
        return []


def _trouble(client: RemoteRuns) -> str:
    try:
        client.names()
    except OpsError as error:
        return error.message
    return ""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_behind(how: signal.Signals) -> None:
    with project() as made, serving(made) as process:
        pids = children(made)
        assert len(pids) == 3 and all(alive(pid) for pid in pids)
        process.send_signal(how)
        assert process.wait(60) == (0 if how is not signal.SIGKILL else -signal.SIGKILL)
        until(lambda: not any(alive(pid) for pid in pids), 30, "the end of the processes")
        if how is not signal.SIGKILL:
            assert {path.name for path in (made.root / ".ops" / "run").iterdir()} <= {"ui", "workspace.yaml"}
            assert [path.name for path in made.door.iterdir()] == ["secret"]


def test_a_process_that_dies_is_started_again(bed: ControlPlaneBed) -> None:
    run = bed.root / ".ops" / "run"
    before = int((run / "webserver.pid").read_text())
    os.kill(before, signal.SIGKILL)
    until(lambda: int((run / "webserver.pid").read_text()) != before, 30, "another webserver")
    until(lambda: _services(socket_client(bed)) == ["api", "web"], 60, "an answering webserver")


# ------------------------------------------------------------------------------------ without any UI: this machine


@pytest.fixture(scope="module")
def alone() -> Iterator[ControlPlaneBed]:
    with project() as made:
        yield made


def test_without_a_ui_a_run_happens_here(alone: ControlPlaneBed) -> None:
    done = alone.ops("deploy", "api", "dev", "--json")
    answer = json.loads(done.stdout)
    assert answer["status"] == "FAILURE"
    assert answer["error"]["class"] == "NotFound" and NOTHING_BUILT in answer["error"]["message"]
    assert done.returncode == answer["error"]["exit_code"] == 1
    assert "this machine" in done.stderr


def test_its_words_and_exit_code_reach_the_terminal(alone: ControlPlaneBed) -> None:
    done = alone.ops("deploy", "api", "dev", "--digest", "sha256:" + "a" * 64)
    assert done.returncode == 3
    assert "refused" in done.stderr


def test_every_wrong_argument_is_named_at_once_and_nothing_is_started(alone: ControlPlaneBed) -> None:
    done = alone.ops("rollback", "apii", "prd")
    assert done.returncode == 2
    assert "no service `apii`; did you mean `api`?" in done.stderr
    assert "no environment `prd`; did you mean `prod`?" in done.stderr
    assert not alone.workers()


def test_a_given_address_must_answer(alone: ControlPlaneBed) -> None:
    done = alone.ops("deploy", "api", "dev", "--url", alone.url)
    assert done.returncode == 5
    assert alone.url in done.stderr


def test_ctrl_c_detaches_and_the_run_goes_on(alone: ControlPlaneBed) -> None:
    process = alone.start("reconcile")
    assert process.stderr is not None
    run_id = next(line.split()[1] for line in process.stderr if line.startswith("run "))
    until(lambda: bool(alone.workers()), 30, "the run's process")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "detached" in errors and f"ops stop {run_id}" in errors
    done = alone.ops("follow", run_id, "--json")
    # Its engine does not exist: it ended by itself, as an ordinary run, and was not stopped.
    assert json.loads(done.stdout)["status"] in ("SUCCESS", "FAILURE")


def test_stop_asks_a_run_to_undo(alone: ControlPlaneBed) -> None:
    done = alone.ops("reconcile", "--no-wait", "--json")
    run_id = json.loads(done.stdout)["run_id"]
    assert alone.ops("stop", run_id).returncode in (0, 1)  # it may have ended by itself
    until(lambda: not alone.workers(), 60, "the end of the run")
    assert alone.ops("follow", run_id).returncode in (0, 1, 6, 7)


def test_runs_made_alone_show_in_the_ui_later(alone: ControlPlaneBed) -> None:
    done = alone.ops("deploy", "web", "dev", "--json")
    run_id = json.loads(done.stdout)["run_id"]
    with serving(alone):
        client = socket_client(alone)
        assert client.look(run_id, None).status == "FAILURE"


def test_help_and_completion_need_no_catalogue() -> None:
    with project() as made:
        made.catalogue.unlink()
        for arguments in (["--help"], ["deploy", "--help"], ["catalogue", "schema"], ["serve", "--help"]):
            assert made.ops(*arguments).returncode == 0


def test_the_control_plane_starts_detached_and_stops(tmp_path: Path) -> None:
    with project() as made:
        started = made.ops("serve", "--detach")
        try:
            assert started.returncode == 0, started.stderr
            assert _services(socket_client(made)) == ["api", "web"]
        finally:
            assert made.ops("serve", "--stop").returncode == 0
        assert "no control plane runs" in made.ops("serve", "--stop").stdout
