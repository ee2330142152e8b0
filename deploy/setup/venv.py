"""The virtual environment `.venv`: exactly the hash-pinned packages of requirements.txt, and this project itself."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence

from deploy.setup.commands import LOG, ROOT, SetupError, execute, output, say, step

VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "ops-setup.stamp"
# Compiling is left to the first import (uv's default): every module of every package would be compiled, which takes as
# long as all the rest, and most are never imported.
PIP = (str(PYTHON), "-m", "pip", "install", "--progress-bar", "off", "--no-compile")
UV = (str(VENV / "bin" / "uv"), "pip", "install", "--python", str(PYTHON))
PIP_TO_UV = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "cert": ("SSL_CERT_FILE", " "),
}
"""A setting of pip, the variable of uv that means the same, and what stands between several values there."""

MOST_USED = ("dagster_graphql", "dagster_webserver.app", "dagster._daemon.controller", "ops_pipeline.cli.app")


def _wanted() -> str:
    digest = hashlib.sha256(f"{sys.version_info[:2]} {ROOT}".encode())
    for name in ("requirements.txt", "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def ensure() -> None:
    """Make or renew the environment; nothing when its stamp fits. Raise SetupError with the installer's last lines."""
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
    with step("venv", "installing the pinned packages of requirements.txt"):
        try:
            _install_uv(environment)
            _install(UV, {**environment, **_uv_settings(environment)})
        except SetupError as error:
            # Rather slow than not at all: pip may reach what uv cannot, with settings of its own.
            say("venv", f"uv cannot install them, trying with pip; {str(error).splitlines()[0]}")
            _install(PIP, environment)
    if not _works():
        raise SetupError(f"{PYTHON.relative_to(ROOT)} does not start; remove .venv and run again")
    STAMP.write_text(wanted + "\n", encoding="utf-8")
    # Now, while others wait for the network; several processes of the control plane would do it at once later.
    output([str(PYTHON), "-c", f"import {', '.join(MOST_USED)}"], timeout=120)


def _install_uv(environment: Mapping[str, str]) -> None:
    """Install the one package that installs the others, from its pinned lines in requirements.txt."""
    listed = LOG / "requirements-uv.txt"
    LOG.mkdir(parents=True, exist_ok=True)
    listed.write_text(uv_lines((ROOT / "requirements.txt").read_text(encoding="utf-8")), encoding="utf-8")
    argv = [*PIP, "--no-deps", "--require-hashes", "--requirement", str(listed)]
    execute(argv, log="uv", timeout=300, env=environment)


def uv_lines(requirements: str) -> str:
    """The lines about uv in a list of requirements with hashes."""
    found = re.search(r"^uv==(.*\\\n)*.*\n", requirements, re.MULTILINE)
    return found[0] if found else ""


def _install(installer: Sequence[str], environment: Mapping[str, str]) -> None:
    """Install packages and project. Raise SetupError with the last lines of what the installer said."""
    # The list is complete, so nothing is to be resolved.
    packages = ["--no-deps", "--require-hashes", "--requirement", str(ROOT / "requirements.txt")]
    execute([*installer, *packages], log="packages", timeout=1200, env=environment)
    project = ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
    execute([*installer, *project], log="project", timeout=180, env=environment)


def _uv_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """What pip is set to use (index, mirrors, certificates), in uv's words."""
    listed = output([str(PYTHON), "-m", "pip", "config", "list"], timeout=30, env=environment) or ""
    return uv_variables(listed)


def uv_variables(listed: str) -> dict[str, str]:
    """Environment of uv that says what `pip config list` says. Source: uv, «Environment variables»."""
    settings = re.findall(r"^(\w+|:env:)\.([a-z-]+)='(.*)'$", listed, re.MULTILINE)
    # The environment's word counts most.
    found = {name: value for _, name, value in sorted(settings, key=lambda setting: setting[0] == ":env:")}
    return {
        variable: separator.join(found[name].replace("\\n", " ").split())
        for name, (variable, separator) in PIP_TO_UV.items()
        if found.get(name)
    }


def _works() -> bool:
    """Whether the environment's Python starts and is of the version that makes it."""
    answer = output([str(PYTHON), "-c", "import sys, pip; print(*sys.version_info[:2])"], timeout=30)
    return answer is not None and answer.split() == [str(part) for part in sys.version_info[:2]]
