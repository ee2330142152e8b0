"""Results of `metrics_verdict` that are reported while a run goes on: every time, for the same service as well."""

from pathlib import Path

import dagster as dg
import pytest

from ops_pipeline.defs.evidence import report_check

PARTITION = str(dg.MultiPartitionKey({"environment": "prod", "service": "api"}))
KEY = dg.AssetCheckKey(dg.AssetKey("release"), "metrics_verdict")


def evaluation(words: str) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=KEY.asset_key, check_name=KEY.name, passed=False, description=words, metadata={}, partition=PARTITION
    )


@dg.op
def taken_back(context: dg.OpExecutionContext) -> None:
    report_check(context.instance, context.run, evaluation(f"evidence of {context.run_id}"))
    raise dg.Failure("rolled back")


@dg.job
def judged() -> None:
    taken_back()


def test_each_run_that_is_taken_back_leaves_its_own_evidence(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        runs = [judged.execute_in_process(instance=instance, raise_on_error=False).run_id for _ in range(3)]
        found = instance.event_log_storage.get_asset_check_execution_history(KEY, limit=10)
        said = [one.event.asset_check_evaluation.description for one in found if one.event]  # type: ignore[union-attr]
        assert said == [f"evidence of {run}" for run in reversed(runs)]
        assert [one.run_id for one in found] == list(reversed(runs))


def test_an_event_without_a_run_is_taken_only_once(tmp_path: Path) -> None:
    """Why it is not done so; when this fails, Dagster has mended it."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.report_runless_asset_event(evaluation("first"))
        with pytest.raises(Exception, match="UNIQUE constraint failed"):
            instance.report_runless_asset_event(evaluation("second"))
