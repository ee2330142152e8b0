"""Many questions over one exec: every one gets its own answer, and what ends a session loses none."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ops_pipeline.adapters.docker_exec import ContainerExec
from ops_pipeline.adapters.docker_session import ContainerSessions
from ops_pipeline.errors import Transient
from ops_pipeline_tests.testbed.edge import DOCKER_URL, EdgeBed, edge_bed

pytestmark = pytest.mark.real

ASK = ("ask", "1", "5.000", "GET")
CALLER = """
import sys, time
from ops_pipeline.adapters.docker_exec import ContainerExec
from ops_pipeline.adapters.docker_session import ContainerSessions
sessions = ContainerSessions(ContainerExec(sys.argv[1], "local", sys.argv[2], ""), "edge")
assert sessions.run(["check", "1"], b"\\n", 20).code == 0
print("asked", flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def bed() -> Iterator[EdgeBed]:
    with edge_bed() as running:
        yield running


@pytest.fixture
def execs(bed: EdgeBed) -> ContainerExec:
    return ContainerExec(DOCKER_URL, "local", bed.container.name or "", "")


def shells(bed: EdgeBed) -> set[str]:
    """Process ids of the sessions themselves, without the shells they start for a moment."""
    listed = bed.container.top(ps_args="-eo pid,ppid,args")["Processes"]
    found = {pid: parent for pid, parent, command in listed if "edge session" in command}
    return {pid for pid, parent in found.items() if parent not in found}


def test_every_question_gets_its_own_answer(bed: EdgeBed, execs: ContainerExec) -> None:
    up = bed.upstream("one")
    sessions = ContainerSessions(execs, "edge")
    odd = ["", "two  words", "*", "$HOME `id`", "ö\ttab", "line\nbreak", "unit\x1fseparator"]

    def one(number: int) -> None:
        for turn in range(4):
            seconds = 0.2 if (number + turn) % 3 == 0 else 0
            url = f"http://{up.server.address}:8080/slow?seconds={seconds}&n={number}"
            plain = execs.run(["edge", *ASK, url, "4000", ""], b"\n", 30)
            assert sessions.run([*ASK, url, "4000", ""], b"\n", 30) == plain
            stranger = odd[(number + turn) % len(odd)]
            refused = sessions.run(["observe", "1", stranger], b"\n", 30)
            assert (refused.code, refused.err) == (11, f"the edge does not know a service {stranger}\n")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(8)))
    payload = bytes(range(256)) * 400 + b"edge check 1\n"
    assert sessions.run(["publish-flags", str(len(payload))], payload, 30).code == 0
    assert bed.shell("sha256sum </var/lib/ops-flags/flags.json").split()[0] == hashlib.sha256(payload).hexdigest()


def test_an_edge_that_was_restarted_meanwhile_is_asked_again(bed: EdgeBed, execs: ContainerExec) -> None:
    sessions = ContainerSessions(execs, "edge")
    for _ in range(2):
        assert sessions.run(["check", "1"], b"\n", 30).code == 0
        bed.container.restart(timeout=0)
        bed.wait()
    assert sessions.run(["check", "1"], b"\n", 30).code == 0


def test_a_question_that_takes_too_long_leaves_no_answer_to_the_next_one(bed: EdgeBed, execs: ContainerExec) -> None:
    up = bed.upstream("two")
    sessions = ContainerSessions(execs, "edge")
    assert sessions.run(["check", "1"], b"\n", 30).code == 0
    with pytest.raises(Transient, match="did not answer within 1 s"):
        sessions.run([*ASK, f"http://{up.server.address}:8080/slow?seconds=3", "4000", ""], b"\n", 1)
    assert sessions.run(["observe", "1", "nobody"], b"\n", 30).code == 11


def test_an_edge_of_an_earlier_image_is_asked_as_before(execs: ContainerExec) -> None:
    sessions = ContainerSessions(execs, "echo")  # knows no sessions
    assert [sessions.run(["hello", word], b"\n", 30).out for word in ("you", "me")] == ["hello you\n", "hello me\n"]


def test_a_killed_caller_leaves_nothing_in_the_edge(bed: EdgeBed) -> None:
    before = shells(bed)
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, DOCKER_URL, bed.container.name or ""], stdout=subprocess.PIPE, text=True
    )
    try:
        assert caller.stdout is not None and caller.stdout.readline() == "asked\n"
        assert len(shells(bed) - before) == 1
    finally:
        caller.kill()
        caller.communicate()
    deadline = time.monotonic() + 20
    while shells(bed) - before:
        assert time.monotonic() < deadline, "its session goes on without it"
        time.sleep(0.2)
