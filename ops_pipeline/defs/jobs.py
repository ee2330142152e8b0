"""Jobs: the launchpads of verbs, with their configuration filled in."""

from collections.abc import Mapping
from typing import Any, Literal

import dagster as dg

from ops_pipeline.defs import evidence
from ops_pipeline.defs.attribution import user_of
from ops_pipeline.defs.failures import in_plain_words
from ops_pipeline.defs.metadata import of_reconcile, of_release
from ops_pipeline.defs.platform import PlatformResource
from ops_pipeline.defs.progress import event_per_line
from ops_pipeline.defs.run_config import (
    BuildConfig,
    QuarantineConfig,
    ReconcileConfig,
    ReleaseConfig,
    ReleaseSetConfig,
    check_quarantine,
    check_release_set,
    chosen_targets,
)
from ops_pipeline.errors import LeaseHeld, Permanent

Job = dg.JobDefinition | Any


def all_jobs() -> list[Any]:
    """`build_and_scan`, `deploy`, `promote`, `rollback`, `release_set`, `reconcile` and `quarantine_lift`."""
    return [
        dg.define_asset_job(
            "build_and_scan",
            selection=dg.AssetSelection.assets("image", "sbom", "scan_report"),
            config=dg.RunConfig(ops={"image": BuildConfig()}),
            executor_def=dg.in_process_executor,
            description="Build the image of a service, list what is in it, scan it.",
        ),
        _release_job("deploy", "Deploy the latest image of a service (or the digest you name) to an environment."),
        _release_job("promote", "Bring what is live in the environment before this one here, unchanged."),
        _release_job(
            "rollback",
            "Return to the previous release, still warm, in one switch; or to any earlier one by its number.",
            # Somebody is waiting for this one: it leaves the queue before deploys and builds.
            tags={"dagster/priority": "10"},
        ),
        release_set,
        reconcile,
        quarantine_lift,
    ]


def _release_job(
    action: Literal["deploy", "promote", "rollback"], description: str, tags: Mapping[str, str] | None = None
) -> Any:
    return dg.define_asset_job(
        action,
        selection=dg.AssetSelection.assets("release"),
        config=dg.RunConfig(ops={"release": ReleaseConfig(action=action)}),
        executor_def=dg.in_process_executor,
        description=description,
        tags=tags,
    )


@dg.op(name="reconcile_targets", description="Finish or undo what a stopped run left behind.")
def reconcile_targets(context: dg.OpExecutionContext, config: ReconcileConfig, ops_platform: PlatformResource) -> None:
    """Reconcile every chosen service; one that somebody works on is left to them."""
    from ops_pipeline.services.reconcile import reconcile as reconcile_service

    with in_plain_words():
        platform = ops_platform.platform()
        progress = event_per_line(context)
        reports = []
        for environment, service in chosen_targets(config, platform.catalogue):
            try:
                reports.append(
                    reconcile_service(platform, environment, service, run_id=context.run.run_id, progress=progress)
                )
            except LeaseHeld as held:
                if config.environment and config.service:
                    raise
                progress(f"{environment}/{service}: left alone, {held.message}")
        context.add_output_metadata(of_reconcile(reports))
        left = [f"{one.environment}/{one.service}: {problem}" for one in reports for problem in one.problems]
        if left:
            raise Permanent("could not put right:\n" + "\n".join(left))


@dg.job(
    config=dg.RunConfig(ops={"reconcile_targets": ReconcileConfig()}),
    executor_def=dg.in_process_executor,
    description="Finish or undo what a killed run left behind, in one service or in all.",
)
def reconcile() -> None:
    """The job `reconcile`."""
    reconcile_targets()


@dg.op(name="deploy_set", description="Deploy several services together; if one fails, all go back.")
def deploy_set(context: dg.OpExecutionContext, config: ReleaseSetConfig, ops_platform: PlatformResource) -> None:
    """Deploy the latest images of the named services, dependencies first; each shows as a release of its partition."""
    from ops_pipeline.services.release_set import deploy_set as deploy_services
    from ops_pipeline.services.verdict_story import story_of

    with in_plain_words():
        check_release_set(config)
        platform = ops_platform.platform()
        releases = deploy_services(
            platform,
            config.environment,
            config.services,
            who=user_of(context.run.tags),
            why=config.reason,
            run_id=context.run.run_id,
            progress=event_per_line(context),
        )
        for release in releases:
            partition = dg.MultiPartitionKey({"environment": release.environment, "service": release.service})
            story = story_of(platform, release)
            shown = evidence.with_rollout(of_release(platform, release), release, story)
            context.log_event(dg.AssetMaterialization("release", partition=partition, metadata=shown))
            evaluation = evidence.check_evaluation(release.environment, release.service, story)
            evidence.report_check(context.instance, context.run, evaluation)


@dg.job(
    config=dg.RunConfig(ops={"deploy_set": ReleaseSetConfig()}),
    executor_def=dg.in_process_executor,
    description="Release several services together, dependencies first; they also go back together.",
)
def release_set() -> None:
    """The job `release_set`."""
    deploy_set()


@dg.op(name="lift", description="Let a digest that was bad be deployed again.")
def lift(context: dg.OpExecutionContext, config: QuarantineConfig, ops_platform: PlatformResource) -> None:
    """End the quarantine of one digest; its record stays in the history."""
    from ops_pipeline.services.quarantine import lift as lift_quarantine

    with in_plain_words():
        check_quarantine(config)
        record = lift_quarantine(ops_platform.platform(), config.digest, user_of(context.run.tags), config.reason)
        shown = {
            "digest": record.digest,
            "was_in_quarantine_because": record.reason,
            "since": dg.MetadataValue.timestamp(record.at),
            "by": record.who,
        }
        if record.service:
            shown["release"] = f"{record.environment}/{record.service} #{record.release}"
        context.add_output_metadata(shown | (evidence.of_verdict(record.evidence) if record.evidence else {}))


@dg.job(
    config=dg.RunConfig(ops={"lift": QuarantineConfig()}),
    executor_def=dg.in_process_executor,
    description="Let a digest that was kept out because it was bad be deployed again.",
)
def quarantine_lift() -> None:
    """The job `quarantine_lift`."""
    lift()
