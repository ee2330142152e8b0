"""Verdicts as the UI shows them: the reason, the numbers as a table and as plottable values, where to look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.events import DagsterEvent, DagsterEventType

from ops_pipeline.core.judgement.account import GOOD_LEVEL, HALF_LEVELS, THRESHOLD_LEVEL, WORSE_LEVEL
from ops_pipeline.core.judgement.verdict import MetricEvidence, Verdict
from ops_pipeline.core.release import Release

if TYPE_CHECKING:
    from ops_pipeline.services.verdict_story import Story

Metadata = dict[str, Any]

CAP = 1e12
"""Evidence above this is shown as this: enough is enough, and a plot stays readable."""

LEVELS = ", ".join(f"{level:g} ({name})" for name, level in HALF_LEVELS.items())

COLUMNS = {
    "metric": ("string", "what was counted"),
    "bad": ("int", "bad ones of the judged release"),
    "of": ("int", "all of them"),
    "percent": ("float", "share of bad ones"),
    "threshold": ("float", "percent from which it counts as bad"),
    "at_least": ("float", "percent that the true share is at least, with 95 % confidence"),
    "e_half": ("float", f"evidence against half the threshold; enough are {LEVELS}"),
    "e_threshold": ("float", f"evidence against the threshold; {THRESHOLD_LEVEL:g} is enough"),
    "worse": ("float", f"evidence that it is worse than stable; {WORSE_LEVEL:g} is enough"),
    "good": ("float", f"evidence that it is below the threshold; {GOOD_LEVEL:g} is enough"),
    "p_value": ("float", "1 / e_half, valid at any time"),
    "stable_bad": ("int", "bad ones of the release it replaced"),
    "stable_of": ("int", "all of its"),
    "units": ("int", "scrapes that were counted"),
}


def of_verdict(verdict: Verdict) -> Metadata:
    """Everything a verdict rests on."""
    shown: Metadata = {
        "verdict": "environment incident" if verdict.incident else verdict.outcome.value,
        "reason": verdict.reason,
        "evidence": evidence_table(verdict),
        "judged_release": verdict.release,
        "judged_since": dg.MetadataValue.timestamp(verdict.since),
        "judged_until": dg.MetadataValue.timestamp(verdict.at),
        "judged_seconds": round((verdict.at - verdict.since).total_seconds(), 1),
    }
    for metric in verdict.metrics:
        shown |= _plotted(metric)
    if verdict.stable is not None:
        shown["compared_with"] = verdict.stable
    if verdict.link:
        shown["measurements"] = dg.MetadataValue.url(verdict.link)
    queries = dict.fromkeys(metric.query for metric in verdict.metrics if metric.query)
    if queries:
        shown["queries"] = dg.MetadataValue.text("\n".join(queries))
    return shown


def of_story(story: Story) -> Metadata:
    """What `metrics_verdict` shows."""
    shown: Metadata = {"story": story.sentence}
    if story.release is not None:
        shown |= {"release": story.release.number, "version": story.release.version, "digest": story.release.digest}
    if story.back is not None:
        shown |= {"rolled_back_as": story.back.number, "rolled_back_to": story.back.root}
    return shown | (of_verdict(story.verdict) if story.verdict is not None else {"verdict": "none"})


def with_rollout(shown: Metadata, release: Release, story: Story) -> Metadata:
    """What `release` shows, with how it was rolled out and judged; after a roll-back, first of all why."""
    because = {"rolled_back_because": story.sentence} if story.back is not None and story.verdict is not None else {}
    return because | shown | _of_rollout(release, story)


def _of_rollout(release: Release, story: Story) -> Metadata:
    shown: Metadata = {"strategy": release.rollout.strategy.value}
    if release.set_id:
        shown["release_set"] = release.set_id
    if release.restores is not None:
        shown["strategy"] = (
            "warm standby, one switch" if release.containers_of is not None else "started anew, one switch"
        )
        shown["automatic"] = release.automatic
    if story.verdict is None:
        return shown | {"verdict": "none"}
    return shown | of_verdict(story.verdict)


def check_evaluation(environment: str, service: str, story: Story) -> dg.AssetCheckEvaluation:
    """The same result as the check's own run gives, for what has become of a release outside a run of it."""
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("release"),
        check_name="metrics_verdict",
        passed=story.passed,
        severity=severity(story),
        description=story.sentence,
        metadata=of_story(story),
        partition=str(dg.MultiPartitionKey({"environment": environment, "service": service})),
    )


def report_check(instance: dg.DagsterInstance, run: dg.DagsterRun, evaluation: dg.AssetCheckEvaluation) -> None:
    """Make this the check's result in `run`, at once, also when the run fails afterwards.

    Not as an event without a run: of those Dagster's storage takes one per check and partition, ever.
    """
    event = DagsterEvent(
        event_type_value=DagsterEventType.ASSET_CHECK_EVALUATION.value,
        job_name=run.job_name,
        event_specific_data=evaluation,
    )
    instance.report_dagster_event(event, run_id=run.run_id)


def severity(story: Story) -> dg.AssetCheckSeverity:
    """Bad by evidence is an error; not known is a warning."""
    return dg.AssetCheckSeverity.ERROR if story.failed else dg.AssetCheckSeverity.WARN


def evidence_table(verdict: Verdict) -> dg.TableMetadataValue:
    """One row per metric."""
    rows = [
        dg.TableRecord(
            {
                "metric": metric.name,
                "bad": metric.bad,
                "of": metric.total,
                "percent": _percent(metric.share),
                "threshold": _percent(metric.threshold),
                "at_least": _percent(metric.at_least),
                "e_half": _short(metric.against_half),
                "e_threshold": _short(metric.against_threshold),
                "worse": _short(metric.worse),
                "good": _short(metric.good),
                "p_value": float(f"{metric.p_value:.3g}"),
                "stable_bad": metric.stable_bad,
                "stable_of": metric.stable_total,
                "units": metric.units,
            }
        )
        for metric in verdict.metrics
    ]
    columns = [dg.TableColumn(name, kind, description) for name, (kind, description) in COLUMNS.items()]
    return dg.MetadataValue.table(rows, schema=dg.TableSchema(columns=columns))


def _plotted(metric: MetricEvidence) -> Metadata:
    """Plain numbers, which the UI draws over time."""
    evidence = {
        "e_value": _short(metric.against_half),
        "e_value_threshold": _short(metric.against_threshold),
        "worse_than_stable": _short(metric.worse),
    }
    if metric.name == "errors":
        stable = metric.stable_bad / metric.stable_total if metric.stable_total else 0.0
        return {
            "error_rate": round(metric.share, 6),
            "errors": metric.bad,
            "requests": metric.total,
            "stable_error_rate": round(stable, 6),
            "stable_errors": metric.stable_bad,
            "stable_requests": metric.stable_total,
            **evidence,
        }
    return {
        f"{metric.name}_rate": round(metric.share, 6),
        metric.name: metric.bad,
        f"{metric.name}_e_value": evidence["e_value"],
    }


def _percent(share: float) -> float:
    return round(share * 100, 3)


def _short(value: float) -> float:
    return float(f"{min(value, CAP):.6g}")
