"""What the tests of deploys and roll-backs have in common."""

from __future__ import annotations

from ops_pipeline.core.scan import Finding
from ops_pipeline.services.deploy import deploy
from ops_pipeline_tests.fakes.platform import Bed, catalogue, quiet

CRITICAL = Finding("vulnerability", "CVE-2026-1", "CRITICAL", "openssl", "1", "2")


def shipped(bed: Bed, *versions: str) -> None:
    """Build these versions of `api` and deploy them to `prod`, one after the other."""
    for version in versions:
        bed.image(version)
        deploy(bed.platform(), "prod", "api", progress=quiet)


def settings_of_services() -> dict[str, dict[str, object]]:
    """The services of the tests' catalogue, to be changed."""
    return {name: service.model_dump(exclude_unset=True) for name, service in catalogue().services.items()}
