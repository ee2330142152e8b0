"""What is done with apt-get, on Debian and Ubuntu, as root, and nowhere else."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Sequence

from deploy.setup.commands import SetupError, execute, output, say, step

_apt = threading.Lock()
_updated = False


def can_install() -> bool:
    """Whether this is Debian or Ubuntu (or a child of them) and we are root."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def release() -> dict[str, str]:
    """Fields of /etc/os-release."""
    text = output(["cat", "/etc/os-release"]) or ""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key: value.strip('"') for key, value in pairs}


def offers(package: str) -> bool:
    """Whether apt-get knows a package that can be installed."""
    with _apt:
        _update()
    policy = output(["apt-cache", "policy", package]) or ""
    return "Candidate:" in policy and "Candidate: (none)" not in policy


def install(subject: str, packages: Sequence[str], why: str, *, otherwise: str) -> None:
    """Install packages, saying so first. Raise SetupError, with `otherwise`, where we may not."""
    if not can_install():
        raise SetupError(f"{why}, and this is not Debian or Ubuntu as root, so nothing was changed. Run:\n{otherwise}")
    with _apt, step(subject, f"{why}: installing {', '.join(packages)} with apt-get"):
        _update()
        execute(
            ["apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends", *packages],
            log=f"apt-{subject.replace(' ', '-')}",
            timeout=900,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            hint=f"Install by hand, then run again:\n{otherwise}",
        )


def _update() -> None:
    """Renew apt's lists once per run; old lists may still do when that fails."""
    global _updated
    if _updated:
        return
    _updated = True
    try:
        execute(["apt-get", "update"], log="apt-update", timeout=300)
    except SetupError:
        say("apt", "the package lists could not be renewed; going on with the ones that are there")
