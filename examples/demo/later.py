"""What the demonstration does not use and begins without: started while it waits for something else."""

from __future__ import annotations

import os

from deploy.setup import everything, stack
from examples.demo.commands import console, quietly
from examples.demo.project import REPOSITORY


def start() -> None:
    """Build and start what is missing of the local stack."""
    names = everything.left_for_later()
    door = stack.demo_stack().door
    quietly([str(REPOSITORY / "deploy" / "setup" / "run"), "stack", "up"], dict(os.environ) | {"OPS_DOOR": str(door)})
    console.print(f"{', '.join(names)} is built and healthy: a store of releases and backups to try Azure Blob with")
