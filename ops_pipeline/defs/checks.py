"""Asset checks: what a person wants to see green. Gates never read them; they read the ledger."""

import dagster as dg

from ops_pipeline.catalogue.model import Catalogue
from ops_pipeline.core.hygiene import broken_rules
from ops_pipeline.defs import evidence, metadata
from ops_pipeline.defs.assets.scans import latest
from ops_pipeline.defs.failures import in_plain_words
from ops_pipeline.defs.partitions import Partitions, environment_and_service
from ops_pipeline.defs.platform import PlatformResource


def all_checks(catalogue: Catalogue, partitions: Partitions) -> list[dg.AssetChecksDefinition]:
    """`image_hygiene`, `vulnerability_policy`, `healthy` and `metrics_verdict`."""

    @dg.asset_check(
        asset="image",
        partitions_def=partitions.service,
        description="Within its size budget, not root, with HEALTHCHECK and OCI labels.",
    )
    def image_hygiene(context: dg.AssetCheckExecutionContext, ops_platform: PlatformResource) -> dg.AssetCheckResult:
        with in_plain_words():
            platform = ops_platform.platform()
            image = latest(platform, context.partition_key)
            broken = broken_rules(image.config, platform.catalogue.services[image.service].size_budget_mb)
            return dg.AssetCheckResult(
                passed=not broken,
                description="; ".join(rule.text for rule in broken) or "within every rule",
                metadata=metadata.of_hygiene(image, broken),
            )

    @dg.asset_check(
        asset="scan_report",
        partitions_def=partitions.service,
        blocking=True,
        description="Whether the findings keep the image out of the environments, by each one's policy.",
    )
    def vulnerability_policy(
        context: dg.AssetCheckExecutionContext, ops_platform: PlatformResource
    ) -> dg.AssetCheckResult:
        from ops_pipeline.services.scan_gate import scan_verdict

        with in_plain_words():
            platform = ops_platform.platform()
            image = latest(platform, context.partition_key)
            verdicts = {
                environment: scan_verdict(platform, environment, image.ref.digest)
                for environment in platform.catalogue.environments
            }
            allowed = [environment for environment, verdict in verdicts.items() if verdict.allowed]
            return dg.AssetCheckResult(
                passed=len(allowed) == len(verdicts),
                # What only a stricter environment refuses is a warning; what none accepts stops the run.
                severity=dg.AssetCheckSeverity.WARN if allowed else dg.AssetCheckSeverity.ERROR,
                description=metadata.verdict_sentence(verdicts),
                metadata=metadata.of_verdicts(verdicts),
            )

    @dg.asset_check(
        asset="release",
        partitions_def=partitions.environment_service,
        description="Health endpoint answers, through the edge and on every replica directly.",
    )
    def healthy(context: dg.AssetCheckExecutionContext, ops_platform: PlatformResource) -> dg.AssetCheckResult:
        from ops_pipeline.services.health import check_health

        environment, service = environment_and_service(context.partition_key)
        with in_plain_words():
            report = check_health(ops_platform.platform(), environment, service)
            return dg.AssetCheckResult(
                passed=report.healthy, description=report.summary, metadata=metadata.of_health(report)
            )

    @dg.asset_check(
        asset="release",
        partitions_def=partitions.environment_service,
        description="What was measured of its users' requests speaks for it. Passes on evidence only; a warning means "
        "that there is too little of it, an error that it speaks against the release.",
    )
    def metrics_verdict(context: dg.AssetCheckExecutionContext, ops_platform: PlatformResource) -> dg.AssetCheckResult:
        from ops_pipeline.services.verdict_story import story

        environment, service = environment_and_service(context.partition_key)
        with in_plain_words():
            told = story(ops_platform.platform(), environment, service)
            return dg.AssetCheckResult(
                passed=told.passed,
                severity=evidence.severity(told),
                description=told.sentence,
                metadata=evidence.of_story(told),
            )

    return [image_hygiene, vulnerability_policy, healthy, metrics_verdict]
