"""PostgreSQL and Redis of each environment: started beside the control plane, not deployed by it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from deploy.setup.docker_cli import ensure_compose
from examples.demo.commands import console, quietly
from examples.demo.project import PASSWORD, REPOSITORY

FILE = REPOSITORY / "examples" / "storefront" / "data-services.compose.yml"
ENVIRONMENTS = ("dev", "prod")


def start() -> None:
    """Start both services for each environment; set-up has built their images."""
    with ThreadPoolExecutor(max_workers=len(ENVIRONMENTS)) as pool:
        for done in [pool.submit(_start, each) for each in ENVIRONMENTS]:
            done.result()
    for environment in ENVIRONMENTS:
        console.print(f"{environment}: postgres and redis run on the network ops-{environment}")


def _start(environment: str) -> None:
    quietly(
        [*ensure_compose(), "-p", f"storefront-data-{environment}", "-f", str(FILE), "up", "-d", "--no-build"],
        {
            "OPS_ENVIRONMENT": environment,
            "OPS_NETWORK": f"ops-{environment}",
            "DATABASE_PASSWORD_FILE": str(PASSWORD),
        },
    )
