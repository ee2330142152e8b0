"""`release`: the record that an environment runs a digest of a service; making one is a deploy."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, assert_never

import dagster as dg

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.core.release import Action, Release
from ops_pipeline.defs import evidence, metadata
from ops_pipeline.defs.attribution import SECRET_VARIABLE, installation_of, read_secret_file, user_of
from ops_pipeline.defs.failures import in_plain_words
from ops_pipeline.defs.partitions import Partitions, environment_and_service
from ops_pipeline.defs.platform import PlatformResource
from ops_pipeline.defs.progress import event_per_line
from ops_pipeline.defs.run_config import ReleaseConfig, check_release
from ops_pipeline.errors import DeployFailed, OpsError, RolledBack

if TYPE_CHECKING:
    from ops_pipeline.services.platform import Platform


def release_asset(catalogue: Catalogue, partitions: Partitions) -> dg.AssetsDefinition:
    """The asset `release`, one partition per environment and service."""
    by_service = dg.MultiToSingleDimensionPartitionMapping(partition_dimension_name="service")

    @dg.asset(
        deps=[
            dg.AssetDep("image", partition_mapping=by_service),
            dg.AssetDep("scan_report", partition_mapping=by_service),
        ],
        partitions_def=partitions.environment_service,
        group_name="deliver",
        kinds={"docker", "haproxy"},
        # `ops` looks here whether the UI it found is the one of its own project.
        metadata={
            "project": catalogue.project,
            "installation": installation_of(read_secret_file(os.environ.get(SECRET_VARIABLE, ""))),
        },
        owners=metadata.owners(catalogue),
        description=(
            "Who runs what, where. Materializing a partition deploys the latest image of that service to that "
            "environment: gates are read from the ledger, the new release starts beside the old one, traffic moves in "
            "one switch when it is healthy, and the old one stays warm to return to."
        ),
    )
    def release(
        context: dg.AssetExecutionContext, config: ReleaseConfig, ops_platform: PlatformResource
    ) -> dg.MaterializeResult[None]:
        environment, service = environment_and_service(context.partition_key)
        from ops_pipeline.services.verdict_story import story_of

        with in_plain_words():
            platform = ops_platform.platform()
        with in_plain_words(lambda error: evidence_of_failure(platform, environment, service, error, context)):
            action = check_release(config, platform.catalogue, environment, context.job_name)
            made = make_release(platform, environment, service, action, config, context)
            story = story_of(platform, made)
            shown = evidence.with_rollout(metadata.of_release(platform, made), made, story)
            return dg.MaterializeResult(metadata=shown)

    return release


def evidence_of_failure(
    platform: "Platform", environment: str, service: str, error: OpsError, context: dg.AssetExecutionContext
) -> Mapping[str, Any]:
    """The verdict a release was taken back for, when this run made one that was judged; its check says so too."""
    from ops_pipeline.services.ledger import releases
    from ops_pipeline.services.verdict_story import story_of

    if not isinstance(error, DeployFailed):
        return {}
    try:
        newest = releases(platform.store, environment, service, limit=1)
        if not newest or newest[0].run_id != context.run.run_id:
            return {}
        story = story_of(platform, newest[0])
    except OpsError as unreadable:
        context.log.warning(f"the evidence cannot be shown: {unreadable.message}")
        return {}
    if story.verdict is None:
        return {"release": newest[0].number}
    if isinstance(error, RolledBack):
        evidence.report_check(context.instance, context.run, evidence.check_evaluation(environment, service, story))
    return {"release": newest[0].number, "version": newest[0].version, **evidence.of_verdict(story.verdict)}


def make_release(
    platform: "Platform",
    environment: str,
    service: str,
    action: Action,
    config: ReleaseConfig,
    context: dg.AssetExecutionContext,
) -> Release:
    """Deploy, promote or roll back; or show a roll-back that the sensor `metric_rollback` has made."""
    progress, run_id, who = event_per_line(context), context.run.run_id, user_of(context.run.tags)
    why = config.reason
    match action:
        case Action.DEPLOY:
            from ops_pipeline.services.deploy import deploy

            digest = config.digest or None
            return deploy(
                platform,
                environment,
                service,
                digest=digest,
                force=config.force,
                who=who,
                why=why,
                run_id=run_id,
                progress=progress,
            )
        case Action.PROMOTE:
            from ops_pipeline.services.promote import promote

            return promote(platform, environment, service, who=who, why=why, run_id=run_id, progress=progress)
        case Action.ROLLBACK if config.made:
            from ops_pipeline.services.judged_rollback import made_by_itself

            return made_by_itself(platform, environment, service, config.made)
        case Action.ROLLBACK if config.judged:
            from ops_pipeline.services.judged_rollback import roll_back_judged

            return roll_back_judged(platform, environment, service, config.judged, run_id=run_id, progress=progress)
        case Action.ROLLBACK:
            from ops_pipeline.services.rollback import roll_back

            to = config.to or None
            return roll_back(platform, environment, service, to=to, who=who, why=why, run_id=run_id, progress=progress)
        case never:
            assert_never(never)
