"""Materializing the project's assets on the in-memory platform, with an instance of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from ops_pipeline.defs.all import build_definitions
from ops_pipeline.defs.platform import PlatformResource
from ops_pipeline.services.platform import Platform
from ops_pipeline_tests.fakes.platform import Bed


def opening(platform: Platform) -> PlatformResource:
    """The resource, opening a platform made beforehand."""

    class Fixed(PlatformResource):
        # Dagster builds its own copy from the (empty) configuration: what it opens has to come with the class.
        def platform(self) -> Platform:
            return platform

    return Fixed()


@dataclass
class Workbench:
    """A bed, its definitions and an instance."""

    bed: Bed
    definitions: dg.Definitions
    instance: dg.DagsterInstance

    def run(
        self,
        job: str,
        partition: str | None,
        config: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        op: str = "release",
    ) -> dg.ExecuteInProcessResult:
        """Run a job of the project; failures are in the result."""
        return self.definitions.resolve_job_def(job).execute_in_process(
            # What the Materialize button of an asset page sends.
            asset_selection=[dg.AssetKey(op)] if job == "__ASSET_JOB" else None,
            partition_key=partition,
            run_config={"ops": {op: {"config": dict(config)}}} if config is not None else None,
            tags=dict(tags or {}),
            instance=self.instance,
            raise_on_error=False,
        )

    def failure(self, result: dg.ExecuteInProcessResult) -> tuple[str, dict[str, Any]]:
        """Words and metadata of the failure of a run."""
        assert not result.success
        data = next(event for event in result.all_events if event.is_step_failure).step_failure_data
        user = data.user_failure_data
        assert user is not None, data.error
        return user.description or "", {name: value.value for name, value in user.metadata.items()}

    def shown(self, result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
        """Metadata of the materialization of an asset."""
        (made,) = result.asset_materializations_for_node(asset)
        return {name: value.value for name, value in made.metadata.items()}


@contextmanager
def workbench(bed: Bed | None = None, root: Path | None = None) -> Iterator[Workbench]:
    """A workbench; its instance is gone afterwards. `root` is the project folder that images are built from."""
    bed = bed or Bed()
    platform = dataclasses.replace(bed.platform(), root=root or Path())
    definitions = build_definitions(bed.catalogue, opening(platform))
    # In memory: the files that an instance on disk makes for itself and for every run take longer than the runs.
    with dg.DagsterInstance.ephemeral(settings={"telemetry": {"enabled": False}}) as instance:
        yield Workbench(bed, definitions, instance)
