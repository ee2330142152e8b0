"""`make test`: all set-up, lint, types, then the tests in two phases; afterwards nothing is left behind.

Quick tests come first, while engine and images are still being made; those that need them come after that. A run
that is interrupted (Ctrl-C, SIGTERM, a phase killed) sweeps up like one that ends; what a killed run left is swept by
the next one. A run that ends by itself and leaves a container, network, volume or process fails, and names it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from deploy.setup import browser, docker_cli, engine, everything, processes, testbed
from deploy.setup.commands import ROOT, SetupError, say, step
from deploy.setup.inventory import Thing
from deploy.setup.venv import PYTHON

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
NO_TESTS = 5
MOST_TRIED_AGAIN = 5
THOROUGH = "--thorough"
"""Instead of both phases: the tests that take minutes each."""
PATIENCE_SECONDS = 60.0
"""How long pytest may take to run its fixtures' endings after an interruption."""
LIMIT_SECONDS = float(os.environ.get("OPS_TEST_LIMIT_SECONDS", "4500"))
STATIC = (
    ("ruff check", ["-m", "ruff", "check", "."]),
    ("ruff format", ["-m", "ruff", "format", "--check", "."]),
    ("mypy", ["-m", "mypy"]),
)


class Interrupted(Exception):
    """A signal asked us to stop, or the time is over."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True)
class Phase:
    """Tests that run together; `distribution` is xdist's word for what stays on one worker."""

    name: str
    expression: str
    workers: int
    distribution: str
    real: bool
    """Whether they need the engine."""


@dataclass
class Counts:
    """What the phases' reports add up to."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, report: Path) -> None:
        """Add one JUnit report; a phase that wrote none counts as one failure."""
        try:
            suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
        except (OSError, ElementTree.ParseError):
            self.failed += 1
            return
        for suite in suites:
            number = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
            self.failed += number["failures"] + number["errors"]
            self.skipped += number["skipped"]
            self.passed += number["tests"] - number["failures"] - number["errors"] - number["skipped"]


def failed_in(report: Path) -> list[str]:
    """Node ids of the tests that failed according to a JUnit report, each once; [] when it cannot be read."""
    try:
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return []
    found = []
    for case in cases:
        if case.find("failure") is None and case.find("error") is None:
            continue
        parts = case.get("classname", "").split(".")
        # "package.test_module" or "package.test_module.TestClass"
        end = max((index for index, part in enumerate(parts) if part.startswith("test_")), default=len(parts) - 1)
        module, classes = "/".join(parts[: end + 1]) + ".py", parts[end + 1 :]
        found.append("::".join([module, *classes, case.get("name", "")]))
    return list(dict.fromkeys(found))


class TestRun:
    """One run: its id, its temporary folder, what stood there before it."""

    def __init__(self) -> None:
        self.identity = testbed.own_id()
        self.folder = testbed.folder(self.identity)
        self.counts = Counts()
        self.child: subprocess.Popen[bytes] | None = None
        self.began = time.monotonic()
        self.unnamed_before: set[str] = set()
        self.passed_alone: list[str] = []

    def environment(self) -> dict[str, str]:
        """Variables of everything we start."""
        temporary = self.folder / "t"
        temporary.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = {
            **os.environ,
            testbed.VARIABLE: self.identity,
            "TMPDIR": str(temporary),
            "PATH": f"{PYTHON.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        chromium = browser.find()
        if chromium is not None:
            found["OPS_CHROMIUM"] = chromium
        return found

    def call(self, argv: Sequence[str]) -> int:
        """Run one command to its end. When we are interrupted, it is asked to end and given time for it."""
        self.child = subprocess.Popen(
            argv,
            cwd=ROOT,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_interrupted_with_parent,
        )
        try:
            return self.child.wait(max(1.0, LIMIT_SECONDS - (time.monotonic() - self.began)))
        except subprocess.TimeoutExpired:
            self._ask_to_end()
            raise Interrupted(f"the run took longer than {LIMIT_SECONDS:.0f} s", 1) from None
        except Interrupted:
            self._ask_to_end()
            raise
        finally:
            self.child = None

    def _ask_to_end(self) -> None:
        if self.child is None or self.child.poll() is not None:
            return
        say("tests", f"interrupted: letting the tests clean up for at most {PATIENCE_SECONDS:.0f} s")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGINT)
        try:
            self.child.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()

    def static_checks(self) -> list[str]:
        """Lint, format and types. Return the names of those that failed."""
        failed = []
        for name, arguments in STATIC:
            with step("lint", name):
                if self.call([str(PYTHON), *arguments]) != 0:
                    failed.append(name)
        return failed

    def phase(self, phase: Phase, extra: Sequence[str]) -> int:
        """Return pytest's exit code."""
        name = phase.name
        say("tests", f"phase «{name}», {time.monotonic() - self.began:.0f} s after the start")
        report = self.folder / f"{name}.xml"
        argv = [str(PYTHON), "-m", "pytest", "-p", "no:cacheprovider", "--basetemp", str(self.folder / name)]
        argv += ["-o", "junit_family=xunit2", "--junitxml", str(report), "--durations", "10", "-q"]
        argv += ["-m", phase.expression] if phase.expression else []
        if phase.workers > 1:
            argv += ["-n", str(phase.workers), "--dist", phase.distribution, "--no-loadscope-reorder"]
        code = self.call([*argv, *extra])
        if code != NO_TESTS:
            self.counts.add(report)
        return code

    def alone(self, phase: str) -> bool:
        """Try what failed in a phase once more, with nothing beside it. Return whether all of it passed then.

        Several workers, three Docker engines and browsers share two cores: a time-out there says little. What fails
        again fails, and what passed only now is named.
        """
        failed = failed_in(self.folder / f"{phase}.xml")
        if not 0 < len(failed) <= MOST_TRIED_AGAIN:
            return False
        say("tests", f"phase «{phase}» once more, alone: {', '.join(failed)}")
        report = self.folder / f"{phase}-alone.xml"
        argv = [
            str(PYTHON),
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "--basetemp",
            str(self.folder / f"{phase}-alone"),
        ]
        code = self.call([*argv, "-o", "junit_family=xunit2", "--junitxml", str(report), "-q", *failed])
        if code == 0:
            before = Counts()
            before.add(self.folder / f"{phase}.xml")
            self.counts.failed -= before.failed
            self.counts.add(report)
            self.passed_alone += failed
        return code == 0

    def ours(self) -> list[Thing]:
        """What this run has in the engine. A label without a run's id is ours unless it was there before us,
        or somebody else runs tests by hand at this moment.
        """
        if engine.answers() is None:
            return []
        alone = not foreign_pytest()
        return [
            each
            for each, identity in testbed.things().items()
            if identity == self.identity or (not identity and alone and each.id not in self.unnamed_before)
        ]

    def offspring(self) -> list[int]:
        """Processes that we started, also those that went into the background."""
        return sorted({*processes.descendants(os.getpid()), *testbed.of_run(lambda owner: owner == self.identity)})

    def leftovers(self) -> list[str]:
        """Names of everything this run has left, after a short wait for processes that are just ending."""
        deadline = time.monotonic() + 3
        while self.offspring() and time.monotonic() < deadline:
            reap()
            time.sleep(0.1)
        left = [f"process {pid}: {processes.command(pid)[:120]}" for pid in self.offspring()]
        return left + [str(each) for each in self.ours() if each.kind != "image"]

    def sweep(self) -> None:
        """Remove everything this run left."""
        processes.end(self.offspring())
        reap()
        testbed.remove(self.ours())
        shutil.rmtree(self.folder, ignore_errors=True)


def _interrupted_with_parent() -> None:
    """Ask a test phase to end when this process is killed, so that fixtures still clean up."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGINT)


def _prctl(option: int, value: int) -> None:
    """Linux only; elsewhere nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def reap() -> None:
    """Collect ended processes that were handed to us when their parents ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue


def foreign_pytest() -> bool:
    """Whether somebody else runs tests on this machine now."""
    mine = {os.getpid(), *processes.descendants(os.getpid())}
    return any("pytest" in processes.command(pid) for pid in processes.all_pids() if pid not in mine)


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise Interrupted, once; while we sweep, they are ignored."""

    def stop(number: int, _frame: FrameType | None) -> None:
        for each in handled:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(f"stopped by {signal.Signals(number).name}", 128 + number)

    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for each in handled:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each in handled:
            signal.signal(each, signal.SIG_IGN)


def main(arguments: Sequence[str]) -> int:
    """Everything `make test` does; `arguments` go to pytest, but for THOROUGH. Return the exit code."""
    extra = [each for each in arguments if each != THOROUGH]
    phases = _phases(THOROUGH in arguments, chosen="-m" in extra)
    run = TestRun()
    making: everything.SetUp | None = None
    problems: list[str] = []
    code = 1
    try:
        with signals_raise():
            with everything.under_way(for_tests=True) as making:
                making.tools()
                say("tests", f"this run is {run.identity}")
                problems += [f"{name} failed" for name in run.static_checks()]
                codes = {each.name: run.phase(each, extra) for each in phases if not each.real}
                making.whole()
            # From here on, what our children put into the background is handed to us; the engine is not among it.
            _prctl(PR_SET_CHILD_SUBREAPER, 1)
            swept = testbed.sweep_dead_runs()
            if swept:
                say("tests", "removed what a killed run had left: " + ", ".join(swept))
            run.unnamed_before = {each.id for each, identity in testbed.things().items() if not identity}
            codes |= {each.name: run.phase(each, extra) for each in phases if each.real}
            problems += _problems(run, codes)
            left = run.leftovers()
            problems += [f"left behind: {each}" for each in left]
            code = 1 if problems else 0
    except Interrupted as error:
        problems.append(str(error))
        code = error.code
    except SetupError as error:
        problems.append(f"set-up failed: {error}")
    finally:
        run.sweep()
        if making is not None and making.engine_started:
            say("tests", engine.stop_if_ours())
    return _close(run, problems, code)


def _phases(thorough: bool, chosen: bool) -> list[Phase]:
    """The phases of a run; `chosen`: pytest is told which tests by an expression of its own."""
    # Real components are shared by the tests of a file, so these stay together. They wait more than they work.
    workers = int(os.environ.get("OPS_TEST_REAL_WORKERS", "3"))
    if thorough:
        return [Phase("thorough", "thorough", workers, "loadfile", real=True)]
    if chosen:
        return [Phase("chosen", "", 1, "load", real=True)]
    return [
        Phase("quick", "not real and not browser and not thorough", 3, "load", real=False),
        Phase("real", "(real or browser) and not thorough", workers, "loadfile", real=True),
    ]


def _problems(run: TestRun, codes: dict[str, int]) -> list[str]:
    """What pytest's exit codes and counts say went wrong; what failed beside others is tried once more, alone."""
    if codes.get("real") == 1 and run.alone("real"):
        codes["real"] = 0
    problems = [f"phase «{name}»: pytest ended with code {code}" for name, code in codes.items() if code not in (0, 5)]
    if all(code == NO_TESTS for code in codes.values()):
        problems.append("no test ran")
    if run.counts.skipped:
        problems.append(f"{run.counts.skipped} tests were skipped; none may be")
    return problems


def _close(run: TestRun, problems: Sequence[str], code: int) -> int:
    """The last lines: what went wrong, then the counts."""
    sys.stdout.flush()
    say("tests", f"{time.monotonic() - run.began:.0f} s in all, docker: {getattr(docker_cli.docker(), 'path', 'none')}")
    for each in problems:
        print(f"  problem: {each}", flush=True)
    for each in run.passed_alone:
        print(f"  passed only the second time, alone: {each}", flush=True)
    skipped = f", {run.counts.skipped} skipped" if run.counts.skipped else ""
    print(f"tests: {run.counts.passed} passed, {run.counts.failed} failed{skipped}", flush=True)
    return code
