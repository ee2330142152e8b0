"""The virtual environment `.venv`: exactly the hash-pinned packages of requirements.txt, and this project itself."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys

from deploy.setup.commands import ROOT, SetupError, execute, output, say, step

VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "ops-setup.stamp"
MOST_USED = ("dagster_graphql", "dagster_webserver.app", "dagster._daemon.controller", "ops_pipeline.cli.app")


def _wanted() -> str:
    digest = hashlib.sha256(f"{sys.version_info[:2]} {ROOT}".encode())
    for name in ("requirements.txt", "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def ensure() -> None:
    """Make or renew the environment; nothing when its stamp fits. Raise SetupError with pip's last lines."""
    wanted = _wanted()
    if STAMP.is_file() and STAMP.read_text(encoding="utf-8").strip() == wanted and _works():
        say("venv", "up to date")
        return
    STAMP.unlink(missing_ok=True)
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    if not _works():
        with step("venv", f"making .venv with Python {sys.version.split()[0]}"):
            shutil.rmtree(VENV, ignore_errors=True)
            execute([sys.executable, "-m", "venv", str(VENV)], log="venv", timeout=180)
    # The list is complete, so nothing is to be resolved. Compiling is left to the first import: pip would compile every
    # module of every package, which takes as long as all the rest, and most are never imported.
    pip = [str(PYTHON), "-m", "pip", "install", "--progress-bar", "off", "--no-deps", "--no-compile"]
    with step("venv", "installing the pinned packages of requirements.txt"):
        execute(
            [*pip, "--require-hashes", "--requirement", str(ROOT / "requirements.txt")],
            log="pip-requirements",
            timeout=1200,
            env=environment,
        )
        execute(
            [*pip, "--no-build-isolation", "--editable", str(ROOT)],
            log="pip-project",
            timeout=180,
            env=environment,
        )
    if not _works():
        raise SetupError(f"{PYTHON.relative_to(ROOT)} does not start; remove .venv and run again")
    STAMP.write_text(wanted + "\n", encoding="utf-8")
    # Now, while others wait for the network; several processes of the control plane would do it at once later.
    output([str(PYTHON), "-c", f"import {', '.join(MOST_USED)}"], timeout=120)


def _works() -> bool:
    """Whether the environment's Python starts and is of the version that makes it."""
    answer = output([str(PYTHON), "-c", "import sys, pip; print(*sys.version_info[:2])"], timeout=30)
    return answer is not None and answer.split() == [str(part) for part in sys.version_info[:2]]
