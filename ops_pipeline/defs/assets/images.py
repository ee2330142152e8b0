"""`image`: built, or found unchanged, pushed and recorded in the ledger."""

import dagster as dg

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.defs import metadata
from ops_pipeline.defs.failures import in_plain_words
from ops_pipeline.defs.partitions import Partitions
from ops_pipeline.defs.platform import PlatformResource
from ops_pipeline.defs.progress import GroupedLines
from ops_pipeline.defs.run_config import BuildConfig


def image_asset(catalogue: Catalogue, partitions: Partitions) -> dg.AssetsDefinition:
    """The asset `image`, one partition per service."""

    @dg.asset(
        partitions_def=partitions.service,
        group_name="build",
        kinds={"docker", "oci"},
        owners=metadata.owners(catalogue),
        description=(
            "Container image of a service: its `test` stage passed, built and pushed to the registry, known by digest. "
            "Not built again while context, Dockerfile, arguments and base images are unchanged."
        ),
    )
    def image(
        context: dg.AssetExecutionContext, config: BuildConfig, ops_platform: PlatformResource
    ) -> dg.MaterializeResult[None]:
        from ops_pipeline.services.build import build_image

        with in_plain_words(), GroupedLines(context) as progress:
            platform = ops_platform.platform()
            outcome = build_image(
                platform, context.partition_key, progress=progress, run_id=context.run.run_id, force=config.force
            )
            return dg.MaterializeResult(metadata=metadata.of_build(platform.catalogue, outcome))

    return image
