"""What a request to the Dagster UI may do, and in whose name."""

from __future__ import annotations

from collections.abc import Mapping

from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.permissions import (
    PermissionResult,
    Permissions,
    get_location_scoped_user_permissions,
    get_user_permissions,
)
from starlette.requests import HTTPConnection

from ops_pipeline.defs.attribution import SECRET_HEADER, USER_HEADER, USER_TAG, clean_user, same_secret
from ops_pipeline.defs.coordinator import front_door_secret

REFUSED = PermissionResult(enabled=False, disabled_reason="Results are written by runs only")


def came_through_front_door(connection: object) -> bool:
    """Whether a request carries the front door's secret."""
    return isinstance(connection, HTTPConnection) and same_secret(
        connection.headers.get(SECRET_HEADER), front_door_secret()
    )


class FrontDoorRequestContext(WorkspaceRequestContext):
    """A request in the name of the proxy's user; read-only when it did not come through the front door.

    Nobody may report asset events or check results by hand: a pass that no run produced is a forgery.
    """

    @property
    def permissions(self) -> Mapping[str, PermissionResult]:
        """Permissions for everything."""
        granted = get_user_permissions(not came_through_front_door(self.source))
        return {**granted, Permissions.REPORT_RUNLESS_ASSET_EVENTS: REFUSED}

    def permissions_for_location(self, *, location_name: str) -> Mapping[str, PermissionResult]:
        """Permissions in one code location."""
        granted = get_location_scoped_user_permissions(not came_through_front_door(self.source))
        return {**granted, Permissions.REPORT_RUNLESS_ASSET_EVENTS: REFUSED}

    def get_viewer_tags(self) -> dict[str, str]:
        """Tags Dagster puts on a backfill over the caller's own; its runs inherit the user from there."""
        user = clean_user(self.source.headers.get(USER_HEADER)) if isinstance(self.source, HTTPConnection) else ""
        return {USER_TAG: user} if user else {}


class FrontDoorProcessContext(WorkspaceProcessContext):
    """Makes such request contexts."""

    def create_request_context(self, source: object | None = None) -> WorkspaceRequestContext:
        """Context of one request; without a source (the process itself) the ordinary one."""
        if source is None:
            return super().create_request_context(source)
        return FrontDoorRequestContext(
            instance=self.instance,
            current_workspace=self.get_current_workspace(),
            process_context=self,
            version=self.version,
            source=source,
            read_only=self.read_only,
        )
