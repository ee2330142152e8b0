"""The demo's own project: a git repository in `.ops/demo/project` that plays a team's application.

It starts as a copy of the sample application and catalogue, and gets one commit and tag per version, so that
versions, build skipping and the history of releases are the real thing and the checkout stays untouched.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
HOME = REPOSITORY / ".ops" / "demo"
PROJECT = HOME / "project"
CATALOGUE = PROJECT / "deploy" / "services.yaml"
PASSWORD = PROJECT / ".ops" / "secrets" / "database_password"
COPIED = ("deploy/services.yaml", "deploy/services.schema.json", "deploy/sample-vulnerabilities", "examples/storefront")

LEFT_OUT = ("__pycache__", ".ruff_cache", ".pytest_cache", ".mypy_cache", ".env", ".venv")

# What each version changes, as a team's commit would.
API_DOCKERFILE = "examples/storefront/api/Dockerfile"
BROKEN = "\n# The mistake of version 3: it never becomes ready.\nENV STOREFRONT_FAULTS=fail_health=1\n"
NEW = "\n# New in version 2: larger photos.\nENV PHOTO_MAX_BYTES=20000000\n"
FAILING = "\n# The mistake of version 4: one request in ten fails.\nENV STOREFRONT_FAULTS=error_rate=0.1\n"
TURNING = "\n# The mistake of version 5: it goes wrong when it has run for a while.\nENV STOREFRONT_FAULTS={faults}\n"
TURNING_FAULTS = "error_rate=0.5,after=25"
"""Until it is healthy and verified some fifteen seconds; then ten in which it is live and well."""
FIRST = "Open the storefront"
# Each version, the one its commit builds on, what it changes and the commit's message.
VERSIONS = (
    ("v2.0.0", "v1.0.0", NEW, "Take larger photos"),
    ("v3.0.0", "v2.0.0", BROKEN, "Break the health check, unnoticed"),
    ("v4.0.0", "v2.0.0", FAILING, "Break one request in ten, unnoticed"),
    ("v5.0.0", "v2.0.0", TURNING.format(faults=TURNING_FAULTS), "Leak something, unnoticed"),
)


def git(*arguments: str) -> str:
    """Run git in the project with a fixed author and date, so that every run makes the same commits."""
    stamp = "2026-01-01T00:00:00+00:00"
    environment = os.environ | {
        "GIT_AUTHOR_NAME": "Storefront",
        "GIT_AUTHOR_EMAIL": "team@storefront.example",
        "GIT_COMMITTER_NAME": "Storefront",
        "GIT_COMMITTER_EMAIL": "team@storefront.example",
        "GIT_AUTHOR_DATE": stamp,
        "GIT_COMMITTER_DATE": stamp,
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    done = subprocess.run(
        ["git", "-C", str(PROJECT), *arguments], env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def create() -> None:
    """Make the repository with the tags v1.0.0 to v5.0.0, and end at version 1.

    One that was made from these very sources is kept; an older one gets the new content as a new history.
    """
    PROJECT.mkdir(parents=True, exist_ok=True)
    mark = HOME / "made-from"
    wanted = fingerprint()
    if not mark.exists() or mark.read_text(encoding="utf-8") != wanted:
        _make_history()
        mark.write_text(wanted, encoding="utf-8")
    checkout("v1.0.0")
    if not PASSWORD.exists():
        PASSWORD.parent.mkdir(parents=True, exist_ok=True)
        PASSWORD.parent.chmod(0o700)
        PASSWORD.write_text(secrets.token_urlsafe(24), encoding="utf-8")
        # The database's container has another user and must read it; the folder keeps everybody else out.
        PASSWORD.chmod(0o444)


def _make_history() -> None:
    if not (PROJECT / ".git").exists():
        git("init", "--quiet", "--initial-branch", "main")
    else:
        git("checkout", "--quiet", "--force", "--orphan", f"renewed-{secrets.token_hex(4)}")
    for name in COPIED:
        _copy(REPOSITORY / name, PROJECT / name)
    (PROJECT / ".gitignore").write_text(".ops/\n", encoding="utf-8")
    _commit(FIRST, "v1.0.0")
    for tag, base, change, message in VERSIONS:
        checkout(base)
        _append(API_DOCKERFILE, change)
        _commit(message, tag)
    checkout("v2.0.0")
    git("branch", "--force", "main", "v2.0.0")


def fingerprint() -> str:
    """Changes when what the versions are made from does."""
    digest = hashlib.sha256(repr(VERSIONS).encode())
    for name in COPIED:
        source = REPOSITORY / name
        for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if file.is_file() and not set(file.parts) & set(LEFT_OUT):
                digest.update(f"{file.relative_to(REPOSITORY)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def messages() -> list[tuple[str, str]]:
    """Tag and message of each version's commit."""
    return [("v1.0.0", FIRST), *((tag, message) for tag, _, _, message in VERSIONS)]


def checkout(tag: str) -> None:
    """Put the work tree at one version."""
    git("checkout", "--quiet", "--force", "--detach", tag)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def _append(name: str, text: str) -> None:
    with (PROJECT / name).open("a", encoding="utf-8") as file:
        file.write(text)


def _commit(message: str, tag: str) -> None:
    git("add", "--all")
    git("commit", "--quiet", "--allow-empty", "--message", message)
    git("tag", "--force", tag)
