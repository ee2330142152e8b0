import os
import subprocess
from pathlib import Path

import pytest

from ops_pipeline.adapters.build_context import read_source
from ops_pipeline.adapters.git import revision
from ops_pipeline.core.version import version_of


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for command in (
        ["init", "--quiet", "--initial-branch=main"],
        ["config", "user.email", "t@example.org"],
        ["config", "user.name", "T"],
    ):
        git(tmp_path, *command)
    for name in ("api/app.py", "web/index.html"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_without_git_nothing_is_known(tmp_path: Path) -> None:
    assert version_of(revision(tmp_path)) == "0.0.0+unknown"


def test_a_repository_without_commits(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    assert version_of(revision(tmp_path)) == "0.0.0+unknown"


def test_tags_make_versions(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    assert version_of(revision(repository / "api")) == f"0.0.0+{commit[:7]}"
    git(repository, "tag", "v1.2.0")
    git(repository, "tag", "nightly")
    assert version_of(revision(repository / "api")) == f"1.2.0+{commit[:7]}"
    git(repository, "commit", "--quiet", "--allow-empty", "-m", "second")
    later = git(repository, "rev-parse", "HEAD")
    assert version_of(revision(repository / "api")) == f"1.2.0+1.{later[:7]}"
    assert revision(repository).commit == later


def test_only_changes_of_the_context_make_it_dirty(repository: Path) -> None:
    (repository / "web" / "index.html").write_text("2\n")
    assert not revision(repository / "api").dirty
    assert revision(repository / "web").dirty
    (repository / "api" / "new.py").write_text("untracked")
    assert revision(repository / "api").dirty


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in {"Dockerfile": "FROM scratch\n", **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("ignore", "kept"),
    [
        ("", {"a.py", "logs/x.log", "docs/keep.md", "docs/drop.md", "deep/er/x.log"}),
        ("# comment\n\n**/*.log\n", {"a.py", "docs/keep.md", "docs/drop.md"}),
        ("*.log\n", {"a.py", "logs/x.log", "docs/keep.md", "docs/drop.md", "deep/er/x.log"}),
        ("docs\n!docs/keep.md\n", {"a.py", "logs/x.log", "docs/keep.md", "deep/er/x.log"}),
        ("*\n!a.py\n", {"a.py"}),
        ("/logs/\ndeep/*/x.log\n", {"a.py", "docs/keep.md", "docs/drop.md"}),
    ],
)
def test_dockerignore(tmp_path: Path, ignore: str, kept: set[str]) -> None:
    names = ("a.py", "logs/x.log", "docs/keep.md", "docs/drop.md", "deep/er/x.log")
    write(tmp_path, {".dockerignore": ignore, **dict.fromkeys(names, "x")})
    found = read_source(str(tmp_path), str(tmp_path / "Dockerfile")).files
    assert found.keys() - {"Dockerfile", ".dockerignore"} == kept


def test_an_ignore_file_beside_the_dockerfile_wins(tmp_path: Path) -> None:
    write(tmp_path, {".dockerignore": "a.py\n", "Dockerfile.dockerignore": "b.py\n", "a.py": "", "b.py": ""})
    found = read_source(str(tmp_path), str(tmp_path / "Dockerfile")).files
    assert "a.py" in found
    assert "b.py" not in found


def test_content_permissions_and_links_count(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "1"})
    (tmp_path / "link").symlink_to("a.py")
    seen = []
    for change in (
        lambda: None,
        lambda: (tmp_path / "a.py").write_text("2"),
        lambda: (tmp_path / "a.py").chmod(0o755),
        lambda: ((tmp_path / "link").unlink(), (tmp_path / "link").symlink_to("elsewhere")),
    ):
        change()
        seen.append(tuple(sorted(read_source(str(tmp_path), str(tmp_path / "Dockerfile")).files.items())))
    assert len(set(seen)) == len(seen)


def test_times_and_sockets_do_not_count(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "1"})
    before = read_source(str(tmp_path), str(tmp_path / "Dockerfile")).files
    os.utime(tmp_path / "a.py", (1, 1))
    os.mkfifo(tmp_path / "pipe")
    assert read_source(str(tmp_path), str(tmp_path / "Dockerfile")).files == before
