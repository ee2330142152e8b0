"""Tools in containers: their end is always known, and nothing of them goes on when nobody listens any more."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops_pipeline.adapters.databases.container import DatabaseContainer, Engine
from ops_pipeline.adapters.databases.scratch import DATA, scratch_server, sweep
from ops_pipeline.adapters.databases.streaming import Tool, run
from ops_pipeline.adapters.databases.tool_pipe import open_pipe
from ops_pipeline.errors import NotFound, OpsError, Permanent, Unavailable
from ops_pipeline_tests.testbed import testbed_id

pytestmark = pytest.mark.real

ENGINE = Engine("unix:///var/run/docker.sock", "local")
IMAGE = "debian:bookworm-slim"


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    with scratch_server(
        ENGINE, IMAGE, ["sleep", "infinity"], answers=lambda _: True, source="tools",
        labels={"ops.testbed": testbed_id()},
    ) as container:  # fmt: skip
        yield container


def processes(container: str) -> str:
    return run(ENGINE, container, ["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]).text


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(params=[False, True], ids=["by the engine", "by its pipe"])
def bulk(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_output_code_and_last_words_arrive_whole(container: str, bulk: bool) -> None:
    found = run(ENGINE, container, ["sh", "-c", "printf out; echo words >&2; exit 3"], environment={"A": "b"})
    assert (found.code, found.out, found.err) == (3, b"out", "words")
    data = bytes(range(256)) * 8000
    assert run(ENGINE, container, ["cat"], chunks=[data, b"", data]).out == data * 2
    with Tool(ENGINE, container, ["sh", "-c", "seq 300000; seq 100000 >&2"], bulk=bulk) as tool:
        pieces = []
        while piece := tool.read(1234):
            assert len(piece) <= 1234
            pieces.append(piece)
        assert tool.code == 0
    assert b"".join(pieces).split() == [str(number).encode() for number in range(1, 300001)]
    assert len(tool.error_tail) <= 8192
    assert tool.error_tail.endswith("100000")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo data; echo no space left >&2; exit 1", "no space left"),
        ("echo data; kill -9 $$", "killed"),
        ("no-such-program", "no such program"),
    ],
)
def test_a_tool_that_fails_after_output_is_no_success(container: str, script: str, words: str, bulk: bool) -> None:
    with Tool(ENGINE, container, ["sh", "-c", script], what="the dump", bulk=bulk) as tool:
        while tool.read(100):
            pass
        with pytest.raises(Permanent, match=words):
            tool.require_success()


def test_much_output_passes_the_engine_by_and_the_tool_notices_when_nobody_reads_on(container: str) -> None:
    with Tool(ENGINE, container, ["sh", "-c", "readlink /proc/$$/fd/1; sleep 7206"], bulk=True) as tool:
        line = tool.readline().strip().decode()
        assert line.startswith("pipe:") and line in opened_here()
    assert line not in opened_here()
    with Tool(ENGINE, container, ["sh", "-c", "yes; sleep 7207"], bulk=True) as tool:
        assert tool.read(100).startswith(b"y\ny\n")
    assert "sleep 720" not in processes(container) and "yes" not in processes(container)


def test_where_its_pipe_cannot_be_had_the_engine_brings_the_output(container: str) -> None:
    with ENGINE.doing("start") as client:
        made = client.exec_create(container, ["sleep", "7208"], environment={"OPS_TOOL": "other"})
        client.exec_start(made["Id"], detach=True)
        process = client.exec_inspect(made["Id"])["Pid"]
    assert open_pipe(process, "OPS_TOOL=other", seconds=0.1) is None, "it has no child with a pipe"
    assert open_pipe(2**22 + 1, "OPS_TOOL=other") is None, "there is no such process here"
    assert open_pipe(os.getpid(), "OPS_TOOL=other", seconds=0.1) is None
    run(ENGINE, container, ["sh", "-c", "kill -9 $(grep -ls 7208 /proc/[0-9]*/cmdline | cut -d/ -f3)"])


def opened_here() -> set[str]:
    """What this process has open."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(descriptor.readlink()))
    return found


def test_a_tool_that_hangs_is_ended_with_its_children(container: str, bulk: bool) -> None:
    script = "echo a; sleep 7201 & sleep 7202"
    with (
        Tool(ENGINE, container, ["sh", "-c", script], hang_seconds=1.0, bulk=bulk) as tool,
        pytest.raises(Permanent, match="gave nothing for 1 s"),
    ):
        while tool.read(100):
            pass
    assert "sleep 720" not in processes(container)


def test_whatever_breaks_the_input_ends_the_tool_and_passes_on(container: str) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(ENGINE, container, ["sh", "-c", "cat; touch /tmp/regular-end; sleep 7203"], chunks=broken())
    listed = run(ENGINE, container, ["ls", "/tmp"]).text
    assert "regular-end" not in listed
    assert "sleep 7203" not in processes(container)
    with pytest.raises(OpsError):
        run(ENGINE, container, ["head", "-c", "3"], chunks=(b"x" * 100_000 for _ in range(300)), check=True)


def test_a_controller_that_is_killed_leaves_no_tool_behind(container: str, bulk: bool) -> None:
    program = (
        "from ops_pipeline.adapters.databases.container import Engine\n"
        "from ops_pipeline.adapters.databases.streaming import Tool\n"
        "argv = ['sh', '-c', 'echo up; exec sleep 7204']\n"
        f"tool = Tool(Engine('{ENGINE.url}', 'local'), '{container}', argv, bulk={bulk})\n"
        "print(tool.read(10), flush=True)\n"
        "tool.read(10)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        assert "sleep 7204" in processes(container)
        os.kill(process.pid, signal.SIGKILL)
    until(lambda: "sleep 7204" not in processes(container))


def test_a_container_that_is_killed_ends_its_tool_with_an_error(bulk: bool) -> None:
    with (
        scratch_server(
            ENGINE, IMAGE, ["sleep", "infinity"], answers=lambda _: True, source="killed",
            labels={"ops.testbed": testbed_id()},
        ) as container,
        Tool(ENGINE, container, ["sh", "-c", "echo data; sleep 7205"], bulk=bulk) as tool,
    ):  # fmt: skip
        assert tool.read(5) == b"data\n"
        with ENGINE.doing("kill") as client:
            client.kill(container)
        with pytest.raises(Permanent):
            while tool.read(100):
                pass
            tool.require_success()


def test_a_scratch_server_goes_whatever_happens_and_leftovers_are_swept() -> None:
    labels = {"ops.testbed": testbed_id(), "case": "goes"}
    with pytest.raises(ZeroDivisionError), scratch_server(
        ENGINE, IMAGE, ["sleep", "infinity"], answers=lambda _: True, source="goes", user="nobody", labels=labels
    ) as container:  # fmt: skip
        run(ENGINE, container, ["sh", "-c", f"echo data > {DATA}/file"], check=True)
        assert run(ENGINE, container, ["sh", "-c", "echo x > /file"]).code != 0
        with ENGINE.doing("look") as client:
            state = client.inspect_container(container)
        assert state["HostConfig"]["NetworkMode"] == "none"
        assert state["HostConfig"]["Memory"] > 0
        raise ZeroDivisionError
    with pytest.raises(NotFound):
        run(ENGINE, container, ["true"])
    with pytest.raises(Permanent, match="last words"), scratch_server(
        ENGINE, IMAGE, ["sh", "-c", "echo last words; exit 7"], answers=lambda _: False, source="goes", labels=labels
    ):  # fmt: skip
        pass
    with pytest.raises(Unavailable), scratch_server(
        ENGINE, IMAGE, ["sleep", "infinity"], answers=lambda _: False, source="goes", labels=labels, start_seconds=0.2
    ):  # fmt: skip
        pass
    assert sweep(ENGINE, labels) == 0


def test_exactly_one_running_container_is_found(container: str) -> None:
    with ENGINE.doing("look") as client:
        name = client.inspect_container(container)["Name"].lstrip("/")
    assert DatabaseContainer(ENGINE, name, "listings").find().id == container
    by_labels = DatabaseContainer(ENGINE, f"ops.testbed={testbed_id()}, ops.scratch.source=tools", "listings")
    assert by_labels.find().id == container
    with pytest.raises(NotFound, match="listings"):
        DatabaseContainer(ENGINE, name[:-1], "listings").find()
    with pytest.raises(NotFound, match="listings"):
        DatabaseContainer(ENGINE, "ops.testbed=nobody", "listings").find()
    with scratch_server(
        ENGINE, IMAGE, ["sleep", "infinity"], answers=lambda _: True, source="second",
        labels={"ops.testbed": testbed_id(), "case": "two"},
    ) as second:  # fmt: skip
        both = DatabaseContainer(ENGINE, f"ops.scratch=true,ops.testbed={testbed_id()}", "listings")
        with pytest.raises(Permanent, match="finds 2 containers"):
            both.find()
        with ENGINE.doing("stop") as client:
            client.kill(second)
        one = DatabaseContainer(ENGINE, f"ops.testbed={testbed_id()},case=two", "listings")
        with pytest.raises(Unavailable, match="does not run"):
            one.find()
    with pytest.raises(OpsError):
        DatabaseContainer(Engine("unix:///nowhere.sock", "gone"), "x", "listings").find()
