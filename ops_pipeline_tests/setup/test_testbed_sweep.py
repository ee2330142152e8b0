"""Sweeping: what a dead run left goes, what a living run or anybody else has stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.setup import docker_cli, processes, testbed

ID_OF_A_PROCESS = "from deploy.setup import testbed; print(testbed.own_id())"
ROOT = Path(__file__).parents[2]


def id_of_an_ended_process() -> str:
    done = subprocess.run([sys.executable, "-c", ID_OF_A_PROCESS], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_run_is_over_when_its_process_is_gone() -> None:
    assert testbed.is_over(id_of_an_ended_process())
    assert not testbed.is_over(testbed.own_id())


def test_a_process_id_that_somebody_else_got_does_not_keep_a_run_alive() -> None:
    mine, _, _ = testbed.own_id().rpartition("-")
    assert testbed.is_over(f"{mine}-1")


@pytest.mark.parametrize("foreign", ["", "abc", "t000000-1-1", "fd-try"])
def test_ids_of_other_machines_and_other_forms_are_left_alone(foreign: str) -> None:
    assert not testbed.is_over(testbed.owner(foreign))


def test_the_owner_is_found_in_labels_and_names() -> None:
    identity = testbed.own_id()
    assert testbed.owner(testbed.new_id()) in (identity, os.environ.get(testbed.VARIABLE))
    assert testbed.owner(f"ops-{identity}-dev-api-1-0") == identity


def test_descendants_are_found_and_ended() -> None:
    child = subprocess.Popen(["sh", "-c", "sleep 300 & wait"])
    try:
        while not processes.descendants(child.pid):
            assert child.poll() is None
        below = processes.descendants(child.pid)
        processes.end([*below, child.pid])
        assert all(processes.start_time(pid) is None for pid in below)
    finally:
        child.kill()
        child.wait()


@pytest.mark.real
def test_only_the_dead_runs_network_and_what_hangs_on_it_is_removed() -> None:
    docker = docker_cli.need_docker().path
    dead, mine = id_of_an_ended_process(), testbed.new_id()

    def run(*arguments: str) -> str:
        return subprocess.run([docker, *arguments], check=True, capture_output=True, text=True).stdout.strip()

    for identity in (dead, mine):
        run("network", "create", "--label", f"ops.testbed={identity}", f"sweep-{identity}")
    try:
        run("create", "--name", f"unlabelled-{mine}", "--network", f"sweep-{mine}", "debian:bookworm-slim", "true")
        inside = ["--network", f"sweep-{dead}", "--volume", "/data", "debian:bookworm-slim", "true"]
        container = run("create", *inside)
        removed = testbed.sweep_dead_runs()
        assert f"network sweep-{dead}" in removed
        left = run("ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.Names}}")
        assert container not in left
        assert f"unlabelled-{mine}" in left
    finally:
        run("rm", "--force", "--volumes", f"unlabelled-{mine}")
        run("network", "rm", f"sweep-{mine}")
