"""`sbom` and `scan_report`: what is inside an image, and what is known to be wrong with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.core.image import Image
from ops_pipeline.defs import metadata
from ops_pipeline.defs.failures import in_plain_words
from ops_pipeline.defs.partitions import Partitions
from ops_pipeline.defs.platform import PlatformResource
from ops_pipeline.defs.progress import GroupedLines
from ops_pipeline.errors import NotFound

if TYPE_CHECKING:
    from ops_pipeline.ports import Progress
    from ops_pipeline.services.platform import Platform


def latest(platform: "Platform", service: str) -> Image:
    """The image last built of a service. Raise NotFound, with what to do, when none was."""
    from ops_pipeline.services.images import latest_image

    image = latest_image(platform.store, service)
    if image is None:
        raise NotFound(f"no image of {service} has been built yet", hint=f"Build one: ops build {service}")
    return image


@contextmanager
def latest_image_of(
    context: dg.AssetExecutionContext, ops_platform: PlatformResource
) -> Iterator["tuple[Platform, Image, Progress]"]:
    """Platform, latest image of the step's service, and progress; errors inside become run failures in words."""
    with in_plain_words(), GroupedLines(context) as progress:
        platform = ops_platform.platform()
        yield platform, latest(platform, context.partition_key), progress


def sbom_asset(catalogue: Catalogue, partitions: Partitions) -> dg.AssetsDefinition:
    """The asset `sbom`, one partition per service."""

    @dg.asset(
        deps=["image"],
        partitions_def=partitions.service,
        group_name="build",
        kinds={"cyclonedx"},
        owners=metadata.owners(catalogue),
        description="Bill of materials of the latest image, CycloneDX JSON, kept in the store under its digest.",
    )
    def sbom(context: dg.AssetExecutionContext, ops_platform: PlatformResource) -> dg.MaterializeResult[None]:
        from ops_pipeline.services.scan import make_sbom

        with latest_image_of(context, ops_platform) as (platform, image, progress):
            key = make_sbom(platform, image, progress=progress)
            document = platform.store.read(key)
            return dg.MaterializeResult(metadata=metadata.of_sbom(image, key, document.data if document else None))

    return sbom


def scan_report_asset(catalogue: Catalogue, partitions: Partitions) -> dg.AssetsDefinition:
    """The asset `scan_report`, one partition per service."""

    @dg.asset(
        deps=["image"],
        partitions_def=partitions.service,
        group_name="build",
        kinds={"trivy"},
        owners=metadata.owners(catalogue),
        description=(
            "Vulnerabilities and secrets found in the latest image, bound to its digest. Whether they keep it out of "
            "an environment is read again from the ledger by every deploy, whichever button started it."
        ),
    )
    def scan_report(context: dg.AssetExecutionContext, ops_platform: PlatformResource) -> dg.MaterializeResult[None]:
        from ops_pipeline.services.scan import scan_image
        from ops_pipeline.services.scan_gate import scan_verdict

        with latest_image_of(context, ops_platform) as (platform, image, progress):
            outcome = scan_image(platform, context.partition_key, image, progress=progress)
            verdicts = {
                environment: scan_verdict(platform, environment, image.ref.digest)
                for environment in platform.catalogue.environments
            }
            return dg.MaterializeResult(metadata=metadata.of_scan(platform.catalogue, image, outcome, verdicts))

    return scan_report
