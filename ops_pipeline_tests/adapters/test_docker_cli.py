"""Which Docker CLI is chosen and what it is told, with stand-in programs; reading recorded build output."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ops_pipeline.adapters import docker_cli
from ops_pipeline.adapters.build_log import BuildLog
from ops_pipeline.adapters.docker_builder import DockerBuilder
from ops_pipeline.adapters.docker_cli import DockerCli, build_argv, candidates, find_cli, refuse_unsupported
from ops_pipeline.errors import Unavailable
from ops_pipeline.ports import BuildRequest
from ops_pipeline_tests.testbed.programs import write_program

GOLDEN = Path(__file__).parents[1] / "golden"
REQUEST = BuildRequest("/src", "/src/Dockerfile", "r:5000/app:1", {"title": "x"}, {"A": "1"}, {"token": "hunter22"})
BUILDX = DockerCli("docker", buildkit=True, buildx=True)
INSIDE = DockerCli("docker", buildkit=True, buildx=False)
CLASSIC = DockerCli("docker", buildkit=False, buildx=False)


def cli(folder: Path, version: str, *, buildx: bool = False) -> str:
    body = (
        f"if sys.argv[1:] == ['--version']: print('Docker version {version}, build abc')\n"
        f"elif sys.argv[1:] == ['buildx', 'version']: sys.exit({0 if buildx else 1})\n"
        "else: sys.exit('unexpected ' + ' '.join(sys.argv))"
    )
    return str(write_program(folder, "docker", body).parent)


def choose(*folders: str, engine: bool = True) -> DockerCli:
    return find_cli(candidates(":".join(folders)), engine_has_buildkit=engine)


def test_buildx_is_preferred_wherever_it_stands(tmp_path: Path) -> None:
    old, new = cli(tmp_path / "old", "20.10.24"), cli(tmp_path / "new", "28.2.2", buildx=True)
    assert choose(old, new) == DockerCli(f"{new}/docker", buildkit=True, buildx=True)


def test_an_old_cli_has_buildkit_inside_and_a_new_one_without_plugin_has_not(tmp_path: Path) -> None:
    new, old = cli(tmp_path / "new", "28.2.2"), cli(tmp_path / "old", "20.10.24+dfsg1")
    assert choose(new, old) == DockerCli(f"{old}/docker", buildkit=True, buildx=False)
    assert choose(new) == DockerCli(f"{new}/docker", buildkit=False, buildx=False)


def test_without_buildkit_in_the_engine_the_first_cli_builds_classically(tmp_path: Path) -> None:
    folder = cli(tmp_path, "28.2.2", buildx=True)
    assert choose(folder, engine=False) == DockerCli(f"{folder}/docker", buildkit=False, buildx=False)


def test_no_cli_at_all(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no `docker` program on PATH") as caught:
        choose(str(tmp_path))
    assert "Install" in caught.value.hint


def test_links_to_the_same_program_are_one_candidate(tmp_path: Path) -> None:
    folder = cli(tmp_path / "a", "28.2.2")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "docker").symlink_to(f"{folder}/docker")
    assert len(candidates(f"{folder}:{tmp_path / 'b'}")) == 1


@pytest.mark.parametrize(
    ("chosen", "changes", "words"),
    [
        (CLASSIC, {}, "build secrets need BuildKit"),
        (CLASSIC, {"secrets": {}, "platforms": ("linux/arm64",)}, "a target platform needs BuildKit"),
        (INSIDE, {"platforms": ("linux/amd64", "linux/arm64")}, "several target platforms need Docker's buildx"),
        (CLASSIC, {"platforms": ("a", "b")}, "build secrets need BuildKit and several target platforms"),
    ],
)
def test_what_the_cli_cannot_do_is_one_clear_error(chosen: DockerCli, changes: dict[str, object], words: str) -> None:
    with pytest.raises(Unavailable) as caught:
        refuse_unsupported(chosen, replace(REQUEST, **changes), engine_has_buildkit=True)  # type: ignore[arg-type]
    assert words in caught.value.message
    assert "buildx" in caught.value.hint


@pytest.mark.parametrize(
    ("chosen", "changes"),
    [
        (BUILDX, {"platforms": ("a", "b")}),
        (INSIDE, {"platforms": ("a",)}),
        (CLASSIC, {"secrets": {}}),
    ],
)
def test_what_the_cli_can_do_passes(chosen: DockerCli, changes: dict[str, object]) -> None:
    refuse_unsupported(chosen, replace(REQUEST, **changes), engine_has_buildkit=True)  # type: ignore[arg-type]


def test_build_commands() -> None:
    common = ["--build-arg", "A=1", "--label", "title=x", "--secret", "id=token,env=OPS_BUILD_SECRET_0", "/src"]
    head = ["build", "--file", "/src/Dockerfile", "--progress", "plain", "--tag", "r:5000/app:1"]
    assert build_argv(INSIDE, REQUEST, "iid", "meta") == ("docker", *head, "--iidfile", "iid", *common)
    assert build_argv(BUILDX, REQUEST, "iid", "meta") == (
        "docker", "buildx", *head, "--iidfile", "iid", "--load", *common,
    )  # fmt: skip
    several = replace(REQUEST, platforms=("linux/amd64", "linux/arm64"))
    assert build_argv(BUILDX, several, "iid", "meta") == (
        "docker", "buildx", *head, "--push", "--metadata-file", "meta",
        "--platform", "linux/amd64,linux/arm64", *common,
    )  # fmt: skip
    plain = replace(REQUEST, secrets={}, tag="", target="test")
    assert build_argv(CLASSIC, plain, "iid", "meta") == (
        "docker", "build", "--file", "/src/Dockerfile", "--force-rm", "--iidfile", "iid", "--target", "test",
        "--build-arg", "A=1", "--label", "title=x", "/src",
    )  # fmt: skip


def test_secret_values_never_stand_in_the_command() -> None:
    for chosen in (BUILDX, INSIDE):
        assert "hunter22" not in " ".join(build_argv(chosen, REQUEST, "iid", "meta"))
    assert "hunter22" not in repr(REQUEST)


@pytest.mark.real
def test_several_platforms_are_pushed_while_building(tmp_path: Path) -> None:
    """With a stand-in for buildx: no real one can be had on every machine that runs the tests."""
    digest = "sha256:" + "c" * 64
    body = (
        "args = sys.argv[1:]\n"
        "if args == ['buildx', 'version']: sys.exit(0)\n"
        "assert args[:2] == ['buildx', 'build'] and '--push' in args, args\n"
        "assert os.environ['OPS_BUILD_SECRET_0'] == 'hunter22'\n"
        "target = open(args[args.index('--metadata-file') + 1], 'w')\n"
        f"json.dump({{'containerimage.digest': '{digest}'}}, target)\n"
        "print('#1 [linux/arm64 1/1] RUN echo hunter22')"
    )
    write_program(tmp_path, "docker", body)
    lines: list[str] = []
    builder = DockerBuilder(path=str(tmp_path))
    request = replace(REQUEST, platforms=("linux/amd64", "linux/arm64"))
    assert builder.build(request, lines.append) == digest
    assert lines == ["[linux/arm64 1/1] RUN echo ***"]


@pytest.mark.parametrize("name", ["build_buildkit.txt", "build_classic.txt"])
def test_recorded_builds_name_the_failing_step(name: str) -> None:
    log = BuildLog()
    shown = [text for line in (GOLDEN / name).read_text().splitlines() if (text := log.take(line))]
    step, output, trouble = log.failure()
    assert "RUN echo collected 12 items" in step
    assert output == "collected 12 items\nFAILED tests/test_api.py"
    assert trouble.endswith(": 1")
    assert "  FAILED tests/test_api.py" in shown
    assert not [line for line in shown if "sha256:" in line or "transferring" in line]


def test_the_recorded_client_versions_are_understood(tmp_path: Path) -> None:
    for number, (version, major) in enumerate({"20.10.24+dfsg1": 20, "28.2.2": 28, "nonsense": 1000}.items()):
        program = cli(tmp_path / str(number), version) + "/docker"
        assert docker_cli._client_major(program) == major
