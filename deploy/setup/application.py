"""The sample application's images, as continuous integration checks them: tests inside the build, then a scan."""

from __future__ import annotations

import subprocess

from deploy.setup import base_image
from deploy.setup.commands import ROOT, SetupError, execute, say, step
from deploy.setup.docker_cli import need_docker
from deploy.setup.venv import VENV

FOLDER = ROOT / "examples" / "storefront"
SERVICES = ("api", "frontend")


def tag(service: str) -> str:
    """Name of the image of one service."""
    return f"ops-storefront/{service}:ci"


def build() -> None:
    """Build each service's `test` target, then its image. Raise SetupError with the end of the build's output."""
    cli = need_docker()
    for service in SERVICES:
        argv = [cli.path, "build", *base_image.proxy_arguments()]
        with step("application", f"{service}: tests inside the build, then the image"):
            for options in (["--target", "test"], ["--tag", tag(service)]):
                execute(
                    [*argv, *options, str(FOLDER / service)], log=f"app-{service}", timeout=1200, env=cli.environment
                )


def scan() -> None:
    """Scan the built images; a finding that has a fix and is HIGH or CRITICAL fails. Raise SetupError."""
    trivy = VENV / "bin" / "trivy"
    bad = []
    for service in SERVICES:
        say("scan", tag(service))
        argv = [str(trivy), "image", "--scanners", "vuln,secret", "--severity", "HIGH,CRITICAL", "--ignore-unfixed"]
        argv += ["--no-progress", "--exit-code", "3", tag(service)]
        code = subprocess.run(argv, stdin=subprocess.DEVNULL, timeout=1200, check=False).returncode
        if code == 3:
            bad.append(service)
        elif code != 0:
            raise SetupError(f"Trivy could not scan {tag(service)}: exit code {code}")
    if bad:
        raise SetupError(f"findings that have a fix in: {', '.join(bad)}")
