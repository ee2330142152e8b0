"""Bad input of every kind, as a user meets it: the real `ops`, one clear error, nothing changed.

Each case works in a copy of the project with a copy of the store, and on the real registry, engine and edges. All are
started at once, a few at a time; each is then judged by itself.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ops_pipeline_tests.testbed import free_port
from ops_pipeline_tests.testbed.control_plane import ControlPlaneBed
from ops_pipeline_tests.testbed.programs import write_program
from ops_pipeline_tests.testbed.whole import Whole, World, stored

pytestmark = [pytest.mark.real, pytest.mark.timeout(280)]
AT_ONCE = 3


@dataclass
class Project:
    """The copy one case works in; `change` of the case may set `python`, `extra` and `prefix`."""

    whole: Whole
    root: Path
    service: str
    python: str = sys.executable
    extra: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()

    @property
    def catalogue(self) -> Path:
        return self.root / "deploy" / "services.yaml"

    @property
    def store(self) -> Path:
        return self.root / ".ops" / "store"

    def write(self, old: str, new: str) -> None:
        """Change the catalogue."""
        text = self.catalogue.read_text()
        assert old in text
        self.catalogue.write_text(text.replace(old, new))

    def dockerfile(self, text: str) -> None:
        (self.root / self.service / "Dockerfile").write_text(text.replace("{base}", self.whole.base))

    def damage(self, pattern: str, text: str) -> None:
        found = list(self.store.glob(pattern.format(service=self.service)))
        assert found
        for path in found:
            path.write_text(text)

    def store_file(self, name: str, text: str) -> None:
        """Put an object into the store; `{latest}` in its name is the latest image's digest."""
        latest = (self.store / "images" / self.service / "latest").read_text().strip().removeprefix("sha256:")
        path = self.store / name.format(service=self.service, latest=latest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def ops(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `ops` without any UI."""
        plane = ControlPlaneBed(self.root, free_port(), self.extra)
        named = [argument.format(service=self.service, basket=self.whole.basket) for argument in arguments]
        return subprocess.run(
            [*self.prefix, self.python, "-m", "ops_pipeline.cli", *named],
            cwd=self.root,
            env=plane.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )


@dataclass(frozen=True)
class Case:
    """What goes wrong, what the user types, and what he must read."""

    change: Callable[[Project], object]
    arguments: tuple[str, ...]
    code: int
    words: tuple[str, ...]


BUILD = ("build", "{service}")
DEPLOY = ("deploy", "{service}", "dev", "--force")
NOWHERE = "unix:///nowhere/docker.sock"
FAILING_BUILD = "FROM {base} AS test\nFROM {base}\nRUN echo compiling; echo no such header >&2; exit 2\n"
FAILING_TEST = "FROM {base} AS test\nRUN echo 3 tests failed >&2; exit 7\nFROM {base}\n"


def _no_registry(project: Project) -> None:
    address = project.whole.platform.catalogue.registry.address
    project.write(address, f"127.0.0.1:{free_port()}/market")
    (project.root / project.service / "words.txt").write_text("changed\n")


def _trivy(body: str) -> Callable[[Project], None]:
    """A Python with a Trivy of its own beside it, where `ops` looks first."""

    def change(project: Project) -> None:
        folder = project.root / ".ops" / "python"
        venv.create(folder, symlinks=True, with_pip=False)
        (packages,) = (folder / "lib").glob("python*/site-packages")
        (packages / "real.pth").write_text("\n".join(site.getsitepackages()))
        write_program(folder / "bin", "trivy", body)
        project.python = str(folder / "bin" / "python")

    return change


def _mounted(before: str, after: str = "") -> Callable[[Project], None]:
    """Run `ops` where the store is mounted otherwise; the mount is gone with it. `$STORE` is the store."""

    def change(project: Project) -> None:
        unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
        script = f'set -e\nSTORE="{project.store}"\n{before}\ncode=0\n"$@" || code=$?\n{after}\nexit $code'
        project.prefix = (*unshare, "sh", "-c", script, "sh")

    return change


READ_ONLY = 'mount --bind "$STORE" "$STORE"\nmount -o remount,bind,ro "$STORE"'
FILL = """
cp -a "$STORE" "$STORE.copy"
mount -t tmpfs -o size=64m none "$STORE"
cp -a "$STORE.copy/." "$STORE"
cat /dev/zero > "$STORE/filling" 2>/dev/null || true
"""
COMPARE = """
rm "$STORE/filling"
diff -r --exclude=.store "$STORE.copy" "$STORE" >&2
"""


CASES: dict[str, Case] = {
    "unknown key": Case(
        lambda it: it.write("    port: 8080\n", "    prt: 8080\n"),
        DEPLOY,
        2,
        ("services.yaml:", "prt", "did you mean `port`?"),
    ),
    "wrong values, all at once": Case(
        lambda it: (it.write("port: 8080\n", "port: 99999\n"), it.write("promote_from: dev", "promote_from: dve")),
        DEPLOY,
        2,
        ("port", "99999", "promote_from", "dve"),
    ),
    "two services on one route": Case(
        lambda it: it.write(f"path: /{it.whole.basket},", f"path: /{it.service},"),
        DEPLOY,
        2,
        ("services.{service}.route", "belongs to service `{basket}` already"),
    ),
    "thresholds, canary and smoke tests that cannot be, all at once": Case(
        lambda it: it.write(
            "    memory_mb: 64\n",
            "    memory_mb: 64\n    thresholds: {p95_seconds: 3, error_rate: 5}\n    strategy: canaree\n",
        ),
        DEPLOY,
        2,
        ("thresholds.error_rate", "5", "strategy", "canaree"),
    ),
    "a canary that falls, a threshold nobody counts, a smoke test of nothing": Case(
        lambda it: it.write(
            "    verify: {seconds: 0}\n",
            "    thresholds: {p95_seconds: 3}\n"
            "    canary: [{weight: 50}, {weight: 10}]\n"
            "    verify: {smoke: [{name: nothing}]}\n",
        ),
        DEPLOY,
        2,
        (
            "p95_seconds",
            "0.25, 0.5, 1, 2, 5, 10",
            "more than the 50 of the step before",
            "the last step must have 100",
            "needs exactly one of `path` and `command`",
        ),
    ),
    "a flag that guards nothing": Case(
        lambda it: it.write(
            "    standby_minutes: 120\n", "    standby_minutes: 120\n    flags: {new: {guards: serch}}\n"
        ),
        ("flags", "list", "dev"),
        2,
        ("environments.dev.flags.new.guards", "there is no service `serch`"),
    ),
    "several services without --together": Case(
        lambda it: None,
        ("deploy", "{service}", "{basket}", "dev"),
        2,
        ("one service at a time, or all of them with --together",),
    ),
    "a release set of names nobody knows": Case(
        lambda it: None,
        ("deploy", "{service}", "nothing", "nowhere", "--together"),
        2,
        ("`nothing`", "`nowhere`"),
    ),
    "nothing to decide about": Case(
        lambda it: None,
        ("resume", "{service}", "dev"),
        1,
        ("no canary of dev/{service} waits: nothing is being released (#",),
    ),
    "a quarantine nobody finds": Case(
        lambda it: None,
        ("quarantine", "lift", "0123456789ab", "--why", "fixed"),
        1,
        ("no digest that begins with 0123456789ab is in quarantine",),
    ),
    "a quarantine without a reason": Case(
        lambda it: None, ("quarantine", "add", "latest"), 2, ("DIGEST: `latest`", "--why: is missing")
    ),
    "a replay by thresholds that cannot be": Case(
        lambda it: None,
        ("replay", "{service}", "dev", "--since", "whenever", "--thresholds", "error_rate=lots,latency=1"),
        2,
        ("--since: `whenever`", "error_rate: `lots` is not a number", "`latency=1` is not one of"),
    ),
    "a replay by a percentile nobody counted": Case(
        lambda it: None,
        ("replay", "{service}", "dev", "--thresholds", "p95_seconds=3"),
        2,
        ("thresholds.p95_seconds: 3 s was not counted at the edge", "0.25, 0.5, 1, 2, 5, 10 s"),
    ),
    "Prometheus down, replaying": Case(
        lambda it: it.write(it.whole.platform.catalogue.prometheus.url, f"http://127.0.0.1:{free_port()}"),
        ("replay", "{service}", "dev"),
        5,
        ("could not read recorded measurements", "Prometheus at http://127.0.0.1:", "does not answer"),
    ),
    "damaged verdict": Case(
        lambda it: it.store_file("verdicts/dev/{service}/2.json", "{}"),
        ("verdict", "{service}", "dev", "--release", "2"),
        1,
        ("stored object verdicts/dev/{service}/2.json is damaged",),
    ),
    "damaged watch": Case(
        lambda it: it.store_file("watch/dev/{service}.json", "[]"),
        ("status", "{service}", "dev"),
        1,
        ("stored object watch/dev/{service}.json is damaged",),
    ),
    "damaged flags": Case(
        lambda it: it.store_file("flags/dev.json", "{"),
        ("flags", "list", "dev"),
        1,
        ("stored object flags/dev.json is damaged",),
    ),
    "damaged quarantine": Case(
        lambda it: it.store_file("quarantine/{latest}.json", "{}"),
        DEPLOY,
        1,
        ("stored object quarantine/", "is damaged"),
    ),
    "missing Dockerfile": Case(
        lambda it: (it.root / it.service / "Dockerfile").unlink(), BUILD, 2, ("no Dockerfile here",)
    ),
    "build that fails": Case(
        lambda it: it.dockerfile(FAILING_BUILD), BUILD, 1, ("failed in step", "echo compiling", "no such header")
    ),
    "test target that fails": Case(
        lambda it: it.dockerfile(FAILING_TEST), BUILD, 1, ("build of target test of ", "3 tests failed")
    ),
    "registry down": Case(_no_registry, BUILD, 5, ("could not push", "connection refused")),
    "Docker down, building": Case(
        lambda it: it.extra.update(DOCKER_HOST=NOWHERE), (*BUILD, "--force"), 5, ("Docker Engine does not answer",)
    ),
    "Docker down, deploying": Case(
        lambda it: it.write("{name: local}", f'{{name: local, docker: "{NOWHERE}"}}'), DEPLOY, 5, ("local", NOWHERE)
    ),
    "Trivy crash": Case(
        _trivy("sys.stderr.write('FATAL out of memory\\n'); sys.exit(2)"),
        BUILD,
        5,
        ("could not scan", "FATAL out of memory"),
    ),
    "Trivy garbage": Case(_trivy("print('<html>')"), BUILD, 5, ("could not scan", "is not JSON")),
    "store unwritable": Case(_mounted(READ_ONLY), DEPLOY, 1, ("store cannot write", "mounted read-only")),
    "store full": Case(_mounted(FILL, COMPARE), DEPLOY, 1, ("store cannot write", "The disk is full")),
    "damaged pointer to what is live": Case(
        lambda it: it.damage("current/dev/{service}", "number: one\n"),
        DEPLOY,
        1,
        ("stored object current/dev/{service} is damaged",),
    ),
    "damaged pointer to the latest image": Case(
        lambda it: it.damage("images/{service}/latest", "sha256:0\n"),
        DEPLOY,
        1,
        ("stored object images/{service}/latest is damaged",),
    ),
    "damaged manifest, listing": Case(
        lambda it: it.damage("releases/dev/{service}/*/manifest.json", "{}"),
        ("releases", "{service}", "dev"),
        1,
        ("stored object releases/dev/{service}/", "manifest.json is damaged"),
    ),
    "damaged manifest, rolling back": Case(
        lambda it: it.damage("releases/dev/{service}/*/manifest.json", "{"),
        ("rollback", "{service}", "dev"),
        1,
        ("stored object releases/dev/{service}/", "manifest.json is damaged"),
    ),
    "damaged journal": Case(
        lambda it: it.damage("journal/dev/{service}.json", '{"environment": "dev"}'),
        DEPLOY,
        1,
        ("stored object journal/dev/{service}.json is damaged",),
    ),
    "damaged scan report": Case(
        lambda it: it.damage("scans/*/*.json", "null"), DEPLOY, 1, ("stored object scans/", "is damaged")
    ),
}


@dataclass(frozen=True)
class Attempt:
    """What came of one case."""

    project: Project
    before: Mapping[str, str]
    done: subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Table:
    """All cases under way, and the world before the first one."""

    world: World
    attempts: Mapping[str, Future[Attempt]]


@pytest.fixture(scope="module")
def table(whole: Whole, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    for version in ("1.0.0", "2.0.0"):
        whole.build(whole.search, version)
        whole.deploy("dev", whole.search)
    world = whole.world()
    assert world.answers[f"dev/{whole.search}"][0] == 200
    folder = tmp_path_factory.mktemp("projects")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        attempts = {name: pool.submit(_attempt, whole, folder, name) for name in CASES}
        yield Table(world, attempts)
        for attempt in attempts.values():
            attempt.cancel()


def _attempt(whole: Whole, folder: Path, name: str) -> Attempt:
    root = folder / "".join(letter if letter.isalnum() else "-" for letter in name)
    kept = ("store",)
    shutil.copytree(
        whole.root,
        root,
        ignore=lambda where, names: [] if Path(where).name != ".ops" else [each for each in names if each not in kept],
    )
    project = Project(whole, root, whole.search, extra={"OPS_EXTRA_LABELS": f"ops.testbed={whole.id}"})
    project.write(whole.plane.url, f"http://127.0.0.1:{free_port()}")
    case = CASES[name]
    case.change(project)
    before = stored(project.store)
    return Attempt(project, before, project.ops(*case.arguments))


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_clear_error_and_changes_nothing(table: Table, whole: Whole, name: str) -> None:
    case, attempt = CASES[name], table.attempts[name].result()
    done, project = attempt.done, attempt.project
    assert done.returncode == case.code, done.stdout + done.stderr
    assert done.stderr.count("error: ") == 1, done.stderr
    error = done.stderr.partition("error: ")[2]
    print(error)
    for words in case.words:
        assert words.format(service=project.service, basket=whole.basket) in error, error
    assert "Traceback" not in done.stdout + done.stderr
    assert stored(project.store) == attempt.before
    assert whole.world() == table.world
