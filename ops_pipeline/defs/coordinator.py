"""The run queue, with each run attributed to the person the front door names.

A launch over the web counts only when it carries the front door's secret; whoever reaches the webserver another way
cannot launch, and nobody can sign a run with somebody else's name.
"""

from __future__ import annotations

import os

from dagster import DagsterRun, QueuedRunCoordinator
from dagster._core.run_coordinator.base import SubmitRunContext
from dagster._core.storage.runs.schema import RunsTable, RunTagsTable
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage
from dagster._core.storage.tags import BACKFILL_ID_TAG
from dagster._core.workspace.context import WorkspaceRequestContext
from dagster._serdes import serialize_value

from ops_pipeline.defs.attribution import (
    AUTOMATION,
    RESERVED_PREFIX,
    SECRET_HEADER,
    SECRET_VARIABLE,
    USER_HEADER,
    USER_TAG,
    clean_user,
    read_secret_file,
    same_secret,
    without_reserved,
)


class NotThroughTheFrontDoor(Exception):
    """A launch over the web that did not pass the front door."""


def front_door_secret() -> str:
    """The secret the front door adds to every request; empty (and then nothing matches) when there is none."""
    return read_secret_file(os.environ.get(SECRET_VARIABLE, ""))


class AttributingRunCoordinator(QueuedRunCoordinator):
    """Queues runs like its parent, after setting `ops/user` over whatever the caller sent."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Attribute, then queue. Raise NotThroughTheFrontDoor for a web launch without the secret."""
        run = context.dagster_run
        tags = {**without_reserved(run.tags), USER_TAG: self._user(context)}
        if tags != dict(run.tags):
            self._replace_tags(run, tags)
        return super().submit_run(context._replace(dagster_run=run.with_tags(tags)))

    def _user(self, context: SubmitRunContext) -> str:
        workspace = context.workspace
        if isinstance(workspace, WorkspaceRequestContext) and workspace.source is not None:
            if not same_secret(context.get_request_header(SECRET_HEADER), front_door_secret()):
                raise NotThroughTheFrontDoor("launches over the web are accepted only through the front door")
            return clean_user(context.get_request_header(USER_HEADER)) or AUTOMATION
        # The daemon submits the runs of a backfill; who started it was stamped on the backfill by the webserver.
        backfill_id = context.dagster_run.tags.get(BACKFILL_ID_TAG)
        backfill = self._instance.get_backfill(backfill_id) if backfill_id else None
        return (backfill.tags.get(USER_TAG) if backfill else None) or AUTOMATION

    def _replace_tags(self, run: DagsterRun, tags: dict[str, str]) -> None:
        # `add_run_tags` can only add and overwrite. A forged reserved tag has to go, or it would be shown, and found
        # by searches, as if this project had set it.
        self._instance.add_run_tags(run.run_id, {USER_TAG: tags[USER_TAG]})
        forged = [key for key in run.tags if key.startswith(RESERVED_PREFIX) and key != USER_TAG]
        storage = self._instance.run_storage
        if not forged or not isinstance(storage, SqlRunStorage):
            return
        with storage.connect() as connection:
            connection.execute(
                RunTagsTable.delete().where(RunTagsTable.c.run_id == run.run_id, RunTagsTable.c.key.in_(forged))
            )
            connection.execute(
                RunsTable.update()
                .where(RunsTable.c.run_id == run.run_id)
                .values(run_body=serialize_value(run.with_tags(tags)))
            )
