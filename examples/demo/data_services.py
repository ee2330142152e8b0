"""PostgreSQL and Redis of each environment: started beside the control plane, not deployed by it."""

from __future__ import annotations

from deploy.setup.docker_cli import ensure_compose
from examples.demo.commands import console, quietly
from examples.demo.project import PASSWORD, REPOSITORY

FILE = REPOSITORY / "examples" / "storefront" / "data-services.compose.yml"
ENVIRONMENTS = ("dev", "prod")


def start() -> None:
    """Build the two images when needed and start both services for each environment."""
    for environment in ENVIRONMENTS:
        quietly(
            [*ensure_compose(), "-p", f"storefront-data-{environment}", "-f", str(FILE), "up", "-d", "--build"],
            {
                # docker-compose 1.29 would build with the first docker on PATH, whatever that can do.
                "COMPOSE_DOCKER_CLI_BUILD": "0",
                "OPS_ENVIRONMENT": environment,
                "OPS_NETWORK": f"ops-{environment}",
                "DATABASE_PASSWORD_FILE": str(PASSWORD),
            },
        )
        console.print(f"{environment}: postgres and redis run on the network ops-{environment}")
