"""The Dagster UI on a Unix domain socket, so that no web page can reach it except through the front door.

Run as `python -m ops_pipeline.defs.webserver --socket PATH --workspace FILE [--code-socket PATH]`.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from pathlib import Path

import uvicorn
from dagster import DagsterInstance
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._utils.log import configure_loggers
from dagster_webserver.app import create_app_from_workspace_process_context
from dagster_webserver.cli import _lifespan
from dagster_webserver.version import __version__
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ops_pipeline.defs.web_context import FrontDoorProcessContext, came_through_front_door

OPEN_PATHS = frozenset({"/server_info"})
"""Answered without the secret: liveness probes ask here, and it tells versions only."""

SHUTDOWN_SECONDS = 3
"""A browser keeps its WebSocket open for ever; do not wait longer for it."""


class FrontDoorOnly:
    """ASGI middleware: refuses HTTP requests and WebSockets that lack the front door's secret."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on or refuse one connection."""
        open_to_all = scope["type"] not in ("http", "websocket") or scope["path"] in OPEN_PATHS
        if open_to_all or came_through_front_door(HTTPConnection(scope)):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            refusal = PlainTextResponse("Only the front door may ask here.\n", status_code=401)
            await refusal(scope, receive, send)


def serve(socket: Path, workspace: Path, code_socket: Path | None) -> None:
    """Serve until SIGTERM or SIGINT. Waits for the code server first, at most two minutes."""
    deadline = time.monotonic() + 120
    while code_socket is not None and not code_socket.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with contextlib.ExitStack() as stack:
        instance = stack.enter_context(DagsterInstance.get())
        instance.optimize_for_webserver(statement_timeout=15_000, pool_recycle=3600, max_overflow=20)
        context = stack.enter_context(
            FrontDoorProcessContext(
                instance,
                version=__version__,
                workspace_load_target=WorkspaceFileTarget([str(workspace)]),
                code_server_log_level="WARNING",
            )
        )
        app = create_app_from_workspace_process_context(context, live_data_poll_rate=2000, lifespan=_lifespan)
        stack.callback(socket.unlink, missing_ok=True)
        uvicorn.run(
            FrontDoorOnly(app),
            uds=str(socket),
            log_level="warning",
            # Request lines may carry what people type; the front door keeps the access log.
            access_log=False,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--code-socket", type=Path)
    options = parser.parse_args()
    configure_loggers(formatter="colored", log_level="INFO")
    serve(options.socket, options.workspace, options.code_socket)


if __name__ == "__main__":
    main()
