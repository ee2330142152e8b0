import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from ops_pipeline.adapters.process import CommandError, CommandMissing, CommandTimedOut, Redaction, run


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def test_output_is_returned_raw_and_lines_are_streamed() -> None:
    lines: list[str] = []
    done = run(python("import sys; print('out'); print('err', file=sys.stderr)"), timeout=20, on_line=lines.append)
    assert done.stdout == b"out\n"
    assert done.stderr_tail == "err"
    assert sorted(lines) == ["err", "out"]


def test_lines_come_while_the_program_still_runs() -> None:
    seen: list[float] = []
    run(
        python("import time; print('a', flush=True); time.sleep(1); print('b')"),
        timeout=20,
        on_line=lambda line: seen.append(time.monotonic()),
    )
    assert seen[1] - seen[0] > 0.5


def test_a_failure_carries_argv_code_and_tails() -> None:
    with pytest.raises(CommandError) as caught:
        run(python("import sys; print('said'); sys.exit('went wrong')"), timeout=20)
    error = caught.value
    assert (error.returncode, error.stdout_tail, error.stderr_tail) == (1, "said", "went wrong")
    assert error.argv[0] == sys.executable
    assert "went wrong" in str(error)


def test_without_check_the_code_is_returned() -> None:
    assert run(python("raise SystemExit(3)"), timeout=20, check=False).returncode == 3


def test_a_missing_program_is_said_so() -> None:
    with pytest.raises(CommandMissing, match="could not start no-such-program"):
        run(["no-such-program"], timeout=5)


def test_standard_input_and_environment() -> None:
    code = "import os, sys; print(os.environ['GIVEN'] + sys.stdin.read() + os.environ['PATH'][:1])"
    assert run(python(code), timeout=20, stdin=b"data", env={"GIVEN": "x"}).stdout.startswith(b"xdata/")


def test_much_output_on_both_streams_does_not_block() -> None:
    code = "import sys\nfor i in range(20000): print('o' * 80); print('e' * 80, file=sys.stderr)"
    assert len(run(python(code), timeout=60).stdout) == 20000 * 81


def test_secrets_are_redacted_everywhere_but_in_the_raw_output() -> None:
    lines: list[str] = []
    code = "import sys; print('token=hunter22'); print('line one', 'and hunter22'); sys.exit('hunter22 refused')"
    with pytest.raises(CommandError) as caught:
        run(python(code), timeout=20, on_line=lines.append, redact=["hunter22"])
    everything = " ".join([*lines, str(caught.value), caught.value.stderr_tail, caught.value.stdout_tail])
    assert "hunter22" not in everything
    assert "***" in everything


def test_redaction_of_values_with_several_lines_and_of_short_ones() -> None:
    redact = Redaction(["-----BEGIN KEY-----\nMIIEsecret\n", "abc", ""])
    assert redact("leak: MIIEsecret!") == "leak: ***!"
    assert redact("abcdef") == "abcdef"


def test_a_time_out_kills_the_whole_group(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', "
        "'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "print('last words', flush=True)\n"
        "time.sleep(60)"
    )
    with pytest.raises(CommandTimedOut, match=r"did not end within 1\.5 s") as caught:
        run(python(code), timeout=1.5)
    assert "last words" in caught.value.stdout_tail
    assert all(wait_gone(int(pid)) for pid in pids.read_text().split())


def test_interruption_leaves_nothing_running(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = (
        f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); print(1, flush=True); time.sleep(60)"
    )
    main = threading.get_ident()

    def interrupt(line: str) -> None:
        signal.pthread_kill(main, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(python(code), timeout=30, on_line=interrupt)
    assert wait_gone(int(pid_file.read_text()))


def test_a_grandchild_that_keeps_the_pipes_open_is_not_waited_for(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(pid_file)!r}, 'w').write(str(child.pid))\n"
        "print('done')"
    )
    started = time.monotonic()
    assert run(python(code), timeout=30).stdout == b"done\n"
    assert time.monotonic() - started < 12
    assert wait_gone(int(pid_file.read_text()))
