"""Exits of containers: what an engine's own memory of events says, and what the containers say where it ends."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ops_pipeline.adapters.docker_facts import engine_time
from ops_pipeline.core.measurement import ContainerExit

if TYPE_CHECKING:
    from docker import APIClient

REMEMBERED = 256
"""An engine keeps so many events of all kinds. Health checks alone make three each, so that may be ten seconds."""

LOOK_BACK = timedelta(seconds=15)
"""A stop is known by the signal that was sent before the exit, so events are read from so much earlier."""

SAME = timedelta(milliseconds=90)
"""Two exits of one container closer than this are one: the engine waits 100 ms before it restarts anything."""

_HARMLESS_SIGNALS = {"1", "10", "12", "18", "28", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCONT", "SIGWINCH"}
"""Signals that programs take as an order, not as their end."""

UNKNOWN_CODE = -1


def read_events(client: APIClient, since: datetime, until: datetime, timeout_seconds: float) -> list[dict[str, Any]]:
    """All events between two moments of the engine's clock that it still remembers, oldest first, in one call.

    Not filtered, because only their number tells whether the engine has forgotten some. Raise the SDK's errors.
    """
    # The SDK's own `events` waits without any time-out.
    response = client.get(
        f"{client.base_url}/v{client.api_version}/events",
        params={"since": f"{since.timestamp():.6f}", "until": f"{until.timestamp():.6f}"},
        timeout=timeout_seconds,
    )
    response.raise_for_status()
    return [json.loads(line) for line in response.text.splitlines() if line.strip()]


def forgotten(events: Sequence[Mapping[str, Any]], since: datetime) -> bool:
    """Whether the engine may have forgotten events that came after `since`.

    On a busy engine some of those it remembers have come after the question was put, and are not among `events`.
    """
    return len(events) >= REMEMBERED // 2 and event_time(events[0]) > since


def exits_among(events: Iterable[Mapping[str, Any]], environment: str, host: str) -> list[ContainerExit]:
    """Exits of the environment's release containers, oldest first.

    `wanted` when a deadly signal was sent through the engine since the container's start, or the engine says right
    after the exit that it was a stop.
    """
    found: list[ContainerExit] = []
    last: dict[str, int] = {}  # container → place of its newest exit in `found`
    signalled: set[str] = set()
    short_of_memory: set[str] = set()
    for event in events:
        actor = event.get("Actor") or {}
        labels, container = actor.get("Attributes") or {}, str(actor.get("ID", ""))
        if event.get("Type") != "container" or not _ours(labels, environment):
            continue
        action = str(event.get("Action", ""))
        if action == "start":
            signalled.discard(container)
            short_of_memory.discard(container)
            last.pop(container, None)
        elif action == "kill":
            if str(labels.get("signal", "9")) not in _HARMLESS_SIGNALS:
                signalled.add(container)
        elif action == "oom":
            short_of_memory.add(container)
            _amend(found, last.get(container), oom_killed=True)
        elif action == "stop":
            _amend(found, last.get(container), wanted=True)
        elif action == "die":
            last[container] = len(found)
            code = str(labels.get("exitCode", ""))
            found.append(
                ContainerExit(
                    host=host,
                    container=str(labels.get("name", "")),
                    environment=environment,
                    service=str(labels.get("ops.service", "")),
                    release=int(labels["ops.release"]),
                    at=event_time(event),
                    exit_code=int(code) if code.isdigit() else UNKNOWN_CODE,
                    oom_killed=container in short_of_memory,
                    wanted=container in signalled,
                )
            )
    return found


def last_exit(seen: Mapping[str, Any], environment: str, host: str) -> ContainerExit | None:
    """The newest exit of a container as inspecting it shows; None when it never ended.

    A container that stays down was stopped by somebody, because the restart policy lifts all others; so was one that
    runs again without the policy. The exit code of one that runs again is not known any more: UNKNOWN_CODE.
    """
    state, labels = seen["State"], seen["Config"].get("Labels") or {}
    ended = engine_time(str(state.get("FinishedAt") or ""))
    if ended is None or not _ours(labels, environment):
        return None
    running = str(state.get("Status")) in {"running", "paused"}
    again = running or bool(state.get("Restarting"))
    return ContainerExit(
        host=host,
        container=str(seen["Name"]).lstrip("/"),
        environment=environment,
        service=str(labels.get("ops.service", "")),
        release=int(labels["ops.release"]),
        at=ended,
        exit_code=UNKNOWN_CODE if running else int(state.get("ExitCode", UNKNOWN_CODE)),
        oom_killed=bool(state.get("OOMKilled")),
        wanted=not (again and int(seen.get("RestartCount") or 0) > 0),
    )


def merged(exits: Sequence[ContainerExit], inspected: Iterable[ContainerExit]) -> list[ContainerExit]:
    """Both, oldest first; where both know of an exit, the event's word counts."""
    more = [
        seen
        for seen in inspected
        if not any(known.container == seen.container and abs(known.at - seen.at) < SAME for known in exits)
    ]
    return sorted([*exits, *more], key=lambda exit_: exit_.at)


def event_time(event: Mapping[str, Any]) -> datetime:
    """When an event happened, by the engine's clock."""
    return datetime.fromtimestamp(int(event["timeNano"]) / 1e9, UTC)


def _ours(labels: Mapping[str, Any], environment: str) -> bool:
    return labels.get("ops.environment") == environment and str(labels.get("ops.release", "")).isdigit()


def _amend(found: list[ContainerExit], place: int | None, *, wanted: bool = False, oom_killed: bool = False) -> None:
    if place is not None:
        exit_ = found[place]
        found[place] = replace(exit_, wanted=exit_.wanted or wanted, oom_killed=exit_.oom_killed or oom_killed)
